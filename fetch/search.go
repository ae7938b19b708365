// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"sbx/reference"
)

// SearchResult is a repository that a search has found.
type SearchResult struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
	Automated   bool   `json:"is_automated"`
}

// hubIndex is where Docker Hub is searched.
const hubIndex = "index.docker.io"

// Search asks a registry for repositories by the old v1 interface, which Docker Hub has and
// hardly any other.
func Search(ctx context.Context, host, term string, limit int, o Options) ([]SearchResult, error) {
	o = o.withDefaults()
	op := "search " + host + " for " + term
	at := host
	if host == hubDomain {
		at = hubIndex
	}
	c, err := newClient(at, false, o.at(host))
	if err != nil {
		return nil, &Error{Op: op, Registry: at, Cause: err}
	}
	defer c.close()
	s := c.newSession(at, Credential{}, o.at(host))
	results, err := s.search(ctx, c, term, limit)
	var status *statusError
	if errors.As(err, &status) && (status.status == http.StatusNotFound || status.status == http.StatusMethodNotAllowed) {
		return nil, &Error{Op: op, Registry: at, Status: status.status, Cause: errors.New("this registry offers no search"), hint: "sbx pull -a and the registry's own web pages show what it has"}
	}
	if err != nil {
		return nil, explain(op, at, reference.Ref{}, err)
	}
	return results, nil
}

func (s *session) search(ctx context.Context, c *client, term string, limit int) ([]SearchResult, error) {
	scheme := "https"
	if len(s.schemes) > 1 {
		if err := s.open(ctx); err != nil {
			return nil, err
		}
		scheme = s.scheme
	}
	query := url.Values{"q": {term}, "n": {strconv.Itoa(limit)}}
	u := &url.URL{Scheme: scheme, Host: s.host, Path: "/v1/search", RawQuery: query.Encode()}
	resp, err := c.get(ctx, u, http.Header{"Accept": {"application/json"}})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, c.readStatus(resp)
	}
	defer resp.Body.Close()
	var answer struct{ Results []SearchResult }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, &statusError{method: http.MethodGet, url: publicURL(u), status: http.StatusNotFound}
	}
	return answer.Results, nil
}
