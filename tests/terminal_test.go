// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// typedByProgram is what programs in containers try to type where somebody else sits.
const typedByProgram = "typed-by-a-program"

// atTerminal runs a command in a terminal that is the controlling one, and returns what
// the terminal showed and what is left to be read from it: what a shell would be given.
func atTerminal(t *testing.T, cmd *exec.Cmd, steps ...string) (shown, left string) {
	t.Helper()
	master, slave, err := openTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := watch(master)
	for _, step := range steps {
		if err := s.do(step, cmd.Process.Pid); err != nil {
			_ = cmd.Process.Kill()
			t.Errorf("%s: %v: %s", step, err, s.text())
		}
	}
	_ = cmd.Wait()
	left = unread(t, slave)
	slave.Close()
	s.drain()
	return s.text(), left
}

// unread is what a terminal's next reader would get.
func unread(t *testing.T, slave *os.File) string {
	t.Helper()
	var got []byte
	err := control(slave, func(fd int) error {
		term, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		term.Lflag &^= unix.ICANON
		term.Cc[unix.VMIN], term.Cc[unix.VTIME] = 0, 0
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, term); err != nil {
			return err
		}
		for buf := make([]byte, 1024); ; {
			n, err := unix.Read(fd, buf)
			if n <= 0 {
				return err
			}
			got = append(got, buf[:n]...)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// TestTypes has programs try to type into the terminal that their caller sits at, by
// everything that they have open, in each way to get a terminal or none: X06.
func TestTypes(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			p := newPlayground(t, rung)
			tries := 0
			for _, flags := range [][]string{nil, {"-i"}, {"-t"}, {"-i", "-t"}} {
				p.sbx(append(append([]string{"create", "--name", "one", "--network", "none"}, flags...), p.image, "probe", "types", typedByProgram)...)
				p.sbx("run", "-d", "--name", "two", "--network", "none", p.image, "probe", "sleep")
				for what, args := range map[string][]string{
					"run":            append(append([]string{"run", "--rm", "--network", "none"}, flags...), p.image, "probe", "types", typedByProgram),
					"run unconfined": append(append([]string{"run", "--rm", "--network", "none", "--security-opt", "seccomp=unconfined", "--cap-add", "SYS_ADMIN"}, flags...), p.image, "probe", "types", typedByProgram),
					"exec":           append(append([]string{"exec"}, flags...), "two", "probe", "types", typedByProgram),
					"attach":         {"start", "-a", "one"},
				} {
					shown, left := atTerminal(t, p.command(args...))
					tries++
					if !strings.Contains(shown, "tried") {
						t.Errorf("%s %v: it did not run: %s", what, flags, shown)
					}
					if left != "" {
						t.Errorf("%s %v: typed %q", what, flags, left)
					}
					// Without a filter it may type into its own terminal, which echoes that.
					if what != "run unconfined" && (strings.Contains(shown, ": done") || strings.Contains(shown, typedByProgram)) {
						t.Errorf("%s %v: a call was not refused: %s", what, flags, shown)
					}
				}
				p.sbx("rm", "-f", "one", "two")
			}
			t.Logf("%d programs tried, and typed nothing", tries)
		})
	}
}

// TestTypesSeen has the terminal tell what a program types that is given it.
func TestTypesSeen(t *testing.T) {
	if value, err := os.ReadFile("/proc/sys/dev/tty/legacy_tiocsti"); err == nil && strings.TrimSpace(string(value)) == "0" {
		t.Log("this kernel lets nobody do it")
		return
	}
	shown, left := atTerminal(t, exec.CommandContext(t.Context(), probeBinary, "types", typedByProgram))
	if !strings.Contains(left, typedByProgram) || !strings.Contains(shown, ": done") {
		t.Errorf("typed %q, shown %q", left, shown)
	}
}

// hostileText is what a terminal obeys: its title, its colours, a question that it
// answers, and the way back over what was written.
const hostileText = "\x1b]0;obeyed\x07\x1b[31mobeyed\x1b[6n\x9b31mobeyed\robeyed\x08\x7f"

// TestControlCharacters has everything that an image can say be shown in a terminal by
// the commands that show it. None of it is what the terminal obeys: R06.
func TestControlCharacters(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			p := newPlayground(t, rung)
			context := filepath.Join(p.dir, "context")
			p.sbx("tag", p.image, "img")
			lines := []string{"FROM img", "LABEL " + quoted("l"+hostileText) + "=" + quoted(hostileText), "ENV A=" + quoted(hostileText), "CMD [\"probe\", \"sleep\"]"}
			if err := os.Mkdir(context, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(context, "Dockerfile"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			build := p.command("build", "-q", "-t", "hostile", context)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			p.sbx("run", "-d", "--name", "one", "--label", hostileText+"="+hostileText, "hostile", "probe", "all", "mkdir", "/"+hostileText, "+", "sleep")
			defer p.sbx("rm", "-f", "one")
			shown := 0
			for _, args := range [][]string{
				{"ps", "-a", "--no-trunc"}, {"ps", "--format", "table {{.Labels}} {{.Command}}"}, {"top", "one"}, {"diff", "one"},
				{"history", "--no-trunc", "hostile"}, {"images"}, {"inspect", "one"}, {"image", "inspect", "hostile"},
				{"run", "--rm", "hostile", "/" + hostileText}, {"exec", "one", hostileText}, {"exec", "-w", "/" + hostileText + "x", "one", "true"},
				{"pull", hostileText}, {"run", "--rm", "-u", hostileText, "img"}, {"cp", "one:/" + hostileText + "x", p.dir}, {"rm", hostileText},
				{"build", "--progress", "plain", "--no-cache", context}, {"build", "--no-cache", context},
				{"events", "--since", "1h", "--until", "0s"},
			} {
				out, _ := atTerminal(t, p.command(args...))
				if strings.Contains(out, "obeyed") {
					shown++
				}
				if found := obeyed(out); found != "" {
					t.Errorf("sbx %.60q shows %q: %q", args, found, out)
				}
			}
			t.Logf("%d commands showed it, and none as it is", shown)
			if shown < 10 {
				t.Errorf("only %d commands showed anything of it", shown)
			}
		})
	}
}

// obeyed is what of the hostile text a terminal would obey, or empty.
func obeyed(shown string) string {
	for _, part := range []string{"\x1b]0;", "\x1b[31m", "\x1b[6n", "\x9b31m", "obeyed\robeyed", "obeyed\x08", "\x7f", "\x07"} {
		if bytes.Contains([]byte(shown), []byte(part)) {
			return part
		}
	}
	return ""
}

// quoted is a word of a Dockerfile.
func quoted(text string) string { return fmt.Sprintf("\"%s\"", text) }

// TestControlCharactersSeen has the look find what a terminal obeys.
func TestControlCharactersSeen(t *testing.T) {
	shown, _ := atTerminal(t, exec.CommandContext(t.Context(), probeBinary, "echo", hostileText))
	if obeyed(shown) == "" {
		t.Errorf("nothing was seen in %q", shown)
	}
}
