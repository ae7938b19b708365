// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// tokenLife is how long a token is good whose server does not say (distribution's token
// specification).
const tokenLife = time.Minute

// session is a client's standing with the registry that it is at home with: the scheme it
// speaks, how it wants to be convinced, and the token of the moment. It is the round
// tripper above the guard; what it adds, the guard takes off again where it does not
// belong.
type session struct {
	guard      *guard
	host       string
	schemes    []string // to try, in order
	credential Credential
	approved   []string // hosts, beside the usual, that may see the credential

	scheme    string            // once open has found it
	challenge map[string]string // Bearer; nil if there is none
	basic     bool              // the registry wants the password itself

	mu     sync.Mutex
	scopes []string
	token  string
	good   time.Time // until then

	// identity is what the token server gave in place of the password, if it was asked.
	identity string
}

// open asks the registry which protocol it speaks and how it wants to be convinced.
func (s *session) open(ctx context.Context, scopes ...string) error {
	s.scopes = scopes
	var first error
	for _, scheme := range s.schemes {
		resp, err := s.ping(ctx, scheme, "")
		if err != nil {
			if first == nil {
				first = err
			}
			var invalid *tls.CertificateVerificationError
			if ctx.Err() != nil || errors.As(err, &invalid) { // then it does speak TLS
				return err
			}
			continue
		}
		resp.Body.Close()
		if retryableStatus(resp.StatusCode) {
			return &statusError{method: http.MethodGet, url: publicURL(resp.Request.URL), status: resp.StatusCode}
		}
		s.scheme = scheme
		s.listen(resp)
		return nil
	}
	return first
}

// ping sends GET /v2/ (distribution-spec, "Determining Support").
func (s *session) ping(ctx context.Context, scheme, authorization string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+s.host+"/v2/", nil)
	if err != nil {
		return nil, err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	h := http.Client{Transport: s.guard, CheckRedirect: followAll}
	return h.Do(req)
}

// followAll leaves it to the guard to count and judge redirects.
func followAll(*http.Request, []*http.Request) error { return nil }

