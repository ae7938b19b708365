// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"sbx/userns"
)

// childEnv carries what a test wants another process to do.
const childEnv = "SBX_STORE_CHILD"

// errand is one operation on a store in a process of its own.
type errand struct {
	Op    string
	Dir   string
	Rung  userns.Rung
	DieAt int64  // kill -9 at this point; 0: never
	Log   string // a line for each point is appended
	Sizes []int  // for Op "full"
}

// start prepares a process for an errand.
func (e errand) command(t testing.TB) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestErrand$", "-test.timeout=2m")
	c.Env = append(os.Environ(), childEnv+"="+string(mustJSON(t, e)))
	return c
}

// run does an errand and reports whether it came to its end; killed is fine with dying.
func (e errand) run(t testing.TB) (killed bool) {
	t.Helper()
	out, err := e.command(t).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("%+v: %v\n%s", e, err, out)
	}
	return false
}

// TestErrand is the other process of other tests, and nothing when called by itself.
func TestErrand(t *testing.T) {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	switch e.Op {
	case "full":
		fillDisks(t, e)
		return
	case "tarball":
		importTarball(t, e)
		return
	case "warm":
		warmRunHere(t, e)
		return
	}
	s, err := Open(e.Dir, e.Rung)
	if err != nil {
		t.Fatal(err)
	}
	var log *os.File
	if e.Log != "" {
		if log, err = os.OpenFile(e.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var count atomic.Int64
	point := func(what string) {
		if log != nil {
			fmt.Fprintln(log, what)
		}
		if count.Add(1) == e.DieAt {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	s.step = point
	if err := s.perform(t, e.Op, point); err != nil {
		t.Fatal(err)
	}
}

// perform does one of the operations that are killed.
func (s *Store) perform(t testing.TB, op string, point func(string)) error {
	ctx := context.Background()
	src := errandSource(t, point)
	switch op {
	case "pull":
		_, err := s.Pull(ctx, alpine, src, PullOptions{Progress: func(Event) { point("event") }})
		return err
	case "import":
		r := &pointReader{bytes.NewReader(randomTar(t, 100<<10)), point}
		_, err := s.Import(ctx, "/x.tar", Rootfs{Reader: r}, PullOptions{Progress: func(Event) { point("event") }})
		return err
	case "unpack":
		img, err := s.Image(alpine)
		if err == nil {
			_, err = s.LayerDirs(ctx, img)
		}
		return err
	case "remove":
		img, err := s.Image(alpine)
		if err == nil {
			_, err = s.Remove(ctx, img.ID, Roots{})
		}
		return err
	case "untag":
		_, err := s.Untag(ctx, alpine)
		return err
	case "collect":
		return s.Collect(ctx, Roots{})
	}
	return fmt.Errorf("unknown errand %q", op)
}

// errandSource is the same image in every process; reading it is slow and full of points.
func errandSource(t testing.TB, point func(string)) *fakeSource {
	first := tarOf(t, file{name: "etc/", mode: 0o700, gid: 5}, file{name: "gone", data: "x"}, file{name: "etc/passwd", data: "root", uid: 7})
	src := source(t, first, randomTar(t, 100<<10), second(t))
	src.body = func(d ocispec.Descriptor, offset int64, r io.Reader) io.Reader {
		point(fmt.Sprintf("fetch %s %d", d.Digest.Encoded()[:8], offset))
		return &pointReader{r, point}
	}
	return src
}

// pointReader reads a little at a time.
type pointReader struct {
	r     io.Reader
	point func(string)
}

func (p *pointReader) Read(b []byte) (int, error) {
	p.point("read")
	return p.r.Read(b[:min(len(b), 20<<10)])
}

// kill -9 at every point of every operation that changes the store: what is left is a
// store in order, the same operation can be done again, and nothing stays for ever (G20).
func TestKill(t *testing.T) {
	for _, r := range rungs(t) {
		for op, prepared := range map[string]bool{"pull": false, "import": false, "unpack": true, "remove": true, "untag": true, "collect": true} {
			t.Run(r.Name+"/"+op, func(t *testing.T) {
				points := int64(0)
				for killed := true; killed; points++ {
					killed = killAt(t, r, op, prepared, points+1)
				}
				t.Logf("%d points", points-1)
			})
		}
	}
}

// quickDir is in memory if there is such a place: what kill -9 leaves does not depend on
// the disk, and syncing it hundreds of times takes its time.
func quickDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sbx-store-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func killAt(t *testing.T, r userns.Rung, op string, prepared bool, point int64) bool {
	t.Helper()
	s := openStore(t, quickDir(t)+"/store", r)
	quiet := func(string) {}
	if prepared {
		img := mustPull(t, s, alpine, errandSource(t, quiet))
		mustPull(t, s, "localhost/other:1", source(t, second(t)))
		switch op {
		case "unpack":
			for _, id := range img.Layers {
				if err := s.dropLayer(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
		case "collect":
			if err := s.change(t.Context(), func(es []entry) []entry { return es[1:] }, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	killed := errand{Op: op, Dir: s.dir, Rung: r, DieAt: point}.run(t)
	if err := s.Check(t.Context()); err != nil {
		t.Fatalf("killed at point %d: %v", point, err)
	}
	err := s.perform(t, op, quiet)
	if (op == "remove" || op == "untag") && errors.Is(err, ErrNotFound) {
		err = nil // it was done but for the goodbye
	}
	if err != nil {
		t.Fatalf("again after point %d: %v", point, err)
	}
	mustCheck(t, s)
	if err := s.Collect(t.Context(), Roots{}); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
	if names, _ := os.ReadDir(s.path(tmpDir)); len(names) > 0 {
		t.Fatalf("killed at point %d: %v is left in tmp", point, names)
	}
	if prepared {
		if _, err := s.Image("localhost/other:1"); err != nil {
			t.Fatalf("killed at point %d: %v", point, err)
		}
	}
	return killed
}

// 16 processes want one image: each blob is fetched and each layer unpacked once (G41).
func TestConcurrentPulls(t *testing.T) {
	const processes = 16
	for _, r := range rungs(t) {
		t.Run(r.Name, func(t *testing.T) {
			s := newStore(t, r)
			log := t.TempDir() + "/log"
			var commands []*exec.Cmd
			for range processes {
				c := errand{Op: "pull", Dir: s.dir, Rung: r, Log: log}.command(t)
				var out bytes.Buffer
				c.Stdout, c.Stderr = &out, &out
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				commands = append(commands, c)
			}
			for _, c := range commands {
				if err := c.Wait(); err != nil {
					t.Errorf("%v\n%s", err, c.Stdout)
				}
			}
			mustCheck(t, s)
			if err := s.heal(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if names, _ := os.ReadDir(s.path(tmpDir)); len(names) > 0 {
				t.Errorf("left %v", names)
			}
			data, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			counts := make(map[string]int)
			for line := range strings.Lines(string(data)) {
				counts[strings.TrimSpace(line)]++
			}
			src := errandSource(t, func(string) {})
			for _, d := range append(src.layers, src.config) {
				if n := counts["fetch "+d.Digest.Encoded()[:8]+" 0"]; n != 1 {
					t.Errorf("blob %s was fetched %d times", d.Digest, n)
				}
			}
			if counts["unpack layer"] != 3 || counts["rename layer"] != 3 {
				t.Errorf("%d layers were unpacked, %d renamed; want 3", counts["unpack layer"], counts["rename layer"])
			}
		})
	}
}

// A store on disks and with inodes of many sizes: every pull, import and unpack either
// succeeds or says that space is missing, leaves nothing behind, and the full disk can be
// emptied (G23).
func TestFullDisk(t *testing.T) {
	needUserns(t)
	var sizes []int
	for n := 100; n < 2000; n += 60 {
		sizes = append(sizes, n)
	}
	c := errand{Op: "full", Dir: t.TempDir(), Sizes: sizes}.command(t)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		GidMappingsEnableSetgroups: false,
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// fillDisks is root of its own user namespace, and may mount.
func fillDisks(t *testing.T, e errand) {
	failures, successes := 0, 0
	try := func(name, options string) {
		dir := e.Dir + "/" + name
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,"+options); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		if tryDisk(t, name, dir) {
			successes++
		} else {
			failures++
		}
	}
	for _, n := range e.Sizes {
		try(fmt.Sprintf("%dk", n), fmt.Sprintf("size=%dk", n))
	}
	for n := 6; n < 70; n += 3 {
		try(fmt.Sprintf("%di", n), fmt.Sprintf("size=16m,nr_inodes=%d", n))
	}
	fmt.Printf("%d operations ran out of space, %d disks sufficed\n", failures, successes)
	if failures < 20 || successes < 3 {
		t.Errorf("%d failures, %d successes: the sizes are not well chosen", failures, successes)
	}
}

func tryDisk(t *testing.T, name, dir string) (sufficed bool) {
	checkSpaceError := func(err error) {
		t.Helper()
		var space *SpaceError
		if err != nil && strings.Contains(err.Error(), "the filesystem cannot keep") {
			return // tmpfs counts attributes as inodes, and overlay looks at blocks only
		}
		if !errors.As(err, &space) || hintOf(err) == "" || space.Free < 0 {
			t.Errorf("%s: error %v", name, err)
		}
	}
	r := userns.SingleRung()
	s, err := Open(dir+"/store", r)
	if err != nil {
		checkSpaceError(err)
		return false
	}
	left := func() {
		t.Helper()
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		names, _ := os.ReadDir(s.path(tmpDir))
		for _, n := range names {
			t.Errorf("%s: tmp/%s is left", name, n.Name())
		}
	}
	for _, op := range []string{"pull", "import"} {
		err = s.perform(t, op, func(string) {})
		left()
		if err != nil {
			checkSpaceError(err)
			break
		}
	}
	// To the brim: what is there can be removed.
	f, ferr := os.Create(dir + "/filler")
	if ferr == nil {
		_, ferr = io.Copy(f, io.LimitReader(zeros{}, 1<<30))
		f.Close()
	}
	images, lerr := s.Images()
	if lerr != nil {
		t.Errorf("%s: %v", name, lerr)
	}
	for _, img := range images {
		if _, rerr := s.Remove(t.Context(), img.ID, Roots{}); rerr != nil && errors.Is(ferr, unix.ENOSPC) {
			t.Errorf("%s: remove on a full disk: %v", name, rerr)
		}
		left()
	}
	if rest := contents(t, s); len(images) > 0 && len(rest) > 0 {
		t.Errorf("%s: %q is left", name, rest)
	}
	return err == nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
