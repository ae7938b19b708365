// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// fakeClock lets no test wait: sleeps return at once and are written down, alarms ring
// only by ring.
type fakeClock struct {
	mu     sync.Mutex
	slept  []time.Duration
	alarms []*fakeTimer
}

type fakeTimer struct {
	clock  *fakeClock
	f      func()
	active bool
}

var testNow = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func (c *fakeClock) now() time.Time { return testNow }

func (c *fakeClock) sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slept = append(c.slept, d)
	return context.Cause(ctx)
}

func (c *fakeClock) after(_ time.Duration, f func()) timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &fakeTimer{clock: c, f: f, active: true}
	c.alarms = append(c.alarms, t)
	return t
}

func (t *fakeTimer) set(active bool) bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	was := t.active
	t.active = active
	return was
}

func (t *fakeTimer) Reset(time.Duration) bool { return t.set(true) }
func (t *fakeTimer) Stop() bool               { return t.set(false) }

// ring lets every active alarm ring and tells how many there were.
func (c *fakeClock) ring() int {
	c.mu.Lock()
	var due []func()
	for _, t := range c.alarms {
		if t.active {
			t.active = false
			due = append(due, t.f)
		}
	}
	c.mu.Unlock()
	for _, f := range due {
		f()
	}
	return len(due)
}

func (c *fakeClock) sleeps() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Duration(nil), c.slept...)
}

// world is a network of test servers by name, with a certificate authority of its own.
type world struct {
	t     *testing.T
	clock *fakeClock
	cert  tls.Certificate
	pool  *x509.CertPool
	best  uint16 // version of TLS that servers speak; 0 is the newest

	handling sync.Mutex // so that handlers may count

	mu       sync.Mutex
	at       map[string]string // host:port -> listener
	requests []seen
}

// seen is one request that arrived, "METHOD https://host/path".
type seen struct {
	line   string
	header http.Header
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: &fakeClock{}, at: map[string]string{}}
	w.certify(time.Now().Add(24 * time.Hour))
	return w
}

// certify gives servers another certificate, of another authority.
func (w *world) certify(until time.Time) {
	t := w.t
	t.Helper()
	w.pool = x509.NewCertPool()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: until,
		DNSNames: []string{"registry-1.docker.io", "registry.test", "*.registry.test", "evil.test", "localhost"}, IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	w.pool.AddCert(leaf)
	w.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serve answers for host:port, by TLS unless the port is 80 or 5000.
func (w *world) serve(hostport string, h http.Handler) {
	w.t.Helper()
	_, port, err := net.SplitHostPort(hostport)
	if err != nil {
		w.t.Fatal(err)
	}
	scheme := "https"
	if port == "80" || port == "5000" {
		scheme = "http"
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.requests = append(w.requests, seen{line: fmt.Sprintf("%s %s://%s%s", r.Method, scheme, r.Host, r.URL.RequestURI()), header: r.Header.Clone()})
		w.mu.Unlock()
		w.handling.Lock()
		defer w.handling.Unlock()
		h.ServeHTTP(rw, r)
	}))
	s.Config.ErrorLog = discardLog()
	if scheme == "https" {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{w.cert}, MaxVersion: w.best}
		s.EnableHTTP2 = true
		// One handler at a time: the others' bodies must not use up the room that the
		// connection gives all streams together, or his could not arrive.
		s.Config.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 30}
		s.StartTLS()
	} else {
		s.Start()
	}
	w.t.Cleanup(s.CloseClientConnections)
	w.t.Cleanup(s.Close)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at[hostport] = s.Listener.Addr().String()
}

// options dials in this world only.
func (w *world) options() Options {
	o := Options{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, TempDir: w.t.TempDir()}
	o.hooks.clock = w.clock
	o.hooks.tls = &tls.Config{RootCAs: w.pool}
	o.hooks.proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	o.hooks.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		w.mu.Lock()
		real, ok := w.at[address]
		w.mu.Unlock()
		if !ok {
			host, _, _ := net.SplitHostPort(address)
			return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
		}
		var d net.Dialer
		return d.DialContext(ctx, network, real)
	}
	return o
}

// lines returns the requests that arrived.
func (w *world) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, r := range w.requests {
		all = append(all, r.line)
	}
	return all
}

// noSecretsAt fails if a request to host carried anything that could identify its user.
func (w *world) noSecretsAt(host string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if !strings.Contains(r.line, "://"+host) {
			continue
		}
		for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization", "Referer"} {
			if v := r.header.Get(name); v != "" {
				w.t.Errorf("%s carried %s: %s", r.line, name, v)
			}
		}
		if strings.Contains(r.line, "canary") || strings.Contains(fmt.Sprint(r.header), "canary") {
			w.t.Errorf("%s carried a secret: %v", r.line, r.header)
		}
	}
}

func mustRef(t testing.TB, s string) reference.Ref {
	t.Helper()
	r, err := reference.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantError checks that err is an *Error whose text contains each of the parts, and
// returns it.
func wantError(t *testing.T, err error, parts ...string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *Error with %q", err, parts)
	}
	for _, part := range parts {
		if !strings.Contains(e.Error(), part) {
			t.Errorf("got error %q, want it to contain %q", e, part)
		}
	}
	for _, text := range []string{e.Error(), e.Hint()} {
		if strings.ContainsAny(text, "\x1b\x00\r\n\u202e") {
			t.Errorf("control characters in %q", text)
		}
		if strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "...") {
			t.Errorf("a period ends %q", text)
		}
	}
	return e
}
