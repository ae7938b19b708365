// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fork clones the calling thread with flags and lets the child run the image.
// It returns the child's pid. Signals are blocked around the clone, so that no
// handler of the Go runtime runs in the child; the image empties the mask before
// its execve. CLONE_VM is never used: the child would write over the frame that
// the parent returns through.
//
// The write lock on syscall.ForkLock keeps descriptors that other goroutines
// have open for a moment without close-on-exec out of the child.
func (im *image) fork(flags uintptr, pidfd *int32) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()

	var all, before sigset
	for i := range all {
		all[i] = ^uint64(0)
	}
	if err := sigprocmask(&all, &before); err != nil {
		return 0, err
	}
	pid, errno := forkAndRun(im, flags|uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(pidfd)))
	runtime.KeepAlive(im)
	runtime.KeepAlive(pidfd)
	if err := sigprocmask(&before, nil); err != nil {
		return 0, err
	}
	if errno != 0 {
		return 0, errno
	}
	return int(pid), nil
}

// sigset is the kernel's signal set on 64-bit machines: eight bytes.
type sigset [1]uint64

func sigprocmask(set, old *sigset) error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(*set), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// forkAndRun is the only place where one of our processes runs after a clone
// without an execve. In the child it never returns.
//
//go:noinline
//go:norace
//go:nosplit
//go:nocheckptr
func forkAndRun(im *image, flags, pidfd uintptr) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, pidfd, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	run(im)
	return 0, 0
}

// run interprets the image. It must not allocate, grow its stack or write a
// pointer: it may run in the middle of a garbage collection that will never go
// on, on a thread that is alone in its process.
//
//go:norace
//go:nosplit
//go:nocheckptr
func run(im *image) {
	var kept syscall.Errno // what attempts met
	steps := im.steps
	for pc := uintptr(0); pc < uintptr(len(steps)); pc++ {
		s := &steps[pc]
		var r uintptr
		var errno syscall.Errno
		switch s.op {
		case opCall:
			r, errno = call(im, s)
		case opFork:
			r, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, s.args[0], 0, s.args[2], 0, 0, 0)
			if errno == 0 && r == 0 {
				pc = s.args[1] - 1
				continue
			}
		case opStore:
			**(**int32)(unsafe.Pointer(&s.args[0])) = int32(im.regs[s.args[1]])
		case opLoad:
			r = uintptr(**(**int32)(unsafe.Pointer(&s.args[0])))
		case opCheck:
			if v := **(**int32)(unsafe.Pointer(&s.args[0])); v < 0 {
				errno = syscall.Errno(-v)
			}
		case opClose:
			errno = closeFrom(s.args[0])
		case opKeep:
			closeBut(im, s)
		case opReset:
			resetSignals()
		case opReap:
			reap(im.regs[s.args[0]], s.args[1])
		case opExit:
			exitGroup(s.args[0])
		case opFail:
			errno = kept
			if errno == 0 {
				errno = syscall.ENOENT
			}
		}
		if errno == 0 && s.nonzero && r == 0 {
			errno = syscall.EPIPE
		}
		if errno != 0 {
			if !s.any && errno != syscall.Errno(s.tolerate[0]) && errno != syscall.Errno(s.tolerate[1]) && errno != syscall.Errno(s.tolerate[2]) {
				reportFailure(im, uint32(pc), uint32(errno))
				exitGroup(1)
			}
			if s.attempt && kept != syscall.EACCES {
				kept = errno
			}
			pc += uintptr(s.skipErr)
			continue
		}
		if s.out >= 0 {
			im.regs[s.out] = r
		}
		pc += uintptr(s.skip)
	}
	exitGroup(0)
}

//go:norace
//go:nosplit
func call(im *image, s *step) (uintptr, syscall.Errno) {
	a := s.args
	for i := range a {
		if s.regArgs&(1<<i) != 0 {
			a[i] = im.regs[a[i]]
		}
	}
	for tries := 0; ; tries++ {
		r, _, errno := syscall.RawSyscall6(s.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		// A path with ".." is resolved anew when somebody anywhere has renamed or
		// mounted something meanwhile (openat2(2)), see overlay.Openat2.
		again := errno == syscall.EAGAIN && s.nr == unix.SYS_OPENAT2 && tries < resolveTries
		if errno != syscall.EINTR && !again {
			return r, errno
		}
	}
}

//go:norace
//go:nosplit
//go:nocheckptr
func reportFailure(im *image, pc, errno uint32) {
	im.report[0], im.report[1] = pc, errno
	syscall.RawSyscall(unix.SYS_WRITE, im.reportFD, uintptr(unsafe.Pointer(&im.report)), unsafe.Sizeof(im.report))
}

//go:norace
//go:nosplit
func exitGroup(status uintptr) {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, status, 0, 0)
	}
}

// resolveTries bounds how often a path is resolved anew.
const resolveTries = 10_000

// maxDescriptors bounds the search of closeFrom where limits are huge.
const maxDescriptors = 1 << 20

// closeFrom marks descriptors to be closed by the execve. close_range(2) has the
// flag for it since Linux 5.11; before, each possible one is marked by itself.
//
//go:norace
//go:nosplit
//go:nocheckptr
func closeFrom(first uintptr) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_CLOSE_RANGE, first, uintptr(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC)
	if errno != syscall.EINVAL && errno != syscall.ENOSYS && errno != syscall.EPERM {
		return errno
	}
	var limit [2]uint64
	_, _, errno = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, 0, uintptr(unsafe.Pointer(&limit)), 0, 0)
	if errno != 0 {
		return errno
	}
	// The soft limit may have been lowered below descriptors that are open.
	last := uintptr(limit[1])
	if last > maxDescriptors {
		last = maxDescriptors
	}
	for fd := first; fd < last; fd++ {
		syscall.RawSyscall(unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	}
	return 0
}

// closeBut closes what lies between the descriptors to keep, from below. On
// kernels before 5.9, without close_range(2), nothing is closed here.
//
//go:norace
//go:nosplit
//go:nocheckptr
func closeBut(im *image, s *step) {
	first := uintptr(0)
	for {
		next := ^uintptr(0)
		if im.reportFD >= first {
			next = im.reportFD
		}
		if im.exeFD >= first && im.exeFD < next {
			next = im.exeFD
		}
		for i := uintptr(0); i < uintptr(s.kept); i++ {
			fd := s.keep[i]
			if s.keepRegs&(1<<i) != 0 {
				fd = im.regs[fd]
			}
			if fd >= first && fd < next {
				next = fd
			}
		}
		if next > first {
			syscall.RawSyscall(unix.SYS_CLOSE_RANGE, first, min(next-1, uintptr(^uint32(0))), 0)
		}
		if next == ^uintptr(0) {
			return
		}
		first = next + 1
	}
}

// resetSignals gives every signal its default action, ignored ones included.
//
//go:norace
//go:nosplit
//go:nocheckptr
func resetSignals() {
	var def [4]uint64 // struct sigaction of the kernel: handler SIG_DFL, flags, restorer, mask
	for sig := uintptr(1); sig <= 64; sig++ {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&def)), 0, 8, 0, 0)
	}
}
