// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

type question struct{ Path, Fail string }

type answer struct {
	UID, Caps string
	Text      string
}

func TestMain(m *testing.M) {
	if os.Getenv(ownFileVariable) != "" {
		os.Exit(ownFileStatus)
	}
	Dispatch(map[string]Role{"look": Answer(look), "mute": func(context.Context, *Conn) error { return errors.New("mute") }})
	os.Exit(m.Run())
}

func look(_ context.Context, q question, files []*os.File) (answer, error) {
	if q.Fail != "" {
		return answer{}, &SetupError{Op: "look", Err: fmt.Errorf("%s: %w", q.Fail, unix.EACCES), Gate: "look elsewhere"}
	}
	buf := make([]byte, 100)
	n, err := files[0].Read(buf)
	if err != nil {
		return answer{}, err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return answer{}, err
	}
	a := answer{Text: string(buf[:n])}
	for line := range strings.SplitSeq(string(status), "\n") {
		if v, ok := strings.CutPrefix(line, "Uid:\t"); ok {
			a.UID = v
		}
		if v, ok := strings.CutPrefix(line, "CapEff:\t"); ok {
			a.Caps = v
		}
	}
	return a, nil
}

// rungs are those that this user can climb; a user namespace at least is needed.
func rungs(t *testing.T) []Rung {
	t.Helper()
	rungs := []Rung{SingleRung()}
	if r, err := MappedRung(); err == nil {
		rungs = append(rungs, r)
	}
	return rungs
}

func TestCall(t *testing.T) {
	for _, r := range rungs(t) {
		t.Run(r.Name, func(t *testing.T) {
			f, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString("hello")
			f.Seek(0, 0)
			a, err := Call[question, answer](t.Context(), r, "look", question{}, f)
			if err != nil {
				t.Fatal(err)
			}
			if a.Text != "hello" || a.UID != "0\t0\t0\t0" || strings.TrimLeft(a.Caps, "0") == "" {
				t.Errorf("got %+v; want the file's text, mapped root and capabilities", a)
			}
		})
	}
}

func TestCallErrorTravels(t *testing.T) {
	_, err := Call[question, answer](t.Context(), SingleRung(), "look", question{Fail: "behind the curtain"})
	var hint interface{ Hint() string }
	if err == nil || err.Error() != "look: behind the curtain: permission denied" || !errors.Is(err, unix.EACCES) || !errors.As(err, &hint) || hint.Hint() != "look elsewhere" {
		t.Errorf("error %#v %v", err, err)
	}
	if _, err := Call[question, answer](t.Context(), SingleRung(), "mute", question{}); err == nil || !strings.Contains(err.Error(), "without an answer") {
		t.Errorf("mute role: %v", err)
	}
}

func TestStepErrorKeepsName(t *testing.T) {
	p := &Prog{}
	p.Call("open door", unix.SYS_OPENAT, unix.AT_FDCWD, "/no/such/door", 0, 0)
	child, err := Start(t.Context(), SingleRung(), 0, p)
	if err != nil {
		t.Fatal(err)
	}
	err = child.Started(t.Context())
	if err == nil || err.Error() != "open door: no such file or directory" || !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
	child.Wait()
}

func TestAttempts(t *testing.T) {
	script := t.TempDir() + "/not-executable"
	if err := os.WriteFile(script, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := &Prog{}
	for _, path := range []string{"/none/true", script, "/none2/true"} {
		p.Call("execute "+path, unix.SYS_EXECVE, path, []string{path}, []string{}).Ignore(unix.ENOENT, unix.EACCES).Attempt()
	}
	p.FailAttempts("execute true")
	child, err := Fork(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Started(t.Context()); err == nil || err.Error() != "execute true: permission denied" {
		t.Errorf("got %v; want the refusal, not the absence", err)
	}
	child.Wait()
}

// Registers, a fork inside a program, and the reaping pid 1 with its signals.
func TestForkStoreAndReap(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	program := &Prog{}
	program.ResetSignals()
	program.Call("dup", unix.SYS_DUP3, int(w.Fd()), 1, 0)
	program.EmptyMask()
	program.Call("exec", unix.SYS_EXECVE, "/bin/sh", []string{"sh", "-c", "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.01; done"}, []string{"PATH=/bin:/usr/bin"})
	first := &Prog{}
	pid := first.Reg()
	first.Fork("clone program", 0, nil, program).Into(pid)
	first.Call("close", unix.SYS_CLOSE, int(w.Fd()))
	first.CloseFrom(3)
	first.Reap(pid)
	child, err := Start(t.Context(), SingleRung(), unix.CLONE_NEWPID, first)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	buf := make([]byte, 6)
	if _, err := r.Read(buf); err != nil || string(buf) != "ready\n" {
		t.Fatalf("read %q, %v", buf, err)
	}
	if err := unix.Kill(child.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ws, err := child.Wait()
	if err != nil || ws.ExitStatus() != 7 {
		t.Errorf("status %v, %v; want 7 from the trap", ws, err)
	}
}

// process-tree.md, pitfall 11: signals that arrive while the process forks run no
// handler in the child.
func TestSignalStorm(t *testing.T) {
	signals := make(chan os.Signal, 100)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGCHLD)
	defer signal.Stop(signals)
	ctx, stop := context.WithCancel(t.Context())
	stormy := make(chan struct{})
	go func() {
		defer close(stormy)
		for ctx.Err() == nil {
			syscall.Kill(os.Getpid(), syscall.SIGUSR1)
		}
	}()
	for i := range 200 {
		p := &Prog{}
		p.EmptyMask()
		p.Exit(3)
		child, err := Start(t.Context(), SingleRung(), 0, p)
		if err != nil {
			t.Fatal(err)
		}
		if ws, err := child.Wait(); err != nil || ws.ExitStatus() != 3 {
			t.Fatalf("start %d: status %#x, %v", i, ws, err)
		}
		child.report.Close()
	}
	stop()
	<-stormy
}

func TestConnClosed(t *testing.T) {
	c, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	var v any
	if _, err := c.Receive(t.Context(), &v); err == nil || err.Error() != "EOF" {
		t.Errorf("got %v; want EOF", err)
	}
	c, theirs, _ = Pair()
	defer theirs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Receive(ctx, &v); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want canceled", err)
	}
}

func TestRungKey(t *testing.T) {
	r := Rung{Name: Mapped, UIDs: []Range{{100000, 65536}}, GIDs: []Range{{100000, 65536}}}
	if got := r.Key(); got != "mapped-100000-65536" {
		t.Error(got)
	}
	if got := SingleRung().Key(); got != "single" {
		t.Error(got)
	}
}

// A program that runs with its owner's rights, and not those of who started it, is
// told by its IDs.
func TestIsLent(t *testing.T) {
	for _, tt := range []struct {
		uid, euid, gid, egid int
		want                 bool
	}{
		{1000, 1000, 1000, 1000, false}, {0, 0, 0, 0, false}, {1000, 1001, 1000, 1000, true}, {1000, 0, 1000, 1000, true}, {1000, 1000, 1000, 50, true},
	} {
		if got := isLent(tt.uid, tt.euid, tt.gid, tt.egid); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
