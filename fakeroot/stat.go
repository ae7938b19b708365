// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// statFlags are those of newfstatat(2) and statx(2) that mean something here;
// others are the kernel's to judge.
const statFlags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH | unix.AT_NO_AUTOMOUNT |
	unix.AT_STATX_FORCE_SYNC | unix.AT_STATX_DONT_SYNC

// stat is stat(2), lstat(2), fstat(2) and newfstatat(2): the kernel's own answer
// for what has no record, and with the record's owner, mode and device for what
// has one. Every error is found by the kernel itself.
func (w *worker) stat(n *notification, dir int32, path, to uint64, flags int) answer {
	p, r, ok := w.look(n, dir, path, flags)
	defer p.close()
	if !ok {
		return natively
	}
	cwd := unix.AT_FDCWD
	st := &w.st
	_, _, errno := syscall.Syscall6(sysNewfstatat, uintptr(cwd), uintptr(unsafe.Pointer(&p.path[0])),
		uintptr(unsafe.Pointer(st)), uintptr(p.statFlags()|flags&unix.AT_NO_AUTOMOUNT), 0, 0)
	if errno != 0 {
		return natively
	}
	if major, minor, ok := r.seenDevice(st.Mode); ok {
		st.Rdev, st.Size, st.Blocks = unix.Mkdev(major, minor), 0, 0
	}
	st.Mode, st.Uid, st.Gid = r.seenMode(st.Mode), r.UID, r.GID
	return outcome(writeMemory(n.PID, to, bytesOf(st)))
}

// statx is statx(2).
func (w *worker) statx(n *notification, dir int32, path uint64, flags int, mask uint32, to uint64) answer {
	p, r, ok := w.look(n, dir, path, flags)
	defer p.close()
	if !ok {
		return natively
	}
	st := &w.stx
	if statxAt(p.path, p.statFlags()|flags&^(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW), mask, st) != 0 {
		return natively
	}
	disk := uint32(st.Mode)
	if major, minor, ok := r.seenDevice(disk); ok {
		st.Rdev_major, st.Rdev_minor, st.Size, st.Blocks = major, minor, 0, 0
	}
	st.Mode, st.Uid, st.Gid = uint16(r.seenMode(disk)), r.UID, r.GID
	return outcome(writeMemory(n.PID, to, bytesOf(st)))
}

// look finds what is remembered of the file that a stat call is about.
func (w *worker) look(n *notification, dir int32, path uint64, flags int) (place, remembered, bool) {
	if flags&^statFlags != 0 {
		return place{held: noFD}, remembered{}, false
	}
	p, v := w.locate(&w.at, n.PID, dir, path, flags&unix.AT_SYMLINK_NOFOLLOW != 0, flags&unix.AT_EMPTY_PATH != 0)
	if v != found {
		return p, remembered{}, false
	}
	r, ok := w.recall(&p)
	return p, r, ok
}
