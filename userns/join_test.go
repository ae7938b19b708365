// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// enclave starts a shell as pid 1 of new namespaces and returns its process. The
// shell reads commands from in.
func enclave(t *testing.T, r Rung) (child *Process, in *os.File, out *os.File) {
	t.Helper()
	inR, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &Prog{}
	p.Call("private", unix.SYS_MOUNT, nil, "/", nil, unix.MS_REC|unix.MS_PRIVATE, nil)
	p.Call("proc", unix.SYS_MOUNT, "proc", "/proc", "proc", 0, nil)
	name := []byte("enclave")
	p.Call("name", unix.SYS_SETHOSTNAME, name, len(name))
	p.Call("in", unix.SYS_DUP3, int(inR.Fd()), 0, 0)
	p.Call("out", unix.SYS_DUP3, int(outW.Fd()), 1, 0)
	p.CloseFrom(3)
	p.EmptyMask()
	p.Call("sh", unix.SYS_EXECVE, "/bin/sh", []string{"sh"}, []string{"PATH=/usr/bin:/bin"})
	child, err = Start(t.Context(), r, unix.CLONE_NEWPID|unix.CLONE_NEWNS|unix.CLONE_NEWUTS, p)
	if err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	if err := child.Started(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		child.Kill()
		child.Wait()
	})
	return child, in, out
}

func TestJoin(t *testing.T) {
	for _, r := range rungs(t) {
		t.Run(r.Name, func(t *testing.T) {
			child, _, _ := enclave(t, r)
			fd, err := unix.PidfdOpen(child.PID, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			out, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			program := &Prog{}
			program.Call("out", unix.SYS_DUP3, int(w.Fd()), 1, 0)
			program.CloseFrom(3)
			program.EmptyMask()
			program.Call("sh", unix.SYS_EXECVE, "/bin/sh", []string{"sh", "-c", "id -u; hostname; ls /proc/1/exe >/dev/null && cat /proc/1/comm; exit 9"}, []string{"PATH=/usr/bin:/bin"})
			p := &Prog{}
			pid := p.Reg()
			p.Join(fd, unix.CLONE_NEWUSER|unix.CLONE_NEWPID|unix.CLONE_NEWNS|unix.CLONE_NEWUTS)
			p.Fork("clone program", 0, nil, program).Into(pid)
			p.Call("close", unix.SYS_CLOSE_RANGE, 0, uintptr(^uint32(0)), 0)
			p.Reap(pid)
			middle, err := Fork(p)
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			if err := middle.Started(t.Context()); err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(out)
			ws, err := middle.Wait()
			if err != nil || ws.ExitStatus() != 9 {
				t.Errorf("status %v, %v; want 9", ws.ExitStatus(), err)
			}
			if want := "0\nenclave\nsh\n"; string(got) != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A program in a user namespace that is there already is our child, root there, and
// in pid and mount namespaces of its own; who cannot enter says so by its step.
func TestStartIn(t *testing.T) {
	for _, r := range rungs(t) {
		t.Run(r.Name, func(t *testing.T) {
			other, _, _ := enclave(t, r)
			user, err := os.Open("/proc/" + strconv.Itoa(other.PID) + "/ns/user")
			if err != nil {
				t.Fatal(err)
			}
			defer user.Close()
			high, err := HighFile(user)
			if err != nil {
				t.Fatal(err)
			}
			defer high.Close()
			out, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			p := &Prog{}
			p.Call("out", unix.SYS_DUP3, int(w.Fd()), 1, 0)
			p.CloseFrom(3)
			p.EmptyMask()
			p.Call("sh", unix.SYS_EXECVE, "/bin/sh", []string{"sh", "-c", "id -u; echo $$; readlink /proc/self/ns/user; exit 9"}, []string{"PATH=/usr/bin:/bin"})
			child, err := StartIn(t.Context(), r, int(high.Fd()), unix.CLONE_NEWPID|unix.CLONE_NEWNS, p)
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			if err := child.Started(t.Context()); err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(out)
			if ws, err := child.Wait(); err != nil || ws.ExitStatus() != 9 {
				t.Errorf("status %v, %v; want 9", ws.ExitStatus(), err)
			}
			theirs, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(user.Fd())))
			if want := "0\n1\n" + theirs + "\n"; err != nil || string(got) != want {
				t.Errorf("got %q, want %q: root as pid 1 in there", got, want)
			}
			var step *StepError
			_, err = StartIn(t.Context(), r, int(out.Fd()), unix.CLONE_NEWPID|unix.CLONE_NEWNS, p)
			if !errors.As(err, &step) || step.Step != "enter user namespace" {
				t.Errorf("into a pipe: %v; want the step that failed", err)
			}
		})
	}
}

// process-tree.md, pitfall 9: a process that has joined and not yet executed is
// out of reach for the root of the namespaces, who has all capabilities there.
// A twin that does not hide its memory shows that the look would have seen it.
func TestJoinerIsHidden(t *testing.T) {
	// What the kernel shows as a process's environment is that of its execve. The
	// shell inside has no HOME.
	secret := "HOME=" + os.Getenv("HOME")
	look := func(t *testing.T, hide bool) string {
		child, in, out := enclave(t, SingleRung())
		fd, err := unix.PidfdOpen(child.PID, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		gateR, gateW, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		readyR, readyW, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer readyR.Close()
		waiting := &Prog{}
		waiting.Call("close gate", unix.SYS_CLOSE, int(gateW.Fd()))
		waiting.Call("tell", unix.SYS_WRITE, int(readyW.Fd()), []byte("1"), 1)
		waiting.Call("wait", unix.SYS_READ, int(gateR.Fd()), make([]byte, 1), 1)
		waiting.Exit(0)
		p := &Prog{}
		flags := unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS
		if hide {
			p.Join(fd, flags)
		} else {
			p.Call("enter", unix.SYS_SETNS, fd, flags)
		}
		pid := p.Reg()
		p.Fork("clone", 0, nil, waiting).Into(pid)
		p.Call("close", unix.SYS_CLOSE_RANGE, 0, uintptr(^uint32(0)), 0)
		p.Reap(pid)
		middle, err := Fork(p)
		if err != nil {
			t.Fatal(err)
		}
		gateR.Close()
		readyW.Close()
		// Nobody looks before the joiner is there.
		if _, err := io.ReadFull(readyR, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		in.WriteString("for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ | grep ^HOME=; ls $p/fd | wc -l; done 2>/dev/null; echo end\n")
		var seen strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(seen.String(), "end\n") {
			n, err := out.Read(buf)
			if err != nil {
				break
			}
			seen.Write(buf[:n])
		}
		gateW.Close()
		middle.Wait()
		middle.report.Close()
		return seen.String()
	}
	if strings.Contains(look(t, true), secret) {
		t.Error("a joiner's environment could be read from inside")
	}
	if !strings.Contains(look(t, false), secret) {
		t.Error("the look saw nothing of a joiner that does not hide: it proves nothing")
	}
}
