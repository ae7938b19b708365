// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"strconv"
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
// namespace. If the monitor was killed, those few live as long as the other container.
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
	if h.SharesPIDs {
		return pidOf(programFD)
	}
	return firstChild
}

// signalAll sends a signal to every process of the container in one step as seen
// from fork(2): sent by pid 1 of the outer pid namespace, one to -1 reaches all
// processes in that and in those below it but its sender's own (kill(2),
// pid_namespaces(7)).
func (m *monitor) signalAll(p *program, s unix.Signal) error {
	if m.SharesPIDs {
		return p.signalMembers(s)
	}
	return unix.Kill(-1, s)
}

// clearMembers ends what the program has left behind in another container's pid
// namespace. Elsewhere nobody is left.
func (m *monitor) clearMembers(p *program) {
	if m.SharesPIDs {
		_ = p.signalMembers(unix.SIGKILL)
	}
}

// mounts is the container's mount namespace, as links in procfs name it; empty while
// it is not known.
func (p *program) mounts() string {
	p.mu.Lock()
	f := p.held["mnt"]
	p.mu.Unlock()
	if f == nil {
		return ""
	}
	name, err := os.Readlink(slot(int(f.Fd())))
	if err != nil {
		return ""
	}
	return name
}

// signalMembers sends a signal to every process in the container's mount namespace,
// until a look finds none that has not got it. One that is killed is waited for, so
// that it can start no other.
func (p *program) signalMembers(s unix.Signal) error {
	mounts := p.mounts()
	if mounts == "" {
		return p.signal(s)
	}
	told := map[string]bool{}
	for more := true; more; {
		members, err := membersOf(mounts)
		if err != nil {
			return err
		}
		more = false
		for _, pid := range members {
			if !told[pid] && signalMember(pid, mounts, s) {
				told[pid] = s != unix.SIGKILL
				more = true
			}
		}
	}
	return nil
}

// membersOf lists the processes in a mount namespace, by the names of their
// directories in /proc. Those that have ended are in none; this process is not meant,
// a thread of which may have joined it to answer system calls.
func membersOf(mounts string) ([]string, error) {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return nil, err
	}
	names, err := processNames("/proc")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, name := range names {
		if ns, err := os.Readlink("/proc/" + name + "/ns/mnt"); err == nil && ns == mounts && name != self {
			list = append(list, name)
		}
	}
	return list, nil
}

// processNames are the directories of processes in a procfs.
func processNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Name()[0] >= '0' && e.Name()[0] <= '9' {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// signalMember signals a process if it is in the mount namespace, whoever has its
// pid meanwhile, and waits for the end of one that it kills.
func signalMember(name, mounts string, s unix.Signal) bool {
	pid, err := strconv.Atoi(name)
	if err != nil {
		return false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if ns, err := os.Readlink("/proc/" + name + "/ns/mnt"); err != nil || ns != mounts {
		return false
	}
	if unix.PidfdSendSignal(fd, s, nil, 0) != nil {
		return false
	}
	for s == unix.SIGKILL {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return true
}
