// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKilled kills clients, monitors and programs with SIGKILL at random moments
// of everything that a container can go through. Whatever died: nobody is left
// who belongs to no running container, ps says what is so, what it calls running
// can be used, and rm -f takes all of it away.
//
// SBX_TEST_KILLS says how many die on each rung, SBX_TEST_SEED which moments.
func TestKilled(t *testing.T) {
	kills := numberFromEnv(t, "SBX_TEST_KILLS", 40)
	seed := numberFromEnv(t, "SBX_TEST_SEED", rand.IntN(1<<30))
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			t.Logf("SBX_TEST_SEED=%d", seed)
			k := newKiller(t, rung, uint64(seed))
			before, err := k.take()
			if err != nil {
				t.Fatal(err)
			}
			k.known = before.processes
			for i := range kills {
				k.round(i)
				if t.Failed() {
					return
				}
			}
			// Who comes next removes what the dead have left half done.
			k.must("run", "--rm", "host", "true")
			if err := waitForOthers(k.known, patience); err != nil {
				t.Fatal(err)
			}
			after, err := k.take()
			if err == nil {
				err = after.compare(before)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func numberFromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q is no number", name, text)
	}
	return n
}

// killer is a home in which things die.
type killer struct {
	*testing.T
	store string
	env   []string
	rand  *rand.Rand
	known map[int]string // processes that were here before
}

func newKiller(t *testing.T, rung string, seed uint64) *killer {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { removeTree(dir) })
	k := &killer{T: t, store: filepath.Join(dir, "store"), rand: rand.New(rand.NewPCG(seed, 0))}
	k.env = append(os.Environ(), "SBX_HOME="+k.store, "SBX_RUNG="+rung, "HOME="+dir, "XDG_RUNTIME_DIR="+dir)
	// What the first run makes once for all is no leak.
	k.must("run", "--rm", "host", "true")
	return k
}

// take is a census of the containers. What else the machine mounts meanwhile is
// not theirs.
func (k *killer) take() (census, error) {
	c, err := take([]string{filepath.Join(k.store, "containers")})
	c.mounts = slices.DeleteFunc(c.mounts, func(m string) bool { return !strings.Contains(m, k.store) })
	return c, err
}

// A death is what is going on when somebody dies, who dies, and what ps may say
// of the container then. A container that ps does not list is one that is "gone".
type death struct {
	name    string
	args    []string // of the command; ID stands for a container that runs
	victim  func(k *killer, client *exec.Cmd) error
	allowed []string
}

var deaths = []death{
	{"client of run", []string{"run", "--name", "bb", "host", "sleep", "1000"}, killClient, []string{"gone", "created", "running"}},
	{"client of run -d", []string{"run", "-d", "--name", "bb", "host", "sleep", "1000"}, killClient, []string{"gone", "created", "running"}},
	{"client of run --rm", []string{"run", "--rm", "--name", "bb", "host", "sleep", "1000"}, killClient, []string{"gone", "created", "exited"}},
	{"client of run --init", []string{"run", "--init", "--name", "bb", "host", "sleep", "1000"}, killClient, []string{"gone", "created", "running"}},
	{"client of create", []string{"create", "--name", "bb", "host", "sleep", "1000"}, killClient, []string{"gone", "created"}},
	{"client of exec", []string{"exec", "ID", "true"}, killClient, []string{"running"}},
	{"client of exec that stays", []string{"exec", "ID", "sleep", "1000"}, killClient, []string{"running"}},
	{"client of stop", []string{"stop", "-t", "0", "ID"}, killClient, []string{"running", "exited"}},
	{"client of kill", []string{"kill", "ID"}, killClient, []string{"running", "exited"}},
	{"client of restart", []string{"restart", "-t", "0", "ID"}, killClient, []string{"running", "exited"}},
	{"client of rename", []string{"rename", "ID", "bb"}, killClient, []string{"running"}},
	{"client of rm -f", []string{"rm", "-f", "ID"}, killClient, []string{"running", "exited", "gone"}},
	{"client of cp", []string{"cp", "/bin/true", "ID:/tmp/x"}, killClient, []string{"running"}},
	{"client of pause", []string{"pause", "ID"}, killClient, []string{"running", "paused"}},
	{"monitor of run", []string{"run", "--name", "bb", "host", "sleep", "1000"}, killMonitor, []string{"gone", "created", "exited"}},
	{"monitor of run -d", []string{"run", "-d", "--name", "bb", "host", "sleep", "1000"}, killMonitor, []string{"gone", "created", "exited"}},
	{"monitor of run --rm", []string{"run", "--rm", "--name", "bb", "host", "sleep", "1000"}, killMonitor, []string{"gone", "created", "exited"}},
	{"monitor under exec", []string{"exec", "ID", "sleep", "1000"}, killMonitor, []string{"exited"}},
	{"monitor under stop", []string{"stop", "ID"}, killMonitor, []string{"exited"}},
	{"monitor under logs -f", []string{"logs", "-f", "ID"}, killMonitor, []string{"exited"}},
	{"monitor under restarts", []string{"run", "-d", "--restart", "always", "--name", "bb", "host", "true"}, killMonitor, []string{"exited", "created"}},
	{"program under exec", []string{"exec", "ID", "sleep", "1000"}, killProgram, []string{"exited"}},
}

