// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that a file of an image is something that could make its
// reader wait, or read something that is not the image's.
var ErrNotRegular = errors.New("not a regular file")

// maxOpenSteps bounds what OpenMerged does for one path: links times components
// times layers.
const maxOpenSteps = 1 << 16

// OpenMerged opens a regular file of a stack of layer directories, topmost first,
// for reading, without mounting the stack: /etc/passwd before there is a
// container. Symbolic links are followed in the stack, absolute ones from its
// root; none leads out of it. It never waits, whatever the image has there. A
// file that is not there is fs.ErrNotExist, a fifo or device ErrNotRegular.
func OpenMerged(lower []string, name string) (*os.File, error) {
	s, err := openStack(lower)
	if err != nil {
		return nil, err
	}
	defer s.close()
	s.steps = maxOpenSteps
	fd, path, err := s.openFile(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (s *stack) openFile(name string) (fd int, path string, err error) {
	f, path, err := s.resolve(name, true)
	if err != nil {
		return noFD, "", err
	}
	if kindBits(&f.st) != unix.S_IFREG {
		return noFD, "", ErrNotRegular
	}
	fd, err = s.openFound(f, path)
	if err != nil {
		return noFD, "", err
	}
	var buf [128]byte
	if n, err := unix.Fgetxattr(fd, RecordXattr, buf[:]); err == nil {
		if o, ok := parseRecord(string(buf[:n])); ok && (o.Kind == Char || o.Kind == Block) {
			unix.Close(fd)
			return noFD, "", ErrNotRegular
		}
	}
	return fd, "/" + path, nil
}

// openFound opens a regular file that lookup found, and makes sure that it is
// still one: O_NONBLOCK so that nothing else could make us wait.
func (s *stack) openFound(f found, path string) (int, error) {
	dir, base := splitPath(path)
	in, err := s.openDir(f.layer, dir)
	if err != nil {
		return noFD, err
	}
	defer unix.Close(in)
	fd, err := openat(in, base, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return noFD, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && kindBits(&st) != unix.S_IFREG {
		err = ErrNotRegular
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return noFD, err
	}
	return fd, nil
}

// IsMergedDir reports whether a stack of layer directories, topmost first, has a
// directory at a path, which is found as a process in it would. One that is shut
// to the caller counts: who has the IDs of the layers sees more.
func IsMergedDir(lower []string, name string) (bool, error) {
	s, err := openStack(lower)
	if err != nil {
		return false, err
	}
	defer s.close()
	s.steps = maxOpenSteps
	f, _, err := s.resolve(name, true)
	switch err {
	case nil:
		return isDir(&f.st), nil
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return false, nil
	case unix.EACCES:
		return true, nil
	}
	return false, &fs.PathError{Op: "look up", Path: name, Err: err}
}
