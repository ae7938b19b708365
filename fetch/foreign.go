// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

const maxToken = 1 << 20

// foreignTokens are anonymous tokens of hosts that home redirected to: some registries
// are but a name in front of another one. Each was got where its host said and goes to
// that host only.
type foreignTokens struct {
	mu     sync.Mutex
	byHost map[string]string // host:port -> token
}

func (f *foreignTokens) of(host string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byHost[host]
}

func (f *foreignTokens) put(host, token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byHost == nil {
		f.byHost = map[string]string{}
	}
	f.byHost[host] = token
}

// exchangeKey marks the requests for tokens, which must not cause others.
type exchangeKey struct{}

// exchange gets an anonymous token as the challenge says. Its request is like any other
// to a foreign host: policy decides about the realm and about where that redirects.
func (g *guard) exchange(ctx context.Context, challenge map[string]string) (string, error) {
	if nested, _ := ctx.Value(exchangeKey{}).(bool); nested {
		return "", errors.New("a token wants a token")
	}
	realm, err := url.Parse(challenge["realm"])
	if err != nil {
		return "", err
	}
	query := realm.Query()
	for _, name := range []string{"service", "scope"} {
		if v := challenge[name]; v != "" {
			query.Set(name, v)
		}
	}
	realm.RawQuery = query.Encode()
	ctx = context.WithValue(context.WithValue(ctx, exchangeKey{}, true), unlimitedKey{}, false)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err != nil {
		return "", err
	}
	h := http.Client{Transport: g, CheckRedirect: followAll}
	resp, err := h.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %d", publicURL(realm), resp.StatusCode)
	}
	got, err := readToken(resp.Body)
	return got.text, err
}

// token is a token server's answer.
type token struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
	Refresh     string `json:"refresh_token"`
	ExpiresIn   int64  `json:"expires_in"` // seconds; 0: it does not say

	text string // one of the two
}

// readToken reads a token server's answer. A token that could not stand in a header is
// none.
func readToken(body io.Reader) (token, error) {
	b, err := io.ReadAll(io.LimitReader(body, maxToken+1))
	if err != nil {
		return token{}, err
	}
	if len(b) > maxToken {
		return token{}, errors.New("the token is too large")
	}
	var answer token
	if err := json.Unmarshal(b, &answer); err != nil {
		return token{}, fmt.Errorf("the answer is no token: %w", err)
	}
	if answer.text = answer.Token; answer.text == "" {
		answer.text = answer.AccessToken
	}
	if answer.text == "" || !every(answer.text, func(c byte) bool { return c > ' ' && c < 0x7f }) {
		return token{}, errors.New("the answer holds no token")
	}
	return answer, nil
}

// bearerChallenge returns the parameters of a Bearer challenge that comes with a 401.
func bearerChallenge(resp *http.Response) (map[string]string, bool) {
	if resp.StatusCode != http.StatusUnauthorized {
		return nil, false
	}
	for _, header := range resp.Header.Values("Www-Authenticate") {
		if c, ok := parseBearer(header); ok {
			return c, true
		}
	}
	return nil, false
}

// parseBearer finds the Bearer challenge in a WWW-Authenticate header (RFC 9110, 11.6.1)
// and returns its parameters, their names in lower case. A header may hold several
// challenges, and their commas separate parameters and challenges alike.
func parseBearer(header string) (map[string]string, bool) {
	var found map[string]string
	inBearer := false
	for rest := header; ; {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			break
		}
		word := rest[:tokenLength(rest)]
		if word == "" {
			return nil, false
		}
		rest = strings.TrimLeft(rest[len(word):], " \t")
		value, isParameter := strings.CutPrefix(rest, "=")
		if !isParameter {
			if found != nil {
				break // the next challenge
			}
			if inBearer = strings.EqualFold(word, "Bearer"); inBearer {
				found = map[string]string{}
			}
			continue
		}
		var text string
		var ok bool
		if text, rest, ok = parameterValue(strings.TrimLeft(value, " \t")); !ok {
			return nil, false
		}
		if inBearer {
			found[strings.ToLower(word)] = text
		}
	}
	return found, found["realm"] != ""
}

// parameterValue reads a token or a quoted string.
func parameterValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		n := tokenLength(s)
		return s[:n], s[n:], n > 0
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// tokenLength counts the characters of a token (RFC 9110, 5.6.2) at the beginning of s.
func tokenLength(s string) int {
	for i := range len(s) {
		c := s[i]
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return i
		}
	}
	return len(s)
}
