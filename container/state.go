// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Status is where a container stands in its life, in Docker's words.
type Status string

// The stations.
const (
	Created    Status = "created"
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting" // between two runs of its program
	Exited     Status = "exited"
)

// IsAlive reports whether a container of this status has a monitor.
func (s Status) IsAlive() bool { return s == Running || s == Paused || s == Restarting }

// State is what is known of a container's last run. It is stored as state.json
// and believed to be running only while its monitor is: a record cannot say who
// died after it was written.
type State struct {
	Status     Status    `json:"status"`
	Monitor    process   `json:"monitor"`
	PID        int       `json:"pid,omitempty"` // the program's, on the host; 0 when not running
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int       `json:"exitCode"`
	OOMKilled  bool      `json:"oomKilled,omitempty"` // for holding more memory than its limit
	Error      string    `json:"error,omitempty"`
	Restarts   int       `json:"restarts,omitempty"` // by the restart policy
	Stopped    bool      `json:"stopped,omitempty"`  // by the user, and so not to be started at boot
	Health     *Health   `json:"health,omitempty"`

	Network NetworkState `json:"network,omitzero"` // while it runs

	Group string   `json:"group,omitempty"` // its control group, if it has one of its own
	Held  []string `json:"held,omitempty"`  // the limits that are held by that

	lost bool // its monitor died without a word
}

// exit is the end of the program.
func (s *State) exit(status int) {
	s.Status, s.PID, s.ExitCode, s.FinishedAt, s.Network = Exited, 0, status, time.Now().UTC(), NetworkState{}
}

// Elsewhere says where a container runs that this host, or this container, cannot
// know of, as in "on HOST". It is empty for all others.
func (s *State) Elsewhere(h process) string {
	if !s.Status.IsAlive() {
		return ""
	}
	if _, known := s.Monitor.alive(h); known {
		return ""
	}
	return s.Monitor.place(h)
}

// process names a process so that no other can be taken for it: a pid is used
// again after its owner's death, after a reboot, in another pid namespace and on
// the other machines that mount this home.
type process struct {
	PID       int    `json:"pid"`
	Start     uint64 `json:"start"` // clock ticks since boot, proc(5) stat field 22
	Boot      string `json:"boot"`
	Machine   string `json:"machine,omitempty"`
	Host      string `json:"host,omitempty"` // its name
	Namespace string `json:"namespace"`      // of pids, as the link reads
}

// here is what a process of this moment shares with us: boot, machine, pid namespace.
func here() process {
	return process{
		Boot:      readLine("/proc/sys/kernel/random/boot_id"),
		Machine:   readLine("/etc/machine-id"),
		Host:      hostName(),
		Namespace: pidNamespace(),
	}
}

func hostName() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Nodename[:])
}

func pidNamespace() string {
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return link
}

// alive reports whether the very process that p names still runs, and whether p
// is one that can be seen at all from h, which is here.
//
// A machine is known by its boot. Another boot is an earlier one of this machine
// if that has the same ID and the same name: clones share an ID.
func (p process) alive(h process) (alive, known bool) {
	switch {
	case p.PID == 0:
		return false, true
	case p.Boot != h.Boot:
		return false, p.Machine == h.Machine && p.Host == h.Host
	case p.Namespace != h.Namespace:
		return false, false
	}
	start, err := startTime(p.PID)
	return err == nil && start == p.Start, true
}

// place says where a process is that cannot be seen from h.
func (p process) place(h process) string {
	if p.Boot == h.Boot {
		return "outside of this container, or in another"
	}
	return "on " + or(p.Host, "another machine")
}

// startTime reads field 22 of /proc/PID/stat. A zombie has ended.
func startTime(pid int) (uint64, error) {
	data, err := readFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The name in field 2 may hold anything, parentheses and spaces included.
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return 0, fmt.Errorf("look at process %d: strange stat", pid)
	}
	fields := strings.Fields(string(data[i+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("look at process %d: %w", pid, unix.ESRCH)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// loadState reads the state in dir and corrects it: a container whose monitor
// has died without a word has exited, with 137 (DESIGN §9).
func loadState(dir string, h process) (State, error) {
	var s State
	err := readJSON(filepath.Join(dir, "state.json"), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Status: Created}, nil
	}
	if err != nil {
		return State{}, err
	}
	if !s.Status.IsAlive() {
		return s, nil
	}
	if alive, known := s.Monitor.alive(h); known && !alive {
		s.Status, s.PID, s.ExitCode, s.lost, s.Network = Exited, 0, statusSignalBase+int(unix.SIGKILL), true, NetworkState{}
		if s.FinishedAt.IsZero() {
			s.FinishedAt = s.StartedAt
		}
	}
	return s, nil
}

func saveState(dir string, s State) error { return writeJSON(filepath.Join(dir, "state.json"), s) }
