// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keyringOf has one file with text, and no helper.
func keyringOf(t *testing.T, text string) *Keyring {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return OpenKeyring(func(name string) (string, bool) { return path, name == "REGISTRY_AUTH_FILE" })
}

// TestR04ExactHosts asks for hosts that are nearly the ones that have an entry.
func TestR04ExactHosts(t *testing.T) {
	const secret = "YW5uOnB3" // ann:pw
	k := keyringOf(t, `{"auths":{"https://index.docker.io/v1/":{"auth":"`+secret+`"},"localhost:5000":{"auth":"`+secret+`"},
		"https://old.test/v1/":{"auth":"`+secret+`"},"quay.test/team":{"auth":"`+secret+`"},"empty.test":{}}}`)
	for _, tt := range []struct {
		host, path string
		want       bool
	}{
		{"docker.io", "library/alpine", true}, {"evil-docker.io", "a", false}, {"docker.io.evil.test", "a", false}, {"index.docker.io", "a", true},
		{"localhost:5000", "a", true}, {"localhost", "a", false}, {"localhost:50001", "a", false}, {"127.0.0.1:5000", "a", false},
		{"old.test", "a", true}, {"xold.test", "a", false},
		{"quay.test", "team/app", true}, {"quay.test", "team", true}, {"quay.test", "teams/app", false}, {"quay.test", "", false},
		{"empty.test", "a", false},
	} {
		c, err := k.Get(t.Context(), tt.host, tt.path)
		if err != nil || c.isZero() == tt.want {
			t.Errorf("%s/%s: got %+v, %v", tt.host, tt.path, c, err)
		}
	}
}

// TestR07AuthFile writes over what is there, and looks what becomes of the rest.
func TestR07AuthFile(t *testing.T) {
	k := keyringOf(t, `{"detachKeys":"ctrl-x","auths":{"https://registry.test":{"auth":"eDp5"},"other.test":{"auth":"eDp5","extra":[1.50]}}}`)
	if err := os.Chmod(k.files[0], 0o644); err != nil {
		t.Fatal(err)
	}
	if got := k.Exposed(); len(got) != 1 {
		t.Errorf("exposed: %v", got)
	}
	helper, file, err := k.Put(t.Context(), "registry.test", Credential{Username: "ann", Password: "p:w<"})
	if err != nil || helper != "" || file != k.files[0] {
		t.Fatal(helper, file, err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"detachKeys": "ctrl-x"`, `1.50`, `"registry.test": {`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q is not in %s", want, b)
		}
	}
	if strings.Contains(string(b), "https://registry.test") {
		t.Error("the old spelling of the registry stayed")
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if c, err := k.Get(t.Context(), "registry.test", ""); err != nil || c.Password != "p:w<" {
		t.Errorf("got %+v, %v", c, err)
	}
	if had, err := k.Drop(t.Context(), "registry.test"); !had || err != nil {
		t.Error(had, err)
	}
	if had, err := k.Drop(t.Context(), "registry.test"); had || err != nil {
		t.Error(had, err)
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("temporary files stayed: %v, %v", left, err)
	}
	for _, broken := range []string{"{", "[]", `{"auths":[]}`, `{"auths":{"a":{"auth":3}}}`} {
		k := keyringOf(t, broken)
		if _, _, err := k.Put(t.Context(), "a.test", Credential{Username: "u", Password: "p"}); err == nil || !strings.Contains(err.Error(), k.files[0]) {
			t.Errorf("%s: got %v", broken, err)
		}
	}
	bad := keyringOf(t, `{"auths":{"a.test":{"auth":"!"}}}`)
	if _, err := bad.Get(t.Context(), "a.test", ""); err == nil {
		t.Error("nonsense was read")
	}
}

// TestHelpers runs a helper that is a script.
func TestHelpers(t *testing.T) {
	dir := t.TempDir()
	script := `#!/bin/sh
read -r input
case "$1 $input" in
'get https://index.docker.io/v1/') echo '{"ServerURL":"x","Username":"<token>","Secret":"identity"}' ;;
'get registry.test') if [ -f "$0.kept" ]; then echo '{"Username":"ann","Secret":"pw"}'; else echo 'credentials not found in native keychain'; exit 1; fi ;;
'store '*) echo "$input" > "$0.kept" ;;
'erase registry.test') rm "$0.kept" ;;
*) echo "no such thing"; exit 1 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, helperPrefix+"test"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	ctx := context.Background()
	k := keyringOf(t, `{"credHelpers":{"other.test":"missing","bad.test":"../sh"},"credsStore":"test"}`)
	if c, err := k.Get(ctx, "docker.io", ""); err != nil || c.IdentityToken != "identity" {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err := k.Get(ctx, "registry.test", ""); err != nil || !c.isZero() {
		t.Errorf("got %+v, %v", c, err)
	}
	helper, _, err := k.Put(ctx, "registry.test", Credential{Username: "ann", Password: "pw"})
	if helper != "test" || err != nil {
		t.Error(helper, err)
	}
	if c, err := k.Get(ctx, "registry.test", ""); err != nil || c.Password != "pw" {
		t.Errorf("got %+v, %v", c, err)
	}
	if had, err := k.Drop(ctx, "registry.test"); !had || err != nil {
		t.Error(had, err)
	}
	b, err := os.ReadFile(k.files[0])
	if err != nil || strings.Contains(string(b), "pw") {
		t.Errorf("the file holds %s, %v", b, err)
	}
	for host, want := range map[string]string{"other.test": "docker-credential-missing: it is not on PATH", "bad.test": "not a name", "third.test": "no such thing"} {
		if _, err := k.Get(ctx, host, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", host, err, want)
		}
	}
}
