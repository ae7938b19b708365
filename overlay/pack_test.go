// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func packed(t testing.TB, lower []string, o ArchiveOptions) []byte {
	t.Helper()
	o.Recorded = true
	var b bytes.Buffer
	if _, err := Archive(t.Context(), &b, lower, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What comes out of an archive of a merged tree is that tree.
func TestArchiveComesBack(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 9))
		base, baseOwners := upperOf(t, randomChanges(r, false)...)
		middle, middleOwners := upperOf(t, randomChanges(r, true)...)
		upper, owners := upperOf(t, randomChanges(r, true)...)
		lower, tables := []string{upper, middle, base}, []Owners{owners, middleOwners, baseOwners}
		_, _, want := merge(t, lower, tables)
		data := packed(t, lower, ArchiveOptions{Owners: tables})
		again := filepath.Join(tempDir(t), "again")
		result, err := unpackInto(t, again, data, UnpackOptions{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		_, _, got := merge(t, []string{again}, []Owners{result.Owners})
		if d := cmp.Diff(got, want); d != "" {
			t.Fatalf("seed %d: %s\n%s", seed, d, strings.Join(listing(t, data), "\n"))
		}
	}
}

// A part of a tree is found as a process in it would, and gets any name.
func TestArchivePart(t *testing.T) {
	base := layerDir(t, dir("usr"), dir("usr/bin"), file("usr/bin/a", "1", owned(1, 2)), file("usr/bin/gone", ""), sym("bin", "usr/bin"), sym("out", "../../../../etc"), dir("etc"), file("etc/passwd", "inside"))
	top := layerDir(t, dir("usr"), dir("usr/bin"), file("usr/bin/b", "2"), file("usr/bin/.wh.gone", ""))
	lower := []string{top, base}
	tests := []struct {
		o    ArchiveOptions
		want []string
	}{
		{ArchiveOptions{Path: "bin", Follow: true, Name: "x"}, []string{"5 x/ 0755 0:0", `0 x/a 0644 1:2 "1"`, `0 x/b 0644 0:0 "2"`}},
		{ArchiveOptions{Path: "/bin", Name: "x"}, []string{"2 x 0777 0:0 -> usr/bin"}},
		{ArchiveOptions{Path: "bin/a"}, []string{`0 a 0644 1:2 "1"`}},
		{ArchiveOptions{Path: "out/passwd", Name: "p"}, []string{`0 p 0644 0:0 "inside"`}},
		{ArchiveOptions{Path: "usr"}, []string{"5 bin/ 0755 0:0", `0 bin/a 0644 1:2 "1"`, `0 bin/b 0644 0:0 "2"`}},
		{ArchiveOptions{Select: func(path string, dir bool) (bool, bool) { return path != "usr/bin/a", path != "etc" }},
			[]string{"2 bin 0777 0:0 -> usr/bin", "5 etc/ 0755 0:0", "2 out 0777 0:0 -> ../../../../etc", "5 usr/ 0755 0:0", "5 usr/bin/ 0755 0:0", `0 usr/bin/b 0644 0:0 "2"`}},
	}
	for _, tt := range tests {
		if d := cmp.Diff(listing(t, packed(t, lower, tt.o)), tt.want); d != "" {
			t.Errorf("%q: %s", tt.o.Path, d)
		}
	}
	if _, err := Archive(t.Context(), new(bytes.Buffer), lower, ArchiveOptions{Path: "usr/bin/gone"}); err == nil || err.Error() != `look up "/usr/bin/gone": no such file or directory` {
		t.Errorf("error %v", err)
	}
}

// A directory of the user's has files that would be signs in a layer.
func TestArchiveDir(t *testing.T) {
	root := tempDir(t)
	for _, name := range []string{".wh.x", ".wh..wh..opq", "plain"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(name), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(root+"/plain", RecordXattr, []byte("5:5:0600:char-1-3"), 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(root+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := ArchiveDir(context.Background(), &b, f, ArchiveOptions{Name: "d"}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, line := range listing(t, b.Bytes()) {
		names = append(names, strings.Join(strings.Fields(line)[:3], " "))
	}
	want := []string{"5 d/ 0700", "0 d/.wh..wh..opq 0640", "0 d/.wh.x 0640", "6 d/pipe 0600", "0 d/plain 0640"}
	if d := cmp.Diff(names, want); d != "" {
		t.Error(d)
	}
}

// A program in the container may exchange a file for a link out of it, or for a
// pipe that nobody writes to, while the tree is packed: nothing outside is read,
// and nothing is waited for.
func TestArchiveSwapped(t *testing.T) {
	secret := filepath.Join(tempDir(t), "secret")
	if err := os.WriteFile(secret, []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := tempDir(t)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			name := root + "/f"
			_ = os.Remove(name)
			switch i % 4 {
			case 0:
				_ = os.WriteFile(name, []byte("inside"), 0o600)
			case 1:
				_ = os.Symlink(secret, name)
			case 2:
				_ = unix.Mkfifo(name, 0o600)
			case 3:
				_ = os.Mkdir(name, 0o700)
			}
		}
	}()
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2000 {
		var b bytes.Buffer
		_, err := ArchiveDir(t.Context(), &b, f, ArchiveOptions{})
		if err != nil {
			t.Errorf("%v", err)
			break
		}
		if bytes.Contains(b.Bytes(), []byte("outside")) {
			t.Fatal("the file outside was packed")
		}
		b.Reset()
		if _, err := Diff(t.Context(), &b, f, DiffOptions{Recorded: true}); err != nil {
			t.Errorf("%v", err)
			break
		}
		if bytes.Contains(b.Bytes(), []byte("outside")) {
			t.Fatal("the file outside was packed")
		}
	}
	close(quit)
	<-done
}

// FuzzDiff makes a layer of an archive, and an archive of that layer, which must
// make the same layer.
func FuzzDiff(f *testing.F) {
	f.Add(archive(dir("d", mode(0o2755), owned(3, 4)), file("d/f", "x", attr("user.a", "b")), hard("g", "d/f"), sym("l", "d"), file("d/.wh.x", ""), file("d/.wh..wh..opq", "")))
	f.Add(archive(fifo("p", owned(9, 9)), char("c", 1, 3), file("a\nb\xff", ""), dir("shut", mode(0))))
	limits := Limits{Bytes: 1 << 20, Entries: 200}
	f.Fuzz(func(t *testing.T, data []byte) {
		first := filepath.Join(tempDir(t), "first")
		result, err := unpackInto(t, first, data, UnpackOptions{Limits: limits})
		if err != nil {
			return
		}
		shut := false
		for name, line := range snapshot(t, first) {
			fields := strings.Fields(line)
			shut = shut || strings.HasPrefix(line, "file") && fields[1][1] < '4' || len(name) > 4000
		}
		if shut {
			return // without capabilities nobody reads it
		}
		tar1, err := diff(t, first, DiffOptions{Owners: result.Owners})
		if err != nil {
			t.Fatalf("pack what was unpacked: %v", err)
		}
		second := filepath.Join(tempDir(t), "second")
		again, err := unpackInto(t, second, tar1, UnpackOptions{Limits: Limits{Bytes: 4 << 20}})
		if err != nil {
			t.Fatalf("unpack what was packed: %v", err)
		}
		if d := cmp.Diff(snapshot(t, second), snapshot(t, first)); d != "" {
			t.Errorf("another tree: %s", d)
		}
		tar2, err := diff(t, second, DiffOptions{Owners: again.Owners})
		if err != nil || !bytes.Equal(tar1, tar2) {
			t.Errorf("another archive, %v", err)
		}
	})
}