// killClient kills the command at a moment of its life.
func killClient(k *killer, client *exec.Cmd) error {
	k.moment()
	return client.Process.Kill()
}

// killMonitor kills whatever monitors there are, at a moment of their lives.
func killMonitor(k *killer, client *exec.Cmd) error {
	deadline := time.Now().Add(patience)
	for {
		monitors, err := k.monitors()
		if err != nil {
			return err
		}
		if len(monitors) > 0 {
			k.moment()
			for _, pid := range monitors {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			return nil
		}
		// It may be over before anyone has looked.
		if time.Now().After(deadline) || unix.Kill(client.Process.Pid, 0) != nil {
			return errors.New("there was no monitor")
		}
	}
}

// killProgram kills the container's own program, from the host.
func killProgram(k *killer, _ *exec.Cmd) error {
	k.moment()
	pid, err := strconv.Atoi(strings.TrimSpace(k.must("inspect", "--format", "{{.State.Pid}}", "aa")))
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SIGKILL)
}

// moment is how long something may go on: for most of them, while the command is
// still at it.
func (k *killer) moment() {
	<-time.After(time.Duration(k.rand.ExpFloat64() * float64(6*time.Millisecond)))
}

// round lets one die, and looks at what is left.
func (k *killer) round(i int) {
	k.Helper()
	d := deaths[k.rand.IntN(len(deaths))]
	k.Logf("round %d: %s", i, d.name)
	subject := "bb"
	args := slices.Clone(d.args)
	if at := slices.Index(args, "ID"); at >= 0 || strings.HasPrefix(args[len(args)-1], "ID:") {
		subject = strings.TrimSpace(k.must("run", "-d", "--name", "aa", "host", "sleep", "1000"))
		for i, a := range args {
			args[i] = strings.Replace(a, "ID", subject, 1)
		}
	}
	ctx, cancel := context.WithTimeout(k.Context(), patience)
	defer cancel()
	client := k.command(ctx, args...)
	if err := client.Start(); err != nil {
		k.Fatal(err)
	}
	if err := d.victim(k, client); err != nil {
		k.Error(err)
	}
	// A client hears by itself that the other side has died.
	_ = client.Wait()
	reapAdopted()
	if ctx.Err() != nil {
		k.Errorf("%s: the client waits for one that is dead", d.name)
	}
	k.look(d, subject)
	if ids := strings.Fields(k.must("ps", "-aq")); len(ids) > 0 {
		k.must(append([]string{"rm", "-f"}, ids...)...)
	}
	if list := k.must("ps", "-aq"); list != "" {
		k.Errorf("%s: still listed after rm -f: %s", d.name, list)
	}
	if err := waitForOthers(k.known, patience); err != nil {
		k.Errorf("%s: after rm -f: %v", d.name, err)
	}
}

// look holds what ps says against what runs. Who lives on may still be at what
// the dead had asked for, so that has to become right, and to stay so.
func (k *killer) look(d death, subject string) {
	k.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := k.compare(d, subject)
		reapAdopted()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			k.Errorf("%s: %v", d.name, err)
			return
		}
	}
}

func (k *killer) compare(d death, subject string) error {
	said := "gone"
	running := map[string]bool{}
	for line := range strings.Lines(k.must("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}")) {
		f := strings.Fields(line)
		if f[0] == subject || f[1] == subject {
			said = f[2]
		}
		if f[2] == "running" {
			running[f[0]] = true
		}
	}
	if !slices.Contains(d.allowed, said) {
		state, _ := k.run("inspect", "--format", "{{json .State}}", subject)
		return fmt.Errorf("ps says %s, want one of %v: %s", said, d.allowed, state)
	}
	for id := range running {
		if out, err := k.run("exec", id, "echo", "usable"); err != nil || out != "usable\n" {
			return fmt.Errorf("what ps calls running cannot be used: %w %s", err, out)
		}
	}
	if len(running) == 0 && said != "paused" {
		if err := waitForOthers(k.known, 100*time.Millisecond); err != nil {
			return fmt.Errorf("nothing runs, and yet: %w", err)
		}
	}
	return nil
}

// reapAdopted reaps whom the dead have left to this process, as pid 1 of a
// machine does: a zombie keeps its pid namespace. None of this process's own
// commands may run meanwhile.
func reapAdopted() {
	for {
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil || pid <= 0 {
			return
		}
	}
}

func (k *killer) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, sbxBinary, args...)
	cmd.Env = k.env
	// A program that outlives its client may hold the client's streams.
	cmd.WaitDelay = patience
	return cmd
}

func (k *killer) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(k.Context(), patience)
	defer cancel()
	out, err := k.command(ctx, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("sbx %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}

func (k *killer) must(args ...string) string {
	k.Helper()
	out, err := k.run(args...)
	if err != nil {
		k.Fatal(err)
	}
	return out
}

// monitors are those that this test has started.
func (k *killer) monitors() ([]int, error) {
	now, err := descendants()
	if err != nil {
		return nil, err
	}
	var pids []int
	for pid, command := range now {
		if _, known := k.known[pid]; !known && strings.HasPrefix(command, "sbx-monitor") {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
