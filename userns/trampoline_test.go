// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// ownFileVariable makes the test binary end with ownFileStatus, by which a test sees
// that it was executed.
const (
	ownFileVariable = "SBX_USERNS_OWN_FILE"
	ownFileStatus   = 42
)

// execute runs a program that executes path, after Leave or not, and returns how that
// began and ended.
func execute(t *testing.T, leave bool, path string) (unix.WaitStatus, error) {
	t.Helper()
	p := &Prog{}
	p.CloseFrom(3)
	p.EmptyMask()
	if leave {
		p.Leave(0)
	}
	for _, name := range []string{"/no/such/directory/x", path} {
		p.Call("execute", unix.SYS_FACCESSAT, unix.AT_FDCWD, name, unix.F_OK).Ignore(unix.ENOENT, unix.EACCES, unix.ENOTDIR).Attempt().SkipOnIgnored(1)
		p.Call("execute", unix.SYS_EXECVE, name, []string{name, "-c", "exit $SEVEN"}, []string{ownFileVariable + "=1", "SEVEN=7"}).
			Ignore(unix.ENOENT, unix.EACCES, unix.ENOTDIR).Attempt()
	}
	p.FailAttempts("give up")
	child, err := Fork(p)
	if err != nil {
		t.Fatal(err)
	}
	err = child.Started(t.Context())
	ws, waitErr := child.Wait()
	if waitErr != nil {
		t.Fatal(waitErr)
	}
	return ws, err
}

// TestLeave executes what has /proc/self/exe as its interpreter: the naive program
// executes this binary by that, and one that has left it does not.
func TestLeave(t *testing.T) {
	if err := TryLeave(t.Context()); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if ws, err := execute(t, false, script); err != nil || ws.ExitStatus() != ownFileStatus {
		t.Fatalf("the naive program: %v, status %d: this test would see nothing", err, ws.ExitStatus())
	}
	if ws, err := execute(t, true, script); err != nil || ws.ExitStatus() != 1 {
		t.Errorf("%v, status %d", err, ws.ExitStatus())
	}
}

// TestLeaveReports holds the machine code to what the loop in Go does: the same
// program ends alike, and reports alike.
func TestLeaveReports(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"shut": 0o644, "text": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("no program"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path   string
		step   string // that fails, or none
		errno  unix.Errno
		status int
	}{
		{"/bin/sh", "", 0, 7},
		{"/no/such/file", "give up", unix.ENOENT, 1},
		{"/bin/sh/below", "give up", unix.ENOTDIR, 1},
		{filepath.Join(dir, "shut"), "give up", unix.EACCES, 1},
		{filepath.Join(dir, "text"), "execute", unix.ENOEXEC, 1},
	} {
		for _, leave := range []bool{false, true} {
			ws, err := execute(t, leave, c.path)
			var failed *StepError
			if errors.As(err, &failed) != (c.step != "") || failed != nil && (failed.Step != c.step || failed.Errno != c.errno) || ws.ExitStatus() != c.status {
				t.Errorf("%s, leaving %v: %v, status %d", c.path, leave, err, ws.ExitStatus())
			}
		}
	}
}

// TestLeaveAwaits has what comes after Leave wait on a descriptor that is kept, and
// report its end of file.
func TestLeaveAwaits(t *testing.T) {
	for _, message := range []string{"go on", ""} {
		ours, theirs, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		high, err := HighFile(theirs)
		theirs.Close()
		if err != nil {
			t.Fatal(err)
		}
		p := &Prog{}
		p.CloseFrom(3)
		p.Call("close", unix.SYS_CLOSE, ours.File().Fd())
		p.Leave(0, int(high.Fd()))
		p.Call("wait", unix.SYS_RECVFROM, high.Fd(), nil, 0, unix.MSG_TRUNC, nil, nil).NonZero()
		p.Call("exit", unix.SYS_EXIT_GROUP, 7)
		child, err := Fork(p)
		high.Close()
		if err != nil {
			t.Fatal(err)
		}
		if message != "" {
			err = ours.Send(message)
		}
		ours.Close()
		want, status := error(nil), 7
		if message == "" {
			want, status = unix.EPIPE, 1
		}
		if started := child.Started(context.Background()); err != nil || !errors.Is(started, want) {
			t.Errorf("message %q: %v, %v", message, err, started)
		}
		if ws, err := child.Wait(); err != nil || ws.ExitStatus() != status {
			t.Errorf("message %q: status %d, %v", message, ws.ExitStatus(), err)
		}
	}
}

// TestLeaveRefuses are programs of which the trampoline can do nothing.
func TestLeaveRefuses(t *testing.T) {
	for name, add := range map[string]func(p *Prog){
		"twice":    func(p *Prog) { p.Leave(0) },
		"fork":     func(p *Prog) { p.Fork("fork", 0, nil, &Prog{}) },
		"register": func(p *Prog) { p.Call("close", unix.SYS_CLOSE, p.Reg()) },
		"result":   func(p *Prog) { p.Call("getpid", unix.SYS_GETPID).Into(p.Reg()) },
		"ignored":  func(p *Prog) { p.Call("close", unix.SYS_CLOSE, 99).Ignore(unix.EBADF) },
	} {
		p := &Prog{}
		p.Leave(0)
		add(p)
		if child, err := Fork(p); err == nil {
			child.Kill()
			_, _ = child.Wait()
			t.Errorf("%s: it is taken", name)
		}
	}
}

// TestMemoryProgram has a file in memory be what it is whatever is done to it.
func TestMemoryProgram(t *testing.T) {
	f, err := memoryProgram([]byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("written: %v", err)
	}
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncated: %v", err)
	}
	if err := f.Truncate(100); !errors.Is(err, unix.EPERM) {
		t.Errorf("grown: %v", err)
	}
}
