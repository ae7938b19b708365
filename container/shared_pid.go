// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// A container can have the processes of another (--pid container:NAME): its program
// is then a process of the other's pid namespace, and so one that the other's death
// ends. Nobody is in two pid namespaces, so what the namespace around a container
// does for all others is done here by its monitor, which stays in the host's: the
// program dies with it by the kernel's word (prctl(2), PR_SET_PDEATHSIG), and the
// processes that the program leaves behind are found by the container's mount
// namespace. If the monitor was killed, the other container's finds and ends them: it
// has that namespace, and a connection that ends with this monitor (findGuard).
//
// The program is never started again by the monitor: on its way to the execve it
// would be a copy of the monitor that processes of the other container could see.

// pidsOfWhom is the ID of the container whose processes this one shares, or empty.
func (c *Config) pidsOfWhom() string { return strings.TrimPrefix(c.Privileges.PID, networkOf) }

// sharePID settles --pid for a new container: a name becomes an ID.
func (h *Home) sharePID(c *Config) error {
	if c.Privileges.PID == "" {
		return nil
	}
	name := c.pidsOfWhom()
	if name == "" || name == c.Privileges.PID {
		return fmt.Errorf("invalid PID mode: %s", c.Privileges.PID)
	}
	other, err := h.Find(name)
	if err != nil {
		return err
	}
	c.Privileges.PID = networkOf + other.Config.ID
	return errors.Join(c.sameIDs(&other.Config, "processes"), c.checkRestart())
}

// checkRestart refuses a restart policy of a container that has another's processes.
func (c *Config) checkRestart() error {
	if c.pidsOfWhom() == "" || c.Restart.Name == "" || c.Restart.Name == RestartNo {
		return nil
	}
	return &ConflictError{"conflicting options: restart policy and the processes of another container", "give the policy to the container whose processes they are"}
}

// forkAmongOthers is forkContainer into the pid namespace of another container. The
// monitor itself cannot enter that and come back (setns(2)), so a process in between
// does, and clones the container as its own sibling. The two share their
// descriptors, and so the pidfd.
func (s *start) forkAmongOthers(p *userns.Prog) any {
	between, pidfd := &userns.Prog{}, new(int32)
	got := between.Reg()
	between.Call(enterPIDs, unix.SYS_SETNS, s.others.pid, unix.CLONE_NEWPID)
	between.Fork("clone container", unix.CLONE_PARENT|unix.CLONE_PIDFD, pidfd, s.containerProgram())
	between.Load(got, pidfd)
	between.Call("place descriptor", unix.SYS_DUP3, got, slotOther, unix.O_CLOEXEC)
	between.Exit(0)
	child := p.Reg()
	p.Fork("clone process between", unix.CLONE_FILES, nil, between).Into(child)
	p.Call("wait for process between", unix.SYS_WAIT4, child, nil, 0, nil)
	return slotOther
}

// dieWithMonitor has the kernel kill this process when its parent dies, where no
// pid namespace sees to that. A change of IDs undoes it, so it comes after those.
func (r *recipe) dieWithMonitor() {
	if r.others.pid != 0 {
		r.Call("die with monitor", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	}
}

// firstPID is the pid of the program that the starter cloned, as this monitor counts.
func (h *hello) firstPID() int {
	if h.PIDsOf != "" {
		return pidOf(programFD)
	}
	return firstChild
}

// signalAll sends a signal to every process of the container in one step as seen
// from fork(2): sent by pid 1 of the outer pid namespace, one to -1 reaches all
// processes in that and in those below it but its sender's own (kill(2),
// pid_namespaces(7)).
func (m *monitor) signalAll(p *program, s unix.Signal) error {
	if m.PIDsOf != "" {
		if of := p.members(); of.mounts != "" {
			return of.signal(s)
		}
		return p.signal(s)
	}
	return unix.Kill(-1, s)
}

// findGuard has the monitor of the container whose processes these are among end
// those of this one, should this monitor be killed. The program waits for that.
func (m *monitor) findGuard(ctx context.Context, p *program) error {
	if m.PIDsOf == "" {
		return nil
	}
	// The namespace is the first that the start program sends.
	for p.sent("mnt") == nil {
		if !p.receiveNext(ctx, m) {
			return nil // it has failed, and says why
		}
	}
	var err error
	if m.guard, err = userns.Dial(filepath.Join(m.Home, m.PIDsOf), monitorSocket); err != nil {
		return err
	}
	return m.guard.Send(request{Do: doGuard, Files: []string{fileMounts}}, p.sent("mnt"))
}

// keep takes the mount namespace of a container, whose processes end with the peer.
func (p *peer) keep(given map[string]*os.File) error {
	p.ward = given[fileMounts]
	delete(given, fileMounts)
	return nil
}

// endWard ends the processes of a container whose monitor, a peer of this one, has
// gone. They are in the pid namespace of this one's container.
func (m *monitor) endWard(p *peer) {
	if p.ward == nil {
		return
	}
	defer p.ward.Close()
	procfs := hostProc
	if m.PIDsOf == "" {
		f, err := ownProc()
		if err != nil {
			return
		}
		defer f.Close()
		procfs = slot(int(f.Fd()))
	}
	_ = members{procfs, mountsOf(p.ward)}.signal(unix.SIGKILL)
}

// clearMembers ends what the program has left behind in another container's pid
// namespace. Elsewhere nobody is left.
func (m *monitor) clearMembers(p *program) {
	if m.PIDsOf != "" {
		_ = p.members().signal(unix.SIGKILL)
	}
}

// sent is what the start program sent by this name, or nil.
func (p *program) sent(what string) *os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[what]
}

// members are the processes of the container by its mount namespace, which is empty
// while it is not known.
func (p *program) members() members { return members{hostProc, mountsOf(p.sent("mnt"))} }
