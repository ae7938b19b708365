// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzKeyring reads whatever comes as Docker's config.json. A credential in it is found
// for the one host that its entry names, and for no other that looks like it: R04.
func FuzzKeyring(f *testing.F) {
	for _, s := range []string{
		`{"auths":{"r.test":{"auth":"dXNlcjpzZWNyZXQ="}}}`, `{"auths":{"https://r.test/v1/":{"username":"u","password":"p"}},"credsStore":"x"}`,
		`{"auths":{"r.test.evil":{"auth":"YTpi"},"evil-r.test":{"auth":"YTpi"},"r.test/a/b":{"auth":"YTpi"}}}`, `{"auths":null,"credHelpers":{"r.test":"y"}}`,
		`{"auths":{"http://r.test":{"identitytoken":"t"}}}`, `{"auths":{"r.test":{"auth":"!"}}}`, `[]`, "",
	} {
		f.Add([]byte(s), "r.test")
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte, host string) {
		path := filepath.Join(dir, "config.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := readAuthFile(path)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("refused without a word")
			}
			return
		}
		if host == hubDomain {
			return // which has several names
		}
		for _, key := range file.keysOf(host) {
			after := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
			if at, _, _ := strings.Cut(after, "/"); after != host && at != host && !strings.Contains(host, "/") {
				t.Fatalf("the entry %q is taken for %q", key, host)
			}
			_, _ = file.auths[key].credential()
		}
	})
}

// FuzzHelperAnswer reads whatever a credential helper answers.
func FuzzHelperAnswer(f *testing.F) {
	for _, s := range []string{`{"ServerURL":"r.test","Username":"u","Secret":"s"}`, `{"Username":"<token>","Secret":"t"}`, `{"Username":1}`, "", "null", `{"Username":"a\nb"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		k := &Keyring{helper: func(context.Context, string, string, string) ([]byte, error) { return out, nil }}
		c, err := k.ask(t.Context(), "x", "r.test")
		if err == nil && c.IdentityToken != "" && (c.Username != "" || c.Password != "") {
			t.Fatalf("%q is a token and a password", out)
		}
	})
}

// FuzzNextPage follows whatever a registry says comes next: at the same host alone, in the
// same way, and not where it has just been.
func FuzzNextPage(f *testing.F) {
	for _, s := range []string{
		`</v2/a/tags/list?last=b&n=1>; rel="next"`, `<http://r.test/v2/x>; rel=next`, `<//evil.test/v2>; rel="next"`, `<https://r.test:444/>;rel=next`,
		`<https://u:p@r.test/x>; rel="next"`, `<>; rel=next`, `</x>; rel="prev"`, `</x`, `<\\evil.test>; rel=next`,
	} {
		f.Add(s)
	}
	at := &url.URL{Scheme: "https", Host: "r.test", Path: "/v2/a/tags/list"}
	f.Fuzz(func(t *testing.T, link string) {
		if next := nextPage(at, link); next != nil && (next.Scheme != "https" || next.Host != "r.test" || next.String() == at.String()) {
			t.Fatalf("%q leads to %s", link, next)
		}
	})
}
