// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/userns"
)

// A world is a container without the rest of sbx: a root filesystem with a
// writable directory that stays between runs.
type world struct {
	t     testing.TB
	dir   string
	lower string
	mode  Mode

	layerOwners overlay.Owners
	tableDir    string      // the layer that layerOwners is of; lower when empty
	binds       [][2]string // host directory, place inside
	own         []string
	user        Credentials
	features    Features
	noNewPrivs  bool
	hostNetwork bool
	softLocks   uint64 // RLIMIT_LOCKS of the program at its start, 0: as it is
	keepCaps    uint64 // 0: all
}

// newWorld makes a world over an image.
func newWorld(t testing.TB, image string) *world {
	t.Helper()
	lower, owners := tree(t, image)
	dir, err := os.MkdirTemp("", "fakeroot-world-")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		parent, err := os.Open(filepath.Dir(dir))
		if err == nil {
			overlay.RemoveAll(context.Background(), parent, filepath.Base(dir))
			parent.Close()
		}
	})
	return &world{t: t, dir: dir, lower: lower, mode: Notify, layerOwners: owners, features: probeOnce()}
}

var probeOnce = sync.OnceValue(Probe)

func (w *world) ownersFile() string { return filepath.Join(w.dir, "owners.json") }

// container is a running one.
type container struct {
	w       *world
	conn    *userns.Conn
	process *userns.Process
	out     *os.File
	pidfd   *os.File
}

// start starts a program in the world; its output comes from out.
func (w *world) start(argv ...string) *container {
	w.t.Helper()
	ctx := w.t.Context()
	conn, control, err := userns.Pair()
	w.must(err)
	theirs, channel, err := userns.Pair()
	w.must(err)
	outR, outW, err := os.Pipe()
	w.must(err)
	var held []*os.File
	high := func(f *os.File) int {
		h, err := userns.HighFile(f)
		w.must(err)
		held = append(held, h)
		return int(h.Fd())
	}
	null, err := os.Open(os.DevNull)
	w.must(err)
	saved, err := overlay.ReadOwners(w.ownersFile())
	w.must(err)
	w.must(conn.Send(monitorStart{
		Options: Options{Upper: filepath.Join(w.dir, "upper"), Own: w.own, NoNewPrivileges: w.noNewPrivs},
		Owners:  saved, Layers: w.layerOwners, Lower: cmp.Or(w.tableDir, w.lower),
		User: w.user, Mode: w.mode, Features: w.features, Save: w.ownersFile(),
	}))
	b := w.program(high(null), high(outW), high(channel), argv)
	a := &userns.Prog{}
	pidfd := new(int32)
	pid := a.Reg()
	a.Fork("clone container", unix.CLONE_NEWPID|unix.CLONE_PIDFD, pidfd, b)
	a.Load(pid, pidfd)
	a.Call("chdir", unix.SYS_CHDIR, "/")
	a.ResetSignals()
	a.Execve("testmonitor", "", []string{}, high(control), high(theirs.File()), pid)
	process, err := userns.Start(ctx, userns.SingleRung(), unix.CLONE_NEWPID|unix.CLONE_NEWNS, a)
	w.must(err)
	for _, f := range append(held, control, channel, outW, null) {
		f.Close()
	}
	theirs.Close()
	c := &container{w: w, conn: conn, process: process, out: outR}
	if err := process.Started(ctx); err != nil {
		process.Kill()
		process.Wait()
		w.t.Fatal(err)
	}
	return c
}

// wait reads the rest of the output, waits for the end and returns both.
func (c *container) wait() (string, monitorEnd) {
	c.w.t.Helper()
	out, err := io.ReadAll(c.out)
	c.w.must(err)
	c.out.Close()
	var end monitorEnd
	if _, err := c.conn.Receive(c.w.t.Context(), &end); err != nil {
		c.process.Wait()
		c.w.t.Fatalf("the monitor said nothing: %v; output: %s", err, out)
	}
	c.process.Wait()
	c.conn.Close()
	if end.RSS > 32<<10 && !raceEnabled {
		c.w.t.Errorf("the monitor took %d MiB", end.RSS>>10)
	}
	for _, e := range end.Errors {
		c.w.t.Error("monitor: " + e)
	}
	return strings.TrimSuffix(string(out), "\n"), end
}

// run runs a program to its end.
func (w *world) run(argv ...string) (string, int) {
	w.t.Helper()
	out, end := w.start(argv...).wait()
	return out, end.Status
}

// sh runs a script that must succeed and returns its output.
func (w *world) sh(script string) string {
	w.t.Helper()
	out, status := w.run("/bin/sh", "-ec", script)
	if status != 0 {
		w.t.Errorf("status %d of\n%s\noutput:\n%s", status, script, out)
	}
	return out
}

// probe runs the probe, which must succeed.
func (w *world) probe(args ...string) string {
	w.t.Helper()
	out, status := w.run(append([]string{"/probe"}, args...)...)
	if status != 0 {
		w.t.Errorf("probe %s: status %d\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// readUntil reads the container's output up to a line.
func (c *container) readUntil(line string) {
	c.w.t.Helper()
	var seen bytes.Buffer
	buf := make([]byte, 1)
	for !strings.HasSuffix(seen.String(), line+"\n") {
		if _, err := c.out.Read(buf); err != nil {
			c.w.t.Fatalf("output ended before %q: %s", line, seen.String())
		}
		seen.Write(buf)
	}
}