// stayHere makes a redirect the answer.
func stayHere(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// listen takes note of the challenges of a 401.
func (s *session) listen(resp *http.Response) {
	if resp.StatusCode != http.StatusUnauthorized {
		return
	}
	if challenge, ok := bearerChallenge(resp); ok {
		s.challenge = challenge
		return
	}
	for _, header := range resp.Header.Values("Www-Authenticate") {
		if scheme, _, _ := strings.Cut(strings.TrimSpace(header), " "); strings.EqualFold(scheme, "Basic") {
			s.basic = true
		}
	}
}

// RoundTrip implements http.RoundTripper.
func (s *session) RoundTrip(in *http.Request) (*http.Response, error) {
	if s.scheme == "https" && in.URL.Scheme == "http" && strings.EqualFold(in.URL.Host, s.host) {
		// A registry behind something that ends TLS often does not know how it was asked.
		u := *in.URL
		u.Scheme = s.scheme
		in = in.Clone(in.Context())
		in.URL = &u
	}
	if s.scheme == "" || !s.guard.trusted(in) {
		return s.guard.RoundTrip(in)
	}
	for again := false; ; again = true {
		out, err := s.authorize(in)
		if err != nil {
			return nil, err
		}
		resp, err := s.guard.RoundTrip(out)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || again || !s.refused(resp) {
			return resp, err
		}
		if in.Body != nil {
			if in.GetBody == nil {
				return resp, nil
			}
			if in.Body, err = in.GetBody(); err != nil {
				return resp, nil
			}
		}
		resp.Body.Close()
	}
}

// refused reports whether a token that the 401 asks for may help, and forgets the present
// one.
func (s *session) refused(resp *http.Response) bool {
	challenge, ok := bearerChallenge(resp)
	if !ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.challenge, s.token = challenge, ""
	for scope := range strings.FieldsSeq(challenge["scope"]) {
		if !slices.Contains(s.scopes, scope) && len(s.scopes) < maxScopes {
			s.scopes = append(s.scopes, scope)
		}
	}
	return true
}

// maxScopes bounds what one token is asked for.
const maxScopes = 16

// authorize adds to a request for home what convinces it.
func (s *session) authorize(in *http.Request) (*http.Request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value := ""
	switch {
	case s.challenge != nil:
		if s.token == "" || !s.guard.clock.now().Before(s.good) {
			if err := s.renew(in.Context()); err != nil {
				return nil, err
			}
		}
		value = "Bearer " + s.token
	case s.basic && s.credential.Password != "":
		value = s.credential.basic()
	default:
		return in, nil
	}
	out := in.Clone(in.Context())
	out.Header.Set("Authorization", value)
	return out, nil
}

// renew gets a token for the scopes. A server that refuses more than the first may still
// grant that: the others are for mounting blobs of other repositories.
func (s *session) renew(ctx context.Context) error {
	got, err := s.fetchToken(ctx, s.scopes)
	if status := (*statusError)(nil); err != nil && len(s.scopes) > 1 && errors.As(err, &status) && status.status < 500 {
		s.scopes = s.scopes[:1]
		got, err = s.fetchToken(ctx, s.scopes)
	}
	if err != nil {
		return err
	}
	life := tokenLife
	if got.ExpiresIn > 0 {
		life = max(time.Duration(min(got.ExpiresIn, 1<<20))*time.Second, tokenLife/2)
	}
	s.token, s.good = got.text, s.guard.clock.now().Add(life*9/10)
	if got.Refresh != "" {
		s.identity = got.Refresh
	}
	return nil
}

// fetchToken asks the realm of the challenge: anonymously, with the password, or with the
// identity token that stands for it (distribution's token and oauth2 specifications).
func (s *session) fetchToken(ctx context.Context, scopes []string) (token, error) {
	realm, err := url.Parse(s.challenge["realm"])
	if err != nil {
		return token{}, errors.New("the registry names a token server that is no URL")
	}
	if !s.credential.isZero() {
		if !s.mayAuthenticate(realm) {
			return token{}, &policyError{
				text: fmt.Sprintf("refuse to send the password of %s to %s", s.host, publicURL(realm)),
				hint: fmt.Sprintf("if %s is its token server: token-servers = [%q] for this registry in config.toml", realm.Hostname(), realm.Hostname()),
			}
		}
		ctx = context.WithValue(ctx, tokenServerKey{}, realm.Scheme+"://"+dialAddress(realm))
	}
	req, err := s.tokenRequest(ctx, realm, scopes)
	if err != nil {
		return token{}, err
	}
	h := http.Client{Transport: s.guard, CheckRedirect: followAll}
	if req.Method == http.MethodPost {
		h.CheckRedirect = stayHere // a redirect would carry the body along
	}
	resp, err := h.Do(req)
	if err != nil {
		return token{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return token{}, readStatus(resp, s.guard.clock.now())
	}
	defer resp.Body.Close()
	got, err := readToken(resp.Body)
	if err != nil {
		return token{}, fmt.Errorf("%s %s: %w", req.Method, publicURL(realm), err)
	}
	return got, nil
}

func (s *session) tokenRequest(ctx context.Context, realm *url.URL, scopes []string) (*http.Request, error) {
	query := url.Values{}
	if service := s.challenge["service"]; service != "" {
		query.Set("service", service)
	}
	if s.credential.IdentityToken != "" {
		query.Set("grant_type", "refresh_token")
		query.Set("client_id", clientID)
		query.Set("refresh_token", s.credential.IdentityToken)
		if len(scopes) > 0 {
			query.Set("scope", strings.Join(scopes, " "))
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(query.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	for name, values := range realm.Query() {
		query[name] = values
	}
	query.Del("scope")
	for _, scope := range scopes {
		query.Add("scope", scope)
	}
	if s.credential.Username != "" {
		query.Set("account", s.credential.Username)
		query.Set("client_id", clientID)
		if len(scopes) == 0 {
			query.Set("offline_token", "true")
		}
	}
	at := *realm
	at.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err == nil && s.credential.Password != "" {
		req.Header.Set("Authorization", s.credential.basic())
	}
	return req, err
}

// clientID is what token servers are told that asks.
const clientID = "sbx"

// verify logs in: it sends the credential and reports whether it is right, as an error
// that says what the registry said.
func (s *session) verify(ctx context.Context) error {
	value := ""
	switch {
	case s.challenge != nil:
		if err := s.renew(ctx); err != nil {
			return err
		}
		value = "Bearer " + s.token
	case s.basic:
		value = s.credential.basic()
	}
	resp, err := s.ping(ctx, s.scheme, value)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return readStatus(resp, s.guard.clock.now())
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	return resp.Body.Close()
}
