// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRecord(t *testing.T) {
	tests := []struct {
		text string
		want Owner
		ok   bool
	}{
		{"0:42:0640:file", Owner{GID: 42, Mode: 0o640}, true},
		{"1000:1001:1777:dir", Owner{UID: 1000, GID: 1001, Mode: 0o1777, Kind: Dir}, true},
		{"1:2:0777:symlink", Owner{UID: 1, GID: 2, Mode: 0o777, Kind: Symlink}, true},
		{"1:2:0600:pipe", Owner{UID: 1, GID: 2, Mode: 0o600, Kind: Pipe}, true},
		{"1:2:0600:socket", Owner{UID: 1, GID: 2, Mode: 0o600, Kind: Socket}, true},
		{"0:0:0666:char-1-3", Owner{Mode: 0o666, Kind: Char, Major: 1, Minor: 3}, true},
		{"0:6:0660:block-4095-1048575", Owner{GID: 6, Mode: 0o660, Kind: Block, Major: 4095, Minor: 1048575}, true},
		{"4294967294:4294967294:7777:file", Owner{UID: maxID, GID: maxID, Mode: 0o7777}, true},
		{"0:0:644", Owner{Mode: 0o644}, true},
		{"4294967295:0:0644:file", Owner{}, false},
		{"-1:0:0644:file", Owner{}, false},
		{"0:0:10000:file", Owner{}, false},
		{"0:0:0648:file", Owner{}, false},
		{"0:0:0644:door", Owner{}, false},
		{"0:0:0644:file-1-2", Owner{}, false},
		{"0:0:0644:char", Owner{}, false},
		{"0:0:0644:char-1", Owner{}, false},
		{"0:0:0644:char-4096-1", Owner{}, false},
		{"0:0:0644:file:x", Owner{}, false},
		{"0:0", Owner{}, false},
		{"", Owner{}, false},
	}
	for _, tt := range tests {
		got, err := ParseRecord(tt.text)
		if (err == nil) != tt.ok {
			t.Errorf("%q: error %v", tt.text, err)
			continue
		}
		if !tt.ok {
			if !strings.HasPrefix(err.Error(), "parse owner record ") {
				t.Errorf("%q: error %v", tt.text, err)
			}
			continue
		}
		if diff := cmp.Diff(got, tt.want); diff != "" {
			t.Errorf("%q: %s", tt.text, diff)
		}
		if strings.Count(tt.text, ":") == 3 && got.Record() != tt.text {
			t.Errorf("%q is written %q", tt.text, got.Record())
		}
	}
}

func TestOwnersSaveAndLoad(t *testing.T) {
	table := Owners{
		".":                  {UID: 1, GID: 2, Mode: 0o755, Kind: Dir},
		"usr/lib/l":          {UID: 3, GID: 4, Mode: 0o777, Kind: Symlink},
		"100% \"quoted\"<&>": {UID: 5, Mode: 0o644, Kind: Pipe},
		"latin\xe9/\xff\xfe": {UID: 6, Mode: 0o644},
		"latin%E9/umläut\n":  {UID: 7, Mode: 0o644, Xattrs: map[string]string{"security.capability": "\x01\x00\xff%"}},
		"null":               {Mode: 0o666, Kind: Char, Major: 1, Minor: 3},
		"a\uFFFDreplacement": {UID: 8, Mode: 0o644},
	}
	var one, two bytes.Buffer
	if err := table.Save(&one); err != nil {
		t.Fatal(err)
	}
	got, err := LoadOwners(bytes.NewReader(one.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, table); diff != "" {
		t.Error(diff)
	}
	if err := got.Save(&two); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Errorf("saved again it is different: %v", err)
	}
	// It also travels inside another document.
	data, err := json.Marshal(struct{ Owners Owners }{table})
	if err != nil {
		t.Fatal(err)
	}
	var back struct{ Owners Owners }
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(back.Owners, table); diff != "" {
		t.Error(diff)
	}
}

func TestLoadOwnersRefuses(t *testing.T) {
	for _, text := range []string{
		``, `null`, `{}`, `[]`, `{"version":2,"owners":{}}`, `{"version":1,"owners":{"../x":"1:1:0644:file"}}`, `{"version":1,"owners":{"/x":"1:1:0644:file"}}`,
		`{"version":1,"owners":{"":"1:1:0644:file"}}`, `{"version":1,"owners":{"a//b":"1:1:0644:file"}}`, `{"version":1,"owners":{"a/./b":"1:1:0644:file"}}`,
		`{"version":1,"owners":{"a%00b":"1:1:0644:file"}}`, `{"version":1,"owners":{"a%4":"1:1:0644:file"}}`, `{"version":1,"owners":{"a%zz":"1:1:0644:file"}}`,
		`{"version":1,"owners":{"a":"x"}}`, `{"version":1,"owners":{"a":"1:1:0644:file"},"xattrs":{"a":{"":"x"}}}`, `{"version":1,"owners":{"a":"1:1:0644:file"},"xattrs":{"a":{"x":"%"}}}`,
	} {
		if got, err := LoadOwners(strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), "read owners: ") && !strings.HasPrefix(err.Error(), "parse owner record ") {
			t.Errorf("%s: %v, error %v", text, got, err)
		}
	}
	if _, err := LoadOwners(&endless{next: func(_ int, b *bytes.Buffer) { b.WriteString(strings.Repeat(" ", 1<<20)) }}); err == nil {
		t.Error("a file without end")
	}
}

// The table is the one thing that grows with an archive, so it is bounded (U21).
func TestU21OwnerTable(t *testing.T) {
	many, long := ownerTable{}, ownerTable{}
	var err error
	for i := 0; err == nil && i <= 2*maxOwners; i++ {
		err = many.set(fmt.Sprint(i), Owner{UID: 1})
	}
	if err == nil || err.Error() != "more than 131072 owners that this filesystem cannot record" {
		t.Errorf("error %v", err)
	}
	path := strings.Repeat("p", 4000)
	for i := 0; i < 10_000; i++ { // one path again and again is one path
		if err := long.set(path, Owner{UID: 1, Xattrs: map[string]string{"user.x": path}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; err == nil || i < 100_000; i++ {
		if err = long.set(path+fmt.Sprint(i), Owner{UID: 1}); err != nil {
			break
		}
	}
	if err == nil || err.Error() != "more than 16777216 bytes of owners that this filesystem cannot record" {
		t.Errorf("error %v", err)
	}
	if err := many.set("0", Owner{}); err != nil || len(many.owners) != maxOwners-1 {
		t.Errorf("%d owners, %v", len(many.owners), err)
	}
}
