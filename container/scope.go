// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// Control groups belong to root, but a user's own systemd can have some of them
// (cgroup v2, delegation). It makes a scope for a container with limits, with two
// groups in it: one for the monitor, whose memory is not the container's, and
// groupName for all else, where the kernel holds the limits. When the last process
// has ended, systemd removes them.
//
// A process comes into the scope before it forks: the start program waits, see
// admission. The manager ends what it has when its user has logged out,
// unless he lingers (loginctl enable-linger); so a container that nobody is
// attached to gets a scope only then.

const (
	groupRoot    = "/sys/fs/cgroup"
	groupName    = "container"
	monitorGroup = "monitor"
)

// scope is one on its way to be made.
type scope struct {
	manager   *manager
	unit      string
	admission *admission
}

// openScope finds whether the kernel can hold the limits of a start. It is nil when
// no limit is set that it would hold, or it cannot.
func (c *Container) openScope(ctx context.Context, attached bool) *scope {
	if len(c.Config.Limits.groupFiles()) == 0 || c.Config.Step || !attached && !lingers() || !hasGroups() {
		return nil
	}
	m, err := dialManager(ctx, managerSocket())
	if err != nil {
		return nil
	}
	a, err := newAdmission(true)
	if err != nil {
		m.conn.Close()
		return nil
	}
	return &scope{manager: m, unit: fmt.Sprintf("sbx-%s-%d.scope", c.Config.ID[:shortID], os.Getpid()), admission: a}
}

