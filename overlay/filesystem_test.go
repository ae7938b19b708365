// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// mounted mounts a filesystem for the test; it goes with the namespace.
func mounted(t *testing.T, kind, options string) string {
	t.Helper()
	base := t.TempDir()
	if err := unix.Mount("none", base, kind, 0, options); err != nil {
		t.Fatalf("mount %s: %v", kind, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(base, unix.MNT_DETACH) })
	return base
}

// A full disk is an error that names the entry and keeps the errno, and what was
// unpacked can be removed.
func TestDiskFull(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for options, entries := range map[string][]maker{
		"size=1m":                {dir("d"), file("d/small", "x"), file("d/large", strings.Repeat("x", 2<<20))},
		"size=1m,nr_inodes=10":   {dir("d"), file("d/1", ""), sym("d/2", "x"), file("d/3", ""), dir("d/4"), fifo("d/5"), file("d/6", ""), file("d/7", ""), dir("d/8"), file("d/9/x", "")},
		"size=64m,nr_inodes=100": {file(strings.Repeat("d/", 200)+"large", "")},
	} {
		base := mounted(t, "tmpfs", options)
		_, err := unpackInto(t, filepath.Join(base, "root"), archive(entries...), UnpackOptions{})
		var named *EntryError
		if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &named) {
			t.Errorf("%s: error %v", options, err)
		}
		if err := removeIn(t.Context(), t, base, "root"); err != nil {
			t.Errorf("%s: %v", options, err)
		}
	}
}

// ramfs keeps no attributes: records go into the table, also when a stack is
// copied there, and come back from it.
func TestWithoutUserXattrs(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	base := mounted(t, "ramfs", "")
	dirFile, err := os.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer dirFile.Close()
	var refused *FeatureError
	if err := CheckXattr(dirFile); !errors.As(err, &refused) || refused.Hint() == "" || !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("error %v", err)
	}
	if err := CheckWhiteout(dirFile); err != nil {
		t.Error(err)
	}
	entries := []maker{file("a", "x", owned(1, 2), attr("user.x", "y")), dir("d", mode(0o2755)), file("d/.wh..wh..opq", ""), char("null", 1, 3), dir("./", owned(3, 3))}
	poor := filepath.Join(base, "poor")
	result, err := unpackInto(t, poor, archive(entries...), UnpackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := Owners{
		".":    {UID: 3, GID: 3, Mode: 0o755, Kind: Dir},
		"a":    {UID: 1, GID: 2, Mode: 0o644, Xattrs: map[string]string{"user.x": "y"}},
		"d":    {Mode: 0o2755, Kind: Dir},
		"null": {Mode: 0o666, Kind: Char, Major: 1, Minor: 3},
	}
	if diff := cmp.Diff(result.Owners, want); diff != "" || !result.Markers {
		t.Errorf("markers %v: %s", result.Markers, diff)
	}
	rich := layerDir(t, entries...)
	back, owners := flat(t, []string{poor}, []Owners{result.Owners})
	got, expected := snapshot(t, back), snapshot(t, rich)
	expected["d"] = strings.Replace(expected["d"], ` user.overlay.opaque="y"`, "", 1)
	if diff := cmp.Diff(got, expected); diff != "" || owners != nil {
		t.Errorf("owners %v: %s", owners, diff)
	}
	to := filepath.Join(base, "copy")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	dst, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	owners, err = Flatten(t.Context(), dst, []string{rich}, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(owners, want); diff != "" {
		t.Error(diff)
	}
}
