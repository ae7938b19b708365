// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// members are the processes in a mount namespace, as a procfs shows them, which is
// one of the pid namespace that this process is in.
type members struct{ procfs, mounts string }

const hostProc = "/proc"

// mountsOf is a mount namespace as links in procfs name it; empty without one.
func mountsOf(f *os.File) string {
	if f == nil {
		return ""
	}
	name, err := os.Readlink(slot(int(f.Fd())))
	if err != nil {
		return ""
	}
	return name
}

// signal sends a signal to every one of them, until a look finds none that has not
// got it. One that is killed is waited for, so that it can start no other.
func (m members) signal(s unix.Signal) error {
	told := map[string]bool{}
	for more := true; more; {
		list, err := m.list()
		if err != nil {
			return err
		}
		more = false
		for _, pid := range list {
			if !told[pid] && m.signalOne(pid, s) {
				told[pid] = s != unix.SIGKILL
				more = true
			}
		}
	}
	return nil
}

// list are the names of their directories in procfs. Those that have ended are in no
// namespace; this process is not meant, a thread of which may have joined it to answer
// system calls.
func (m members) list() ([]string, error) {
	self, err := os.Readlink(m.procfs + "/self")
	if err != nil {
		return nil, err
	}
	names, err := processNames(m.procfs)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, name := range names {
		if m.has(name) && name != self {
			list = append(list, name)
		}
	}
	return list, nil
}

func (m members) has(name string) bool {
	mounts, err := os.Readlink(m.procfs + "/" + name + "/ns/mnt")
	return err == nil && mounts == m.mounts
}

// signalOne signals a process if it is one of them, whoever has its pid meanwhile, and
// waits for the end of one that it kills.
func (m members) signalOne(name string, s unix.Signal) bool {
	pid, err := strconv.Atoi(name)
	if err != nil {
		return false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if !m.has(name) || unix.PidfdSendSignal(fd, s, nil, 0) != nil {
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
