// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestR02PasswordRealms lets the registry name token servers, and looks which of them are
// sent the password.
func TestR02PasswordRealms(t *testing.T) {
	for _, tt := range []struct {
		home, realm string
		approved    []string
		want        bool
	}{
		{"registry.example.com", "https://registry.example.com/token", nil, true},
		{"registry.example.com", "https://registry.example.com:8443/token", nil, true},
		{"registry.example.com", "https://auth.example.com/token", nil, true},
		{"registry.example.com:5000", "https://example.com/jwt/auth", nil, true},
		{"registry.example.com", "http://registry.example.com/token", nil, false},
		{"registry.example.com", "https://evil.com/token", nil, false},
		{"registry.example.com", "https://example.com.evil.com/token", nil, false},
		{"registry.example.com", "https://notexample.com/token", nil, false},
		{"registry.example.com", "https://user:pw@auth.example.com/token", nil, false},
		{"registry.example.com", "https://sso.test/token", []string{"sso.test"}, true},
		{"registry.example.com", "http://sso.test/token", []string{"sso.test"}, false},
		{"registry.example.com", "file:///etc/passwd", nil, false},
		{"registry.example.com", "//auth.example.com", nil, false},
		{"a.co.uk", "https://b.co.uk/token", nil, false},
		{"a.github.io", "https://b.github.io/token", nil, false},
		{"registry", "https://auth/token", nil, false},
		{"10.0.0.1:5000", "https://10.0.0.1:5001/token", nil, true},
		{"10.0.0.1:5000", "https://10.0.0.2/token", nil, false},
		{hubRegistry, "https://auth.docker.io/token", nil, true},
		{hubRegistry, "https://auth.docker.io:8443/token", nil, false},
		{hubRegistry, "https://evil.docker.io/token", nil, false},
		{hubRegistry, "https://auth.docker.io.evil.com/token", nil, false},
		{"localhost:5000", "http://localhost:5001/token", nil, false},
	} {
		realm, err := url.Parse(tt.realm)
		if err != nil {
			t.Fatal(err)
		}
		s := &session{host: tt.home, scheme: "https", approved: tt.approved}
		if got := s.mayAuthenticate(realm); got != tt.want {
			t.Errorf("%s at %s: got %v", tt.realm, tt.home, got)
		}
	}
	s := &session{host: "localhost:5000", scheme: "http"}
	for realm, want := range map[string]bool{"http://localhost:5001/token": true, "http://127.0.0.1:5001/token": true, "http://lab.test/token": false} {
		u, err := url.Parse(realm)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.mayAuthenticate(u); got != want {
			t.Errorf("%s at a plain registry on this machine: got %v", realm, got)
		}
	}
}

// as returns options with a credential for one registry.
func (w *world) as(host string, c Credential) Options {
	o := w.options()
	o.Credentials = func(_ context.Context, asked, _ string) (Credential, error) {
		if asked == host {
			return c, nil
		}
		return Credential{}, nil
	}
	return o
}

