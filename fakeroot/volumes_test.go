// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"path/filepath"
	"testing"

	"sbx/overlay"
)

// TestVolumeGivenToRoot has another container take away what a volume's table said
// of a file: it stays away however often this one saves, until it does something
// with the file itself.
func TestVolumeGivenToRoot(t *testing.T) {
	table := filepath.Join(t.TempDir(), "data.owners.json")
	v := &volume{Volume: Volume{Table: table}, fd: noFD, mine: map[string]*entry{}}
	five := overlay.Owner{UID: 5, GID: 6, Mode: 0o777}
	loaded := &entry{owner: five}
	v.mine["link"] = loaded
	for i := range 3 {
		if err := v.save(map[string]held{"link": {loaded, loaded}}); err != nil {
			t.Fatal(err)
		}
		if got, err := overlay.ReadOwners(table); err != nil || len(got) > 0 {
			t.Fatalf("save %d: the table says %v, %v", i, got, err)
		}
	}
	mine := &entry{owner: five}
	if err := v.save(map[string]held{"link": {mine, mine}}); err != nil {
		t.Fatal(err)
	}
	if got, err := overlay.ReadOwners(table); err != nil || !sameOwner(got["link"], five) {
		t.Errorf("what was done here is not in the table: %v, %v", got, err)
	}
}
