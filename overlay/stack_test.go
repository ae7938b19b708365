// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sbx/tests/need"
)

// layers unpacks archives and returns their directories, topmost first.
func layers(t testing.TB, bottomFirst ...[]maker) []string {
	t.Helper()
	var list []string
	for _, entries := range bottomFirst {
		list = slices.Insert(list, 0, layerDir(t, entries...))
	}
	return list
}

// flat flattens a stack into a new directory.
func flat(t testing.TB, lower []string, owners []Owners) (string, Owners) {
	t.Helper()
	root := filepath.Join(tempDir(t), "flat")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	dst, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	got, err := Flatten(t.Context(), dst, lower, owners, true)
	if err != nil {
		t.Fatal(err)
	}
	return root, got
}

func TestFlatten(t *testing.T) {
	bottom := []maker{
		dir("./", owned(8, 8)), dir("etc", mode(0o2755)), file("etc/passwd", "old"), file("etc/group", "kept", owned(0, 42)), file("etc/gone", ""),
		dir("opaque"), file("opaque/hidden", ""), dir("removed"), file("removed/f", ""), dir("back"), file("back/hidden", ""),
		file("one", "x", mode(0o4755), attr("user.x", "y")), hard("two", "one"), dir("d"), hard("d/three", "one"),
		sym("l", "etc"), sym("m", "x", owned(1, 2)), fifo("p", owned(3, 4)), char("null", 1, 3), file("becomes", ""), dir("loses"), file("loses/f", ""),
	}
	top := []maker{
		dir("./", owned(9, 9)), dir("etc"), file("etc/passwd", "new"), file("etc/.wh.gone", ""), dir("opaque"), file("opaque/.wh..wh..opq", ""), file("opaque/seen", ""),
		file(".wh.removed", ""), file(".wh.back", ""), dir("back"), file("back/seen", ""), dir("becomes"), file("becomes/f", ""), file("loses", ""),
	}
	lower := layers(t, bottom, top)
	root, owners := flat(t, lower, []Owners{nil, {"m": {UID: 1, GID: 2, Mode: 0o777, Kind: Symlink}, "p": {UID: 3, GID: 4, Mode: 0o644, Kind: Pipe}}})
	want := []string{"back", "back/seen", "becomes", "becomes/f", "d", "d/three", "etc", "etc/group", "etc/passwd", "l", "loses", "m", "null", "one",
		"opaque", "opaque/seen", "p", "two"}
	if diff := cmp.Diff(names(t, root), want); diff != "" {
		t.Error(diff)
	}
	got := snapshot(t, root)
	for name, want := range map[string]string{
		".":          `dir 0755 user.containers.override_stat="9:9:0755:dir"`,
		"etc":        "dir 0755",
		"etc/passwd": "file 0644 3 11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437",
		"etc/group":  `file 0644 4 bb02ba83a2d72c3a2b76cc42a7a7e3a6e5b1a0bb5bce4a3e4a5df3fda2ab4b1a`,
		"one":        `file 0755 1 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 user.containers.override_stat="0:0:4755:file" user.x="y"`,
		"null":       `file 0666 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.containers.override_stat="0:0:0666:char-1-3"`,
		"p":          "pipe 0644",
		"opaque":     "dir 0755",
		"back":       "dir 0755",
	} {
		if name == "etc/group" {
			want = look(t, filepath.Join(lower[1], name))
		}
		if got[name] != want {
			t.Errorf("%s: got  %s\nwant %s", name, got[name], want)
		}
	}
	if diff := cmp.Diff(owners, Owners{"m": {UID: 1, GID: 2, Mode: 0o777, Kind: Symlink}, "p": {UID: 3, GID: 4, Mode: 0o644, Kind: Pipe}}); diff != "" {
		t.Error(diff)
	}
	var one, three unix.Stat_t
	if err := errors.Join(unix.Lstat(filepath.Join(root, "one"), &one), unix.Lstat(filepath.Join(root, "d/three"), &three)); err != nil || one.Ino != three.Ino {
		t.Errorf("the hard link is lost: %v", err)
	}
	for _, name := range []string{".", "etc", "etc/group", "l", "p", "d"} {
		if fi, err := os.Lstat(filepath.Join(root, name)); err != nil || name != "." && !fi.ModTime().Equal(stamp) {
			t.Errorf("%s: time %v, %v", name, fi.ModTime(), err)
		}
	}
}

