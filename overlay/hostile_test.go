// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The generator of hostile layers (U01): a way to make the name "l" mean a place
// outside, times the forms of that place's path, times what is done to it then.

// A case is a hostile layer.
type hostile struct {
	name    string
	entries []maker
}

// A place is a path to the decoy directory, or to another place outside.
type place struct{ name, path string }

func places(decoy string) []place {
	return []place{
		{"absolute", decoy},
		{"relative", "../decoy"},
		{"deep relative", strings.Repeat("../", 30) + decoy[1:]},
		{"absolute with dots", "/../.." + decoy},
		{"through itself", "l2/../../decoy"},
		{"doubled slashes", "/" + strings.ReplaceAll(decoy, "/", "//")},
		{"dots", ".././decoy/."},
		{"trailing slash", "../decoy/"},
		{"back and forth", "../decoy/sub/.."},
		{"above", ".."},
		{"own process", "/proc/self/cwd"},
		{"own root", "/proc/self/root" + decoy},
		{"root", "/"},
		{"etc", "/etc"},
		{"a file", "../decoy/secret"},
	}
}

// ways make "l" lead to a place.
var ways = []struct {
	name string
	make func(to string) []maker
}{
	{"link", func(to string) []maker { return []maker{sym("l", to)} }},
	{"link over directory", func(to string) []maker { return []maker{dir("l"), file("l/x", ""), sym("l", to)} }},
	{"link over kept directory", func(to string) []maker { return []maker{dir("l"), dir("l/d"), sym("l", to), file("l/d/x", "")} }},
	{"chain", func(to string) []maker { return []maker{sym("l2", "l1"), sym("l1", to), sym("l", "./l2")} }},
	{"long chain", func(to string) []maker {
		list := []maker{sym("c0", to)}
		for i := range 37 {
			list = append(list, sym(fmt.Sprintf("c%d", i+1), fmt.Sprintf("c%d", i)))
		}
		return append(list, sym("l", "c37"))
	}},
	{"second name of link", func(to string) []maker {
		return []maker{dir("deep"), dir("deep/er"), sym("deep/er/s", to), hard("l", "deep/er/s")}
	}},
	{"link in linked directory", func(to string) []maker { return []maker{dir("d"), sym("e", "d"), sym("e/l", to), sym("l", "d/l")} }},
	{"hard link", func(to string) []maker { return []maker{raw(tar.TypeLink, "l", to, 0, "")} }},
	{"hard link to file in it", func(to string) []maker { return []maker{raw(tar.TypeLink, "l", to+"/secret", 0, "")} }},
	{"link to file in it", func(to string) []maker { return []maker{sym("l", to+"/secret")} }},
	{"dangling", func(to string) []maker { return []maker{sym("l", to+"/new/dir")} }},
	{"long name", func(to string) []maker { return []maker{long("./l"), raw(tar.TypeSymlink, "x", to, 0, "")} }},
	{"extended", func(to string) []maker {
		return []maker{pax("path", "l/", "linkpath", to), raw(tar.TypeSymlink, "x", "y", 0, "")}
	}},
	{"root", func(to string) []maker { return []maker{raw(tar.TypeSymlink, "./", to, 0, ""), sym("l", ".")} }},
	{"name", func(to string) []maker { return []maker{raw(tar.TypeDir, to, "", 0, ""), sym("l", to)} }},
}

// pwned is a name that no host has.
const pwned = "sbx-overlay-was-here"

// deeds are what is then done to "l".
var deeds = []struct {
	name    string
	entries []maker
}{
	{"create in it", []maker{raw(tar.TypeReg, "l/"+pwned, "", 5, "pwned")}},
	{"create below it", []maker{raw(tar.TypeReg, "./l/sub/"+pwned, "", 5, "pwned")}},
	{"overwrite in it", []maker{raw(tar.TypeReg, "l/secret", "", 5, "pwned")}},
	{"overwrite it", []maker{raw(tar.TypeReg, "l", "", 5, "pwned")}},
	{"overwrite by slash", []maker{raw(tar.TypeReg, "l/", "", 0, "")}},
	{"change its mode", []maker{raw(tar.TypeDir, "l/", "", 0, ""), entry(tar.TypeDir, "l", "", 0o777)}},
	{"change modes in it", []maker{entry(tar.TypeDir, "l/sub", "", 0o777), entry(tar.TypeDir, "l/.", "", 0o711)}},
	{"directory in it", []maker{raw(tar.TypeDir, "/l//"+pwned+"/", "", 0, "")}},
	{"link in it", []maker{raw(tar.TypeSymlink, "l/"+pwned, "secret", 0, "")}},
	{"second name in it", []maker{raw(tar.TypeReg, "f", "", 5, "pwned"), raw(tar.TypeLink, "l/"+pwned, "f", 0, "")}},
	{"second name of its file", []maker{raw(tar.TypeLink, pwned, "l/secret", 0, ""), raw(tar.TypeReg, "x", "", 0, "")}},
	{"second name of it", []maker{raw(tar.TypeLink, pwned, "l", 0, ""), raw(tar.TypeReg, pwned, "", 5, "pwned")}},
	{"whiteout in it", []maker{raw(tar.TypeReg, "l/.wh.secret", "", 0, ""), raw(tar.TypeReg, "l/sub/.wh.file", "", 0, "")}},
	{"opaque", []maker{raw(tar.TypeReg, "l/.wh..wh..opq", "", 0, "")}},
	{"whiteout of it", []maker{raw(tar.TypeReg, ".wh.l", "", 0, ""), raw(tar.TypeReg, "l/"+pwned, "", 0, "")}},
	{"pipe", []maker{raw(tar.TypeFifo, "l/secret", "", 0, ""), raw(tar.TypeFifo, "l/"+pwned, "", 0, "")}},
	{"device", []maker{char("l/"+pwned, 1, 3), char("l/secret", 1, 3)}},
	{"attributes", []maker{dir("l/sub", attr("user.pwned", "1"), owned(1, 1)), file("l/secret", "", attr("user.pwned", "1"), mode(0o4777))}},
	{"by dots", []maker{raw(tar.TypeReg, "a/../l/"+pwned, "", 5, "pwned")}},
	{"above it", []maker{raw(tar.TypeReg, "l/../"+pwned, "", 5, "pwned")}},
}

