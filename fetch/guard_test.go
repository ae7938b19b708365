// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// bearer wants a token from realm for everything and accepts only the canary.
func bearer(realm string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			fmt.Fprint(rw, `{"token":"canary-token"}`)
			return
		}
		if r.Header.Get("Authorization") != "Bearer canary-token" {
			rw.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="s"`)
			rw.WriteHeader(401)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

func TestRegistryToken(t *testing.T) {
	for _, realm := range []string{"https://registry.test/token", "https://auth.registry.test/token", "https://registry.test:443/token"} {
		w, image := newWorld(t), makeImage(t, "amd64")
		tokens := bearer(realm, http.NotFoundHandler())
		w.serve("registry.test:443", bearer(realm, tagged(image.manifest, image.desc.MediaType, image)))
		w.serve("auth.registry.test:443", tokens)
		got, err := Registry(t.Context(), mustRef(t, "registry.test/team/app"), w.options())
		if err != nil {
			t.Fatal(err)
		}
		checkSource(t, got)
		w.noSecretsAt("auth.registry.test")
		asked := false
		for _, line := range w.lines() {
			asked = asked || strings.Contains(line, "/token?scope=repository%3Ateam%2Fapp%3Apull&service=s")
		}
		if !asked {
			t.Errorf("%s: no token asked for: %q", realm, w.lines())
		}
	}
}

// TestR02 lets the registry name token servers that must not be asked.
func TestR02Realms(t *testing.T) {
	w, image := newWorld(t), makeImage(t, "amd64")
	var realm string
	w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		bearer(realm, tagged(image.manifest, image.desc.MediaType, image)).ServeHTTP(rw, r)
	}))
	trap := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, `{"token":"canary-token"}`) })
	for _, host := range []string{"registry.test:80", "evil.test:80", "127.0.0.1:443", "127.0.0.1:80", "169.254.169.254:80", "169.254.169.254:443", "10.0.0.1:443", "192.168.1.1:443", "[::1]:443", "0.0.0.0:443", "localhost:443", "localhost:80"} {
		w.serve(host, trap)
	}
	redirector := func(to string) { w.serve("evil.test:443", http.RedirectHandler(to, 307)) }
	redirector("http://evil.test/token")
	before := len(w.lines())
	for _, realm = range []string{
		"http://registry.test/token", "http://evil.test/token", "https://127.0.0.1/token", "http://127.0.0.1/token", "https://169.254.169.254/token", "http://169.254.169.254/latest/meta-data",
		"https://10.0.0.1/token", "https://192.168.1.1/token", "https://[::1]/token", "https://[::ffff:127.0.0.1]/token", "https://0.0.0.0/token", "https://2130706433/token", "https://0x7f000001/token", "https://127.1/token",
		"https://localhost/token", "http://localhost/token", "file:///etc/passwd", "ftp://evil.test/", "//evil.test/token", "", "https://", "https://user:canary@registry.test/token", "https://evil.test/token", "gopher://evil.test:70/_",
	} {
		_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
		if err == nil {
			t.Errorf("realm %q was asked", realm)
			continue
		}
		wantError(t, err, "pull registry.test/app:latest: ")
	}
	for _, line := range w.lines()[before:] {
		if !strings.HasPrefix(line, "GET https://registry.test/v2/") && line != "GET https://evil.test/token?scope=repository%3Aapp%3Apull&service=s" {
			t.Errorf("asked %s", line)
		}
	}
	for _, host := range []string{"evil", "127", "169", "10", "192", "[", "localhost", "0"} {
		w.noSecretsAt(host)
	}
}

// TestR03 redirects blobs around and looks who gets the token.
func TestR03Redirects(t *testing.T) {
	const a, b, sub = "https://registry.test", "https://evil.test", "https://sub.registry.test"
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, tt := range []struct {
			name string
			way  []string // where each redirect leads
			err  string
			safe string // host that must see no secret at all
		}{
			{"to itself", []string{a + "/v2/app/blobs/%s?again"}, "", "evil.test"},
			{"to another", []string{b + "/%s"}, "", "evil.test"},
			{"to a subdomain", []string{sub + "/%s"}, "", "sub.registry.test"},
			{"to another port", []string{a + ":8443/%s"}, "", "registry.test:8443"},
			{"there and back", []string{b + "/%s", a + "/v2/app/blobs/%s?back"}, "401 Unauthorized", "evil.test"},
			{"to plain http", []string{"http://registry.test:80/%s"}, "refuse redirect from https", "registry.test:80"},
			{"to plain http, which becomes https", []string{"http://registry.test/%s"}, "", "evil.test"},
			{"there and to plain http", []string{b + "/%s", "http://evil.test/%s"}, "refuse redirect from https", "evil.test"},
			{"to a file", []string{"file:///etc/passwd"}, "not http", "evil.test"},
			{"to a password", []string{"https://user:pw@evil.test/%s"}, "carries a password", "evil.test"},
			{"to this machine", []string{"https://127.0.0.1/%s"}, "points to this machine", "127.0.0.1"},
			{"to this machine by name", []string{"https://localhost/%s"}, "points to this machine", "localhost"},
			{"to the metadata", []string{"https://169.254.169.254/%s"}, "points to this machine", "169.254"},
			{"nowhere", []string{""}, fmt.Sprint(": ", code, " "), "evil.test"},
		} {
			t.Run(fmt.Sprint(code, " ", tt.name), func(t *testing.T) {
				w, image := newWorld(t), makeImage(t, "amd64")
				step := 0
				serve := func(rw http.ResponseWriter, r *http.Request) {
					if !strings.Contains(r.URL.Path, "sha256:") || strings.Contains(r.URL.Path, "/manifests/") {
						tagged(image.manifest, image.desc.MediaType, image).ServeHTTP(rw, r)
						return
					}
					digest := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
					if step < len(tt.way) {
						to := tt.way[step]
						if strings.Contains(to, "%s") {
							to = fmt.Sprintf(to, digest)
						}
						if step++; to != "" {
							rw.Header().Set("Location", to)
						}
						rw.Header().Set("Set-Cookie", "session=canary; Domain=registry.test")
						rw.WriteHeader(code)
						return
					}
					rw.Write(image.blobs[digest])
				}
				home := bearer(a+"/token", http.HandlerFunc(serve))
				w.serve("registry.test:443", home)
				for _, host := range []string{"evil.test:443", "evil.test:80", "sub.registry.test:443", "registry.test:8443", "registry.test:80", "127.0.0.1:443", "localhost:443", "169.254.169.254:443"} {
					w.serve(host, http.HandlerFunc(serve))
				}
				got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
				if err != nil {
					t.Fatal(err)
				}
				layer := descriptor("", image.layers[1])
				r, err := got.Blob(t.Context(), layer, 0)
				switch {
				case tt.err != "":
					wantError(t, err, tt.err)
				case err != nil:
					t.Fatal(err)
				default:
					r.Close()
				}
				w.noSecretsAt(tt.safe)
				for _, r := range w.requests {
					if strings.HasPrefix(r.line, "GET http://") {
						t.Errorf("plain http went out: %s", r.line)
					}
					if strings.Contains(r.line, "?back") && r.header.Get("Authorization") != "" {
						t.Error("the token was restored after a detour")
					}
				}
			})
		}
	}
}

func TestRedirectLoop(t *testing.T) {
	for _, tt := range []struct {
		hops int
		err  string
	}{{10, ""}, {11, "more than 10 redirects"}, {1 << 30, "more than 10 redirects"}} {
		w, image, n := newWorld(t), makeImage(t, "amd64"), 0
		w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") && n < tt.hops {
				n++
				http.Redirect(rw, r, r.URL.Path, 302)
				return
			}
			tagged(image.manifest, image.desc.MediaType, image).ServeHTTP(rw, r)
		}))
		_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
		if tt.err != "" {
			wantError(t, err, tt.err)
		} else if err != nil {
			t.Error(err)
		}
		if n > 11 {
			t.Errorf("%d redirects followed", n)
		}
	}
}

// TestForeignRegistry has a home that is but a name in front of another registry, which
// wants a token of its own. Home's token must not get there, nor that one anywhere else.
func TestForeignRegistry(t *testing.T) {
	for _, homeWants := range []bool{false, true} {
		for _, realm := range []string{"https://evil.test/own-token", "https://auth.registry.test/own-token"} {
			w, image := newWorld(t), makeImage(t, "amd64")
			var home http.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, "https://evil.test"+r.URL.Path, 307)
			})
			if homeWants {
				home = bearer("https://registry.test/token", home)
			}
			w.serve("registry.test:443", home)
			other := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/own-token":
					fmt.Fprint(rw, `{"access_token":"own"}`)
				case r.Header.Get("Authorization") != "Bearer own":
					rw.Header().Set("WWW-Authenticate", `Basic realm="x", Bearer realm="`+realm+`",service="s",scope="repository:app:pull"`)
					rw.WriteHeader(401)
				default:
					tagged(image.manifest, image.desc.MediaType, image).ServeHTTP(rw, r)
				}
			})
			w.serve("evil.test:443", other)
			w.serve("auth.registry.test:443", other)
			got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
			if err != nil {
				t.Fatal(err)
			}
			checkSource(t, got)
			for _, r := range w.requests {
				token := r.header.Get("Authorization")
				if strings.Contains(r.line, "://evil.test/v2") {
					if token != "" && token != "Bearer own" {
						t.Errorf("%s carried %s", r.line, token)
					}
				} else if token == "Bearer own" || strings.Contains(r.line, "own-token") && token != "" {
					t.Errorf("%s carried %s", r.line, token)
				}
			}
		}
	}
}

// TestForeignChallenges redirects to a host whose challenge leads nowhere good.
func TestForeignChallenges(t *testing.T) {
	for _, realm := range []string{"http://evil.test/token", "https://127.0.0.1/token", "https://169.254.169.254/token", "https://user:pw@evil.test/token", "file:///x", "", "https://evil.test/loop", "https://evil.test/wants-token", "https://evil.test/empty", "https://evil.test/bad"} {
		w, image := newWorld(t), makeImage(t, "amd64")
		w.serve("registry.test:443", bearer("https://registry.test/token", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(rw, r, "https://evil.test/blob", 307)
				return
			}
			tagged(image.manifest, image.desc.MediaType, image).ServeHTTP(rw, r)
		})))
		w.serve("evil.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/loop":
				http.Redirect(rw, r, "/loop", 302)
			case "/empty":
				fmt.Fprint(rw, `{}`)
			case "/bad":
				fmt.Fprint(rw, `{"token":"a\r\nX-Evil: b"}`)
			default:
				rw.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
				rw.WriteHeader(401)
			}
		}))
		for _, host := range []string{"evil.test:80", "127.0.0.1:443", "169.254.169.254:443"} {
			w.serve(host, http.NotFoundHandler())
		}
		got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
		if err != nil {
			t.Fatal(err)
		}
		_, err = got.Blob(t.Context(), descriptor("", image.config), 0)
		wantError(t, err, "GET https://evil.test/blob: 401 Unauthorized")
		w.noSecretsAt("evil.test")
		for _, line := range w.lines() {
			if !strings.HasPrefix(line, "GET https://registry.test/") && !strings.HasPrefix(line, "GET https://evil.test/") {
				t.Errorf("realm %s: asked %s", realm, line)
			}
		}
		if n := len(w.lines()); n > 20 {
			t.Errorf("realm %s: %d requests", realm, n)
		}
	}
}

func TestParseBearer(t *testing.T) {
	type m = map[string]string
	for _, tt := range []struct {
		in   string
		want m
	}{
		{`Bearer realm="https://a/t",service="s",scope="repository:a:pull"`, m{"realm": "https://a/t", "service": "s", "scope": "repository:a:pull"}},
		{`bearer Realm = "x" , Service=s`, m{"realm": "x", "service": "s"}},
		{`Basic realm="b", Bearer realm="x"`, m{"realm": "x"}},
		{`Negotiate, Basic realm="a, Bearer realm=evil", Bearer realm="x", Digest realm="y"`, m{"realm": "x"}},
		{`Bearer realm="a\"b\\c"`, m{"realm": `a"b\c`}},
		{``, nil}, {`Bearer`, nil}, {`Basic realm="x"`, nil}, {`Bearer realm=`, nil}, {`Bearer realm="x`, nil}, {`Bearer realm="x",=y`, nil}, {`Bearer service="s"`, nil}, {"Bearer \x00", nil},
	} {
		got, ok := parseBearer(tt.in)
		if ok != (tt.want != nil) || ok && !maps.Equal(got, tt.want) {
			t.Errorf("parseBearer(%q) = %v, %v; want %v", tt.in, got, ok, tt.want)
		}
	}
}