// A layer whose filesystem has neither attributes nor devices means the same.
func TestFlattenMarkers(t *testing.T) {
	bottom := layerDir(t, dir("d"), file("d/a", ""), file("d/b", ""), dir("e"), file("e/a", ""), file("f", ""))
	top := tempDir(t)
	result, err := unpackPoor(t, top, archive(file("d/.wh.a", ""), dir("e", owned(1, 1)), file("e/.wh..wh..opq", ""), file("e/b", ""), file(".wh.f", ""), char("null", 1, 3)))
	if err != nil {
		t.Fatal(err)
	}
	root, owners := flat(t, []string{top, bottom}, []Owners{result.Owners, nil})
	if diff := cmp.Diff(names(t, root), []string{"d", "d/b", "e", "e/b", "null"}); diff != "" {
		t.Error(diff)
	}
	if got := look(t, filepath.Join(root, "null")); !strings.Contains(got, `="0:0:0666:char-1-3"`) || owners != nil {
		t.Errorf("the device is %s, the table %v", got, owners)
	}
	if got := look(t, filepath.Join(root, "e")); got != `dir 0755 user.containers.override_stat="1:1:0755:dir"` {
		t.Errorf("the directory is %s", got)
	}
	for name, want := range map[string]error{"d/a": fs.ErrNotExist, "d/b": nil, "e/a": fs.ErrNotExist, "e/b": nil, "f": fs.ErrNotExist, "d/.wh.a": fs.ErrNotExist, "null": nil} {
		f, err := OpenMerged([]string{top, bottom}, name)
		if !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", name, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
}

func TestVisible(t *testing.T) {
	lower := layers(t, []maker{file("a", "")}, []maker{file(".wh..wh..opq", ""), file("b", "")}, []maker{file("c", "")})
	got, err := Visible(lower)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, lower[:2]); diff != "" {
		t.Error(diff)
	}
	root, _ := flat(t, lower, nil)
	if diff := cmp.Diff(names(t, root), []string{"b", "c"}); diff != "" {
		t.Error(diff)
	}
}

func TestOpenMerged(t *testing.T) {
	lower := layers(t,
		[]maker{dir("etc"), file("etc/passwd", "bottom"), file("etc/group", "group"), dir("usr"), dir("usr/lib"), file("usr/lib/os-release", "os"),
			dir("gone"), file("gone/f", ""), dir("opaque"), file("opaque/f", ""), file("white", ""), dir("hidden"), file("hidden/f", "")},
		[]maker{dir("etc"), file("etc/passwd", "top"), sym("etc/os-release", "../usr/lib/os-release"), sym("lib", "/usr/lib"), sym("up", "../../../etc/group"),
			file(".wh.gone", ""), dir("opaque"), file("opaque/.wh..wh..opq", ""), file(".wh.white", ""), file("hidden", "")},
		[]maker{sym("loop", "loop"), sym("a", "b"), sym("b", "a"), sym("to", "through/../etc/passwd"), dir("through"), sym("missing", "/no/such"), sym("abs", "/lib/os-release"),
			fifo("fifo"), sym("tofifo", "fifo"), char("null", 1, 3), dir("dir"), sym("host", "/../../../../etc/hostname")})
	tests := []struct {
		name string
		want string
		err  error
	}{
		{"etc/passwd", "top", nil},
		{"/etc/passwd", "top", nil},
		{"etc/group", "group", nil},
		{"etc/os-release", "os", nil},
		{"lib/os-release", "os", nil},
		{"abs", "os", nil},
		{"up", "group", nil},
		{"to", "top", nil},
		{"./etc/../etc//passwd", "top", nil},
		{"hidden", "", nil},
		{"gone/f", "", fs.ErrNotExist},
		{"opaque/f", "", fs.ErrNotExist},
		{"white", "", fs.ErrNotExist},
		{"missing", "", fs.ErrNotExist},
		{"nothing", "", fs.ErrNotExist},
		{"host", "", fs.ErrNotExist},
		{"hidden/f", "", unix.ENOTDIR},
		{"loop", "", unix.ELOOP},
		{"a", "", unix.ELOOP},
		{"fifo", "", ErrNotRegular},
		{"tofifo", "", ErrNotRegular},
		{"null", "", ErrNotRegular},
		{"dir", "", ErrNotRegular},
		{"", "", ErrNotRegular},
	}
	for _, stepwise := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprint(tt.name, " ", stepwise), func(t *testing.T) {
				s, err := openStack(lower)
				if err != nil {
					t.Fatal(err)
				}
				defer s.close()
				s.stepwise, s.steps = stepwise, maxOpenSteps
				fd, _, err := s.openFile(tt.name)
				if !errors.Is(err, tt.err) {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if err != nil {
					return
				}
				f := os.NewFile(uintptr(fd), "")
				defer f.Close()
				if got, err := io.ReadAll(f); err != nil || string(got) != tt.want {
					t.Errorf("got %q, %v, want %q", got, err, tt.want)
				}
			})
		}
	}
}

