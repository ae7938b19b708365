// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www:x:33:33:www:/var/www:/bin/sh
nohome:x:40:40:::
broken:x:notanumber:1:::
1000:x:7:7:a name of digits:/seven:/bin/sh
big:x:4294967295:0:::
short:x:5
`

const group = `root:x:0:
www:x:33:
adm:x:4:www,root
staff:x:50:root,www
bad:x:x:www
`

func databases(t testing.TB, passwd, group string) []string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return []string{dir}
}

// X04 of the ledger: CVE-2026-30892, CVE-2016-3697, CVE-2026-46680.
func TestLookUpUser(t *testing.T) {
	lower := databases(t, passwd, group)
	for _, tt := range []struct {
		spec string
		want Identity
		fail string
	}{
		{spec: "", want: Identity{Name: "root", Home: "/root"}},
		{spec: "0", want: Identity{Name: "root", Home: "/root"}},
		{spec: "www", want: Identity{UID: 33, GID: 33, Name: "www", Home: "/var/www", Groups: []uint32{4, 50}}},
		{spec: "33", want: Identity{UID: 33, GID: 33, Name: "www", Home: "/var/www", Groups: []uint32{4, 50}}},
		{spec: "www:", want: Identity{UID: 33, GID: 33, Name: "www", Home: "/var/www", Groups: []uint32{4, 50}}},
		{spec: "www:staff", want: Identity{UID: 33, GID: 50, Name: "www", Home: "/var/www"}},
		{spec: "33:77", want: Identity{UID: 33, GID: 77, Name: "www", Home: "/var/www"}},
		{spec: ":staff", want: Identity{GID: 50, Name: "root", Home: "/root"}},
		{spec: "1234", want: Identity{UID: 1234, Home: "/"}},
		{spec: "1234:5", want: Identity{UID: 1234, GID: 5, Home: "/"}},
		{spec: "1000", want: Identity{UID: 1000, Home: "/"}},
		{spec: "nohome", want: Identity{UID: 40, GID: 40, Name: "nohome", Home: "/"}},
		{spec: "4294967294", want: Identity{UID: 4294967294, Home: "/"}},
		{spec: "4294967295", fail: "no ID"},
		{spec: "4294967296", fail: "no ID"},
		{spec: "99999999999999999999999999", fail: "no ID"},
		{spec: "0:4294967296", fail: "no ID"},
		{spec: "bob", fail: `look up user "bob": not in the image's /etc/passwd`},
		{spec: "www:none", fail: `look up group "none": not in the image's /etc/group`},
		{spec: "broken", fail: "not in"},
		{spec: "big", fail: "not in"},
		{spec: "short", fail: "not in"},
		{spec: "0x0", fail: "not in"},
		{spec: "+0", fail: "not in"},
		{spec: "-1", fail: "not in"},
		{spec: " 0", fail: "not in"},
		{spec: "٣", fail: "not in"},
		{spec: "ro", fail: "not in"},
		{spec: "root:x:0", fail: "not in"},
	} {
		t.Run(tt.spec, func(t *testing.T) {
			got, err := lookUpUser(tt.spec, lower)
			if tt.fail != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fail) {
					t.Fatalf("got %+v, %v; want an error with %q", got, err, tt.fail)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.UID == 0 && tt.want.Name == "root" && !strings.HasPrefix(tt.spec, ":") {
				tt.want.Groups = []uint32{4, 50}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestLookUpUserWithoutDatabases(t *testing.T) {
	lower := []string{t.TempDir()}
	got, err := lookUpUser("", lower)
	if want := (Identity{Home: "/root"}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := lookUpUser("root", lower); err == nil {
		t.Error("a name was found in an image without /etc/passwd")
	}
}

// U17: CVE-2026-47262, a database that does not end.
func TestLookUpUserBounds(t *testing.T) {
	long := strings.Repeat("x", maxLine+1)
	if _, err := lookUpUser("bob", databases(t, long+"\nbob:x:1:1::/:\n", "")); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a line of %d bytes: %v", len(long), err)
	}
}

func FuzzLookUpUser(f *testing.F) {
	for _, spec := range []string{"root", "0", "www:staff", ":", "1:1:1", "4294967296"} {
		f.Add(spec, passwd, group)
	}
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		got, err := lookUpUser(spec, databases(t, passwd, group))
		if err != nil {
			return
		}
		if got.UID > maxID || got.GID > maxID || got.Home == "" {
			t.Errorf("%q: %+v", spec, got)
		}
		user, _, _ := strings.Cut(spec, ":")
		if user != "" && strings.Trim(user, "0123456789") == "" && strings.TrimLeft(user, "0") != "" && got.UID == 0 {
			t.Errorf("%q became root", spec)
		}
	})
}
