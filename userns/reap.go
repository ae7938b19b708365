// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reap is the whole of the pid 1 that `--init` asks for. It runs in the forked
// child, with all signals blocked, and takes them one at a time: the death of a
// child is reaped, every other signal goes to the program. When the program has
// ended, so does pid 1, with the program's status, or 128+n, which it writes to the
// descriptor tell before, if that is one.
//
// It needs no binary in the image and no start of one. Its memory is a copy of
// the client's, so the start program makes it undumpable before this: it belongs
// to the host's user namespace, and nothing in the container may read it
// (ptrace(2), "Ptrace access mode checking").
//
//go:norace
//go:nosplit
//go:nocheckptr
func reap(child, tell uintptr) {
	all := ^uint64(0)
	var status uint32
	for {
		// Children that died before this turn have left one pending SIGCHLD at
		// most, so take every dead child each time.
		for {
			pid, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&status)), unix.WNOHANG, 0, 0, 0)
			if errno != 0 || pid == 0 {
				break
			}
			if pid == child {
				sig := status & 0x7f
				status = status >> 8 & 0xff
				if sig != 0 {
					status = 128 + sig
				}
				if tell != noDescriptor {
					// The first byte of a number, on the machines that we know, is its lowest.
					syscall.RawSyscall(unix.SYS_WRITE, tell, uintptr(unsafe.Pointer(&status)), 1)
				}
				exitGroup(uintptr(status))
			}
		}
		sig, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&all)), 0, 0, 8, 0, 0)
		if errno == 0 && sig != uintptr(unix.SIGCHLD) {
			syscall.RawSyscall(unix.SYS_KILL, child, sig, 0)
		}
	}
}