// A file of the image that would make its reader wait, or read the host, does
// neither (U16), and a large one can be read as far as the caller likes (U17).
func TestU16SpecialFiles(t *testing.T) {
	for name, make := range map[string][]maker{
		"fifo":    {fifo("etc/passwd")},
		"char":    {char("etc/passwd", 5, 0)},
		"block":   {entry('4', "etc/passwd", "", 0o644, device(8, 0))},
		"loop":    {sym("etc/passwd", "passwd")},
		"to fifo": {fifo("f"), sym("etc/passwd", "/f")},
		"to host": {sym("etc/passwd", "/proc/self/root/etc/passwd")},
		"dir":     {dir("etc/passwd")},
		"slow":    {sym("etc/passwd", strings.Repeat("./", 2000)+"etc/passwd")},
	} {
		lower := layers(t, make)
		f, err := OpenMerged(lower, "etc/passwd")
		if err == nil {
			f.Close()
			t.Errorf("%s: no error", name)
		}
	}
	top := layers(t, []maker{dir("etc")})[0]
	if err := unix.Mkfifo(filepath.Join(top, "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMerged([]string{top}, "etc/passwd"); !errors.Is(err, ErrNotRegular) {
		t.Errorf("error %v", err)
	}
	if err := errors.Join(os.Remove(filepath.Join(top, "etc/passwd")), os.WriteFile(filepath.Join(top, "etc/passwd"), nil, 0o644), os.Truncate(filepath.Join(top, "etc/passwd"), 10<<30)); err != nil {
		t.Fatal(err)
	}
	f, err := OpenMerged([]string{top}, "etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// Stacks of random layers look the same to Flatten, to a model of the OCI rules in
// memory, and to the kernel (U13, in every order; U14 for whiteouts).
func TestU13RandomStacks(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 5
	}
	var mounts []string
	var want []map[string]string
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		model := map[string]string{}
		var lower []string
		var said []string
		for n := range 2 + r.IntN(3) {
			data, log := randomLayer(r, n, model)
			root := filepath.Join(tempDir(t), "layer")
			if _, err := unpackInto(t, root, data, UnpackOptions{}); err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, log)
			}
			lower = slices.Insert(lower, 0, root)
			said = append(said, log)
		}
		root, _ := flat(t, lower, nil)
		got := content(t, root)
		if diff := cmp.Diff(got, model); diff != "" {
			t.Fatalf("seed %d: flattened is not as the model:\n%s\nlayers %s", seed, diff, strings.Join(said, "\nnext "))
		}
		for name, line := range model {
			if text, ok := strings.CutPrefix(line, "file "); ok {
				f, err := OpenMerged(lower, name)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				data, err := io.ReadAll(f)
				f.Close()
				if err != nil || string(data) != text {
					t.Fatalf("seed %d: %s is %q, %v, want %q", seed, name, data, err, text)
				}
			}
		}
		visible, err := Visible(lower)
		if err != nil {
			t.Fatal(err)
		}
		mounts, want = append(mounts, strings.Join(visible, ":")), append(want, model)
	}
	t.Run("kernel", func(t *testing.T) {
		need.Need(t, need.Overlay)
		for i, got := range listMounts(t, mounts) {
			if diff := cmp.Diff(got, want[i]); diff != "" {
				t.Fatalf("seed %d: the kernel sees something else:\n%s", i, diff)
			}
		}
	})
}