// hasGroups reports whether this machine has the second version of control groups alone.
func hasGroups() bool {
	var st unix.Statfs_t
	return unix.Statfs(groupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// lingers reports whether the user's systemd outlives his sessions.
func lingers() bool {
	return exists("/var/lib/systemd/linger/" + userns.LoginName(os.Getuid()))
}

func (s *scope) close() {
	if s != nil {
		s.manager.conn.Close()
		s.admission.close()
	}
}

// gate is where the start waits; nil without a scope.
func (s *scope) gate() *admission {
	if s == nil {
		return nil
	}
	return s.admission
}

// admit brings a monitor on its way into the scope, has it greeted with what the
// kernel holds there, and lets it go on. Where there is no scope to be had after
// all, the limits are held as on a machine without.
func (s *scope) admit(config *Config, process *userns.Process, greet func(dir string, held []string) error) error {
	dir, held, _ := s.enter(config, process.PID)
	err := errors.Join(greet(dir, held), s.admission.grant())
	if err != nil {
		process.Kill()
		process.Wait()
	}
	return err
}

// enter puts a process into a new scope with the limits. It returns the group and
// the names of the limits that the kernel holds there.
func (s *scope) enter(config *Config, pid int) (dir string, held []string, err error) {
	if err := s.manager.startScope(s.unit, "sbx container "+config.Name, pid); err != nil {
		return "", nil, err
	}
	path, err := groupOf(pid)
	if err != nil {
		return "", nil, err
	}
	if filepath.Base(path) != s.unit {
		return "", nil, fmt.Errorf("process is in %s", path)
	}
	base := groupRoot + path
	dir = filepath.Join(base, groupName)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(filepath.Join(base, monitorGroup), 0o755), addToGroup(dir, pid)); err != nil {
		return "", nil, err
	}
	// A controller can be had when no process is in the scope itself.
	for _, name := range strings.Fields(readLine(filepath.Join(base, "cgroup.controllers"))) {
		_ = writeGroup(base, "cgroup.subtree_control", "+"+name) // what is missing then is not held
	}
	return dir, config.Limits.hold(dir), nil
}

// groupOf is the path of a process's group (cgroups(7)).
func groupOf(pid int) (string, error) {
	data, err := readFile(pidPath(pid, "cgroup"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("no group of the second version")
}

// writeGroup sets a file of a group, which the kernel has made.
func writeGroup(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// addToGroup moves a process, by its pid as procfs shows it; 0 is this one.
func addToGroup(dir string, pid int) error {
	return writeGroup(dir, "cgroup.procs", strconv.Itoa(pid))
}

// groupFile is a limit as a file of a control group has it.
type groupFile struct{ limit, file, value string }

// groupFiles are what has to be written to hold the limits that the user has set.
func (l *Limits) groupFiles() []groupFile {
	var files []groupFile
	add := func(is bool, limit, file, value string) {
		if is {
			files = append(files, groupFile{limit, file, value})
		}
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	// As on Docker: without a word the container may swap as much as it may hold.
	swap := number(l.Memory)
	if l.MemorySwap > 0 {
		swap = number(l.MemorySwap - l.Memory)
	} else if l.MemorySwap < 0 {
		swap = "max"
	}
	add(l.Memory > 0, "Memory", "memory.max", number(l.Memory))
	add(l.Memory > 0, "MemorySwap", "memory.swap.max", swap)
	add(l.MemoryReservation > 0, "MemoryReservation", "memory.low", number(l.MemoryReservation))
	add(l.NanoCPUs > 0, "NanoCpus", "cpu.max", fmt.Sprintf("%d %d", max(l.NanoCPUs*cpuPeriod/1e9, 1000), cpuPeriod))
	quota := number(l.CPUQuota)
	if l.CPUQuota < 0 {
		quota = "max"
	}
	add(l.CPUQuota != 0 && l.NanoCPUs == 0, "CpuQuota", "cpu.max", fmt.Sprintf("%s %d", quota, l.period()))
	// From 2..262144 to 1..10000, as every engine does.
	add(l.CPUShares > 1, "CpuShares", "cpu.weight", number(1+(min(l.CPUShares, 262144)-2)*9999/262142))
	add(l.CPUSet != "", "CpusetCpus", "cpuset.cpus", l.CPUSet)
	add(l.Pids > 0, "PidsLimit", "pids.max", number(l.Pids))
	return files
}

// hold writes the limits into a group and returns the names of those that it then has.
func (l *Limits) hold(dir string) []string {
	var held []string
	for _, f := range l.groupFiles() {
		if writeGroup(dir, f.file, f.value) == nil {
			held = append(held, f.limit)
		}
	}
	return held
}

// oomKills is how many processes of a group the kernel has ended for what they held.
func oomKills(dir string) uint64 {
	data, _ := readFile(filepath.Join(dir, "memory.events"))
	return numberIn(data, "oom_kill ")
}

// admission is a pipe that a start waits at until its process is in its control
// group: what is forked before would not be. It is nil where there is none.
type admission struct{ wait, open *os.File }

func newAdmission(wanted bool) (*admission, error) {
	if !wanted {
		return nil, nil
	}
	wait, open, err := os.Pipe()
	return &admission{wait, open}, err
}

func (a *admission) close() {
	if a != nil {
		a.wait.Close()
		a.open.Close()
	}
}

// grant lets the start go on.
func (a *admission) grant() error {
	_, err := a.open.Write([]byte{1})
	return err
}

// await is the start program's side. Its own copy of the other end would keep it
// from seeing that who admits has died.
func (a *admission) await(p *userns.Prog) {
	if a != nil {
		p.Call("wait for control group", unix.SYS_CLOSE, int(a.open.Fd()))
		p.Call("wait for control group", unix.SYS_READ, int(a.wait.Fd()), make([]byte, 8), 8).NonZero()
	}
}

// admit brings the process of an exec into the container's group, and lets it go on.
func (a *admission) admit(ctx context.Context, dir string, pid int) error {
	if a == nil {
		return nil
	}
	err := addToGroup(dir, pid)
	if err != nil {
		// Only root can take a process out of a session's group.
		var m *manager
		if m, err = dialManager(ctx, managerSocket()); err == nil {
			err = m.attach(filepath.Base(filepath.Dir(dir)), "/"+groupName, pid)
			m.conn.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("enter the container's control group: %w", err)
	}
	return a.grant()
}

// leaveGroup brings the monitor into a group beside the container's: its memory and
// threads are not the container's.
func (h *hello) leaveGroup() {
	if h.Group != "" {
		_ = addToGroup(filepath.Join(filepath.Dir(h.Group), monitorGroup), 0) // else it counts with the container
	}
}

// countOOM notes whether the kernel has ended processes for what the container held.
func (m *monitor) countOOM() {
	if m.Group == "" {
		return
	}
	kills := oomKills(m.Group)
	if kills > m.oomKills {
		_ = m.setState(func(s *State) { s.OOMKilled = true })
		m.record("oom", nil)
	}
	m.oomKills = kills
}