func hostiles(decoy string) []hostile {
	var all []hostile
	for _, w := range ways {
		for _, p := range places(decoy) {
			for _, d := range deeds {
				all = append(all, hostile{
					name:    w.name + "/" + p.name + "/" + d.name,
					entries: append(w.make(p.path), d.entries...),
				})
			}
		}
	}
	return all
}

// decoyTree makes what must never change, and returns it and a place for roots.
func decoyTree(t testing.TB) (base, decoy string) {
	t.Helper()
	base = filepath.Join(tempDir(t), "a", "b", "c")
	decoy = filepath.Join(base, "decoy")
	for _, d := range []string{decoy, filepath.Join(decoy, "sub")} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"secret": "secret", "sub/file": "file"} {
		if err := os.WriteFile(filepath.Join(decoy, name), []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("secret", filepath.Join(decoy, "link")); err != nil {
		t.Fatal(err)
	}
	return base, decoy
}

// guarded describes everything in base but the root being filled: contents,
// metadata, link counts, and the time of change, which betrays everything else.
func guarded(t testing.TB, base string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "root" && filepath.Dir(path) == base {
			return fs.SkipDir
		}
		all[path] = look(t, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if path != base { // the root is made and removed in it
			all[path] += fmt.Sprint(" ", st.Ino, st.Nlink, st.Uid, st.Gid, st.Ctim)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// escaped reports what a layer changed outside its root.
func escaped(t testing.TB, base string, before map[string]string) string {
	t.Helper()
	for _, dir := range []string{"/", "/etc", "/etc/sub", "."} {
		if _, err := os.Lstat(filepath.Join(dir, pwned)); err == nil {
			os.RemoveAll(filepath.Join(dir, pwned))
			return dir + "/" + pwned
		}
	}
	return cmp.Diff(before, guarded(t, base))
}

// An extractor fills root from an archive.
type extractor func(root string, data []byte) error

func ours(stepwise, recorded bool) extractor {
	return func(root string, data []byte) error {
		fd, err := unix.Open(root, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		u := newUnpacker(context.Background(), fd, bytes.NewReader(data), UnpackOptions{Recorded: recorded})
		defer u.close()
		u.tree.stepwise = stepwise
		return u.run()
	}
}

// runHostile unpacks one case into an empty root and removes that.
func runHostile(t testing.TB, base string, extract extractor, h hostile) error {
	t.Helper()
	root := filepath.Join(base, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	err := extract(root, archive(h.entries...))
	up, openErr := os.Open(base)
	if openErr != nil {
		t.Fatal(openErr)
	}
	defer up.Close()
	if err := RemoveAll(context.Background(), up, "root"); err != nil {
		t.Fatalf("%s: %v", h.name, err)
	}
	return err
}

// Nothing outside the root changes, whatever a layer says: U01, U02 (there is one
// extractor), U03, U04, U05, U06.
func TestU01Hostile(t *testing.T) {
	variants := []struct {
		name    string
		extract extractor
		every   int
	}{{"openat2", ours(false, true), 1}, {"stepwise", ours(true, true), 7}, {"real owners", ours(false, false), 7}}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			base, decoy := decoyTree(t)
			before := guarded(t, base)
			descriptors := countFDs(t)
			ran, failed := 0, 0
			for i, h := range hostiles(decoy) {
				if i%v.every != 0 || testing.Short() && i%23 != 0 {
					continue
				}
				ran++
				err := runHostile(t, base, v.extract, h)
				if err != nil {
					failed++
					mustName(t, h, err)
				}
				if diff := escaped(t, base, before); diff != "" {
					t.Fatalf("%s: outside the root changed (error %v):\n%s", h.name, err, diff)
				}
			}
			if n := countFDs(t); n != descriptors {
				t.Errorf("%d descriptors are open, there were %d", n, descriptors)
			}
			t.Logf("%d layers, %d of them refused", ran, failed)
		})
	}
}

// mustName holds errors to their form: one line that names the entry.
func mustName(t *testing.T, h hostile, err error) {
	t.Helper()
	var named *EntryError
	var read *ArchiveError
	if !errors.As(err, &named) && !errors.As(err, &read) {
		t.Errorf("%s: error %v names no entry", h.name, err)
	}
	if strings.ContainsAny(err.Error(), "\n\x00\x1b") {
		t.Errorf("%s: error %q is not one clean line", h.name, err)
	}
}

func countFDs(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// The oracle would notice: an extractor that trusts paths, as extractors do at
// first, is caught in every way to lead out.
func TestU01NaiveTwinIsCaught(t *testing.T) {
	for _, w := range ways {
		switch w.name {
		case "root", "name": // these need the twin to be wrong in still other ways
			continue
		case "hard link", "dangling": // these the kernel itself refuses
			continue
		}
		caught := 0
		for _, d := range deeds {
			base, decoy := decoyTree(t)
			before := guarded(t, base)
			root := filepath.Join(base, "root")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			_ = naive(root, archive(append(w.make("../decoy"), d.entries...)...))
			_ = naive(root, archive(append(w.make(decoy), d.entries...)...))
			if escaped(t, base, before) != "" {
				caught++
			}
		}
		if caught == 0 {
			t.Errorf("the oracle saw nothing in the way %q", w.name)
		}
		t.Logf("%s: %d of %d deeds seen", w.name, caught, len(deeds))
	}
}

// naive is what not to do.
func naive(root string, data []byte) error {
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(root, filepath.Clean("/"+h.Name))
		os.MkdirAll(filepath.Dir(path), 0o755)
		if name, ok := strings.CutPrefix(filepath.Base(path), whiteoutPrefix); ok {
			os.RemoveAll(filepath.Join(filepath.Dir(path), name))
			continue
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NONBLOCK, 0o644); err == nil {
				io.Copy(f, r)
				f.Close()
			}
		case tar.TypeDir:
			os.Mkdir(path, 0o755)
			os.Chmod(path, fs.FileMode(h.Mode)&0o777)
		case tar.TypeSymlink:
			os.RemoveAll(path)
			os.Symlink(h.Linkname, path)
		case tar.TypeLink:
			os.Link(filepath.Join(root, h.Linkname), path)
		case tar.TypeFifo:
			os.Remove(path)
			unix.Mkfifo(path, 0o600)
		}
	}
}

// The root entry may only be a directory (U03).
func TestU03Root(t *testing.T) {
	for _, name := range []string{".", "/", "./", "//", "a/..", "./."} {
		for _, kind := range []byte{tar.TypeSymlink, tar.TypeLink, tar.TypeReg, tar.TypeChar, tar.TypeFifo} {
			t.Run(fmt.Sprintf("%c %q", kind, name), func(t *testing.T) {
				root := filepath.Join(tempDir(t), "root")
				size := int64(0)
				content := ""
				if kind == tar.TypeReg && strings.HasSuffix(name, "/") {
					size, content = 1, "x" // without content that would be a directory
				}
				_, err := unpackInto(t, root, archive(raw(kind, name, "/tmp", size, content)), UnpackOptions{})
				var named *EntryError
				if !errors.As(err, &named) {
					t.Errorf("error %v, want one that names the entry", err)
				}
				if fi, err := os.Lstat(root); err != nil || !fi.IsDir() {
					t.Errorf("the root is %v, %v", fi, err)
				}
			})
		}
	}
}

// A directory, then a link in its place, then a file below: by the name of the
// link, not the directory that was there (U05). Also where the name leads through
// what was replaced.
func TestU05NoStaleParent(t *testing.T) {
	tests := []struct {
		name    string
		entries []maker
		want    []string
	}{
		{"directory to link", []maker{dir("a"), file("a/1", ""), dir("b"), sym("a", "b"), file("a/2", "")}, []string{"a", "b", "b/2"}},
		{"link to link", []maker{dir("b"), dir("c"), sym("a", "b"), file("a/1", ""), sym("a", "c"), file("a/2", "")}, []string{"a", "b", "b/1", "c", "c/2"}},
		{"on the way", []maker{dir("d"), dir("d/x"), dir("e"), sym("s", "d/x/.."), file("s/1", ""), sym("s/x", "/e/f"), dir("e/f"), file("s/2", "")},
			[]string{"d", "d/1", "d/x", "e", "e/2", "e/f", "s"}},
		{"directory on the way", []maker{dir("d"), sym("d/x", "."), sym("s", "d/x"), file("s/1", ""), dir("s/x"), file("s/x/2", ""), file("s/3", "")},
			[]string{"d", "d/1", "d/x", "d/x/3", "d/x/x", "d/x/x/2", "s"}},
		{"same directory", []maker{dir("a"), file("a/1", ""), dir("a"), file("a/2", ""), file("a", "")}, []string{"a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(names(t, layerDir(t, tt.entries...)), tt.want); diff != "" {
				t.Error(diff)
			}
		})
	}
}
