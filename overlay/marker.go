// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"golang.org/x/sys/unix"
)

// covering says whether a directory lies in an opaque one.
type covering byte

const (
	unknown covering = iota
	uncovered
	isCovered
)

// whiteOut makes the sign that lower layers have nothing called base in the
// parent. What this layer itself has there stays (OCI image-spec: a whiteout
// applies to lower layers only), wherever in the archive it comes: a directory
// becomes opaque, and everything else hides what is below it anyway.
func (t *tree) whiteOut(base string) error {
	covered, err := t.isCovered()
	if err != nil || covered {
		return err
	}
	if err := t.touch(); err != nil {
		return err
	}
	if !t.noDevices {
		err = unix.Mknodat(t.parent.fd, base, unix.S_IFCHR, 0)
		if err == nil {
			t.whiteouts++
			return nil
		}
		if err != unix.EEXIST {
			if !isRefused(err) {
				return err
			}
			t.noDevices = true
		}
	}
	var st unix.Stat_t
	switch err := lstatAt(t.parent.fd, base, &st); {
	case err == unix.ENOENT:
		return t.makeMarker(t.parent.fd, whiteoutPrefix+base)
	case err != nil || !isDir(&st):
		return err
	}
	fd, err := openat(t.parent.fd, base, openDir, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return t.setOpaque(fd)
}

// isCovered reports whether the parent is, or lies in, an opaque directory. In
// there whiteouts have nothing to hide, and overlayfs lists them as broken files.
func (t *tree) isCovered() (bool, error) {
	if t.parent.covered == unknown {
		covered, err := t.opaqueAbove(t.parent.path)
		if err != nil {
			return false, err
		}
		t.parent.covered = uncovered
		if covered {
			t.parent.covered = isCovered
		}
	}
	return t.parent.covered == isCovered, nil
}

// opaqueAbove reports whether the directory at path, or one that it is in, hides
// what lower layers have there.
func (t *tree) opaqueAbove(path string) (bool, error) {
	for t.opaques > 0 || t.markers {
		fd, err := t.open(t.root, path, openDir, beneathOnly)
		if err != nil {
			return false, err
		}
		found := isOpaque(fd)
		unix.Close(fd)
		if found || path == "" {
			return found, nil
		}
		if t.steps--; t.steps < 0 {
			return false, errSteps()
		}
		path, _ = splitPath(path)
	}
	return false, nil
}

// setOpaque makes the directory fd hide what lower layers have in it.
func (t *tree) setOpaque(fd int) error {
	if !t.writer.noXattrs {
		err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), unix.XATTR_CREATE)
		switch {
		case err == unix.EEXIST:
			return nil
		case err == nil:
			t.opaques++
			if t.whiteouts == 0 {
				return nil
			}
			return t.uncover(fd)
		case !isXattrRefused(err):
			return named("set attribute "+opaqueXattr, err)
		}
		t.writer.noXattrs = true
	}
	return t.makeMarker(fd, opaqueName)
}

// makeMarker makes a whiteout as it is in the tar, an empty file.
func (t *tree) makeMarker(dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	fd, err := openat(dir, name, unix.O_CREAT|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	unix.Close(fd)
	t.markers = true
	times := timesOf(&st)
	return setTimes(dir, &times)
}

// maxUncover is how deep below a directory that becomes opaque whiteouts are
// looked for. Deeper ones do no harm but to be listed.
const maxUncover = 64

// uncover removes the whiteouts below the directory fd, which has just become
// opaque. Directories in it that are opaque have none.
func (t *tree) uncover(fd int) error {
	type level struct {
		fd   int
		todo []dirent
		read dirReader
	}
	own, err := openat(fd, ".", openDir, 0)
	if err != nil {
		return err
	}
	stack := []*level{{fd: own}}
	defer func() {
		for _, l := range stack {
			unix.Close(l.fd)
		}
	}()
	for len(stack) > 0 {
		l := stack[len(stack)-1]
		if len(l.todo) == 0 {
			if err := t.ctx.Err(); err != nil {
				return err
			}
			if l.todo, err = l.read.next(l.fd); err != nil {
				return err
			}
			if len(l.todo) == 0 {
				unix.Close(l.fd)
				stack = stack[:len(stack)-1]
				continue
			}
		}
		e := l.todo[0]
		l.todo = l.todo[1:]
		sub, err := t.uncoverEntry(l.fd, e)
		if err != nil {
			return err
		}
		if sub == noFD {
			continue
		}
		if isOpaque(sub) || len(stack) >= maxUncover {
			unix.Close(sub)
			continue
		}
		stack = append(stack, &level{fd: sub})
	}
	return nil
}

// uncoverEntry removes an entry that is a whiteout, and opens a directory.
func (t *tree) uncoverEntry(dir int, e dirent) (sub int, err error) {
	if e.kind != unix.DT_CHR && e.kind != unix.DT_DIR && e.kind != unix.DT_UNKNOWN {
		return noFD, nil
	}
	var st unix.Stat_t
	if err := lstatAt(dir, e.name, &st); err != nil {
		return noFD, err
	}
	if isDir(&st) {
		return openat(dir, e.name, openDir, 0)
	}
	if !isWhiteout(&st) {
		return noFD, nil
	}
	var parent unix.Stat_t
	if err := unix.Fstat(dir, &parent); err != nil {
		return noFD, err
	}
	if err := unix.Unlinkat(dir, e.name, 0); err != nil {
		return noFD, err
	}
	times := timesOf(&parent)
	return noFD, setTimes(dir, &times)
}

// isOpaque reports whether the directory behind fd hides what is below it.
func isOpaque(fd int) bool {
	var value [2]byte
	if n, err := unix.Fgetxattr(fd, opaqueXattr, value[:]); err == nil {
		return n == 1 && value[0] == 'y'
	}
	var st unix.Stat_t
	return lstatAt(fd, opaqueName, &st) == nil && kindBits(&st) == unix.S_IFREG
}

func isXattrRefused(err error) bool {
	return err == unix.EOPNOTSUPP || err == unix.EPERM || err == unix.ENOSYS
}
