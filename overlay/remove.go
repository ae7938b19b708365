// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"context"
	"errors"
	"math"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveAll removes name from dir with everything in it; that there is no such
// thing is no error. It works by descriptor, follows no symbolic link, crosses
// into no mount, opens directories that their owner has shut (overlay leaves
// one of mode 000 in each work directory), and needs neither a deep stack nor
// many descriptors for a deep tree. Other users' files stop it.
func RemoveAll(ctx context.Context, dir *os.File, name string) error {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return named("remove "+quote(name), unix.EINVAL)
	}
	defer runtime.KeepAlive(dir)
	err := removeTree(ctx, int(dir.Fd()), name, &opener{})
	if err != nil {
		return named("remove "+dir.Name()+"/"+name, err)
	}
	return nil
}

// maxRemoverFDs is how many directories on the way down are kept open. Those
// above are found again by "..".
const maxRemoverFDs = 64

// A remover empties a tree. Its stack is the way to the directory it works in.
type remover struct {
	ctx  context.Context
	open *opener
	base int // the directory that holds the tree
	read dirReader

	levels []level
	opened int // levels below this index are closed
}

// level is a directory on the way.
type level struct {
	name   string
	id     inode
	fd     int
	todo   []dirent
	forced bool // it was given a mode that lets its owner work in it
	again  int  // how often it was read again because it was not empty
}

func removeTree(ctx context.Context, dir int, name string, open *opener) error {
	gone, err := removeSimple(dir, dirent{name: name}, nil)
	if gone || err != nil {
		return err
	}
	r := &remover{ctx: ctx, open: open, base: dir}
	defer r.close()
	if err := r.push(dir, name); err != nil {
		return err
	}
	for len(r.levels) > 0 {
		if err := r.work(); err != nil {
			return err
		}
	}
	return nil
}

// work removes what is in the deepest directory until it has to go deeper, or
// the directory is empty and goes itself.
func (r *remover) work() error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	l := &r.levels[len(r.levels)-1]
	if l.todo == nil {
		var err error
		l.todo, err = r.read.next(l.fd)
		if err != nil && !errors.Is(err, unix.ENOENT) { // somebody else has removed it
			return named("read "+quote(l.name), err)
		}
		if len(l.todo) == 0 {
			return r.pop()
		}
	}
	for len(l.todo) > 0 {
		e := l.todo[0]
		l.todo = l.todo[1:]
		gone, err := removeSimple(l.fd, e, l)
		if err != nil {
			return named("remove "+quote(e.name), err)
		}
		if !gone {
			return r.push(l.fd, e.name) // which may move the levels
		}
	}
	l.todo = nil
	return nil
}

// removeSimple removes a file, or a directory that is empty. It reports false
// for a directory that is not. Where the directory l that holds it is shut, it
// is opened.
func removeSimple(dir int, e dirent, l *level) (gone bool, err error) {
	for {
		err = unix.EISDIR
		if e.kind != unix.DT_DIR {
			err = unix.Unlinkat(dir, e.name, 0)
		}
		if err == unix.EISDIR {
			err = unix.Unlinkat(dir, e.name, unix.AT_REMOVEDIR)
		}
		switch err {
		case nil, unix.ENOENT:
			return true, nil
		case unix.ENOTEMPTY, unix.EEXIST:
			return false, nil
		case unix.EINTR:
			continue
		case unix.EBUSY:
			if strings.HasPrefix(e.name, nfsPrefix) {
				return false, ErrInUse
			}
			return false, errMount
		case unix.EACCES, unix.EPERM:
			if l == nil || l.forced {
				return false, err
			}
			l.forced = true
			if unix.Fchmod(dir, ownerBits) == nil {
				continue
			}
		}
		return false, err
	}
}

var (
	errMount = errors.New("something is mounted there")
	errMoved = errors.New("a directory was moved while it was being removed")
)

// nfsPrefix begins the names of files that have been removed and that some
// process still has open or runs. A server of NFS keeps no such files, so its
// client does, until then (Linux Documentation/filesystems/nfs, "sillyrename").
const nfsPrefix = ".nfs"

