// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"golang.org/x/sys/unix"
)

// chmod is chmod(2), fchmod(2), fchmodat(2) and fchmodat2(2). Where nothing is
// remembered and the mode can stand on disk as it is, it is the kernel's call.
// Otherwise the record has the mode, and the disk as much of it as is safe: no
// setuid and setgid bits, no directory that its owner cannot remove.
func (w *worker) chmod(n *notification, dir int32, path, mode uint64, flags int) answer {
	return w.changeMode(n, dir, path, flags, func(f *file) (uint32, bool) {
		bits := uint32(mode) & modeBits
		return bits, f.known || needsMode(bits, f.isDir())
	})
}

// changeMode has decide say which mode a file is to get, and whether that is to
// be remembered; the kernel changes it otherwise.
func (w *worker) changeMode(n *notification, dir int32, path uint64, flags int, decide func(*file) (uint32, bool)) answer {
	if flags&^chownFlags != 0 {
		return natively
	}
	have, errno := w.s.interned.of(n.PID)
	if errno != 0 {
		return natively
	}
	p, v := w.locate(&w.at, n.PID, dir, path, flags&unix.AT_SYMLINK_NOFOLLOW != 0, flags&unix.AT_EMPTY_PATH != 0)
	defer p.close()
	if v != found {
		return natively
	}
	f, errno := w.openFile(&p)
	if errno != 0 {
		return natively
	}
	defer f.close()
	if f.kind() == unix.S_IFLNK {
		return natively // EOPNOTSUPP
	}
	if have.FSUID != f.owner.UID && !onFiles(n.PID, have, unix.CAP_FOWNER) {
		return failure(unix.EPERM)
	}
	bits, remember := decide(f)
	if bits&unix.S_ISGID != 0 && !have.in(f.owner.GID) && !onFiles(n.PID, have, unix.CAP_FSETID) {
		bits &^= unix.S_ISGID
		remember = true
	}
	switch {
	case !remember:
		return natively
	case !f.own:
		return outcome(w.chmodForeign(f, bits))
	}
	return outcome(w.chmodOwn(f, bits))
}

// chmodOwn writes record and disk. When the record goes, the disk is first, so
// that at no moment it says less than what was asked for.
func (w *worker) chmodOwn(f *file, bits uint32) unix.Errno {
	path := string(f.path[:len(f.path)-1])
	o := f.owner.Owner
	o.Mode = bits
	disk := diskMode(bits, f.isDir())
	if needsRecord(&o) {
		if errno := w.write(f, o); errno != 0 {
			return errno
		}
		return number(unix.Fchmodat(unix.AT_FDCWD, path, disk, 0))
	}
	if err := unix.Fchmodat(unix.AT_FDCWD, path, disk, 0); err != nil {
		return number(err)
	}
	return w.write(f, o)
}

// chmodForeign changes the mode of a file of the user's: that is really his, and
// only bits by which others could run the file as him are kept from it. On his
// directories they mean no more than where new files get their group from.
func (w *worker) chmodForeign(f *file, bits uint32) unix.Errno {
	disk := bits
	if !f.isDir() {
		disk &^= setIDBits
	}
	if err := unix.Fchmodat(unix.AT_FDCWD, string(f.path[:len(f.path)-1]), disk, 0); err != nil {
		return number(err)
	}
	o := f.owner.Owner
	o.Mode = bits
	if f.isDir() {
		o.Mode &^= setIDBits
	}
	return w.remember(f, o)
}
