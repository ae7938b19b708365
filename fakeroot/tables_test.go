// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sbx/overlay"
)

const mountinfo = `30 23 0:40 / / rw,nosuid,nodev - overlay overlay rw,lowerdir=x
31 30 0:41 / /proc rw - proc proc rw
32 30 0:42 / /dev rw,nosuid - tmpfs tmpfs rw
33 30 254:0 /home/u /mnt rw - ext4 /dev/vda rw
34 30 254:0 /home/u/vol /var/lib/with\040space rw - ext4 /dev/vda rw
35 33 0:43 / /mnt/sub rw - tmpfs tmpfs rw
nonsense
x y z
`

func TestMounts(t *testing.T) {
	m := parseMounts(mountinfo, &Options{Own: []string{"/dev", "/var/lib/with space"}})
	file := func(id uint64, major, minor uint32) *unix.Statx_t {
		return &unix.Statx_t{Mask: unix.STATX_MNT_ID, Mnt_id: id, Dev_major: major, Dev_minor: minor}
	}
	for _, tt := range []struct {
		name string
		st   *unix.Statx_t
		want bool
	}{
		{"root", file(30, 0, 40), true},
		{"root, of a lower layer on another filesystem", file(30, 0, 77), true},
		{"root in another mount namespace", file(99, 0, 40), true},
		{"bind", file(33, 254, 0), false},
		{"volume on the bind's filesystem", file(34, 254, 0), true},
		{"tmpfs of ours", file(32, 0, 42), true},
		{"tmpfs of the host", file(35, 0, 43), false},
		{"made later", file(80, 0, 90), false},
	} {
		if got := m.has(tt.st, nil); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	old := &unix.Statx_t{Dev_major: 254}
	if !m.has(old, func() string { return "pos:\t0\nflags:\t02\nmnt_id:\t34\n" }) || m.has(old, func() string { return "mnt_id:\t33\n" }) {
		t.Error("where statx has no mount ID")
	}
	if parseMounts(mountinfo, &Options{ForeignRoot: true}).has(file(30, 0, 40), nil) {
		t.Error("a foreign root is ours")
	}
}

func TestOwnerTable(t *testing.T) {
	table := newOwnerTable()
	st := func(inode uint64, born int64) *unix.Statx_t {
		return &unix.Statx_t{Mask: unix.STATX_BTIME, Ino: inode, Mode: unix.S_IFLNK | 0o777, Btime: unix.StatxTimestamp{Sec: born}}
	}
	link := overlay.Owner{UID: 5, GID: 6, Kind: overlay.Symlink}
	table.keep(st(1, 10), entry{owner: link, path: "/l"})
	if o, ok := table.get(st(1, 10)); !ok || o.UID != 5 {
		t.Error(o, ok)
	}
	if _, ok := table.get(st(1, 11)); ok {
		t.Error("another file of the same number has the owner")
	}
	dir := st(1, 10)
	dir.Mode = unix.S_IFDIR
	if _, ok := table.get(dir); ok {
		t.Error("a directory has a link's owner")
	}
	terminal := &unix.Statx_t{Ino: 3, Mode: unix.S_IFCHR, Rdev_major: 136, Ctime: unix.StatxTimestamp{Sec: 1}}
	table.pass(terminal, entry{owner: overlay.Owner{UID: 5, Kind: overlay.Char}})
	if _, ok := table.get(terminal); !ok {
		t.Error("terminal")
	}
	terminal.Ctime.Sec = 2
	if _, ok := table.get(terminal); ok {
		t.Error("the next terminal has the last one's owner")
	}
	table.forget(st(1, 10))
	if _, ok := table.get(st(1, 10)); ok || table.size.Load() != 1 {
		t.Error("not forgotten")
	}
	for i := range uint64(maxPassing + 100) {
		table.pass(st(i, 1), entry{owner: link, foreign: true})
	}
	for i := range uint64(maxKept + 100) {
		table.keep(st(i, 1), entry{owner: link})
	}
	if n := table.size.Load(); n > maxKept+maxPassing {
		t.Errorf("%d entries", n)
	}
}

// An entry of a layer's table holds where the file that is seen is that layer's.
func TestLayers(t *testing.T) {
	dir := t.TempDir()
	link := func(name string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := first(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink("x", path)); err != nil {
			t.Fatal(err)
		}
	}
	owner := func(uid uint32) overlay.Owner { return overlay.Owner{UID: uid, Kind: overlay.Symlink} }
	for _, name := range []string{"upper/only", "upper/replaced", "top/a", "top/covered", "bottom/a", "bottom/covered", "bottom/below", "bottom/replaced", "bottom/d/deep"} {
		link(name)
	}
	if err := os.Symlink("/", filepath.Join(dir, "top/d")); err != nil {
		t.Fatal(err)
	}
	s, err := openSaved(&Options{
		Upper:  filepath.Join(dir, "upper"),
		Owners: overlay.Owners{"only": owner(1)},
		Layers: []Layer{
			{filepath.Join(dir, "top"), overlay.Owners{"a": owner(2)}},
			{filepath.Join(dir, "bottom"), overlay.Owners{"a": owner(3), "covered": owner(3), "below": owner(3), "replaced": owner(3), "d/deep": owner(3)}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	want := map[string]overlay.Owner{"only": owner(1), "a": owner(2), "below": owner(3), "d/deep": owner(3)}
	if d := cmp.Diff(want, s.initial); d != "" {
		t.Error(d)
	}
	// The merged tree decides the rest: where "d" is a link, the path leads nowhere.
	root, err := unix.Open(filepath.Join(dir, "top"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	table := newOwnerTable()
	s.load(table, root)
	if len(table.kept) != 1 {
		t.Errorf("%d entries", len(table.kept))
	}
}

func TestSaveOwners(t *testing.T) {
	name := filepath.Join(t.TempDir(), "owners.json")
	if got, err := overlay.ReadOwners(name); got != nil || err != nil {
		t.Error(got, err)
	}
	want := overlay.Owners{"l": {UID: 5, GID: 6, Mode: 0o777, Kind: overlay.Symlink}, "strange \xff%": {UID: 1, Kind: overlay.Pipe}}
	if err := saveOwners(name, want); err != nil {
		t.Fatal(err)
	}
	got, err := overlay.ReadOwners(name)
	if err != nil || !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got), err)
	}
	if err := first(saveOwners(name, nil), saveOwners(name, nil)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(name); !os.IsNotExist(err) {
		t.Error("an empty table leaves a file")
	}
}

func TestWellKnown(t *testing.T) {
	for path, want := range map[string]struct {
		fd int32
		v  verdict
	}{
		"/proc/self/fd/9": {9, found}, "/dev/fd/0": {0, found}, "/dev/stderr": {2, found},
		"/proc/self/fd/": {-1, outside}, "/proc/self/fd/1/x": {-1, outside}, "/proc/self/fd/../x": {-1, outside}, "/dev/fd/-1": {-1, outside},
		"/dev/fd/99999999999": {-1, outside}, "/proc": {-1, outside}, "/proc/1/root": {-1, outside}, "/sys/x": {-1, outside},
		"/procx": {-1, found}, "/devel": {-1, found}, "/dev/pts/0": {-1, found}, "/system": {-1, found}, "/": {-1, found},
	} {
		if fd, v := wellKnown([]byte(path), false); fd != want.fd || v != want.v {
			t.Errorf("%s: %d, %d", path, fd, v)
		}
	}
	if fd, v := wellKnown([]byte("/dev/stdin"), true); fd != -1 || v != found {
		t.Error("the link /dev/stdin itself is no descriptor")
	}
}

func TestSplitPath(t *testing.T) {
	for name, want := range map[string][2]string{
		"/": {"/", "."}, "///": {"/", "."}, "a": {".", "a"}, "/a": {"/", "a"}, "a/b": {"a", "b"}, "/a/b/": {"/a", "b/"}, "a/": {".", "a/"},
	} {
		if d, l := splitPath(name); d != want[0] || l != want[1] {
			t.Errorf("%q: %q, %q", name, d, l)
		}
	}
}

func TestMode(t *testing.T) {
	for _, m := range []Mode{Auto, Notify, IDs, Zero, None} {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Error(m, got, err)
		}
	}
	if m, err := ParseMode(""); m != Auto || err != nil {
		t.Error(m, err)
	}
	_, err := ParseMode("some")
	if h, ok := err.(interface{ Hint() string }); !ok || h.Hint() == "" {
		t.Error(err)
	}
	for _, tt := range []struct {
		f    Features
		want Mode
	}{{Features{Notify: true}, Notify}, {Features{Reason: "old"}, Zero}, {Features{Reason: reasonBusy}, None}} {
		if got, _ := Auto.Settle(tt.f); got != tt.want {
			t.Errorf("%+v: %s", tt.f, got)
		}
	}
	if got, _ := IDs.Settle(Features{}); got != IDs {
		t.Error("what was asked for is replaced")
	}
}

// A link that the base image owns to somebody, in the layer's table.
func TestLayerTable(t *testing.T) {
	w := newWorld(t, "")
	lower := filepath.Join(w.dir, "lower")
	if err := os.Mkdir(lower, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kept", "touched", "changed", "removed"} {
		if err := os.Symlink("x", filepath.Join(lower, name)); err != nil {
			t.Fatal(err)
		}
	}
	w.lower = lower + ":" + w.lower
	w.layerOwners = overlay.Owners{}
	for _, name := range []string{"kept", "touched", "changed", "removed"} {
		w.layerOwners[name] = overlay.Owner{UID: 5, GID: 6, Mode: 0o777, Kind: overlay.Symlink}
	}
	w.tableDir = lower
	w.probe("layertable", "first")
	w.probe("layertable", "second")
}