// TestDripping sends one byte now and then: not a stall, but no answer either.
func TestDripping(t *testing.T) {
	w := newWorld(t)
	started := make(chan struct{})
	w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		rw.Write([]byte("{"))
		rw.(http.Flusher).Flush()
		close(started)
		<-r.Context().Done()
	}))
	go func() {
		<-started
		for w.clock.ring() < 2 {
			time.Sleep(time.Millisecond) // until body and exchange are both watched
		}
	}()
	_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
	wantError(t, err, "GET https://registry.test/v2/app/manifests/latest: no ")
}

func TestCheckAddress(t *testing.T) {
	for _, tt := range []struct {
		home, host, address string
		inside, ok          bool
	}{
		{"registry.test", "registry.test:443", "93.184.216.34:443", false, true},
		{"registry.test", "registry.test:443", "10.0.0.1:443", false, true},
		{"registry.test", "store.test:443", "93.184.216.34:443", false, true},
		{"registry.test", "store.test:443", "10.0.0.1:443", false, false},
		{"registry.test", "store.test:443", "10.0.0.1:443", true, true},
		{"registry.test", "store.test:443", "[fd00::1]:443", false, false},
		{"registry.test", "store.test:443", "127.0.0.1:443", true, false},
		{"registry.test", "store.test:443", "[::1]:443", true, false},
		{"registry.test", "store.test:443", "[::ffff:127.0.0.1]:443", true, false},
		{"registry.test", "store.test:443", "[fe80::1%eth0]:443", true, false},
		{"registry.test", "store.test:443", "169.254.169.254:443", true, false},
		{"registry.test", "store.test:443", "0.0.0.0:443", true, false},
		{"localhost:5000", "localhost:5000", "127.0.0.1:5000", false, true},
		{"localhost:5000", "localhost:5000", "93.184.216.34:5000", false, false},
		{"localhost:5000", "store.test:443", "127.0.0.1:443", false, true},
		{"localhost:5000", "127.0.0.1:9000", "127.0.0.1:9000", false, true},
	} {
		g := &guard{home: tt.home}
		g.homeInside.Store(tt.inside)
		ctx := context.WithValue(t.Context(), targetKey{}, target{host: tt.host, foreign: tt.host != tt.home && tt.host != tt.home+":443"})
		if err := g.checkAddress(ctx, tt.host, tt.address); (err == nil) != tt.ok {
			t.Errorf("%s on the way from %s to %s (inside %v): %v", tt.address, tt.home, tt.host, tt.inside, err)
		}
	}
	g := &guard{home: "registry.test"}
	ctx := context.WithValue(t.Context(), targetKey{}, target{host: "store.test:443", foreign: true})
	if err := g.checkAddress(ctx, "proxy.test:3128", "127.0.0.1:3128"); err != nil {
		t.Errorf("a proxy on this machine: %v", err)
	}
}

