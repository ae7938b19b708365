// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	maxHops = 10
	// maxControlBody bounds every body that is not a blob, whoever reads it.
	maxControlBody = 8 << 20
)

// guard is the lowest of our round trippers: every request of this package passes it. It refuses what policy forbids, takes credentials off
// requests that leave the host that was named, tries again what may succeed later, and
// ends what stalls.
//
// Who may carry a credential is decided here and nowhere above: home gets what the session
// adds, so does the token server that the session has found legitimate, any other host
// only a token that the guard itself got, anonymously, where that host said.
type guard struct {
	base      http.RoundTripper
	homeBase  http.RoundTripper // for home
	clock     clock
	userAgent string
	waiting   func(host, cause string, wait time.Duration) // Options.Waiting
	home      string                                       // host[:port] that the user named, lower case
	plain     bool                                         // the user typed an http URL
	insecure  bool                                         // the user lets home speak plain http
	// homeInside is set once home was reached at an address of an inner network:
	// then its storage may be in there, too.
	homeInside atomic.Bool
	foreign    foreignTokens
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(in *http.Request) (*http.Response, error) {
	trusted := g.trusted(in)
	if err := g.admit(in, trusted); err != nil {
		return nil, err
	}
	if trusted || g.isTokenServer(in) {
		return g.insist(in, func(out *http.Request) {})
	}
	host := dialAddress(in.URL)
	token := g.foreign.of(host)
	resp, err := g.insist(in, func(out *http.Request) { dropSecrets(out, token) })
	if err != nil {
		return nil, err
	}
	challenge, challenged := bearerChallenge(resp)
	// The session must not answer it: it would ask in home's name.
	resp.Header.Del("Www-Authenticate")
	if !challenged || previous(in) == nil || g.isHome(in.URL) || in.Body != nil {
		return resp, nil
	}
	if token, err = g.exchange(in.Context(), challenge); err != nil {
		return resp, nil // the refusal says more than why there is no token
	}
	resp.Body.Close()
	g.foreign.put(host, token)
	resp, err = g.insist(in, func(out *http.Request) { dropSecrets(out, token) })
	if err == nil {
		resp.Header.Del("Www-Authenticate")
	}
	return resp, err
}

// dropSecrets takes off out what identifies the user and adds the token, if there is one.
func dropSecrets(out *http.Request, token string) {
	for _, secret := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
		out.Header.Del(secret)
	}
	if token != "" {
		out.Header.Set("Authorization", "Bearer "+token)
	}
}