// push goes into the directory name in dir, unless somebody else has removed it.
func (r *remover) push(dir int, name string) error {
	fd, err := r.enter(dir, name)
	if err == unix.EACCES {
		// A directory that its owner may not read. The descriptor proves that it is
		// one, and which.
		shut, openErr := r.openNoXDev(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		if openErr != nil {
			return named("open "+quote(name), openErr)
		}
		chmodErr := reopenedChmod(shut, ownerBits)
		unix.Close(shut)
		if chmodErr != nil {
			return named("open "+quote(name), err)
		}
		fd, err = r.enter(dir, name)
	}
	switch err {
	case nil:
	case unix.ENOENT:
		return nil
	case unix.EXDEV:
		return named("open "+quote(name), errMount)
	default:
		return named("open "+quote(name), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return named("stat "+quote(name), err)
	}
	if len(r.levels)-r.opened >= maxRemoverFDs {
		old := &r.levels[r.opened]
		unix.Close(old.fd)
		old.fd, old.todo = noFD, nil
		r.opened++
	}
	r.levels = append(r.levels, level{name: name, id: inodeOf(&st), fd: fd})
	return nil
}

func (r *remover) enter(dir int, name string) (int, error) {
	return r.openNoXDev(dir, name, openDir)
}

// openNoXDev opens a directory unless something is mounted on it.
func (r *remover) openNoXDev(dir int, name string, flags int) (int, error) {
	fd, err := r.open.open(dir, name, flags, beneathOnly|unix.RESOLVE_NO_XDEV)
	if err != nil || !r.open.stepwise {
		return fd, err
	}
	// Without openat2 the kernel has to be asked which mount each one is on.
	above, err1 := mountOf(dir)
	below, err2 := mountOf(fd)
	if err := errors.Join(err1, err2); err != nil || above != below {
		unix.Close(fd)
		if err == nil {
			err = unix.EXDEV
		}
		return noFD, err
	}
	return fd, nil
}

// mountOf identifies the mount a descriptor is on; on kernels before 5.8 only
// the device, which a bind mount shares.
func mountOf(fd int) ([2]uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st)
	if err == nil && st.Mask&unix.STATX_MNT_ID != 0 {
		return [2]uint64{st.Mnt_id, 0}, nil
	}
	var old unix.Stat_t
	if err := unix.Fstat(fd, &old); err != nil {
		return [2]uint64{}, err
	}
	return [2]uint64{uint64(old.Dev), math.MaxUint64}, nil
}

// pop leaves the deepest directory, which looks empty, and removes it.
func (r *remover) pop() error {
	last := len(r.levels) - 1
	l := r.levels[last]
	dir := r.base
	if last > 0 {
		up := &r.levels[last-1]
		if up.fd == noFD {
			fd, err := r.above(l.fd, up.id)
			if err != nil {
				return err
			}
			up.fd = fd
			r.opened = last - 1
		}
		dir = up.fd
	}
	var above *level
	if last > 0 {
		above = &r.levels[last-1]
	}
	gone, err := removeSimple(dir, dirent{name: l.name, kind: unix.DT_DIR}, above)
	if err != nil {
		return named("remove "+quote(l.name), err)
	}
	if !gone {
		// Some filesystems skip entries while others are being removed.
		if r.levels[last].again++; r.levels[last].again > 100 {
			return named("remove "+quote(l.name), unix.ENOTEMPTY)
		}
		_, err := unix.Seek(l.fd, 0, 0)
		return err
	}
	unix.Close(l.fd)
	r.levels = r.levels[:last]
	return nil
}

// above opens the directory that fd is in, which must be the one whence we came.
func (r *remover) above(fd int, id inode) (int, error) {
	up, err := openat(fd, "..", openDir, 0)
	if err != nil {
		return noFD, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(up, &st); err == nil && inodeOf(&st) != id {
		err = errMoved
	}
	if err != nil {
		unix.Close(up)
		return noFD, err
	}
	return up, nil
}

func (r *remover) close() {
	for _, l := range r.levels {
		if l.fd != noFD {
			unix.Close(l.fd)
		}
	}
}
