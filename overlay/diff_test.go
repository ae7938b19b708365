// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// diff packs what dir has changed.
func diff(t testing.TB, dir string, o DiffOptions) ([]byte, error) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o.Recorded = true
	var b bytes.Buffer
	_, err = Diff(t.Context(), &b, f, o)
	return b.Bytes(), err
}

func mustDiff(t testing.TB, dir string, o DiffOptions) []byte {
	t.Helper()
	data, err := diff(t, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// listing describes the entries of a tar, one in a line.
func listing(t testing.TB, data []byte) []string {
	t.Helper()
	var list []string
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%c %s %04o %d:%d", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if h.Devmajor != 0 || h.Devminor != 0 {
			line += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
		}
		for _, k := range sortedNames(h.PAXRecords) {
			line += fmt.Sprintf(" %s=%q", k, h.PAXRecords[k])
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(content) > 0 {
			line += fmt.Sprintf(" %q", content)
		}
		list = append(list, line)
	}
}

// upperOf unpacks entries as the upper directory of a container would have them.
func upperOf(t testing.TB, entries ...maker) (dir string, owners Owners) {
	t.Helper()
	dir = filepath.Join(tempDir(t), "upper")
	result, err := unpackInto(t, dir, archive(entries...), UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return dir, result.Owners
}

// Everything that an image can say of a file is written back.
func TestDiffEntries(t *testing.T) {
	upper, owners := upperOf(t,
		dir("./", mode(0o700), owned(3, 4)),
		dir("d", mode(0o2775), owned(1, 2), attr("user.a", "1")), file("d/f", "x", owned(70000, 3000000), mode(0o4755)),
		hard("d/g", "d/f"), sym("l", "../x", owned(5, 6)), hard("m", "l"), fifo("p", owned(7, 8)), char("null", 1, 3),
		entry(tar.TypeBlock, "sda", "", 0o660, device(8, 1), owned(0, 6)), dir("shut", mode(0)), dir("tmp", mode(0o1777)),
		file("cap", "", attr("security.capability", "\x01\x00"), attr("user.overlay.x", "no"), attr("trusted.t", "2")),
		file(".wh.gone", ""), file("d/.wh..wh..opq", ""), file("new\nline\xff", ""), file(strings.Repeat("n", 200), "long"))
	var sock = filepath.Join(upper, "sock")
	if err := unix.Mknod(sock, unix.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	got := listing(t, mustDiff(t, upper, DiffOptions{Owners: owners}))
	long := strings.Repeat("n", 200)
	want := []string{
		"5 ./ 0700 3:4",
		"0 .wh.gone 0000 0:0",
		`0 cap 0644 0:0 SCHILY.xattr.security.capability="\x01\x00" SCHILY.xattr.trusted.t="2"`,
		`5 d/ 2775 1:2 SCHILY.xattr.user.a="1"`,
		"0 d/.wh..wh..opq 0000 0:0",
		`0 d/f 4755 70000:3000000 gid="3000000" "x"`,
		`1 d/g 4755 70000:3000000 -> d/f gid="3000000"`,
		"2 l 0777 5:6 -> ../x",
		"1 m 0777 5:6 -> l",
		"0 new\nline\xff 0644 0:0 path=\"new\\nline\\xff\"",
		`0 ` + long + ` 0644 0:0 path="` + long + `" "long"`,
		"3 null 0666 0:0 1,3",
		"6 p 0644 7:8",
		"4 sda 0660 0:6 8,1",
		"5 shut/ 0000 0:0",
		"5 tmp/ 1777 0:0",
	}
	slices.Sort(want[8:])
	sorted := slices.Clone(got)
	slices.Sort(sorted[8:])
	if d := cmp.Diff(sorted, want); d != "" {
		t.Error(d)
	}
}

// What a container did is found with the layers below in sight: whiteouts are for
// what is there, an opaque directory over nothing is an ordinary one, and one
// that replaced another says what of it has gone.
func TestDiffOverLayers(t *testing.T) {
	base := layerDir(t, dir("etc"), file("etc/passwd", "a"), file("etc/old", "b"), dir("lib"), dir("lib/sub"), file("lib/sub/x", ""), file("lib/sub/y", ""),
		file("lib/z", ""), dir("same"), dir("was"), file("was/f", ""), file("file", ""))
	upper, _ := upperOf(t,
		dir("etc"), file("etc/passwd", "new"), file("etc/.wh.old", ""), file("etc/.wh.never", ""),
		dir("lib"), file("lib/.wh..wh..opq", ""), dir("lib/sub"), file("lib/sub/y", "1"), file("lib/new", ""),
		dir("new"), file("new/.wh..wh..opq", ""), file("new/f", ""), dir("same"), file("was", ""), dir("file"), file("file/.wh..wh..opq", ""))
	want := []string{
		"5 etc/ 0755 0:0", "0 etc/.wh.old 0000 0:0", `0 etc/passwd 0644 0:0 "new"`,
		"5 file/ 0755 0:0",
		"5 lib/ 0755 0:0", "0 lib/.wh.z 0000 0:0", "0 lib/new 0644 0:0", "5 lib/sub/ 0755 0:0", "0 lib/sub/.wh.x 0000 0:0", `0 lib/sub/y 0644 0:0 "1"`,
		"5 new/ 0755 0:0", "0 new/f 0644 0:0",
		"0 was 0644 0:0",
	}
	if d := cmp.Diff(listing(t, mustDiff(t, upper, DiffOptions{Lower: []string{base}})), want); d != "" {
		t.Error(d)
	}
	wantChanges := []string{"C /etc", "D /etc/old", "C /etc/passwd", "C /file", "C /lib", "D /lib/z", "A /lib/new", "C /lib/sub", "D /lib/sub/x", "C /lib/sub/y", "A /new", "A /new/f", "C /was"}
	if d := cmp.Diff(changes(t, upper, DiffOptions{Lower: []string{base}}), wantChanges); d != "" {
		t.Error(d)
	}
}

func changes(t testing.TB, dir string, o DiffOptions) []string {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o.Recorded = true
	var list []string
	err = Changes(t.Context(), f, o, func(c Change) error {
		list = append(list, string(c.Kind)+" "+c.Path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What was only made to mount something on is no change, and leaves no time.
func TestDiffStubs(t *testing.T) {
	old := time.Unix(1500000000, 0)
	base := layerDir(t, dir("etc", at(old)), file("etc/hosts", ""), dir("srv", at(old)), dir("run", at(old)))
	upper, _ := upperOf(t, dir("etc"), file("etc/resolv.conf", ""), file("etc/hosts", ""),
		dir("proc"), dir("dev"), dir("data"), dir("data/in"), dir("srv"), dir("srv/full"), file("srv/full/f", "x"), dir("run"), file("run/stub", ""))
	o := DiffOptions{Lower: []string{base}, Stubs: []string{"/proc", "/dev", "/etc/resolv.conf", "/etc/hosts", "/data/in", "/srv/full", "/run/stub"}}
	want := []string{"5 etc/ 0755 0:0", "0 etc/hosts 0644 0:0", "5 srv/ 0755 0:0", "5 srv/full/ 0755 0:0", `0 srv/full/f 0644 0:0 "x"`}
	if d := cmp.Diff(listing(t, mustDiff(t, upper, o)), want); d != "" {
		t.Error(d)
	}
	o.Settle = true
	first := mustDiff(t, upper, o)
	wantNames := []string{"etc", "etc/hosts", "run", "srv", "srv/full", "srv/full/f"}
	if d := cmp.Diff(names(t, upper), wantNames); d != "" {
		t.Error(d)
	}
	fi, err := os.Stat(filepath.Join(upper, "run"))
	if err != nil || !fi.ModTime().Equal(old) {
		t.Errorf("run has the time %v, %v", fi.ModTime(), err)
	}
	if !bytes.Equal(first, mustDiff(t, upper, o)) {
		t.Error("what was settled is another layer")
	}
}

// Times are whole seconds and not after the epoch, in the tar and, where it is to
// be the layer, on disk.
func TestDiffClamp(t *testing.T) {
	early, late := time.Unix(1000, 5e8), time.Unix(3e9, 7)
	upper, owners := upperOf(t, file("a", "", at(early), func(h *tar.Header) { h.Format = tar.FormatPAX }), dir("d", at(late)), file("d/b", "", at(late)), sym("d/l", "x", at(late)), fifo("p", at(late)))
	clamp := time.Unix(2e9, 3)
	data := mustDiff(t, upper, DiffOptions{Owners: owners, Clamp: clamp, Settle: true})
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		want := time.Unix(2e9, 0)
		if h.Name == "a" {
			want = time.Unix(1000, 0)
		}
		if !h.ModTime.Equal(want) {
			t.Errorf("%s: %v in the tar", h.Name, h.ModTime)
		}
		fi, err := os.Lstat(filepath.Join(upper, h.Name))
		if err != nil || !fi.ModTime().Equal(want) {
			t.Errorf("%s: %v on disk, %v", h.Name, fi.ModTime(), err)
		}
	}
}

func TestDiffErrors(t *testing.T) {
	tests := []struct {
		name string
		make func(root string) error
		want string
	}{
		{"whiteout name", func(root string) error { return os.WriteFile(root+"/.wh.x", nil, 0o644) },
			`archive ".": ".wh.x": no layer can hold a file of this name: it means that another was removed`},
		{"long path", func(root string) error {
			name := strings.Repeat("x", 200)
			for range 21 {
				root = root + "/" + name
				if err := os.Mkdir(root, 0o755); err == nil {
					continue
				}
				break
			}
			return deepen(root, name, 3)
		}, "file name too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := tempDir(t)
			if err := tt.make(root); err != nil {
				t.Fatal(err)
			}
			_, err := diff(t, root, DiffOptions{})
			var entry *EntryError
			if !errors.As(err, &entry) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
}

// deepen makes directories where paths are too long for a name.
func deepen(root, name string, n int) error {
	dir := filepath.Dir(root)
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for range n {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil && err != unix.EEXIST {
			return err
		}
		next, err := openat(fd, name, openDir, 0)
		unix.Close(fd)
		if err != nil {
			return err
		}
		fd = next
	}
	return unix.Close(fd)
}

// A deep tree does not need a descriptor for each of its levels.
func TestDiffDeep(t *testing.T) {
	path := strings.Repeat("d/", 900)
	upper, _ := upperOf(t, file(path+"f", "x"), file("d/d/z", "y"))
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 200
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }()
	got := listing(t, mustDiff(t, upper, DiffOptions{}))
	if len(got) != 902 || !strings.HasPrefix(got[901], "0 d/d/z ") {
		t.Errorf("%d entries, the last is %.80s", len(got), got[len(got)-1])
	}
}

// A hole is packed as zeros without being a burden on memory, and comes back.
func TestDiffSparse(t *testing.T) {
	root := tempDir(t)
	f, err := os.Create(root + "/hole")
	if err != nil {
		t.Fatal(err)
	}
	if err = errors.Join(f.Truncate(80<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var size counter
	packed, err := Diff(t.Context(), &size, dir, DiffOptions{Recorded: true})
	if err != nil || packed.Bytes != 80<<20 || size < 80<<20 {
		t.Errorf("%+v, %d, %v", packed, size, err)
	}
	if _, err := diff(t, root, DiffOptions{Limits: Limits{Bytes: 1 << 20}}); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes in files") {
		t.Errorf("error %v", err)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// randomChanges makes entries of a layer over the paths a..d/a..d/a..d.
func randomChanges(r *rand.Rand, whiteouts bool) []maker {
	var list []maker
	var fill func(prefix string, depth int)
	fill = func(prefix string, depth int) {
		for _, base := range []string{"a", "b", "c", "d"} {
			name := prefix + base
			opts := []option{owned(r.IntN(3), r.IntN(3)), mode(int64([]int{0o644, 0o755, 0o4755, 0o700, 0o2555}[r.IntN(5)])), at(time.Unix(1700000000+int64(r.IntN(4)), 0))}
			switch n := r.IntN(12); {
			case n < 3:
			case n < 5 && depth < 2:
				list = append(list, dir(name, opts...))
				if whiteouts && r.IntN(4) == 0 {
					list = append(list, file(name+"/.wh..wh..opq", ""))
				}
				fill(name+"/", depth+1)
			case n < 7:
				list = append(list, file(name, strings.Repeat("x", r.IntN(3)), append(opts, attr("user.n", fmt.Sprint(r.IntN(2))))...))
			case n == 7:
				list = append(list, sym(name, "a", opts[0]))
			case n == 8:
				list = append(list, fifo(name, opts...))
			case n == 9:
				list = append(list, char(name, 1, 3))
			case whiteouts:
				list = append(list, file(prefix+".wh."+base, ""))
			}
		}
	}
	fill("", 0)
	return list
}

// merge flattens layers and describes the tree that a container would see.
func merge(t testing.TB, lower []string, owners []Owners) (string, Owners, map[string]string) {
	t.Helper()
	root := filepath.Join(tempDir(t), "merged")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := Flatten(t.Context(), f, lower, owners, true)
	if err != nil {
		t.Fatal(err)
	}
	all := snapshot(t, root)
	for path, o := range table {
		all[path] += " " + o.Record()
	}
	for path := range all {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, path), &st); err != nil {
			t.Fatal(err)
		}
		all[path] += fmt.Sprint(" ", st.Mtim.Sec)
	}
	delete(all, ".")
	return root, table, all
}

// What Unpack makes of a diff is, over the same layer, the same tree: for the
// upper directory of an overlay and for a changed copy of the tree. The layer of
// a layer is the layer.
func TestDiffComesBack(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 7))
		base, baseOwners := upperOf(t, randomChanges(r, false)...)
		upper, owners := upperOf(t, randomChanges(r, true)...)
		lower, tables := []string{upper, base}, []Owners{owners, baseOwners}
		tree, treeOwners, want := merge(t, lower, tables)
		below := DiffOptions{Lower: []string{base}, LowerOwners: []Owners{baseOwners}}

		o := below
		o.Owners = owners
		asUpper := mustDiff(t, upper, o)
		o.Owners, o.Tree = treeOwners, true
		asTree := mustDiff(t, tree, o)
		for name, data := range map[string][]byte{"upper": asUpper, "tree": asTree} {
			again := filepath.Join(tempDir(t), "again")
			result, err := unpackInto(t, again, data, UnpackOptions{Lower: []string{base}})
			if err != nil {
				t.Fatalf("seed %d: %s: %v", seed, name, err)
			}
			_, _, got := merge(t, []string{again, base}, []Owners{result.Owners, baseOwners})
			if d := cmp.Diff(got, want); d != "" {
				t.Fatalf("seed %d: %s: %s\n%s", seed, name, d, strings.Join(listing(t, data), "\n"))
			}
			o := below
			o.Owners = result.Owners
			if !bytes.Equal(mustDiff(t, again, o), data) {
				t.Fatalf("seed %d: %s: the layer of the layer is another\n%s\n\n%s", seed, name, strings.Join(listing(t, data), "\n"), strings.Join(listing(t, mustDiff(t, again, o)), "\n"))
			}
		}
	}
}
