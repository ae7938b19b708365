// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/tests/need"
	"sbx/userns"
)

// The copying fallback: what overlayfs would show of an image, as plain files.
func TestFlatten(t *testing.T) {
	needUserns(t)
	onRungs(t, "", func(t *testing.T, s *Store) {
		img := mustPull(t, s, alpine, source(t, base(t), second(t)))
		dirs, err := s.LayerDirs(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(dirs)
		dst := s.path("copy")
		if err := s.Flatten(t.Context(), dirs, dst); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"bin/sh": "#!shell", "etc/motd": "hello", "etc/passwd": "root:x:0:0::/root:/bin/sh\n"} {
			if got, err := os.ReadFile(dst + "/" + name); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		if _, err := os.Lstat(dst + "/gone"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("gone is not: %v", err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(dst+"/etc/shadow", &st); err != nil {
			t.Fatal(err)
		}
		if s.Rung().IsMapped() {
			if st.Uid != uint32(os.Getuid()) || st.Gid != uint32(s.Rung().GIDs[0].First+41) || st.Mode&0o7777 != 0o040 {
				t.Errorf("etc/shadow: %d:%d %o", st.Uid, st.Gid, st.Mode)
			}
			// Linux would not let us set the bit for the file of another.
			if err := unix.Lstat(dst+"/bin/su", &st); err != nil || st.Mode&0o4000 == 0 {
				t.Errorf("bin/su: %o %v", st.Mode, err)
			}
		} else {
			if st.Uid != uint32(os.Getuid()) || st.Gid != uint32(os.Getgid()) {
				t.Errorf("etc/shadow: %d:%d", st.Uid, st.Gid)
			}
			if err := unix.Lstat(dst+"/bin/su", &st); err != nil || st.Mode&0o6000 != 0 {
				t.Errorf("bin/su: %o %v", st.Mode, err)
			}
			// The owner of a link cannot stand with it.
			f, err := os.Open(dst + "." + ownersFile)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			owners, err := overlay.LoadOwners(f)
			if err != nil || owners["home/link"].UID != 1000 {
				t.Errorf("owners %+v, %v", owners, err)
			}
			table, err := s.Owners(img.Layers[0])
			if err != nil || table["home/link"].UID != 1000 {
				t.Errorf("owners of the layer %+v, %v", table, err)
			}
		}
		if err := s.RemoveTree(t.Context(), dst); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(dst); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the copy is still there: %v", err)
		}
		if err := s.RemoveTree(t.Context(), dst); err != nil {
			t.Errorf("once more: %v", err)
		}
		mustCheck(t, s)
	})
}

// An image without layers can be copied, too.
func TestFlattenNothing(t *testing.T) {
	needUserns(t)
	onRungs(t, "", func(t *testing.T, s *Store) {
		dirs, err := s.LayerDirs(t.Context(), mustPull(t, s, alpine, source(t)))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Flatten(t.Context(), dirs, s.path("copy")); err != nil {
			t.Fatal(err)
		}
		if names, err := os.ReadDir(s.path("copy")); err != nil || len(names) != 0 {
			t.Errorf("%v, %v", names, err)
		}
	})
}

func TestRemoveTree(t *testing.T) {
	needUserns(t)
	onRungs(t, "", func(t *testing.T, s *Store) {
		// As overlayfs leaves its work directory.
		if err := os.MkdirAll(s.path("c/work/work"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(s.path("c/work/work"), 0); err != nil {
			t.Fatal(err)
		}
		outside := filepath.Join(t.TempDir(), "kept")
		write(t, outside, "x")
		if err := os.Symlink(filepath.Dir(outside), s.path("c/link")); err != nil {
			t.Fatal(err)
		}
		if err := s.RemoveTree(t.Context(), s.path("c")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(outside); err != nil {
			t.Error(err)
		}
		for _, path := range []string{"/", ".", ".."} {
			if err := s.RemoveTree(t.Context(), path); err == nil {
				t.Errorf("RemoveTree(%q) succeeds", path)
			}
		}
	})
}

// On the rung single everything in the store is the user's: rm -rf is enough.
func TestStoreIsTheUsers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, err := Open(dir, userns.SingleRung())
	if err != nil {
		t.Fatal(err)
	}
	mustPull(t, s, alpine, source(t, base(t), second(t)))
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// A layer for one rung is none for another: both are kept side by side.
func TestRungsSideBySide(t *testing.T) {
	need.Need(t, need.Subids)
	list := rungs(t)
	single := newStore(t, list[0])
	mapped := openStore(t, single.dir, list[1])
	img := mustPull(t, single, alpine, source(t, base(t), second(t)))
	a, err := single.LayerDirs(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	b, err := mapped.LayerDirs(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	if a[0] == b[0] {
		t.Errorf("both are %s", a[0])
	}
	mustCheck(t, single)
	mustCheck(t, mapped)
	for _, s := range []*Store{mapped, single} {
		if err := s.Collect(t.Context(), Roots{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := single.Remove(t.Context(), img.ID, Roots{}); err != nil {
		t.Fatal(err)
	}
	if err := mapped.Collect(t.Context(), Roots{}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(single.path(layersDir, "*", "*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// settled returns the record of a layer that was used again a while after it was
// unpacked. Before that, neither pull nor run wait for the disk.
func settled(t *testing.T, s *Store, img Image, record string) []byte {
	t.Helper()
	use := func(age time.Duration) (data []byte, synced bool) {
		then := time.Now().Add(-age)
		if err := os.Chtimes(record, then, then); err != nil {
			t.Fatal(err)
		}
		if _, err := s.LayerDirs(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		return data, bytes.HasPrefix(data, syncedMark)
	}
	if data, synced := use(0); synced {
		t.Errorf("of now: %s", data)
	}
	data, synced := use(writebackAge)
	if !synced {
		t.Fatalf("of a minute ago: %s", data)
	}
	return data
}

// The machine went down before a layer was synced: it is unpacked again, on this machine.
func TestTornLayer(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		img := mustPull(t, s, alpine, source(t, base(t), second(t)))
		record := s.layerDir(img.Layers[0]) + "/" + recordFile
		synced := settled(t, s, img, record)
		r, err := s.layerRecord(img.Layers[0])
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			record []byte
			again  bool
		}{
			"synced":                  {synced, false},
			"this boot":               {func() []byte { r := r; r.Synced = false; return mustJSON(t, r) }(), false},
			"another boot":            {func() []byte { r := r; r.Synced, r.Boot = false, "b"; return mustJSON(t, r) }(), true},
			"another machine":         {func() []byte { r := r; r.Synced, r.Boot, r.Machine = false, "b", "m"; return mustJSON(t, r) }(), false},
			"zeros after power loss":  {make([]byte, len(synced)), true},
			"nothing after powerloss": {nil, true},
		} {
			write(t, record, string(c.record))
			mark := s.layerDir(img.Layers[0]) + "/" + rootDir + "/torn"
			write(t, mark, "x")
			if _, err := s.LayerDirs(t.Context(), img); err != nil {
				t.Fatal(err)
			}
			_, err := os.Stat(mark)
			if again := err != nil; again != c.again {
				t.Errorf("%s: unpacked again: %v", name, again)
			}
			mustCheck(t, s)
			mustBeClean(t, s)
		}
	})
}