// private wants Basic credentials, or a token that only the right ones get.
func private(t *testing.T, basic bool, realm string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		right := user == "ann" && password == "canary-password"
		switch {
		case r.URL.Path == "/token" && r.Method == http.MethodPost:
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			if r.Form.Get("refresh_token") != "canary-identity" || r.Form.Get("grant_type") != "refresh_token" {
				rw.WriteHeader(401)
				return
			}
			fmt.Fprint(rw, `{"access_token":"canary-token"}`)
		case r.URL.Path == "/token" && !right:
			rw.WriteHeader(401)
			fmt.Fprint(rw, `{"details":"incorrect username or password"}`)
		case r.URL.Path == "/token":
			refresh := ""
			if r.URL.Query().Get("offline_token") == "true" {
				refresh = `,"refresh_token":"canary-identity"`
			}
			fmt.Fprintf(rw, `{"token":"canary-token"%s}`, refresh)
		case basic && right, !basic && r.Header.Get("Authorization") == "Bearer canary-token":
			next.ServeHTTP(rw, r)
		case basic:
			rw.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			rw.WriteHeader(401)
		default:
			rw.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="s"`)
			rw.WriteHeader(401)
		}
	})
}

func TestCredentials(t *testing.T) {
	right := Credential{Username: "ann", Password: "canary-password"}
	for _, tt := range []struct {
		name       string
		basic      bool
		credential Credential
		err        string
	}{
		{"basic", true, right, ""},
		{"basic, wrong", true, Credential{Username: "ann", Password: "canary-no"}, "401 Unauthorized"},
		{"basic, none", true, Credential{}, "401 Unauthorized"},
		{"token", false, right, ""},
		{"token, wrong", false, Credential{Username: "ann", Password: "canary-no"}, "incorrect username or password"},
		{"identity token", false, Credential{IdentityToken: "canary-identity"}, ""},
		{"identity token, stale", false, Credential{IdentityToken: "canary-stale"}, "401 Unauthorized"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, image := newWorld(t), makeImage(t, "amd64")
			h := private(t, tt.basic, "https://auth.registry.test/token", tagged(image.manifest, image.desc.MediaType, image))
			w.serve("registry.test:443", h)
			w.serve("auth.registry.test:443", h)
			o := w.as("registry.test", tt.credential)
			// The registry's own domain is test, which is a public suffix.
			o.Registries = map[string]Reach{"registry.test": {TokenServers: []string{"auth.registry.test"}}}
			got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), o)
			if tt.err != "" {
				wantError(t, err, tt.err)
			} else if err != nil {
				t.Fatal(err)
			} else {
				checkSource(t, got)
			}
			for _, r := range w.requests {
				if strings.Contains(r.line, "canary") {
					t.Errorf("a secret in a URL: %s", r.line)
				}
			}
		})
	}
}

// TestCredentialsStayHome has a registry with a credential send its client everywhere.
func TestCredentialsStayHome(t *testing.T) {
	right := Credential{Username: "ann", Password: "canary-password"}
	for _, basic := range []bool{true, false} {
		w, image := newWorld(t), makeImage(t, "amd64")
		w.serve("registry.test:443", private(t, basic, "https://registry.test/token", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(rw, r, "https://evil.test"+r.URL.Path, 307)
				return
			}
			tagged(image.manifest, image.desc.MediaType, image).ServeHTTP(rw, r)
		})))
		w.serve("evil.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("WWW-Authenticate", `Basic realm="more"`)
			rw.WriteHeader(401)
		}))
		got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.as("registry.test", right))
		if err != nil {
			t.Fatal(err)
		}
		_, err = got.Blob(t.Context(), descriptor("", image.config), 0)
		wantError(t, err, "401")
		w.noSecretsAt("evil.test")
	}
	// A token server that is none of the registry's, and one that redirects.
	for realm, want := range map[string]string{
		"https://evil.test/token":           "refuse to send the password of registry.test to https://evil.test/token",
		"https://registry.test/moved-token": "401",
	} {
		w := newWorld(t)
		w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/moved-token" {
				http.Redirect(rw, r, "https://evil.test/token", 307)
				return
			}
			rw.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
			rw.WriteHeader(401)
		}))
		w.serve("evil.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(401) }))
		for _, c := range []Credential{right, {IdentityToken: "canary-identity"}} {
			_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.as("registry.test", c))
			if c.IdentityToken == "" || want != "401" {
				wantError(t, err, want)
			} else if err == nil {
				t.Error("a redirected identity token was accepted")
			}
		}
		w.noSecretsAt("evil.test")
	}
}

func TestLogin(t *testing.T) {
	w := newWorld(t)
	w.serve("registry.test:443", private(t, false, "https://registry.test/token", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	got, err := Login(t.Context(), "registry.test", Credential{Username: "ann", Password: "canary-password"}, w.options())
	if err != nil || got != (Credential{Username: "ann", IdentityToken: "canary-identity"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = Login(t.Context(), "registry.test", Credential{Username: "ann", Password: "no"}, w.options())
	if e := wantError(t, err, "log in to registry.test: GET https://registry.test/token: 401 Unauthorized: incorrect username or password"); e.Hint() == "" {
		t.Error("no hint")
	}
	_, err = Login(t.Context(), "registry.test", Credential{Username: "a\r\nX: y", Password: "no"}, w.options())
	wantError(t, err, "control characters")
}

func TestMirrors(t *testing.T) {
	image := makeImage(t, "amd64")
	whole := tagged(image.manifest, image.desc.MediaType, image)
	for _, tt := range []struct {
		name   string
		mirror http.HandlerFunc
		home   bool // whether the registry itself is asked for blobs
	}{
		{"has all", func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" && !strings.HasPrefix(r.URL.Path, "/v2/hub/library/app/") {
				t.Errorf("asked %s", r.URL)
			}
			whole.ServeHTTP(rw, r)
		}, false},
		{"has nothing", func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(404) }, true},
		{"is exhausted", func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(429) }, true},
		{"lacks the blobs", func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				rw.WriteHeader(500)
				return
			}
			whole.ServeHTTP(rw, r)
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("registry-1.docker.io:443", whole)
			w.serve("registry.test:443", tt.mirror)
			o := w.as("docker.io", Credential{Username: "ann", Password: "canary-password"})
			o.Registries = map[string]Reach{"docker.io": {Mirrors: []string{"registry.test/hub"}}}
			got, err := Registry(t.Context(), mustRef(t, "app"), o)
			if err != nil {
				t.Fatal(err)
			}
			checkSource(t, got)
			n := 0
			for _, line := range w.lines() {
				if strings.HasPrefix(line, "GET https://registry-1.docker.io/v2/library/app/blobs/") {
					n++
				}
			}
			if (n > 0) != tt.home {
				t.Errorf("the registry itself was asked for %d blobs, want some: %v", n, tt.home)
			}
			w.noSecretsAt("registry.test")
		})
	}
}

// TestInsecure lets one registry, and no other host, go without proof.
func TestInsecure(t *testing.T) {
	w, image := newWorld(t), makeImage(t, "amd64")
	h := tagged(image.manifest, image.desc.MediaType, image)
	w.serve("lab.test:5000", h)
	w.serve("unproven.test:443", h) // not a name of the certificate
	w.serve("other.test:443", h)
	w.serve("sender.registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "https://other.test"+r.URL.Path, 307)
	}))
	o := w.options()
	if _, err := Registry(t.Context(), mustRef(t, "lab.test:5000/app"), o); err == nil {
		t.Error("plain http without being told")
	}
	o.Registries = map[string]Reach{}
	for _, host := range []string{"lab.test:5000", "unproven.test", "sender.registry.test"} {
		o.Registries[host] = Reach{Insecure: true}
	}
	for _, host := range []string{"lab.test:5000", "unproven.test"} {
		got, err := Registry(t.Context(), mustRef(t, host+"/app"), o)
		if err != nil {
			t.Fatal(err)
		}
		checkSource(t, got)
	}
	_, err := Registry(t.Context(), mustRef(t, "sender.registry.test/app"), o)
	wantError(t, err, "certificate")
}