// content describes a tree by kinds, file contents and link targets.
func content(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range names(t, root) {
		path := filepath.Join(root, name)
		fi, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		switch fi.Mode().Type() {
		case 0:
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = "file " + string(data)
		case fs.ModeDir:
			all[name] = "dir"
		case fs.ModeSymlink:
			target, _ := os.Readlink(path)
			all[name] = "link " + target
		default:
			all[name] = fi.Mode().String()
		}
	}
	return all
}

// randomLayer makes a layer, and applies it to the model as the OCI image-spec
// says: whiteouts first, to what is there, and then the entries.
func randomLayer(r *rand.Rand, n int, model map[string]string) (data []byte, log string) {
	var entries []maker
	layer := map[string]string{}
	hides := map[string]bool{} // directories of the layer that hide lower ones
	var white []string
	pick := func() string {
		parts := []string{}
		for range 1 + r.IntN(3) {
			parts = append(parts, string("abc"[r.IntN(3)]))
		}
		return strings.Join(parts, "/")
	}
	remove := func(from map[string]string, name string) {
		for p := range from {
			if p == name || strings.HasPrefix(p, name+"/") {
				delete(from, p)
			}
		}
	}
	isWhite := func(p string) bool { return slices.Contains(white, p) }
	var makeDir func(p string)
	makeDir = func(p string) {
		if p == "." {
			return
		}
		makeDir(filepath.Dir(p))
		if was, ok := layer[p]; was == "dir" {
			return
		} else if ok || isWhite(p) {
			hides[p] = true
		}
		remove(layer, p)
		layer[p] = "dir"
	}
	for i := range 3 + r.IntN(8) {
		name := pick()
		linked := false
		for p := filepath.Dir(name); p != "."; p = filepath.Dir(p) {
			linked = linked || strings.HasPrefix(layer[p], "link")
		}
		if linked {
			continue
		}
		in, base := filepath.Dir(name), filepath.Base(name)
		makeDir(in)
		switch k := r.IntN(10); {
		case k < 3:
			text := fmt.Sprint(n, ".", i)
			log += "file " + name + "; "
			entries = append(entries, file(name, text))
			remove(layer, name)
			layer[name] = "file " + text
		case k < 6:
			log += "dir " + name + "; "
			entries = append(entries, dir(name))
			makeDir(name)
		case k < 7:
			log += "link " + name + "; "
			entries = append(entries, sym(name, "nowhere"))
			remove(layer, name)
			layer[name] = "link nowhere"
		case k < 9:
			log += "white " + name + "; "
			entries = append(entries, file(filepath.Join(in, ".wh."+base), ""))
			if layer[name] == "dir" {
				hides[name] = true
			}
			white = append(white, name)
		default:
			log += "opaque " + in + "; "
			entries = append(entries, file(filepath.Join(in, ".wh..wh..opq"), ""))
			hides[in] = true
		}
	}
	for _, p := range white {
		if layer[p] == "" {
			remove(model, p)
		}
	}
	for p := range hides {
		if layer[p] == "dir" || p == "." {
			for q := range model {
				if p == "." || strings.HasPrefix(q, p+"/") {
					delete(model, q)
				}
			}
		}
	}
	for p, what := range layer {
		if what != "dir" || model[p] != "dir" {
			remove(model, p)
		}
	}
	for p, what := range layer {
		model[p] = what
	}
	return archive(entries...), log
}

// listMounts mounts each stack, in a user namespace, and describes what is in it.
func listMounts(t *testing.T, stacks []string) []map[string]string {
	t.Helper()
	base := tempDir(t)
	var script bytes.Buffer
	fmt.Fprintf(&script, "set -e\ncd '%s'\nmkdir m empty\n", base)
	for _, s := range stacks {
		// A stack of one needs a second directory.
		fmt.Fprintf(&script, "mount -t overlay -o userxattr,lowerdir='%s':empty none m\n", s)
		script.WriteString("(cd m; find . -mindepth 1 -printf '%y %P %l\\n' | LC_ALL=C sort | while read -r kind name target; do\n" +
			"case $kind in f) echo \"$name file $(cat \"$name\")\";; d) echo \"$name dir\";; l) echo \"$name link $target\";; *) echo \"$name $kind\";; esac; done)\n" +
			"echo ===\numount m\n")
	}
	out, ok := run(t, "unshare", "-Urm", "sh", "-c", script.String())
	if !ok {
		t.Fatal("unshare is part of the overlay need")
	}
	var all []map[string]string
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "===" {
			all, got = append(all, got), map[string]string{}
			continue
		}
		name, what, _ := strings.Cut(line, " ")
		got[name] = what
	}
	return all
}

