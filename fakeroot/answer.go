// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"runtime"

	"golang.org/x/sys/unix"

	"sbx/seccomp"
)

// answer is what a waiting process gets.
type answer struct {
	value  int64
	errno  unix.Errno
	native bool // the kernel goes on with the call as if nobody had been asked
	sent   bool // it has its answer already
}

var (
	natively = answer{native: true}
	success  = answer{}
)

func result(v int64) answer       { return answer{value: v} }
func failure(e unix.Errno) answer { return answer{errno: e} }
func outcome(e unix.Errno) answer { return answer{errno: e} }
func (a answer) fill(r *response, id uint64) {
	*r = response{ID: id}
	switch {
	case a.native:
		r.Flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	case a.errno != 0:
		r.Error = -int32(a.errno)
	default:
		r.Val = a.value
	}
}

// numbers tell which call a notification is about.
type numbers struct {
	machine machine
	own     [512]call
	compat  [512]call
}

func newNumbers() (*numbers, error) {
	m, err := machineNamed(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	n := &numbers{machine: m}
	for _, t := range traps {
		if number, ok := m.own.Number(t.name); ok && number < uint32(len(n.own)) {
			n.own[number] = t.call
		}
	}
	for _, t := range compatTraps {
		if number, ok := m.compat.Number(t.name); ok && number < uint32(len(n.compat)) {
			n.compat[number] = t.call
		}
	}
	return n, nil
}

func (t *numbers) of(n *notification) call {
	if n.NR < 0 || int(n.NR) >= len(t.own) {
		return callNone
	}
	switch seccomp.Arch(n.Arch) {
	case t.machine.own:
		return t.own[n.NR]
	case t.machine.compat:
		return t.compat[n.NR]
	}
	return callNone
}

// answer is the only way into the handlers. Whatever goes wrong in one, the
// process gets the kernel's own answer: what it would have got without us.
func (w *worker) answer(n *notification) (a answer) {
	defer func() {
		if e := recover(); e != nil {
			w.s.log.Error("root emulation handler", "call", n.NR, "panic", e)
			a = natively
		}
	}()
	if n.PID == 0 {
		return natively
	}
	if w.v != nil && !w.v.primed.Load() {
		if errno := w.s.interned.give(n.PID, &w.v.user); errno != 0 {
			w.s.log.Error("write user of container", "errno", errno)
			return failure(unix.EPERM) // it must not start as somebody else
		}
		w.v.primed.Store(true)
	}
	if w.s.sockets.count.Load() != 0 {
		w.s.sockets.record(w)
	}
	return w.handle(n, w.s.numbers.of(n))
}

// handle calls the handler. The groups stand in the order of their files.
func (w *worker) handle(n *notification, c call) answer {
	a := &n.Args
	const cwd = unix.AT_FDCWD
	switch c {
	// stat(2), statx(2)
	case callStat:
		return w.stat(n, cwd, a[0], a[1], 0)
	case callLstat:
		return w.stat(n, cwd, a[0], a[1], unix.AT_SYMLINK_NOFOLLOW)
	case callFstat:
		return w.stat(n, fdArg(a[0]), 0, a[1], unix.AT_EMPTY_PATH)
	case callNewfstatat:
		return w.stat(n, fdArg(a[0]), a[1], a[2], int(int32(a[3])))
	case callStatx:
		return w.statx(n, fdArg(a[0]), a[1], int(int32(a[2])), uint32(a[3]), a[4])

	// chown(2), chmod(2)
	case callChown:
		return w.chown(n, cwd, a[0], a[1], a[2], 0)
	case callLchown:
		return w.chown(n, cwd, a[0], a[1], a[2], unix.AT_SYMLINK_NOFOLLOW)
	case callFchown:
		return w.chown(n, fdArg(a[0]), 0, a[1], a[2], unix.AT_EMPTY_PATH)
	case callFchownat:
		return w.chown(n, fdArg(a[0]), a[1], a[2], a[3], int(int32(a[4])))
	case callChmod:
		return w.chmod(n, cwd, a[0], a[1], 0)
	case callFchmod:
		return w.chmod(n, fdArg(a[0]), 0, a[1], unix.AT_EMPTY_PATH)
	case callFchmodat:
		return w.chmod(n, fdArg(a[0]), a[1], a[2], 0)
	case callFchmodat2:
		return w.chmod(n, fdArg(a[0]), a[1], a[2], int(int32(a[3])))

	// execve(2)
	case callExecve:
		return w.exec(n, cwd, a[0], 0)
	case callExecveat:
		return w.exec(n, fdArg(a[0]), a[1], int(int32(a[4])))
	}
	if c >= callGetuid && c <= callSetgroups {
		return w.identity(n, c)
	}
	return w.rare(n, c)
}

// rare is handle for what creates files, and for the rest.
func (w *worker) rare(n *notification, c call) answer {
	a := &n.Args
	const cwd = unix.AT_FDCWD
	switch c {
	// open(2), openat2(2)
	case callOpen:
		return w.open(n, cwd, a[0], openArgs{flags: a[1], mode: a[2]})
	case callCreat:
		return w.open(n, cwd, a[0], openArgs{flags: unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC, mode: a[1]})
	case callOpenat:
		return w.open(n, fdArg(a[0]), a[1], openArgs{flags: a[2], mode: a[3]})
	case callOpenat2:
		return w.openat2(n, fdArg(a[0]), a[1], a[2], a[3])

	// mkdir(2), symlink(2), mknod(2)
	case callMkdir:
		return w.mkdir(n, cwd, a[0], a[1])
	case callMkdirat:
		return w.mkdir(n, fdArg(a[0]), a[1], a[2])
	case callSymlink:
		return w.symlink(n, a[0], cwd, a[1])
	case callSymlinkat:
		return w.symlink(n, a[0], fdArg(a[1]), a[2])
	case callMknod:
		return w.mknod(n, cwd, a[0], a[1], a[2])
	case callMknodat:
		return w.mknod(n, fdArg(a[0]), a[1], a[2], a[3])

	// setxattr(2), removexattr(2)
	case callSetxattr:
		return w.setxattr(n, cwd, a[0], 0, a[1], a[2], a[3])
	case callLsetxattr:
		return w.setxattr(n, cwd, a[0], unix.AT_SYMLINK_NOFOLLOW, a[1], a[2], a[3])
	case callFsetxattr:
		return w.setxattr(n, fdArg(a[0]), 0, unix.AT_EMPTY_PATH, a[1], a[2], a[3])
	case callSetxattrat:
		return w.setxattrat(n, a)
	case callRemovexattr, callLremovexattr, callFremovexattr:
		return w.removexattr(n, a[1])
	case callRemovexattrat:
		return w.removexattr(n, a[3])

	case callBind:
		return w.bind(n, a[1], a[2])
	case callPrctl:
		return w.keepCaps(n)
	case callGetsockopt:
		return w.peerCredentials(n, fdArg(a[0]), a[3], a[4])
	case callPrlimit:
		return w.limitOfLocks(n, a[3])
	case callGetrlimit:
		return w.limitOfLocks(n, a[1])
	case callSetrlimit:
		return success
	case callNewRoot, callClone3:
		return w.wander(n, c)
	}
	return natively
}

// fdArg is a descriptor argument: the kernel takes its low 32 bits.
func fdArg(v uint64) int32 { return int32(uint32(v)) }
