// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"cmp"
	"fmt"

	"golang.org/x/sys/unix"
)

// Action is what the kernel does with a system call: what a filter returns
// (seccomp(2), SECCOMP_RET_*). The low half of some carries a number.
type Action uint32

// The actions without a number of interest. Errno makes the others.
const (
	KillProcess Action = unix.SECCOMP_RET_KILL_PROCESS
	KillThread  Action = unix.SECCOMP_RET_KILL_THREAD
	Trap        Action = unix.SECCOMP_RET_TRAP       // SIGSYS
	Notify      Action = unix.SECCOMP_RET_USER_NOTIF // the listener answers; ENOSYS without one
	Trace       Action = unix.SECCOMP_RET_TRACE      // the tracer answers; ENOSYS without one
	Log         Action = unix.SECCOMP_RET_LOG        // allowed, and written to the audit log
	Allow       Action = unix.SECCOMP_RET_ALLOW
)

// The errors that profiles use, as constants: tables of them cost nothing at start.
const (
	refused Action = unix.SECCOMP_RET_ERRNO | Action(unix.EPERM)
	unknown Action = unix.SECCOMP_RET_ERRNO | Action(unix.ENOSYS)
)

// maxErrno is the kernel's: it takes what is greater for this.
const maxErrno = 4095

// Errno makes the call return an error without being made; 0 reports a success
// that never was.
func Errno(e unix.Errno) Action {
	return unix.SECCOMP_RET_ERRNO | Action(min(e, maxErrno))
}

// Errno is the error that the caller sees, if the action makes one.
func (a Action) Errno() (errno unix.Errno, ok bool) {
	return unix.Errno(min(a&unix.SECCOMP_RET_DATA, maxErrno)), a.kind() == unix.SECCOMP_RET_ERRNO
}

func (a Action) kind() Action { return a & unix.SECCOMP_RET_ACTION_FULL }

// Compare orders actions as the kernel does when several filters answer: the
// strictest first.
func (a Action) Compare(b Action) int { return cmp.Compare(int32(a.kind()), int32(b.kind())) }

func (a Action) String() string {
	switch a.kind() {
	case KillProcess:
		return "kill process"
	case KillThread:
		return "kill thread"
	case Trap:
		return "trap"
	case Notify:
		return "notify"
	case Trace:
		return "trace"
	case Log:
		return "log"
	case Allow:
		return "allow"
	}
	if errno, ok := a.Errno(); ok {
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
		return fmt.Sprintf("errno %d", uint32(errno))
	}
	return fmt.Sprintf("action %#x", uint32(a))
}
