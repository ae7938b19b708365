// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"sbx/tests/need"
)

// rewritten is an image whose layer is another from one moment to the next: as long as
// before, shorter, longer, or another file of the name.
type rewritten struct {
	image, blob string
	turns       atomic.Int64
}

func rewrite(t *testing.T, dir string) *rewritten {
	t.Helper()
	r := &rewritten{image: filepath.Join(dir, "swapped")}
	if err := (layout{r.image}).write(recipe{layers: []string{defaultLayer}, arch: runtime.GOARCH, compression: "none"}); err != nil {
		t.Fatal(err)
	}
	var good []byte
	blobs, err := filepath.Glob(filepath.Join(r.image, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range blobs {
		if data, err := os.ReadFile(name); err == nil && len(data) > len(good) {
			r.blob, good = name, data
		}
	}
	evil := filepath.Join(dir, "evil")
	if err := os.WriteFile(evil, append([]byte("evil"), good[4:]...), 0o644); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for turn := 0; ; turn++ {
			select {
			case <-stop:
				return
			default:
			}
			r.turn(turn, evil, good)
			r.turns.Add(1)
			runtime.Gosched()
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return r
}

// turn makes the layer another, or what it was.
func (r *rewritten) turn(turn int, evil string, good []byte) {
	switch turn % 8 {
	case 0, 1, 2, 3:
		_ = unix.Renameat2(unix.AT_FDCWD, r.blob, unix.AT_FDCWD, evil, unix.RENAME_EXCHANGE)
	case 4:
		_ = os.Truncate(r.blob, int64(len(good)/2))
	case 5, 7:
		if f, err := os.OpenFile(r.blob, os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteAt(good, 0)
			f.Close()
		}
		_ = os.Truncate(r.blob, int64(len(good)))
	case 6:
		if f, err := os.OpenFile(r.blob, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			_, _ = f.WriteString(planted)
			f.Close()
		}
	}
}

// TestSwappedImage brings an image in that somebody changes meanwhile. What is taken is
// what its digests say, in files of the store's own: M03.
func TestSwappedImage(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			p := newPlayground(t, rung)
			r := rewrite(t, p.dir)
			taken, checked := 0, 0
			for i := range raceTries() {
				args := []string{"pull", "-q", r.image}
				if i%2 == 1 {
					args = []string{"load", "-q", "-i", r.image}
				}
				if runHostile(t, fmt.Sprint("swapped ", i), p.command(args...)) {
					taken++
					if i%2 == 0 {
						p.sbx("run", "--rm", "--network", "none", r.image, "true")
					}
				}
				checked += p.checkBlobs(r.image)
				p.sbx("image", "prune", "-af")
			}
			t.Logf("%d tries, %d turns, %d taken, %d blobs", raceTries(), r.turns.Load(), taken, checked)
			if r.turns.Load() < int64(raceTries()) || taken == raceTries() || checked == 0 {
				t.Error("hardly anything was swapped, or nothing looked at: that is no race")
			}
		})
	}
}

// checkBlobs holds each blob of the store to its name, its owner and its only name, and
// returns how many there are.
func (p *playground) checkBlobs(image string) int {
	p.t.Helper()
	dir := filepath.Join(p.store, "blobs/sha256")
	for _, fault := range blobFaults(p.t, dir, filepath.Join(image, "blobs/sha256")) {
		p.t.Error(fault)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(blobs)
}

func blobFaults(t *testing.T, dir, source string) []error {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var faults []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sum.Sum(nil)); got != e.Name() {
			faults = append(faults, fmt.Errorf("%s has the content %s", path, got))
		}
		var own, other unix.Stat_t
		if err := unix.Lstat(path, &own); err != nil {
			t.Fatal(err)
		}
		if own.Mode&unix.S_IFMT != unix.S_IFREG || own.Nlink != 1 || int(own.Uid) != os.Getuid() {
			faults = append(faults, fmt.Errorf("%s: mode %o, %d names, owner %d", path, own.Mode, own.Nlink, own.Uid))
		}
		if unix.Lstat(filepath.Join(source, e.Name()), &other) == nil && other.Ino == own.Ino && other.Dev == own.Dev {
			faults = append(faults, fmt.Errorf("%s is a file of another's", path))
		}
	}
	return faults
}

// TestSwappedImageSeen has the check find what is taken by its name, or linked.
func TestSwappedImageSeen(t *testing.T) {
	dir := t.TempDir()
	r := rewrite(t, dir)
	own := filepath.Join(dir, "own")
	name := filepath.Join(own, filepath.Base(r.blob))
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	if len(blobFaults(t, own, filepath.Dir(r.blob))) != 1 {
		t.Error("other content is not seen")
	}
	for os.Remove(name) != nil || os.Link(r.blob, name) != nil {
		if t.Context().Err() != nil {
			t.Fatal("no link was made")
		}
	}
	if len(blobFaults(t, own, filepath.Dir(r.blob))) < 1 {
		t.Error("a link is not seen")
	}
}

// TestImageOfAnotherUser brings an image in whose files are somebody else's.
func TestImageOfAnotherUser(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			need.Need(t, need.Subids)
			p := newPlayground(t, rung)
			image := filepath.Join(p.dir, "theirs")
			if err := (layout{image}).write(recipe{layers: []string{defaultLayer + "file 0644 0:0 new x\n"}, arch: runtime.GOARCH, compression: "gzip"}); err != nil {
				t.Fatal(err)
			}
			if out, err := need.Mapped("chown", "-R", "1000:1000", image); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			p.sbx("pull", "-q", image)
			p.sbx("run", "--rm", "--network", "none", image, "true")
			if p.checkBlobs(image) < 3 {
				t.Error("it is not in the store")
			}
		})
	}
}
