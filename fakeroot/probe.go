// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/seccomp"
)

// Features are what the kernel can do of system call notification. They are
// found by doing it, and hold until the next boot.
type Features struct {
	Notify       bool   `json:"notify"`           // at all (Linux 5.5), and nobody else listens already
	WaitKillable bool   `json:"waitKillable"`     // a signal does not interrupt a call that is being answered (5.19)
	AddFD        bool   `json:"addFD"`            // descriptors can be handed over (5.9)
	Sync         bool   `json:"sync"`             // hand-over on one CPU (6.6)
	Reason       string `json:"reason,omitempty"` // why not Notify
}

// Settle turns what the user asked for into a mode that works here, and says why
// when that is another than Notify. On a rung with a real map of IDs there is
// nothing to emulate: that is the caller's to know.
//
// What was asked for by name is never replaced: the install of its filter then
// says what the kernel lacks.
func (m Mode) Settle(f Features) (Mode, string) {
	if m != Auto {
		return m, ""
	}
	if f.Notify {
		return Notify, ""
	}
	if f.busy() {
		return None, f.Reason
	}
	return Zero, f.Reason
}

const reasonBusy = "a supervisor around this process already answers system calls; it emulates for what runs here, too"

func (f Features) busy() bool { return f.Reason == reasonBusy }

// Probe finds the features out: it installs a filter on a thread that ends with
// it, lets that thread make a call, and answers it.
func Probe() Features {
	var f Features
	action := uint32(seccomp.Notify)
	if errno := callSeccomp(unix.SECCOMP_GET_ACTION_AVAIL, 0, unsafe.Pointer(&action)); errno != 0 {
		f.Reason = "this kernel does not hand system calls over (Linux 5.0 does)"
		return f
	}
	// A flag that is not known is found before the missing program is.
	f.WaitKillable = callSeccomp(unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, nil) == unix.EFAULT

	installed := make(chan probed)
	answered := make(chan struct{})
	go f.probeThread(installed, answered)
	p := <-installed
	defer close(answered)
	switch {
	case p.errno == unix.EBUSY:
		f.Reason = reasonBusy
		return f
	case p.errno != 0:
		f.Reason = "a filter with a listener cannot be installed: " + p.errno.Error()
		return f
	}
	l := listener{fd: uintptr(p.fd), features: f}
	defer unix.Close(p.fd)
	f.Sync = l.setSync()
	var n notification
	for {
		if errno := l.receive(&n); errno != unix.EINTR {
			break
		}
	}
	none := addition{ID: ^n.ID}
	_, errno := l.ioctl(ioctlAddFD, uintptr(unsafe.Pointer(&none)))
	f.AddFD = errno == unix.ENOENT
	var r response
	natively.fill(&r, n.ID)
	if errno := l.send(&r); errno != 0 {
		failure(unix.EPERM).fill(&r, n.ID)
		l.send(&r)
		f.Reason = "this kernel cannot go on with a call that was handed over (Linux 5.5 can)"
		return f
	}
	f.Notify = true
	return f
}

type probed struct {
	fd    int
	errno unix.Errno
}

// probeThread is a thread that is trapped once. It is never unlocked, so that it
// ends here, and its filter with it.
func (f Features) probeThread(installed chan<- probed, answered <-chan struct{}) {
	runtime.LockOSThread()
	// getppid is as good as any: nothing on this thread calls it.
	m, err := machineNamed(runtime.GOARCH)
	if err != nil {
		installed <- probed{errno: unix.ENOSYS}
		return
	}
	table := seccomp.Table{Arch: m.own, Default: seccomp.Allow}
	add(&table, "getppid", nil, seccomp.Notify)
	p, err := (&seccomp.Filter{Tables: []seccomp.Table{table}, Foreign: seccomp.Allow}).Compile()
	if err != nil {
		installed <- probed{errno: unix.EINVAL}
		return
	}
	if _, _, errno := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		installed <- probed{errno: errno}
		return
	}
	fprog := p.Fprog()
	fd, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.FilterFlags()), uintptr(unsafe.Pointer(fprog)))
	runtime.KeepAlive(fprog)
	installed <- probed{int(fd), errno}
	if errno == 0 {
		syscall.Syscall(unix.SYS_GETPPID, 0, 0, 0)
	}
	<-answered
}

func callSeccomp(operation, flags uintptr, argument unsafe.Pointer) unix.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, operation, flags, uintptr(argument))
	return errno
}
