// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sbx/reference"
)

// File is a file of a web server, as it comes. It must be closed.
type File struct {
	io.Reader
	Modified time.Time // zero if the server does not say

	close func() error
}

// Close ends the connection.
func (f *File) Close() error { return f.close() }

// OpenFile asks for the file at an http(s) URL, from offset on. It goes on where
// it was when a connection ends early, and lives as long as ctx. Nothing is
// verified: the caller knows what the file is to be. Errors are *Error; one for a
// file that is not there has Status 404.
func OpenFile(ctx context.Context, location string, offset int64, o Options) (*File, error) {
	o = o.withDefaults()
	u, err := url.Parse(location)
	if err != nil || u.Hostname() == "" || !isURL(location) {
		return nil, &Error{Op: "download " + location, Cause: errors.New("not a URL")}
	}
	u.Scheme, u.Fragment = strings.ToLower(u.Scheme), ""
	op := "download " + publicURL(u)
	if u.User != nil {
		return nil, &Error{Op: op, Cause: errors.New("the URL carries a password"), hint: "download the file yourself and give its path"}
	}
	c, err := newClient(u.Host, u.Scheme == "http", o)
	if err != nil {
		return nil, &Error{Op: op, Cause: err}
	}
	fail := func(err error) error { return explain(op, u.Host, reference.Ref{}, err) }
	s := &stream{ctx: ctx, client: c, url: u, at: offset, size: -1, remember: offset == 0}
	closing := func() error {
		defer c.close()
		return s.Close()
	}
	if err := s.start(); err != nil {
		_ = closing()
		return nil, fail(err)
	}
	f := &File{Reader: &failReader{r: s, fail: fail}, close: closing}
	f.Modified, _ = http.ParseTime(s.modified) // zero if it says nonsense
	return f, nil
}
