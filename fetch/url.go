// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"sbx/reference"
)

// maxPeek is how much of a download may pass before its kind is known. What is still
// undecided then, a large image archive, goes through a temporary file.
const maxPeek = 1 << 20

// openURL opens a tarball that a web server has. A root filesystem is streamed.
func openURL(ctx context.Context, location string, o Options) (*Opened, error) {
	u, err := url.Parse(location)
	if err != nil {
		// The parser's text repeats the URL with all that is in it.
		return nil, &Error{Op: "open " + location, Cause: errors.New("not a URL")}
	}
	u.Scheme, u.Fragment = strings.ToLower(u.Scheme), ""
	op := "open " + publicURL(u)
	switch {
	case u.Hostname() == "":
		return nil, &Error{Op: op, Cause: errors.New("the URL names no host")}
	case u.User != nil:
		return nil, &Error{Op: op, Cause: errors.New("the URL carries a password"), hint: "passwords in URLs end up in records and listings; download the file yourself and give its path"}
	}
	c, err := newClient(u.Host, u.Scheme == "http", o)
	if err != nil {
		return nil, &Error{Op: op, Cause: err}
	}
	fail := func(err error) error { return explain(op, u.Host, reference.Ref{}, err) }
	s := &stream{ctx: ctx, client: c, url: u, size: -1, remember: true}
	opened, err := openStream(ctx, s, publicURL(u), o, fail)
	if err != nil {
		s.Close()
		c.close()
		return nil, fail(err)
	}
	opened.Origin = fmt.Sprintf("size=%d state=%s", s.size, s.state)
	opened.closers = append(opened.closers, func() error {
		defer c.close()
		return s.Close()
	})
	return opened, nil
}

func openStream(ctx context.Context, s *stream, shown string, o Options, fail func(error) error) (*Opened, error) {
	if err := s.start(); err != nil {
		return nil, err
	}
	peek := &peekReader{r: s}
	archive, err := isImageArchive(peek)
	undecided := errors.Is(err, errUndecided)
	if err != nil && !undecided {
		return nil, err
	}
	rest := io.MultiReader(bytes.NewReader(peek.seen), s)
	if !archive && !undecided {
		body := &failReader{r: rest, fail: fail}
		return &Opened{Rootfs: &Rootfs{Reader: body, Config: rootfsConfig(o)}}, nil
	}
	f, err := spill(o.TempDir, rest)
	if err != nil {
		return nil, err
	}
	opened, err := openFile(ctx, f, shown, o)
	if err != nil {
		f.Close()
	}
	return opened, err
}

// peekReader keeps what was read of r, up to maxPeek.
type peekReader struct {
	r    io.Reader
	seen []byte
}

// Read implements io.Reader.
func (p *peekReader) Read(b []byte) (int, error) {
	if len(p.seen) >= maxPeek {
		return 0, errUndecided
	}
	n, err := p.r.Read(b)
	p.seen = append(p.seen, b[:n]...)
	return n, err
}

// failReader makes *Errors of r's.
type failReader struct {
	r    io.Reader
	fail func(error) error
}

// Read implements io.Reader.
func (f *failReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = f.fail(err)
	}
	return n, err
}
