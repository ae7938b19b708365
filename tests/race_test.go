// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// swapped is a directory in which the name t is now a directory and now a link to
// the decoy, as fast as the kernel can exchange them: whoever looks first and uses
// the name then is caught.
type swapped struct {
	dir       string
	exchanges atomic.Int64
}

func swap(t *testing.T, d decoy) *swapped {
	t.Helper()
	s := &swapped{dir: filepath.Join(t.TempDir(), "swapped")}
	in := func(name string) string { return filepath.Join(s.dir, name) }
	for _, err := range []error{
		os.MkdirAll(in("t/sub"), 0o777), os.WriteFile(in("t/secret"), []byte("inside"), 0o644), os.Symlink(d.dir, in("l")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if unix.Renameat2(unix.AT_FDCWD, in("t"), unix.AT_FDCWD, in("l"), unix.RENAME_EXCHANGE) == nil {
				s.exchanges.Add(1)
			}
			runtime.Gosched()
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return s
}

// raceTries is how often each race is run: as often as there are hostile layers, and twice
// that where SBX_TEST_HARDEN asks for more of those.
func raceTries() int {
	n := hostileLayers()
	if n > hostileInCI {
		n *= 2
	}
	return n
}

// TestRaces swaps what mounts and copies go through, in a directory that a
// container and the outside share: F02, F07, C01, C04, C05.
func TestRaces(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			p, d := newPlayground(t, rung), newDecoy(t)
			s := swap(t, d)
			before, out := d.look(t), t.TempDir()
			payload := filepath.Join(out, "payload")
			if err := os.WriteFile(payload, []byte(planted), 0o666); err != nil {
				t.Fatal(err)
			}
			p.sbx("run", "-d", "--name", "one", "--network", "none", "-v", s.dir+":/v", p.image, "probe", "sleep")
			defer p.sbx("rm", "-f", "one")
			went := map[string]int{}
			for i := range raceTries() {
				for what, args := range map[string][]string{
					"mount below":   {"run", "--rm", "--network", "none", "-v", s.dir + ":/v", "-v", out + ":/v/t/new/deep", p.image, "true"},
					"mount on":      {"run", "--rm", "--network", "none", "-v", s.dir + ":/v", "--tmpfs", "/v/t", p.image, "probe", "write", "/v/t/secret", planted},
					"working in":    {"run", "--rm", "--network", "none", "-v", s.dir + ":/v", "-w", "/v/t/made", p.image, "true"},
					"copy in":       {"cp", "-q", payload, "one:/v/t/sub/"},
					"copy over":     {"cp", "-q", payload, "one:/v/t/secret"},
					"copy out":      {"cp", "-q", "one:/v/t/secret", filepath.Join(out, "got")},
					"copy tree out": {"cp", "-q", "one:/v", filepath.Join(out, "tree")},
				} {
					if runHostile(t, what, p.command(args...)) {
						went[what]++
					}
					if diff := cmp.Diff(before, d.look(t)); diff != "" {
						t.Fatalf("%s, try %d, changed what is outside:\n%s", what, i, diff)
					}
					if data, err := os.ReadFile(filepath.Join(out, "got")); err == nil && bytes.Equal(data, []byte("secret")) {
						t.Fatalf("%s, try %d, read what is outside", what, i)
					}
					os.Remove(filepath.Join(out, "got"))
				}
				os.RemoveAll(filepath.Join(out, "tree"))
			}
			t.Logf("%d tries and %d exchanges; went well: %v", raceTries(), s.exchanges.Load(), went)
			if s.exchanges.Load() < int64(raceTries()) {
				t.Error("hardly anything was exchanged: that is no race")
			}
		})
	}
}

// TestRacesSeen has the race catch who looks first and writes then.
func TestRacesSeen(t *testing.T) {
	d := newDecoy(t)
	s := swap(t, d)
	before := d.look(t)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		at := filepath.Join(s.dir, "t")
		fi, err := os.Lstat(at)
		if err != nil || !fi.IsDir() {
			continue
		}
		// On a machine with no processor to spare the two would take turns.
		for seen := s.exchanges.Load(); s.exchanges.Load() == seen && time.Now().Before(deadline); {
			runtime.Gosched()
		}
		_ = os.WriteFile(filepath.Join(at, "secret"), []byte(planted), 0o644)
		if cmp.Diff(before, d.look(t)) != "" {
			return
		}
	}
	t.Error("who looks first and writes then was not caught")
}
