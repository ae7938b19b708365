// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbx/tests/need"
)

// Everything that needs no program but ours, run inside of a container.
func TestProbes(t *testing.T) {
	user := User(1000, 1001, nil)
	for _, p := range []struct {
		name string
		user Credentials
	}{
		{"owners", Credentials{}}, {"modes", Credentials{}}, {"users", Credentials{}}, {"inherit", Credentials{}},
		{"create", user}, {"devices", Credentials{}}, {"limits", Credentials{}}, {"paths", Credentials{}}, {"peer", Credentials{}},
		{"roots", Credentials{}}, {"xattrs", Credentials{}}, {"storm", user}, {"forks", user},
	} {
		t.Run(p.name, func(t *testing.T) {
			w := newWorld(t, "")
			w.user = p.user
			w.probe(p.name)
			checkDisk(t, w)
		})
	}
}

// checkDisk looks at the writable directory from outside: nothing in it may let
// another user of the machine be us, or keep us from removing it.
func checkDisk(t *testing.T, w *world) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(w.dir, "upper"), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		switch {
		case int(st.Uid) != os.Getuid():
			t.Errorf("%s belongs to %d", name, st.Uid)
		case st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0:
			t.Errorf("%s has mode %o", name, st.Mode)
		case d.IsDir() && st.Mode&0o700 != 0o700:
			t.Errorf("%s is shut: %o", name, st.Mode)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestUser(t *testing.T) {
	w := newWorld(t, "")
	for _, c := range []struct {
		user Credentials
		soft uint64
		want string
	}{
		{Credentials{}, 0, "0 0 0 0 0 0 []"},
		{Credentials{}, 3, "0 0 0 0 0 0 []"}, // a limit that looks like a number of ours
		{User(1000, 1001, []uint32{7, 5}), 0, "1000 1000 1000 1001 1001 1001 [5 7]"},
		{User(0, 0, []uint32{0, 1}), 2, "0 0 0 0 0 0 [0 1]"},
		{User(2147483647, 65534, nil), 0, "2147483647 2147483647 2147483647 65534 65534 65534 []"},
	} {
		w.user, w.softLocks = c.user, c.soft
		if got := w.probe("id"); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestSuid(t *testing.T) {
	w := newWorld(t, "")
	w.probe("mksuid")
	w.user = User(1000, 1001, nil)
	w.probe("suid")
	w.noNewPrivs = true
	if got, want := w.probe("suid", "one"), "1000 1000 1000 1001"; got != want {
		t.Errorf("with no new privileges: got %s, want %s", got, want)
	}
}

// What a container remembers is there when it starts again, also of files that
// carry no record and were moved; and a bind mount is the user's own all the time.
func TestRestartAndBinds(t *testing.T) {
	w := newWorld(t, "")
	host := t.TempDir()
	w.binds = [][2]string{{host, "/mnt"}}
	if err := os.WriteFile(filepath.Join(host, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.probe("restart", "write")
	w.probe("restart", "check")
	w.probe("restart", "check")
	checkDisk(t, w)
	for _, name := range []string{"f", "made", "l"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(host, name), &st); err != nil || int(st.Uid) != os.Getuid() || st.Mode&unix.S_ISUID != 0 {
			t.Errorf("%s on the host: owner %d, mode %o, %v", name, st.Uid, st.Mode, err)
		}
		buf := make([]byte, 1000)
		if n, _ := unix.Llistxattr(filepath.Join(host, name), buf); n > 0 {
			t.Errorf("%s on the host has attributes %q", name, buf[:n])
		}
	}
}

// process-tree.md, pitfall 3: a listener whose processes are gone must not keep a
// thread busy, nor a thread or a descriptor at all.
func TestFinishedListeners(t *testing.T) {
	w := newWorld(t, "")
	c := w.start("/probe", "sleep")
	c.readUntil("ready")
	c.exec(Credentials{}, "/probe", "true")
	before := c.figures()
	for range 50 {
		if status := c.exec(User(5, 5, nil), "/probe", "true"); status != 0 {
			t.Fatal("status", status)
		}
	}
	deadline := time.Now().Add(time.Minute)
	after := c.figures()
	for (after.Threads > before.Threads || after.Files > before.Files) && time.Now().Before(deadline) {
		after = c.figures()
	}
	if after.Threads > before.Threads || after.Files > before.Files || after.CPU-before.CPU > time.Second {
		t.Errorf("before 50 programs %+v, after %+v", before, after)
	}
	c.process.Kill()
	c.process.Wait()
}

func TestHostile(t *testing.T) {
	for seed := range 3 {
		w := newWorld(t, "")
		out, status := w.run("/probe", "hostile", string(rune('1'+seed)), "20000")
		if status != 0 {
			t.Errorf("seed %d: status %d: %s", seed, status, out)
		}
	}
}

// process-tree.md, pitfall 17: descriptors that are handed over while signals rain
// on the supervisor, beside a program that takes all of the CPU.
func TestHandOverUnderSignals(t *testing.T) {
	w := newWorld(t, "")
	w.user = User(1000, 1001, nil)
	c := w.start("/probe", "race")
	stop := make(chan struct{})
	var storm sync.WaitGroup
	storm.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Kill(c.process.PID, unix.SIGURG)
				unix.Kill(c.process.PID, unix.SIGCHLD)
			}
		}
	})
	out, end := c.wait()
	close(stop)
	storm.Wait()
	if end.Status != 0 {
		t.Errorf("status %d: %s", end.Status, out)
	}
}

// A filesystem that does not answer hangs who asks it, and nobody else.
func TestSlowFilesystem(t *testing.T) {
	need.Need(t, need.Fuse)
	if out := newWorld(t, "").probe("fuse"); out != "" {
		t.Error(out)
	}
}
