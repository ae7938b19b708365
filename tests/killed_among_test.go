// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKilledAmongOthers kills the monitor of a container that has the processes of
// another, which no pid namespace ends: what the container had is ended all the same,
// and the other goes on. When the other's monitor is killed, both end.
func TestKilledAmongOthers(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			k := newKiller(t, rung, 0)
			before, err := k.take()
			if err != nil {
				t.Fatal(err)
			}
			k.known = before.processes
			k.must("run", "-d", "--name", "main", "host", "sleep", "1000")
			k.must("run", "-d", "--name", "side", "--pid", "container:main", "host", "sh", "-c", "sleep 2001 & exec sleep 2002")
			k.must("exec", "-d", "side", "sleep", "2003")
			k.until("all of side run", func(now string) bool { return strings.Count(now, "sleep 200") >= 3 })
			k.killMonitorOf("side")
			k.until("none of side is left", func(now string) bool { return !strings.Contains(now, "sleep 200") })
			k.says("side", "exited 137")
			if out := k.must("exec", "main", "echo", "usable"); out != "usable\n" {
				t.Errorf("main says %q", out)
			}
			k.must("start", "side")
			k.killMonitorOf("main")
			k.until("nobody is left", func(now string) bool { return now == "" })
			k.says("side", "exited 137")
			k.says("main", "exited 137")
			k.must("rm", "main", "side")
		})
	}
}

// killMonitorOf kills the monitor of a container, which is the parent of its program.
func (k *killer) killMonitorOf(name string) {
	k.Helper()
	program, err := strconv.Atoi(strings.TrimSpace(k.must("inspect", "--format", "{{.State.Pid}}", name)))
	if err != nil {
		k.Fatal(err)
	}
	parents, err := parentsOfAll()
	if err != nil {
		k.Fatal(err)
	}
	if err := unix.Kill(parents[program], unix.SIGKILL); err != nil || parents[program] <= 1 {
		k.Fatalf("kill monitor %d of %s: %v", parents[program], name, err)
	}
}

// until waits for a state of the processes that this test has started.
func (k *killer) until(what string, is func(now string) bool) {
	k.Helper()
	deadline := time.Now().Add(patience)
	for {
		reapAdopted()
		all, err := descendants()
		if err != nil {
			k.Fatal(err)
		}
		now := ""
		for pid, command := range all {
			if _, known := k.known[pid]; !known {
				now += fmt.Sprintf("%d: %s\n", pid, command)
			}
		}
		if is(now) {
			return
		}
		if time.Now().After(deadline) {
			k.Fatalf("%s: there are\n%s", what, now)
		}
	}
}

func (k *killer) says(name, want string) {
	k.Helper()
	if got := k.must("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name); got != want+"\n" {
		k.Errorf("%s is %q, want %s", name, got, want)
	}
}