// What an image says in overlayfs's own attributes changes nothing in a mount
// (U14): they are dropped, and the lower content is seen.
func TestU14OverlayAttributes(t *testing.T) {
	var entries []maker
	attrs := []string{"opaque", "redirect", "metacopy", "origin", "whiteout", "impure", "nlink", "upper", "protattr", "uuid", "verity"}
	for _, prefix := range []string{"user.overlay.", "trusted.overlay.", "user.overlay.overlay.", "trusted.overlay.overlay."} {
		for _, name := range attrs {
			for _, value := range []string{"y", "x", "/etc", ""} {
				entries = append(entries, dir("d", attr(prefix+name, value)), file("d/"+name, "top", attr(prefix+name, value)))
			}
		}
	}
	entries = append(entries, dir("d", attr("user.containers.override_stat", "1:1:0755:dir"), attr("user.containers.override_xattr.security.capability", "x")))
	lower := layers(t, []maker{dir("d"), file("d/below", "below")}, entries)
	for name, line := range snapshot(t, lower[0]) {
		if strings.Contains(line, "overlay") || strings.Contains(line, "containers") {
			t.Errorf("%s: %s", name, line)
		}
	}
	need.Need(t, need.Overlay)
	got := listMounts(t, []string{strings.Join(lower, ":")})[0]
	want := map[string]string{"d": "dir", "d/below": "file below"}
	for _, name := range attrs {
		want["d/"+name] = "file top"
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
}

// Whiteouts are names, not paths: none reaches beyond its directory, and names
// that mean something else are errors (U13).
func TestU13WhiteoutNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		want string // of the error
	}{
		{".wh.", "not a valid whiteout"},
		{".wh..", "not a valid whiteout"},
		{".wh...", "not a valid whiteout"},
		{"d/.wh.", "not a valid whiteout"},
		{"d/.wh..", "not a valid whiteout"},
		{"d/.wh...", "not a valid whiteout"},
		{".wh.a/b", "a whiteout has no entries"},
		{"d/.wh.a/../b/.wh.c/f", "a whiteout has no entries"},
		{".wh..wh..opq/x", "a whiteout has no entries"},
		{".wh..wh.x", "not a valid whiteout"},
		{".wh..wh..wh..opq", "not a valid whiteout"},
		{".wh.\x00", "not a valid whiteout"},
		{".wh.ok", ""},
		{".wh.....", ""},
		{"d/.wh.x/", ""},
		{".wh..wh.aufs", ""},
		{".wh..wh.plnk/123", ""},
	} {
		t.Run(fmt.Sprintf("%q", tt.name), func(t *testing.T) {
			root := filepath.Join(tempDir(t), "root")
			_, err := unpackInto(t, root, archive(file("keep", ""), dir("d"), file("d/keep", ""), raw('0', tt.name, "", 0, "")), UnpackOptions{})
			var named *EntryError
			if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &named) || named.Err.Error() != tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			for _, name := range []string{"keep", "d/keep"} {
				if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// In an opaque directory there is nothing to white out, and the kernel would list
// such whiteouts as files that cannot be used.
func TestNoWhiteoutsUnderOpaque(t *testing.T) {
	root := layerDir(t,
		dir("a"), file("a/.wh.1", ""), dir("a/d"), file("a/d/.wh.2", ""), file("a/.wh..wh..opq", ""), file("a/d/.wh.3", ""), file("a/.wh.4", ""),
		file(".wh.b", ""), dir("b"), file("b/.wh.5", ""), dir("c"), file("c/.wh.6", ""))
	want := []string{"a", "a/d", "b", "c", "c/6"}
	if diff := cmp.Diff(names(t, root), want); diff != "" {
		t.Error(diff)
	}
}

func TestFlattenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dst, err := os.Open(tempDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := Flatten(ctx, dst, layers(t, []maker{dir("d")}), nil, true); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
