// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// self names this very process as a monitor would.
func self(t *testing.T) process {
	t.Helper()
	p := here()
	p.PID = os.Getpid()
	var err error
	if p.Start, err = startTime(p.PID); err != nil {
		t.Fatal(err)
	}
	return p
}

// X09 and M09 of the ledger: a state is believed only of the very process.
func TestAlive(t *testing.T) {
	for _, tt := range []struct {
		name         string
		change       func(*process)
		alive, known bool
	}{
		{"itself", func(*process) {}, true, true},
		{"pid of another", func(p *process) { p.PID = 1 }, false, true},
		{"no such pid", func(p *process) { p.PID = 1 << 22 }, false, true},
		{"recycled pid", func(p *process) { p.Start++ }, false, true},
		{"before the reboot", func(p *process) { p.Boot = "8c7c33f5-0000-0000-0000-000000000000" }, false, true},
		{"on another machine", func(p *process) { p.Boot, p.Machine = "8c7c33f5-0000-0000-0000-000000000000", p.Machine+"x" }, false, false},
		{"on a clone of this machine", func(p *process) { p.Boot, p.Host = "8c7c33f5-0000-0000-0000-000000000000", p.Host+"x" }, false, false},
		{"in another pid namespace", func(p *process) { p.Namespace = "pid:[1]" }, false, false},
		{"none", func(p *process) { *p = process{} }, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := self(t)
			tt.change(&p)
			if alive, known := p.alive(here()); alive != tt.alive || known != tt.known {
				t.Errorf("alive %v, known %v; want %v, %v", alive, known, tt.alive, tt.known)
			}
		})
	}
}

func TestZombieIsNotAlive(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "exec 1>&-; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	if _, err := out.Read(make([]byte, 1)); err == nil {
		t.Fatal("output of a closed descriptor")
	}
	p := self(t)
	p.PID = cmd.Process.Pid
	if p.Start, err = startTime(p.PID); err != nil {
		t.Fatal(err)
	}
	if alive, _ := p.alive(here()); !alive {
		t.Error("a living child is not alive")
	}
	in.Close()
	// Not reaped, it stays as a zombie; its exit is seen by a pidfd.
	waitExit(t, p.PID)
	if alive, _ := p.alive(here()); alive {
		t.Error("a zombie is alive")
	}
}

func waitExit(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if _, err := startTime(pid); err != nil {
			return
		}
	}
	t.Fatalf("process %d did not end", pid)
}

func TestLoadStateCorrects(t *testing.T) {
	dir := t.TempDir()
	if s, err := loadState(dir, here()); err != nil || s.Status != Created {
		t.Errorf("no state: %+v, %v", s, err)
	}
	running := State{Status: Running, Monitor: self(t), PID: 7, StartedAt: time.Now()}
	if err := saveState(dir, running); err != nil {
		t.Fatal(err)
	}
	if s, err := loadState(dir, here()); err != nil || s.Status != Running || s.PID != 7 {
		t.Errorf("living monitor: %+v, %v", s, err)
	}
	running.Monitor.Start++
	if err := saveState(dir, running); err != nil {
		t.Fatal(err)
	}
	if s, err := loadState(dir, here()); err != nil || s.Status != Exited || s.ExitCode != 137 || s.PID != 0 {
		t.Errorf("dead monitor: %+v, %v", s, err)
	}
	if err := os.WriteFile(dir+"/state.json", []byte(`{"status":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadState(dir, here()); err == nil {
		t.Error("a torn state was read")
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"status":"running","monitor":{"pid":1,"start":2}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/state.json", data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := loadState(dir, here())
		if err == nil && s.Status == Running {
			if alive, known := s.Monitor.alive(here()); known && !alive {
				t.Error("a dead container runs")
			}
		}
	})
}

// The name of a process may hold anything (proc(5), stat).
func TestStartTimeOfOddName(t *testing.T) {
	cmd := exec.Command("/bin/cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if err := os.WriteFile("/proc/self/comm", []byte(") R 1 (x"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := startTime(os.Getpid()); err != nil {
		t.Error(err)
	}
}