// insist sends in, prepared, as often as it makes sense.
func (g *guard) insist(in *http.Request, prepare func(out *http.Request)) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, err := g.once(in, prepare)
		wait := pause(try)
		switch {
		case err != nil:
			if try == maxTries || sentOnce(in) || !retryable(in.Context(), err) {
				return nil, err
			}
		case !retryableStatus(resp.StatusCode) || try == maxTries || sentOnce(in):
			return resp, nil
		default:
			if asked, ok := parseRetryAfter(resp.Header.Get("Retry-After"), g.clock.now()); ok {
				wait = asked
			}
			if wait > longestRetryAfter {
				return resp, nil
			}
			g.tellWait(in.URL.Host, resp.Status, wait)
			_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
			resp.Body.Close()
		}
		if err := g.clock.sleep(in.Context(), wait); err != nil {
			return nil, err
		}
		if in.Body != nil {
			if in.Body, err = in.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// tellWait tells the user of a wait that he would wonder about.
func (g *guard) tellWait(host, cause string, wait time.Duration) {
	if g.waiting != nil && wait >= worthTelling {
		g.waiting(host, cause, wait)
	}
}

// sentOnce reports whether the request's body cannot be had again. Whoever streams one
// takes up the upload himself.
func sentOnce(in *http.Request) bool { return in.Body != nil && in.GetBody == nil }

// once sends in one time.
func (g *guard) once(in *http.Request, prepare func(out *http.Request)) (*http.Response, error) {
	ctx := context.WithValue(in.Context(), targetKey{}, target{host: dialAddress(in.URL), foreign: !g.isHome(in.URL)})
	ctx, cancel := context.WithCancelCause(ctx)
	out := in.Clone(ctx)
	out.Header.Set("User-Agent", g.userAgent)
	// The URL we come from may hold a signature that is none of the next host's business.
	out.Header.Del("Referer")
	prepare(out)
	watch := &watchedBody{ctx: ctx, cancel: cancel, clock: g.clock, left: -1}
	if unlimited, _ := in.Context().Value(unlimitedKey{}).(bool); !unlimited {
		watch.left = maxControlBody
		watch.deadline = g.clock.after(controlDeadline, func() { cancel(errEndless) })
	}
	alarm := g.clock.after(stallAfter, func() { cancel(errStalled) })
	sent := &sentBody{ReadCloser: out.Body, alarm: alarm}
	if out.Body != nil {
		out.Body = sent
	}
	base := g.base
	if g.isHome(in.URL) {
		base = g.homeBase
	}
	resp, err := base.RoundTrip(out)
	sent.answered.Store(true)
	alarm.Stop()
	if err != nil {
		watch.stop()
		err = ringCause(ctx, err)
		cancel(nil)
		return nil, err
	}
	watch.body = resp.Body
	resp.Body = watch
	return resp, nil
}

// admit refuses a request that must not be sent.
func (g *guard) admit(in *http.Request, trusted bool) error {
	u, shown := in.URL, publicURL(in.URL)
	hops := 0
	for r := previous(in); r != nil; r = previous(r) {
		hops++
	}
	host := u.Hostname()
	switch before := previous(in); {
	case hops > maxHops:
		return &policyError{text: fmt.Sprintf("more than %d redirects", maxHops)}
	case u.Scheme != "https" && u.Scheme != "http":
		return &policyError{text: fmt.Sprintf("refuse redirect to %s: not http", shown)}
	case u.User != nil:
		return &policyError{text: fmt.Sprintf("refuse redirect to %s: it carries a password", shown)}
	case before != nil && before.URL.Scheme == "https" && u.Scheme == "http":
		return &policyError{text: fmt.Sprintf("refuse redirect from https to %s", shown)}
	case u.Scheme == "http" && !g.plain && !isLoopback(host) && !(g.insecure && g.isHome(u)):
		return &policyError{
			text: fmt.Sprintf("refuse plain http to %s", u.Host),
			hint: plainHint,
		}
	case !trusted && !isLoopback(hostOf(g.home)) && isInnermost(host):
		return &policyError{text: fmt.Sprintf("refuse %s: %s points to this machine", shown, g.home)}
	}
	return nil
}

// trusted tells whether in and every request that led to it by redirects went to home
// by one scheme. Only such a request may carry what belongs to home: a host in between
// could have chosen the rest of the way.
func (g *guard) trusted(in *http.Request) bool {
	for r := in; r != nil; r = previous(r) {
		if !g.isHome(r.URL) || r.URL.Scheme != in.URL.Scheme {
			return false
		}
	}
	return true
}

// isTokenServer tells whether in goes, on no detour, to the token server that it was made
// for.
func (g *guard) isTokenServer(in *http.Request) bool {
	server, ok := in.Context().Value(tokenServerKey{}).(string)
	return ok && previous(in) == nil && server == in.URL.Scheme+"://"+dialAddress(in.URL)
}

// isHome compares host and port, a missing port being the scheme's.
func (g *guard) isHome(u *url.URL) bool {
	home := url.URL{Scheme: u.Scheme, Host: g.home}
	return dialAddress(u) == dialAddress(&home)
}

// previous returns the request whose answer redirected to r, or nil.
func previous(r *http.Request) *http.Request {
	if r.Response == nil {
		return nil
	}
	return r.Response.Request
}
