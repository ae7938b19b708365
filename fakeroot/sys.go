// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls in the form that the hot path needs: paths that are already
// terminated, no allocation, errors as numbers.

var recordName = []byte("user.containers.override_stat\x00")

// getxattr reads an attribute of a place. It is lgetxattr(2) where the last
// component must not be followed.
func getxattr(path []byte, nofollow bool, name, to []byte) (int, unix.Errno) {
	number := uintptr(unix.SYS_GETXATTR)
	if nofollow {
		number = unix.SYS_LGETXATTR
	}
	n, _, errno := syscall.Syscall6(number, uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)), 0, 0)
	return int(n), errno
}

// statxAt is statx(2) of a terminated path.
func statxAt(path []byte, flags int, mask uint32, st *unix.Statx_t) unix.Errno {
	cwd := unix.AT_FDCWD
	_, _, errno := syscall.Syscall6(unix.SYS_STATX, uintptr(cwd), uintptr(unsafe.Pointer(&path[0])),
		uintptr(flags), uintptr(mask), uintptr(unsafe.Pointer(st)), 0)
	return errno
}

// openPlace opens a terminated path.
func openPlace(path []byte, flags int) (int, unix.Errno) {
	cwd := unix.AT_FDCWD
	fd, _, errno := syscall.Syscall6(unix.SYS_OPENAT, uintptr(cwd), uintptr(unsafe.Pointer(&path[0])), uintptr(flags), 0, 0, 0)
	return int(fd), errno
}

func openAt(dir int, name string, flags int, mode uint32) (int, unix.Errno) {
	fd, err := unix.Openat(dir, name, flags, mode)
	return fd, number(err)
}

// number is the errno of an error of package unix.
func number(err error) unix.Errno {
	var errno unix.Errno
	if err != nil && !errors.As(err, &errno) {
		return unix.EIO
	}
	return errno
}

// capable reports whether a thread has an effective capability. One of another
// user namespace has those that it says, too: it is below the container's.
func capable(pid uint32, capability uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: int32(pid)}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}