// TestDialer dials for real: the registry is localhost by name, a redirect goes to a
// name that resolves to this machine as well.
func TestDialer(t *testing.T) {
	image := makeImage(t, "amd64")
	s := httptest.NewServer(tagged(image.manifest, image.desc.MediaType, image))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost"} {
		got, err := Registry(t.Context(), mustRef(t, host+":"+port+"/app"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		checkSource(t, got)
		got.Close()
	}
	c, err := newClient("registry.test", true, Options{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	_, err = c.get(t.Context(), &url.URL{Scheme: "http", Host: "127.0.0.1:" + port}, http.Header{})
	var policy *policyError
	if !errors.As(err, &policy) {
		t.Errorf("got %v", err)
	}
}

// TestProxy checks that requests go through a proxy, and those to this machine never.
func TestProxy(t *testing.T) {
	w, image := newWorld(t), makeImage(t, "amd64")
	w.serve("registry.test:443", tagged(image.manifest, image.desc.MediaType, image))
	w.serve("localhost:5000", tagged(image.manifest, image.desc.MediaType, image))
	tunnels := 0
	w.serve("proxy.test:80", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "registry.test:443" {
			rw.WriteHeader(407)
			return
		}
		tunnels++
		there, err := net.Dial("tcp", w.at["registry.test:443"])
		if err != nil {
			t.Error(err)
			return
		}
		rw.WriteHeader(200)
		here, buffered, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() { _, _ = io.Copy(there, buffered); there.Close() }()
		go func() { _, _ = io.Copy(here, there); here.Close() }()
	}))
	o := w.options()
	o.hooks.proxy = func(r *http.Request) (*url.URL, error) { return url.Parse("http://proxy.test:80") }
	for _, host := range []string{"registry.test", "localhost:5000"} {
		got, err := Registry(t.Context(), mustRef(t, host+"/app"), o)
		if err != nil {
			t.Fatal(err)
		}
		checkSource(t, got)
		got.Close()
	}
	if tunnels == 0 {
		t.Error("the proxy was not asked")
	}
	_, err := Registry(t.Context(), mustRef(t, "evil.test/app"), o)
	wantError(t, err, "Proxy Authentication Required")
}

// TestR05 offers certificates that must not be accepted.
func TestR05Certificates(t *testing.T) {
	w := newWorld(t)
	w.serve("other.test:443", newRegistry()) // not a name of the certificate
	_, err := Registry(t.Context(), mustRef(t, "other.test/app"), w.options())
	e := wantError(t, err, "certificate is valid for")
	if !strings.Contains(e.Hint(), "could not prove who it is") {
		t.Errorf("hint %q", e.Hint())
	}
	w.serve("registry.test:443", newRegistry())
	o := w.options()
	o.hooks.tls = &tls.Config{} // without the test's authority
	_, err = Registry(t.Context(), mustRef(t, "registry.test/app"), o)
	e = wantError(t, err, "certificate signed by unknown authority")
	if !strings.Contains(e.Hint(), "SSL_CERT_FILE") {
		t.Errorf("hint %q", e.Hint())
	}
	if n := len(w.clock.sleeps()); n != 0 {
		t.Errorf("%d retries", n)
	}
}
