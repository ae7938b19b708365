// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sbx/fetch"
	"sbx/store"
	"sbx/userns"
)

// What is kept is listed and removed by its last use, and not while somebody makes a
// base of it.
func TestDownloads(t *testing.T) {
	st, err := store.Open(t.TempDir(), userns.SingleRung())
	if err != nil {
		t.Fatal(err)
	}
	listed := func() Downloads {
		t.Helper()
		d, err := Downloaded(st)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := listed(); len(d.Files) > 0 || d.InUse {
		t.Errorf("before the first: %+v", d)
	}
	user, err := openCache(t.Context(), st, fetch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	for name, at := range map[string]time.Time{"0123456789abcdef": old, "0123456789abcdef.data": time.Now(), "fedcba9876543210.part": old} {
		file := filepath.Join(user.dir, name)
		if err := os.WriteFile(file, []byte("12345"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	other, err := openCache(t.Context(), st, fetch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	prune := func(before time.Time) (names []string) {
		t.Helper()
		gone, err := listed().Prune(st, before)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range gone {
			names = append(names, f.Name()+" "+f.Kind)
		}
		return names
	}
	user.close()
	if d := listed(); !d.InUse || len(d.Files) != 3 || d.Files[0].Size != 5 {
		t.Errorf("with two users, of which one is left: %+v", d)
	}
	if gone := prune(time.Time{}); gone != nil {
		t.Errorf("removed %v of a cache in use", gone)
	}
	other.close()
	if listed().InUse {
		t.Error("in use by nobody")
	}
	if got, want := prune(time.Now().Add(-time.Minute)), []string{"0123456789ab regular", "fedcba987654.part partial"}; !slices.Equal(got, want) {
		t.Errorf("removed of what is old: %v, want %v", got, want)
	}
	if got, want := prune(time.Time{}), []string{"0123456789ab.data unpacked"}; !slices.Equal(got, want) {
		t.Errorf("removed of the rest: %v, want %v", got, want)
	}
}
