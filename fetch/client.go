// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	maxErrorBody   = 64 << 10
	maxHeaderBytes = 256 << 10
)

// client talks to one host that the user named and to wherever that sends it.
type client struct {
	guard *guard
	bases []*http.Transport
	// through is what requests are sent over: the guard, or a session on top of it.
	through http.RoundTripper
}

// newClient makes a client for home, a host with an optional port, that is reached as
// o.reach says. plain allows http to any host. An error is about the authorities' file.
func newClient(home string, plain bool, o Options) (*client, error) {
	g := &guard{clock: o.hooks.clock, userAgent: o.UserAgent, waiting: o.Waiting, home: strings.ToLower(home), plain: plain, insecure: o.reach.Insecure}
	authorities, err := trusted(o.hooks.tls, append(o.reach.CAFiles, authoritiesOf(home, o.CADirs)...))
	if err != nil {
		return nil, err
	}
	base := newTransport(g, o, authorities)
	g.base, g.homeBase = base, base
	c := &client{guard: g, bases: []*http.Transport{base}, through: g}
	if o.reach.Insecure {
		anything := authorities.Clone()
		if anything == nil {
			anything = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		anything.InsecureSkipVerify = true // for this one host, as its user has configured
		atHome := newTransport(g, o, anything)
		g.homeBase = atHome
		c.bases = append(c.bases, atHome)
	}
	return c, nil
}

// newSession makes the client one of the registry at host.
func (c *client) newSession(host string, credential Credential, o Options) *session {
	s := &session{guard: c.guard, host: host, schemes: []string{"https"}, credential: credential}
	for _, server := range o.reach.TokenServers {
		s.approved = append(s.approved, strings.ToLower(server))
	}
	if isLoopback(hostOf(host)) || o.reach.Insecure {
		s.schemes = append(s.schemes, "http")
	}
	c.through = s
	return s
}

// authoritiesOf finds the files of dirs that are for one host.
func authoritiesOf(host string, dirs []string) []string {
	var files []string
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, escapeGlob(host), "*.crt"))
		if err == nil {
			files = append(files, found...)
		}
	}
	return files
}

// escapeGlob lets the brackets of an IPv6 address mean themselves.
func escapeGlob(s string) string { return strings.ReplaceAll(s, "[", `\[`) }

// trusted adds authorities to base, which may be nil.
func trusted(base *tls.Config, files []string) (*tls.Config, error) {
	if len(files) == 0 {
		return base, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		config = base.Clone()
	}
	if config.RootCAs == nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		config.RootCAs = pool
	} else {
		config.RootCAs = config.RootCAs.Clone()
	}
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read authority: %w", err)
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authority %s: there is no certificate in it", file)
		}
	}
	return config, nil
}

func newTransport(g *guard, o Options, authorities *tls.Config) *http.Transport {
	base := &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if isLoopback(r.URL.Hostname()) {
				return nil, nil
			}
			return o.hooks.proxy(r)
		},
		DialContext:            g.dialer(),
		TLSClientConfig:        authorities,
		TLSHandshakeTimeout:    stallAfter / 2,
		IdleConnTimeout:        stallAfter,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
		// Digests are of the bytes on the wire.
		DisableCompression: true,
	}
	if o.hooks.dial != nil {
		base.DialContext = o.hooks.dial
	}
	return base
}

// get sends a GET and follows redirects. The caller closes the body.
func (c *client) get(ctx context.Context, u *url.URL, header http.Header) (*http.Response, error) {
	return c.send(ctx, http.MethodGet, u, header, nil)
}

// send sends a request and follows redirects. A body that is not a bytes.Reader or a
// strings.Reader is sent once. The caller closes the answer's body.
func (c *client) send(ctx context.Context, method string, u *url.URL, header http.Header, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Accept-Encoding", "identity")
	h := http.Client{Transport: c.through, CheckRedirect: followAll}
	return h.Do(req)
}

func (c *client) close() {
	for _, base := range c.bases {
		base.CloseIdleConnections()
	}
}

// readStatus turns a response that is not the wanted one into an error and closes it.
func (c *client) readStatus(resp *http.Response) *statusError {
	return readStatus(resp, c.guard.clock.now())
}

func readStatus(resp *http.Response, now time.Time) *statusError {
	defer resp.Body.Close()
	e := &statusError{method: resp.Request.Method, url: publicURL(resp.Request.URL), status: resp.StatusCode}
	e.retryAfter, _ = parseRetryAfter(resp.Header.Get("Retry-After"), now)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var answer struct {
		Errors []struct {
			Code    string
			Message string
		}
		Details string // of token servers
	}
	said := json.Unmarshal(body, &answer) == nil
	if said && len(answer.Errors) == 0 && answer.Details != "" {
		e.message = trimMessage(answer.Details)
		return e
	}
	if said && len(answer.Errors) > 0 {
		e.code, e.message = answer.Errors[0].Code, trimMessage(answer.Errors[0].Message)
		if e.message == "" {
			e.message = trimMessage(e.code)
		}
		return e
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/plain" {
		line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
		e.message = trimMessage(line)
	}
	return e
}

// trimMessage keeps a registry's text to a line that can stand in an error.
func trimMessage(s string) string {
	const most = 300
	s = strings.TrimSuffix(strings.TrimSpace(s), ".")
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}

// plainCause strips what net/http and the protocol library wrap around an error down to
// "GET URL: cause", the URL without its query.
func plainCause(err error) error {
	var (
		status  *statusError
		request *url.Error
	)
	switch {
	case errors.As(err, &status):
		return status
	case errors.As(err, &request):
		inner := request.Err
		if errors.Is(inner, context.Canceled) || errors.Is(inner, context.DeadlineExceeded) {
			return inner
		}
		where := request.URL
		if u, perr := url.Parse(request.URL); perr == nil {
			where = publicURL(u)
		}
		return &requestError{text: strings.ToUpper(request.Op) + " " + where + ": " + inner.Error(), cause: inner}
	}
	return err
}

// requestError is a request that got no answer.
type requestError struct {
	text  string
	cause error
}

func (e *requestError) Error() string { return e.text }
func (e *requestError) Unwrap() error { return e.cause }
