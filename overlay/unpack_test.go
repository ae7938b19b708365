// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestUnpackRecorded(t *testing.T) {
	tests := []struct {
		name    string
		entries []maker
		path    string
		want    string
		owners  Owners
	}{
		{"plain file", []maker{file("a", "x")}, "a", "file 0644 1 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", nil},
		{"owner", []maker{file("a", "", owned(0, 42), mode(0o640))}, "a", `file 0640 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.containers.override_stat="0:42:0640:file"`, nil},
		{"set-ID", []maker{file("a", "", mode(0o6755))}, "a", `file 0755 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.containers.override_stat="0:0:6755:file"`, nil},
		{"no rights", []maker{file("a", "", mode(0))}, "a", "file 0000 0", nil},
		{"capability", []maker{file("a", "", attr("security.capability", "\x01"))}, "a", `file 0644 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.containers.override_xattr.security.capability="\x01"`, nil},
		{"trusted", []maker{file("a", "", attr("trusted.x", "1"))}, "a", `file 0644 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.containers.override_xattr.trusted.x="1"`, nil},
		{"attribute", []maker{file("a", "", attr("user.x", "\x00y"))}, "a", `file 0644 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.x="\x00y"`, nil},
		{"label", []maker{file("a", "", attr("security.selinux", "y"))}, "a", "file 0644 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", nil},
		{"sticky", []maker{dir("d", mode(0o1777))}, "d", `dir 1777 user.containers.override_stat="0:0:1777:dir"`, nil},
		{"set-GID directory", []maker{dir("d", mode(0o2775), owned(0, 50))}, "d", `dir 0775 user.containers.override_stat="0:50:2775:dir"`, nil},
		{"shut directory", []maker{dir("d", mode(0o555)), file("d/f", "")}, "d", `dir 0755 user.containers.override_stat="0:0:0555:dir"`, nil},
		{"root", []maker{dir("./", mode(0o700), owned(5, 5))}, ".", `dir 0700 user.containers.override_stat="5:5:0700:dir"`, nil},
		{"symbolic link", []maker{sym("l", "../../x")}, "l", "symlink 0777 -> ../../x", nil},
		{"link's owner", []maker{sym("l", "x", owned(7, 8))}, "l", "symlink 0777 -> x", Owners{"l": {UID: 7, GID: 8, Mode: 0o777, Kind: Symlink}}},
		{"pipe", []maker{fifo("p")}, "p", "pipe 0644", nil},
		{"pipe's owner", []maker{dir("d"), fifo("d/p", owned(7, 8))}, "d/p", "pipe 0644", Owners{"d/p": {UID: 7, GID: 8, Mode: 0o644, Kind: Pipe}}},
		{"device", []maker{char("null", 1, 3)}, "null", `file 0666 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.containers.override_stat="0:0:0666:char-1-3"`, nil},
		{"disk", []maker{entry(tar.TypeBlock, "sda", "", 0o660, device(8, 0), owned(0, 6))}, "sda", `file 0660 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.containers.override_stat="0:6:0660:block-8-0"`, nil},
		{"parents", []maker{file("a/b/c/f", "")}, "a/b", "dir 0755", nil},
		{"old directory", []maker{raw(tar.TypeReg, "d/", "", 0, "")}, "d", "dir 0744", nil},
		{"contiguous file", []maker{entry(tar.TypeCont, "f", "", 0o600)}, "f", "file 0600 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", nil},
		{"long name", []maker{file(strings.Repeat("d/", 120)+"f", "")}, strings.Repeat("d/", 120) + "f", "file 0644 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", nil},
		{"link to link", []maker{sym("l", "x", owned(1, 1)), hard("m", "l")}, "m", "symlink 0777 -> x",
			Owners{"l": {UID: 1, GID: 1, Mode: 0o777, Kind: Symlink}, "m": {UID: 1, GID: 1, Mode: 0o777, Kind: Symlink}}},
	}
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(tempDir(t), "root")
			result, err := unpackInto(t, root, archive(tt.entries...), UnpackOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := look(t, filepath.Join(root, tt.path)); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if diff := cmp.Diff(result.Owners, tt.owners); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The last entry of a name wins, whatever the one before it was (U22).
func TestU22LastEntryWins(t *testing.T) {
	kinds := map[string][]maker{
		"file":    {file("n", "content", owned(1, 1), attr("user.a", "1"))},
		"dir":     {dir("n", owned(2, 2), mode(0o700))},
		"full":    {dir("n"), sym("n/owned", "x", owned(3, 3)), dir("n/sub"), file("n/sub/f", "")},
		"symlink": {sym("n", "d", owned(4, 4))},
		"pipe":    {fifo("n", owned(5, 5))},
		"device":  {char("n", 1, 5)},
		"hard":    {hard("n", "other")},
		"white":   {file(".wh.n", "")},
	}
	before := []maker{dir("d"), file("other", "other")}
	for first, a := range kinds {
		for second, b := range kinds {
			t.Run(first+" then "+second, func(t *testing.T) {
				once, twice := filepath.Join(tempDir(t), "once"), filepath.Join(tempDir(t), "twice")
				want, err := unpackInto(t, once, archive(append(before, b...)...), UnpackOptions{})
				if err != nil {
					t.Fatal(err)
				}
				got, err := unpackInto(t, twice, archive(append(append(before, a...), b...)...), UnpackOptions{})
				if err != nil {
					t.Fatal(err)
				}
				wantTree, gotTree := snapshot(t, once), snapshot(t, twice)
				switch {
				case second == "white" && first != "white":
					// A whiteout is about lower layers, it hides nothing of its own.
					return
				case (second == "dir" || second == "full") && (first == "dir" || first == "full"):
					// Directories merge: what was in it stays.
					for name := range gotTree {
						if _, ok := wantTree[name]; !ok {
							delete(gotTree, name)
						}
					}
					got.Owners = want.Owners
				case second == "dir" || second == "full":
					// In place of what hid the lower directory, it must hide it too.
					wantTree["n"] += ` user.overlay.opaque="y"`
				}
				if diff := cmp.Diff(gotTree, wantTree); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(got.Owners, want.Owners); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestUnpackHardLinks(t *testing.T) {
	root := layerDir(t, file("a", "x"), dir("d"), hard("d/b", "a"), hard("/c", "./d/b"), hard("a", "a"))
	var ids []uint64
	for _, name := range []string{"a", "d/b", "c"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, st.Ino)
	}
	if ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("inodes %v, want one", ids)
	}
}

// Times are those of the archive, also of directories in which entries were made
// later, removed, or implied.
func TestUnpackTimes(t *testing.T) {
	when := func(n int64) time.Time { return time.Unix(1600000000+n, n) }
	opt := func(n int64) option {
		return func(h *tar.Header) { h.ModTime, h.Format = when(n), tar.FormatPAX }
	}
	root := layerDir(t,
		dir("./", opt(1)), dir("a", opt(2)), dir("a/b", opt(3)), file("a/b/f", "x", opt(4)),
		dir("c", opt(5)), sym("c/l", "/a/b", opt(6)), file("a/g", "", opt(7)), fifo("a/b/p", opt(8)),
		file("c/l/through", "", opt(9)), file("a/b/deep/er/f", "", opt(10)), dir("a/b/f", opt(11)), file("a/.wh.gone", ""),
		dir("e", opt(12)), dir("e/x", opt(13)), file("e/.wh..wh..opq", ""), file("e/x/.wh.y", ""), file("e/.wh.x", ""))
	want := map[string]int64{".": 1, "a": 2, "a/b": 3, "a/b/f": 11, "c": 5, "c/l": 6, "a/g": 7, "a/b/p": 8, "a/b/through": 9, "a/b/deep/er/f": 10, "e": 12, "e/x": 13}
	for name, n := range want {
		fi, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if !fi.ModTime().Equal(when(n)) {
			t.Errorf("%s: time %v, want %v", name, fi.ModTime(), when(n))
		}
	}
}

// Symbolic links of the layer itself are followed inside the root, as docker and
// GNU tar do; the root is the layer's.
func TestUnpackThroughLinks(t *testing.T) {
	root := layerDir(t,
		dir("usr"), dir("usr/lib"), sym("lib", "usr/lib"), file("lib/a", ""),
		sym("abs", "/usr/lib"), file("abs/b", ""),
		sym("usr/up", "../../../../usr/lib"), file("usr/up/c", ""),
		sym("nowhere", "/made/here"), file("nowhere/d", ""),
		sym("one", "two"), sym("two", "lib"), file("one/sub/e", ""),
		hard("f", "abs/a"), sym("owned", "usr"), sym("owned/link", "x", owned(3, 3)))
	want := []string{"abs", "f", "lib", "made", "made/here", "made/here/d", "nowhere", "one", "owned", "two", "usr", "usr/lib",
		"usr/lib/a", "usr/lib/b", "usr/lib/c", "usr/lib/sub", "usr/lib/sub/e", "usr/link", "usr/up"}
	if diff := cmp.Diff(names(t, root), want); diff != "" {
		t.Error(diff)
	}
}

// The table names files by where they are, not by how the archive came there.
func TestOwnersThroughLinks(t *testing.T) {
	root := filepath.Join(tempDir(t), "root")
	result, err := unpackInto(t, root, archive(dir("usr"), sym("u", "usr"), sym("u/l", "x", owned(3, 3)),
		dir("gone"), sym("gone/l", "x", owned(4, 4)), file("gone", ""),
		fifo("p", owned(5, 5)), file("p/f", "")), UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := Owners{"usr/l": {UID: 3, GID: 3, Mode: 0o777, Kind: Symlink}}
	if diff := cmp.Diff(result.Owners, want); diff != "" {
		t.Error(diff)
	}
}

func TestUnpackErrors(t *testing.T) {
	tests := []struct {
		name    string
		entries []maker
		want    string
	}{
		{"climbs", []maker{file("../x", "")}, `unpack "../x": the name leads out of the archive`},
		{"climbs later", []maker{file("a/../../x", "")}, `unpack "a/../../x": the name leads out of the archive`},
		{"link climbs", []maker{hard("x", "../../etc/passwd")}, `unpack "x": link to "../../etc/passwd": the name leads out of the archive`},
		{"link to nothing", []maker{hard("x", "y")}, `unpack "x": link to "y": no such file in this layer or those below it`},
		{"link to directory", []maker{dir("y"), hard("x", "y")}, `unpack "x": link to "y": is a directory`},
		{"link to root", []maker{hard("x", "/")}, `unpack "x": link to "/": is a directory`},
		{"link to whiteout", []maker{file(".wh.y", ""), hard("x", "y")}, `unpack "x": link to "y": no such file in this layer or those below it`},
		{"link loop", []maker{sym("a", "b"), sym("b", "a"), file("a/x", "")}, `unpack "a/x": too many levels of symbolic links`},
		{"device 0:0", []maker{char("x", 0, 0)}, `unpack "x": the character device 0:0 is a whiteout, not a file`},
		{"device too large", []maker{char("x", 4096, 0)}, `unpack "x": no such device number`},
		{"unknown kind", []maker{entry('Z', "x", "", 0o644)}, `unpack "x": entry of a kind that is not known`},
		{"owner -1", []maker{file("x", "", owned(1<<32-1, 0))}, `unpack "x": no such owner`},
		{"link through whiteout", []maker{sym("s", ".wh.y"), file("s/f", "")}, `unpack "s/f": a link leads to the name of a whiteout`},
		{"control bytes", []maker{file("\x1b[2J\n/../../x", "")}, `unpack "\x1b[2J\n/../../x": the name leads out of the archive`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := unpackInto(t, filepath.Join(tempDir(t), "root"), archive(tt.entries...), UnpackOptions{})
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
}

func TestUnpackNeedsEmptyRoot(t *testing.T) {
	root := layerDir(t, file("x", ""))
	if _, err := unpackInto(t, root, archive(), UnpackOptions{}); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("error %v, want not empty", err)
	}
}

func TestUnpackCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root, err := os.Open(tempDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = Unpack(ctx, root, strings.NewReader(string(archive(file("x", "")))), UnpackOptions{Recorded: true})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
}

// A filesystem without user attributes and devices puts everything into the
// table, and whiteouts into files.
func TestUnpackWithoutAttributes(t *testing.T) {
	root := tempDir(t)
	result, err := unpackPoor(t, root, archive(
		file("a", "x", owned(1, 2), attr("user.x", "y"), attr("security.capability", "\x01")), dir("d", mode(0o2755)), char("null", 1, 3),
		file(".wh.gone", ""), file("d/.wh..wh..opq", ""), dir("over"), file(".wh.over", ""), file(".wh.back", ""), dir("back"), file(".wh.again", ""), file("again", "")))
	if err != nil {
		t.Fatal(err)
	}
	want := Owners{
		"a":    {UID: 1, GID: 2, Mode: 0o644, Xattrs: map[string]string{"user.x": "y", "security.capability": "\x01"}},
		"d":    {Mode: 0o2755, Kind: Dir},
		"null": {Mode: 0o666, Kind: Char, Major: 1, Minor: 3},
	}
	if diff := cmp.Diff(result.Owners, want); diff != "" {
		t.Error(diff)
	}
	if !result.Markers {
		t.Error("the result does not tell that whiteouts are files")
	}
	wantNames := []string{".wh.gone", "a", "again", "back", "back/.wh..wh..opq", "d", "d/.wh..wh..opq", "null", "over", "over/.wh..wh..opq"}
	if diff := cmp.Diff(names(t, root), wantNames); diff != "" {
		t.Error(diff)
	}
}

// unpackPoor unpacks as if the filesystem had refused attributes and devices.
func unpackPoor(t testing.TB, root string, data []byte) (Result, error) {
	t.Helper()
	return unpackAs(t, root, data, func(u *unpacker) { u.writer.noXattrs, u.tree.noDevices = true, true })
}

// unpackAs unpacks with an unpacker that was changed before it runs.
func unpackAs(t testing.TB, root string, data []byte, change func(u *unpacker)) (Result, error) {
	t.Helper()
	fd, err := unix.Open(root, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	u := newUnpacker(t.Context(), fd, strings.NewReader(string(data)), UnpackOptions{Recorded: true})
	defer u.close()
	change(u)
	err = u.run()
	return u.result, err
}

// A directory entry over a link replaces it; what the link led to keeps its mode
// (U04), outside and inside.
func TestU04ModeOfLink(t *testing.T) {
	base, decoy := decoyTree(t)
	before := guarded(t, base)
	root := filepath.Join(base, "root")
	_, err := unpackInto(t, root, archive(dir("in", mode(0o700)), sym("a", decoy), sym("b", "../decoy"), sym("c", "in"), sym("d", "missing"),
		dir("a", mode(0o777)), dir("b", mode(0o777)), dir("c/", mode(0o777)), dir("d", mode(0o777))), UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, guarded(t, base)); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{"in": "dir 0700", "a": "dir 0777", "b": "dir 0777", "c": "dir 0777", "d": "dir 0777"} {
		if got := look(t, filepath.Join(root, name)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// Chains of links end, and a hard link to a link is a second name of that link,
// not of what it leads to from its new place (U06).
func TestU06Chains(t *testing.T) {
	chain := func(n int) []maker {
		list := []maker{dir("d0")}
		for i := range n {
			list = append(list, sym(fmt.Sprint("d", i+1), fmt.Sprint("d", i)))
		}
		return append(list, file(fmt.Sprint("d", n, "/f"), ""))
	}
	for n, works := range map[int]bool{1: true, 40: true, 255: true, 256: false} {
		root := filepath.Join(tempDir(t), "root")
		_, err := unpackInto(t, root, archive(chain(n)...), UnpackOptions{})
		if (err == nil) != works {
			t.Errorf("%d links: error %v", n, err)
		}
		if _, statErr := os.Lstat(filepath.Join(root, "d0/f")); err == nil && statErr != nil {
			t.Errorf("%d links: %v", n, statErr)
		}
	}
	base, _ := decoyTree(t)
	before := guarded(t, base)
	root := filepath.Join(base, "root")
	_, err := unpackInto(t, root, archive(dir("a"), dir("a/b"), sym("a/b/s", "../../../decoy/secret"), hard("t", "a/b/s"), hard("u", "t"), file("u", "new")), UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, guarded(t, base)); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{"t": "symlink 0777 -> ../../../decoy/secret", "u": "file 0644 3"} {
		if got := look(t, filepath.Join(root, name)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// No set-ID bit is ever on disk where files belong to the caller, so that nobody
// else on the machine can become the caller by them (U15).
func TestU15NoSetIDOnDisk(t *testing.T) {
	root := layerDir(t, file("su", "", mode(0o6755), owned(0, 5)), dir("d", mode(0o6777)), file("d/x", "", mode(0o2755)), hard("again", "su"), file("su2", ""), file("su2", "", mode(0o4711)),
		dir("e"), dir("e", mode(0o2755)), fifo("p", mode(0o6644)), char("c", 1, 3))
	for name := range snapshot(t, root) {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
			t.Errorf("%s has mode %04o", name, st.Mode&modeBits)
		}
	}
}
