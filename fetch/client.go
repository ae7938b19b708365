// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	maxErrorBody   = 64 << 10
	maxHeaderBytes = 256 << 10
)

// client talks to one host that the user named and to wherever that sends it.
type client struct {
	guard *guard
	base  *http.Transport
	// through is what requests are sent over: the guard, or the registry's
	// authentication on top of it.
	through http.RoundTripper
}

// newClient makes a client for home, a host with an optional port. plain allows http to
// any host.
func newClient(home string, plain bool, o Options) *client {
	g := &guard{clock: o.hooks.clock, userAgent: o.UserAgent, home: strings.ToLower(home), plain: plain}
	base := &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if isLoopback(r.URL.Hostname()) {
				return nil, nil
			}
			return o.hooks.proxy(r)
		},
		DialContext:            g.dialer(),
		TLSClientConfig:        o.hooks.tls,
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
	g.base = base
	return &client{guard: g, base: base, through: g}
}

// get sends a GET and follows redirects. The caller closes the body.
func (c *client) get(ctx context.Context, u *url.URL, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	req.Header.Set("Accept-Encoding", "identity")
	// The guard, which sees the library's requests as well, counts and judges redirects.
	follow := func(*http.Request, []*http.Request) error { return nil }
	h := http.Client{Transport: c.through, CheckRedirect: follow}
	return h.Do(req)
}

func (c *client) close() { c.base.CloseIdleConnections() }

// readStatus turns a response that is not the wanted one into an error and closes it.
func (c *client) readStatus(resp *http.Response) *statusError {
	defer resp.Body.Close()
	e := &statusError{method: resp.Request.Method, url: publicURL(resp.Request.URL), status: resp.StatusCode}
	e.retryAfter, _ = parseRetryAfter(resp.Header.Get("Retry-After"), c.guard.clock.now())
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var answer struct {
		Errors []struct {
			Code    string
			Message string
		}
	}
	if json.Unmarshal(body, &answer) == nil && len(answer.Errors) > 0 {
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
		remote  *transport.Error
		request *url.Error
	)
	switch {
	case errors.As(err, &status):
		return status
	case errors.As(err, &remote):
		return remoteStatus(remote)
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

func remoteStatus(e *transport.Error) *statusError {
	s := &statusError{method: http.MethodGet, status: e.StatusCode}
	if e.Request != nil {
		s.method, s.url = e.Request.Method, publicURL(e.Request.URL)
	}
	if len(e.Errors) > 0 {
		s.code, s.message = string(e.Errors[0].Code), trimMessage(e.Errors[0].Message)
	}
	return s
}
