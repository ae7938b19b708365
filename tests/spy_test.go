// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

const spyCanary = "canary-of-the-client"

// startSpy starts a container that looks into every process in it, with all that may help
// it, and returns when it does.
func startSpy(t *testing.T, p *playground) {
	t.Helper()
	p.sbx("run", "-d", "--name", "spy", "--network", "none", "--cap-add", "SYS_PTRACE", p.image, "probe", "spy", spyCanary)
	p.until("spy", "looking")
}

// until waits for a line of a container's log.
func (p *playground) until(name, line string) {
	p.t.Helper()
	cmd := p.command("logs", "-f", name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	var all strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(all.String(), line); {
		n, err := out.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			p.t.Fatalf("%s did not say %q: %s", name, line, all.String())
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// withCanary has a command's client hold the canary: in its environment, and in a file.
func withCanary(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(path, []byte(spyCanary), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	cmd.Env = append(cmd.Env, "CANARY="+spyCanary)
	cmd.ExtraFiles = []*os.File{f}
	return cmd
}

// TestSpy has a container look into what enters it, while programs are executed there: it
// never sees the client, of which each is a copy until its execve: X01.
func TestSpy(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			p := newPlayground(t, rung)
			startSpy(t, p)
			defer p.sbx("rm", "-f", "spy")
			for i := range raceTries() {
				args := []string{"exec", "spy", "probe", "true"}
				if i%2 == 1 {
					args = []string{"exec", "-d", "spy", "probe", "true"}
				}
				if out, err := withCanary(t, p.command(args...)).CombinedOutput(); err != nil {
					t.Fatalf("exec %d: %v %.500s", i, err, out)
				}
				reapAdopted() // who is left by `exec -d` counts as long as nobody has
			}
			p.sbx("stop", "spy")
			said := p.sbx("logs", "spy")
			if strings.Contains(said, "hit") {
				t.Errorf("it saw what enters it: %.2000s", said)
			}
			numbers := regexp.MustCompile(`seen (\d+) looks (\d+)`).FindStringSubmatch(said)
			if numbers == nil {
				t.Fatalf("it did not say how much it saw: %.2000s", said)
			}
			t.Logf("%d programs were executed; it saw %s processes, by %s looks", raceTries(), numbers[1], numbers[2])
			if n, _ := strconv.Atoi(numbers[1]); n < raceTries()/4 {
				t.Errorf("it saw hardly any of them: %s", numbers[1])
			}
		})
	}
}

// TestSpySeen has it see a process that enters with its memory in sight.
func TestSpySeen(t *testing.T) {
	needRung(t, "single")
	p := newPlayground(t, "single")
	startSpy(t, p)
	defer p.sbx("rm", "-f", "spy")
	pid := strings.TrimSpace(p.sbx("inspect", "--format", "{{.State.Pid}}", "spy"))
	cmd := exec.CommandContext(t.Context(), "intrude", pid)
	cmd.Env = os.Environ()
	withCanary(t, cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"hit: environment", "hit: file", "hit: traced"} {
		p.until("spy", what)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// intrudeMain is the command `intrude PID`: it enters the namespaces of a process as one
// must not, with all that it has open and in memory, and stays until its input ends.
func intrudeMain() {
	if err := intrude(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "intrude:", err)
		os.Exit(1)
	}
}

func intrude(pid string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(n, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	inside := &userns.Prog{}
	inside.Call("wait", unix.SYS_READ, 0, make([]byte, 1), 1)
	inside.Exit(0)
	p := &userns.Prog{}
	child := p.Reg()
	p.Call("enter namespaces", unix.SYS_SETNS, fd, unix.CLONE_NEWUSER|unix.CLONE_NEWPID)
	p.Fork("clone program", 0, nil, inside).Into(child)
	p.Reap(child)
	process, err := userns.Fork(p)
	if err != nil {
		return err
	}
	if err := process.Started(context.Background()); err != nil {
		return err
	}
	_, err = process.Wait()
	return err
}
