// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sbx/userns"
)

func TestOpen(t *testing.T) {
	r := userns.SingleRung()
	dir := filepath.Join(t.TempDir(), "a", "b", "store")
	for range 2 {
		s, err := Open(dir, r)
		if err != nil {
			t.Fatal(err)
		}
		mustCheck(t, s)
		if s.Path() != dir || s.Rung().Name != r.Name {
			t.Errorf("%q %+v", s.Path(), s.Rung())
		}
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%v %v", fi.Mode(), err)
		}
		// A store that was opened to others is closed again: there may be setuid programs in it.
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link, r); err != nil {
		t.Errorf("by a link of our own: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    string
		hint    string
	}{
		"a newer version": {func(t *testing.T, dir string) {
			write(t, dir+"/version", "2\n")
		}, "its version 2 is newer than this sbx knows", "SBX_HOME"},
		"nonsense": {func(t *testing.T, dir string) {
			write(t, dir+"/version", "x\x1b[31m")
		}, `strange version "x\x1b[31m"`, ""},
		"a huge version file": {func(t *testing.T, dir string) {
			write(t, dir+"/version", strings.Repeat("1", 100))
		}, "larger than allowed", ""},
		"somebody's home": {func(t *testing.T, dir string) {
			write(t, dir+"/letter", "x")
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}, "it is no store", "chmod 700"},
		"a file": {func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "x")
		}, "not a directory", ""},
		"a dangling link": {func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("nowhere", dir); err != nil {
				t.Fatal(err)
			}
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			c.prepare(t, dir)
			_, err := Open(dir, userns.SingleRung())
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "open store "+dir+": ") || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %v; want %q", err, c.want)
			}
			if h := hintOf(err); !strings.Contains(h, c.hint) {
				t.Errorf("hint %q; want %q", h, c.hint)
			}
		})
	}
}

// What belongs to another user is not used, whoever made it for us.
func TestOpenOfAnotherUser(t *testing.T) {
	theirs := "/"
	if os.Geteuid() == 0 {
		theirs = t.TempDir()
		if err := os.Chown(theirs, 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(theirs, userns.SingleRung()); err == nil || !strings.Contains(err.Error(), "it belongs to user ") {
		t.Errorf("error %v", err)
	}
	if os.Geteuid() != 0 {
		if _, err := Open("/no-such-folder/store", userns.SingleRung()); !errors.Is(err, os.ErrPermission) {
			t.Errorf("error %v", err)
		}
		return
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 1, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link, userns.SingleRung()); err == nil || !strings.Contains(err.Error(), "it is a link of user 1") {
		t.Errorf("error %v", err)
	}
}

// A home in which the host's features were noted before the store was made.
func TestOpenBesideCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.MkdirAll(dir+"/cache", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, userns.SingleRung()); err != nil {
		t.Error(err)
	}
}

func write(t testing.TB, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hintOf(err error) string {
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return h.Hint()
	}
	return ""
}
