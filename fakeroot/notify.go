// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification is struct seccomp_notif: a process waits in a system call.
type notification struct {
	ID    uint64
	PID   uint32 // of the thread, in our pid namespace; 0 when it is not in it
	Flags uint32
	NR    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

// addition is struct seccomp_notif_addfd.
type addition struct {
	ID         uint64
	Flags      uint32
	SrcFD      uint32
	NewFD      uint32
	NewFDFlags uint32
}

// Requests of a listener (linux/seccomp.h); the same on both architectures.
const (
	ioctlRecv     = 0xc0502100
	ioctlSend     = 0xc0182101
	ioctlIDValid  = 0x40082102
	ioctlAddFD    = 0x40182103
	ioctlSetFlags = 0x40082104
)

// listener is the descriptor on which notifications arrive.
type listener struct {
	fd       uintptr
	features Features
}

func (l listener) ioctl(request, argument uintptr) (uintptr, unix.Errno) {
	r, _, errno := syscall.Syscall(unix.SYS_IOCTL, l.fd, request, argument)
	return r, errno
}

// receive waits for the next notification. ENOENT says that the process died
// before it was read, or that no process is left (see hungUp).
func (l listener) receive(n *notification) unix.Errno {
	*n = notification{} // the kernel refuses anything else
	_, errno := l.ioctl(ioctlRecv, uintptr(unsafe.Pointer(n)))
	return errno
}

// send answers a notification. ENOENT says that the process is gone.
func (l listener) send(r *response) unix.Errno {
	_, errno := l.ioctl(ioctlSend, uintptr(unsafe.Pointer(r)))
	return errno
}

// alive reports whether the process still waits for the answer, so that its pid
// has not come to mean another.
func (l listener) alive(id uint64) bool {
	_, errno := l.ioctl(ioctlIDValid, uintptr(unsafe.Pointer(&id)))
	return errno == 0
}

// install gives the waiting process a copy of our descriptor fd. The call's
// answer is then sent by the caller, or has been sent already.
//
// ADDFD_FLAG_SEND does both at once, but must not be interrupted (the process
// would go on with descriptor 0, process-tree.md 17); where the kernel holds
// back the process's own signals while it waits, two steps are as good and have
// no such trap. Our own signals are blocked either way.
func (l listener) install(id uint64, fd int, flags uint32) (got int64, sent bool, errno unix.Errno) {
	a := addition{ID: id, SrcFD: uint32(fd), NewFDFlags: flags & unix.O_CLOEXEC}
	if !l.features.WaitKillable {
		a.Flags = unix.SECCOMP_ADDFD_FLAG_SEND
	}
	for {
		r, errno := l.ioctl(ioctlAddFD, uintptr(unsafe.Pointer(&a)))
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EINVAL && a.Flags != 0:
			a.Flags = 0 // before 5.14
			continue
		}
		return int64(r), errno == 0 && a.Flags != 0, errno
	}
}

// setSync asks for hand-over on one CPU: the supervisor runs where the caller
// was, and the caller where the supervisor was (Linux 6.6). It makes a trap four
// times as fast as waking up another CPU.
func (l listener) setSync() bool {
	_, errno := l.ioctl(ioctlSetFlags, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	return errno == 0
}

// hungUp reports whether no process with the filter is left. With wait, it first
// waits until there is something to receive, or that.
func (l listener) hungUp(wait bool) bool {
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	timeout := 0
	if wait {
		timeout = -1
	}
	for {
		_, err := unix.Poll(fds, timeout)
		if err == unix.EINTR {
			continue
		}
		return err != nil || fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	}
}

// blockSignals blocks all signals on this thread but those of a fault, so that
// no system call of the supervisor is ever interrupted.
func blockSignals() unix.Errno {
	set := ^uint64(0)
	for _, s := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL} {
		set &^= 1 << (uint(s) - 1)
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&set)), 0, unsafe.Sizeof(set), 0, 0)
	return errno
}
