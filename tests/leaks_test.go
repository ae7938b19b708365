// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// census is what a command must leave as it found it.
type census struct {
	processes map[int]string // this process's descendants: pid -> command line
	mounts    []string
	files     []string // of the store and the run directory
}

var begun = map[string]census{} // by script; those who use it run alone

// leaks begin | leaks end: at the end, nothing may be there that was not at the
// begin. What is about to end is waited for.
func leaksCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || (args[0] != "begin" && args[0] != "end") {
		ts.Fatalf("usage: leaks begin|end")
	}
	dirs := []string{ts.Getenv("SBX_HOME"), ts.Getenv("XDG_RUNTIME_DIR")}
	if args[0] == "begin" {
		c, err := take(dirs)
		ts.Check(err)
		begun[ts.Name()] = c
		return
	}
	before, ok := begun[ts.Name()]
	if !ok {
		ts.Fatalf("leaks end without begin")
	}
	ts.Check(waitForOthers(before.processes, patience))
	after, err := take(dirs)
	ts.Check(err)
	ts.Check(after.compare(before))
}

func take(dirs []string) (census, error) {
	c := census{}
	var err error
	if c.processes, err = descendants(); err != nil {
		return c, err
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return c, err
	}
	c.mounts = strings.Split(string(data), "\n")
	for _, dir := range dirs {
		list, err := files(dir)
		if err != nil {
			return c, err
		}
		c.files = append(c.files, list...)
	}
	return c, nil
}

func (c census) compare(before census) error {
	var errs []error
	for pid, command := range c.processes {
		if _, ok := before.processes[pid]; !ok {
			errs = append(errs, fmt.Errorf("process %d is left: %s", pid, command))
		}
	}
	errs = append(errs, added("mount", before.mounts, c.mounts)...)
	errs = append(errs, added("file", before.files, c.files)...)
	return errors.Join(errs...)
}

func added(what string, before, after []string) []error {
	old := map[string]bool{}
	for _, s := range before {
		old[s] = true
	}
	var errs []error
	for _, s := range after {
		if !old[s] {
			errs = append(errs, fmt.Errorf("%s is left: %s", what, s))
		}
	}
	return errs
}

// descendants are the processes that this one or its children have started, and
// that have not ended. As their subreaper it is the parent of the abandoned.
func descendants() (map[int]string, error) {
	parents, err := parentsOfAll()
	if err != nil {
		return nil, err
	}
	found := map[int]string{}
	for pid := range parents {
		for p := parents[pid]; p > 1; p = parents[p] {
			if p == os.Getpid() {
				command, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
				found[pid] = strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))
				break
			}
		}
	}
	return found, nil
}

// parentsOfAll maps each living process to its parent. A zombie is dead.
func parentsOfAll() (map[int]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parents := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		// The name before may hold anything, ") " too.
		_, rest, ok := cutLast(string(data), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
			continue
		}
		if parents[pid], err = strconv.Atoi(fields[1]); err != nil {
			return nil, err
		}
	}
	return parents, nil
}

// reapMonitors waits for the monitors that have ended after their clients. As
// the one who adopts them, this process is who has to: a zombie keeps its
// namespace.
func reapMonitors() {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		// A monitor executes /proc/self/exe; what tests start has another name.
		if strings.HasPrefix(string(data), fmt.Sprintf("%d (exe) Z %d ", pid, os.Getpid())) {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// waitForOthers waits for the end of every descendant that is not in known.
func waitForOthers(known map[int]string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		now, err := descendants()
		if err != nil {
			return err
		}
		var others []int
		for pid := range now {
			if _, ok := known[pid]; !ok {
				others = append(others, pid)
			}
		}
		if len(others) == 0 {
			return nil
		}
		slices.Sort(others)
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("process %d is left: %s", others[0], now[others[0]])
		}
		if err := waitForEnd(others[0], left); err != nil {
			return fmt.Errorf("%w: %s", err, now[others[0]])
		}
	}
}

// waitForEnd waits until a process has ended.
func waitForEnd(pid int, patience time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(patience)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("process %d is left", pid)
		default:
			return nil
		}
	}
}
