// SPDX-License-Identifier: Apache-2.0

package container

import (
	"strings"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// gate is what a process enters a container by: descriptors of 20 or more.
type gate struct {
	pidfd int
	user  int // the user namespace that owns the others; negative for one that is in it
}

// namespacesOf are those that a container has of its own, beside its user
// namespace: what a process that is executed in it has to enter.
func namespacesOf(c *Config) int {
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWPID
	if c.Network != NetworkHost {
		flags |= unix.CLONE_NEWNET
	}
	return flags
}

// joinProgram enters a container and executes a program in it. The process that
// runs it stays outside of the container's pid namespace, waits for the program,
// passes signals on to it and ends with its status. The program is its child and
// not the client's, which may be killed: whoever adopts orphans on this machine
// need not reap them, and a zombie keeps the monitor from ending.
//
// Until the execve the processes are copies of the one that started them, so that
// one's memory is hidden before anything is entered (process-tree.md, pitfall 9),
// and what was not made for the program is closed. A user namespace for a single
// foreign ID is made and mapped out here, where the container cannot look.
//
// Runs in: a plain forked child; the host's namespaces, or the monitor's.
func (s *start) joinProgram(g gate) *userns.Prog {
	p := &recipe{Prog: &userns.Prog{}, start: s}
	s.admission.await(p.Prog)
	p.work = p.Reg()
	proc := p.Reg()
	// The terminal's signals are the client's to pass on.
	p.Call("start session", unix.SYS_SETSID)
	p.Call("open /proc", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(proc)
	p.Call("hide memory", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if g.user >= 0 {
		p.Call("enter user namespace", unix.SYS_SETNS, g.user, unix.CLONE_NEWUSER)
	} else {
		p.CloseBut(proc, s.programEnd, s.null, s.stdio[0], s.stdio[1], s.stdio[2], g.pidfd)
	}
	s.config.Rung.BecomeRoot(p.Prog)
	p.Call("enter namespaces", unix.SYS_SETNS, g.pidfd, namespacesOf(s.config))
	if s.isForeign() {
		p.Call("show memory to ourselves", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
		p.Call("create user namespace", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
		userns.MapOneIn(p.Prog, proc, int(s.run.identity.UID), 0, int(s.run.identity.GID), 0)
		p.Call("hide memory", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	var child userns.Reg
	if g.user < 0 {
		child = p.forkTold(s.executedProgram())
	} else {
		child = p.Reg()
		p.Fork("clone program", 0, nil, s.executedProgram()).Into(child)
	}
	if s.status == 0 {
		p.Call("close descriptors", unix.SYS_CLOSE_RANGE, 0, uintptr(^uint32(0)), 0)
		p.Reap(child)
		return p.Prog
	}
	p.Call("close descriptors", unix.SYS_CLOSE_RANGE, 0, s.status-1, 0)
	p.Call("close descriptors", unix.SYS_CLOSE_RANGE, s.status+1, uintptr(^uint32(0)), 0)
	p.ReapAndTell(child, s.status)
	return p.Prog
}

// isForeign reports whether the program runs as an ID that the user namespace of
// the rung does not hold, and that no emulation says it has.
func (s *start) isForeign() bool {
	id := s.run.identity
	return !s.emulatesUsers() && !s.config.Rung.IsMapped() && (id.UID != 0 || id.GID != 0)
}

// executedProgram is the program's own process, in the container's pid namespace.
func (s *start) executedProgram() *userns.Prog {
	r := &recipe{Prog: &userns.Prog{}, start: s}
	r.root, r.a, r.b, r.work = r.Reg(), r.Reg(), r.Reg(), r.Reg()
	r.Call("start session", unix.SYS_SETSID)
	r.Call("set umask", unix.SYS_UMASK, 0o022)
	r.Call("open /", unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(r.root)
	// A magic link would name a directory of the host through a descriptor.
	dir := strings.Join(split(s.run.dir), "/")
	r.openIn(directoryStep(s.run.dir), or(dir, "."), dirOnly, inRoot).Into(r.a)
	r.Call(directoryStep(s.run.dir), unix.SYS_FCHDIR, r.a)
	r.stdio()
	r.giveUp()
	r.execute()
	return r.Prog
}

func directoryStep(dir string) string { return "change directory to " + dir }
