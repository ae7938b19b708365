// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sbx/tests/need"
)

// imageFiles are the real root filesystems of this machine.
func imageFiles(t testing.TB) []string {
	t.Helper()
	need.Need(t, need.Images)
	list, err := filepath.Glob(filepath.Join(os.Getenv("SBX_TEST_IMAGES"), "*.tar.*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	return list
}

// unpackFile unpacks an archive on disk.
func unpackFile(t testing.TB, name, root string, o UnpackOptions) Result {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	content, _, err := Decompress(f)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	result, err := Unpack(t.Context(), dir, content, o)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// GNU tar lists and extracts what we unpack: kinds, modes, owners, times, sizes,
// contents, link targets and hard links.
func TestImagesAsGNUTar(t *testing.T) {
	for _, name := range imageFiles(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			root := filepath.Join(tempDir(t), "ours")
			result := unpackFile(t, name, root, UnpackOptions{Recorded: true})
			want, ok := gnuListing(t, name)
			if !ok {
				return
			}
			got := map[string]string{}
			for path := range snapshot(t, root) {
				got[path] = recorded(t, root, path, result.Owners)
			}
			for path := range got {
				if _, ok := want[path]; !ok && isImplied(want, path) {
					delete(got, path)
				}
			}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Error(diff)
			}
			theirs := filepath.Join(tempDir(t), "theirs")
			if err := os.Mkdir(theirs, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, ok := run(t, "tar", "--no-same-owner", "-C", theirs, "-xf", name); !ok {
				return
			}
			if diff := cmp.Diff(contents(t, root), contents(t, theirs)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// isImplied reports whether a directory has no entry, but entries below it.
func isImplied(listing map[string]string, path string) bool {
	for name := range listing {
		if path == "." || strings.HasPrefix(name, path+"/") {
			return true
		}
	}
	return false
}

// recorded describes a file as its layer says it is: kind, mode, owner, time.
func recorded(t testing.TB, root, path string, owners Owners) string {
	t.Helper()
	full := filepath.Join(root, path)
	var st unix.Stat_t
	if err := unix.Lstat(full, &st); err != nil {
		t.Fatal(err)
	}
	o := ownerOnDisk(&st, true)
	if record := attrOf(full, RecordXattr); record != "" {
		var err error
		if o, err = ParseRecord(record); err != nil {
			t.Fatal(err)
		}
	}
	if listed, ok := owners[path]; ok {
		o = listed
	}
	s := fmt.Sprintf("%s %04o %d:%d %d", o.Kind, o.Mode, o.UID, o.GID, st.Mtim.Sec)
	if o.Kind == File {
		s += fmt.Sprint(" ", st.Size)
	}
	return s
}

var listLine = regexp.MustCompile(`^(.)(.{9}) (\d+)/(\d+) +(\S+) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (.*)$`)

// gnuListing reads `tar -tv` into the same form.
func gnuListing(t testing.TB, name string) (map[string]string, bool) {
	t.Helper()
	out, ok := run(t, "env", "TZ=UTC", "LC_ALL=C", "tar", "--numeric-owner", "--full-time", "--quoting-style=literal", "-tvf", name)
	all := map[string]string{}
	for line := range strings.Lines(string(out)) {
		m := listLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Fatalf("line %q", line)
		}
		kind, path := m[1], m[7]
		when, err := time.Parse(time.DateTime, m[6])
		if err != nil {
			t.Fatal(err)
		}
		size := ""
		word := map[string]string{"-": "file", "d": "dir", "l": "symlink", "p": "pipe", "c": "char", "b": "block"}[kind]
		switch kind {
		case "h": // described by its target
			path, target, _ := strings.Cut(path, " link to ")
			all[filepath.Clean(path)] = all[filepath.Clean(target)]
			continue
		case "l":
			path, _, _ = strings.Cut(path, " -> ")
		case "-":
			size = " " + m[5]
		}
		all[filepath.Clean(path)] = fmt.Sprintf("%s %04o %s:%s %d%s", word, modeOf(m[2]), m[3], m[4], when.Unix(), size)
	}
	return all, ok
}

// modeOf reads the nine letters of a mode.
func modeOf(letters string) uint32 {
	var m uint32
	for i, c := range letters {
		bit := uint32(1) << (8 - i)
		switch {
		case c == 's' || c == 't':
			m |= bit | 0o4000>>(i/3)
		case c == 'S' || c == 'T':
			m |= 0o4000 >> (i / 3)
		case c != '-':
			m |= bit
		}
	}
	return m
}

// contents describes files by what is in them.
func contents(t testing.TB, root string) map[string]string {
	t.Helper()
	first := map[uint64]string{}
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		s := d.Type().String()
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			s += " " + target
		case d.Type().IsRegular():
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			s += fmt.Sprintf(" %x", h.Sum(nil))
			if st.Nlink > 1 {
				if _, ok := first[st.Ino]; !ok {
					first[st.Ino] = rel // the walk is sorted
				}
				s += " same as " + first[st.Ino]
			}
		}
		all[rel] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Where IDs are mapped, the disk itself has the owners.
func TestImagesMapped(t *testing.T) {
	const mark = "SBX_OVERLAY_MAPPED"
	if os.Getenv(mark) == "" {
		need.Need(t, need.Subids, need.Images)
		out, ok := run(t, "env", mark+"=1", "unshare", "--user", "--map-root-user", "--map-auto", "--mount", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
		if !ok || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("in the namespace:\n%s", out)
		}
		return
	}
	for _, name := range imageFiles(t) {
		root := filepath.Join(tempDir(t), "ours")
		result := unpackFile(t, name, root, UnpackOptions{})
		if len(result.Owners) > 0 {
			t.Errorf("%s: a table of %d owners", name, len(result.Owners))
		}
		want, ok := gnuListing(t, name)
		if !ok {
			return
		}
		got := map[string]string{}
		for path := range snapshot(t, root) {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(root, path), &st); err != nil {
				t.Fatal(err)
			}
			o := ownerOnDisk(&st, false)
			got[path] = fmt.Sprintf("%s %04o %d:%d %d", o.Kind, o.Mode, o.UID, o.GID, st.Mtim.Sec)
			if o.Kind == File {
				got[path] += " " + strconv.FormatInt(st.Size, 10)
			}
			if _, ok := want[path]; !ok && isImplied(want, path) {
				delete(got, path)
			}
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// An owner that is not mapped is an error that names it and says what would help;
// devices are recorded on every rung.
func TestRealOwners(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	real := func(entries ...maker) (string, error) {
		root := tempDir(t)
		f, err := os.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = Unpack(t.Context(), f, strings.NewReader(string(archive(entries...))), UnpackOptions{})
		return root, err
	}
	for what, m := range map[string]maker{"file": file("f", "", owned(0, 42)), "dir": dir("f", owned(0, 42)), "link": sym("f", "x", owned(0, 42)), "pipe": fifo("f", owned(0, 42)), "root": dir("./", owned(0, 42))} {
		_, err := real(m)
		if err == nil || !strings.Contains(err.Error(), "change owner to 0:42: not mapped into this user namespace") || !strings.Contains(hintOf(err), "too small for owner 42") {
			t.Errorf("%s: error %v, hint %s", what, err, hintOf(err))
		}
	}
	root, err := real(file("su", "", mode(0o4755), attr("user.x", "y"), attr("trusted.x", "z")), char("null", 1, 3), dir("d", mode(0o2750)), dir("shut", mode(0)), file("shut/f", "x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"su":     `file 4755 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.containers.override_xattr.trusted.x="z" user.x="y"`,
		"null":   `file 0666 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 user.containers.override_stat="0:0:0666:char-1-3"`,
		"d":      "dir 2750",
		"shut":   "dir 0000",
		"shut/f": "file 0644 1 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
	} {
		if got := look(t, filepath.Join(root, name)); got != want {
			t.Errorf("%s: got  %s\nwant %s", name, got, want)
		}
	}
	// Capabilities of files are real in a namespace.
	root, err = real(file("ping", "", attr("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")))
	if err != nil || attrOf(filepath.Join(root, "ping"), "security.capability") == "" {
		t.Errorf("capability %q, %v", attrOf(filepath.Join(root, "ping"), "security.capability"), err)
	}
}
