// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// stream reads one resource from an offset on and goes on where it was when a
// connection ends early. Every attempt starts at the URL that was given: a redirect to
// a signed URL may have expired meanwhile.
type stream struct {
	ctx    context.Context
	client *client
	url    *url.URL
	size   int64 // of the whole resource, -1 until it is known
	strict bool  // size comes from a descriptor: another one is an error
	// state recognises the resource again (If-Range); "" where a digest does that.
	state string
	// remember makes the first answer set state: without a digest, pieces of two files
	// must not be joined.
	remember bool
	modified string // Last-Modified of the last answer

	at       int64 // the next byte to return
	body     io.ReadCloser
	whole    bool // ranges are not to be trusted here
	failures int  // in a row
	progress int64
	done     bool
}

// start sends the first request, so that a resource that is not there is known at once.
func (s *stream) start() error {
	s.progress = s.at
	s.ctx = context.WithValue(s.ctx, unlimitedKey{}, true)
	return s.connect()
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if s.done {
			return 0, io.EOF
		}
		if s.body == nil {
			if err := s.connect(); err != nil {
				return 0, err
			}
		}
		n, err := s.body.Read(p)
		s.at += int64(n)
		if n > 0 {
			return n, nil
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && s.size < 0, s.size >= 0 && s.at >= s.size:
			// Behind the last byte no error matters any more.
			s.done = true
		default:
			if err := s.interrupted(err); err != nil {
				return 0, err
			}
		}
	}
}

// Close implements io.Closer.
func (s *stream) Close() error {
	s.done = true
	if s.body == nil {
		return nil
	}
	err := s.body.Close()
	s.body = nil
	return err
}

// interrupted takes note of a body that ended too early and waits before the next
// attempt. It returns the error to give up with.
func (s *stream) interrupted(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if s.body != nil {
		s.body.Close()
		s.body = nil
	}
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	var policy *policyError
	if errors.As(err, &policy) {
		return err
	}
	if s.at-s.progress >= progressStep {
		s.failures = 0
	}
	s.progress = max(s.progress, s.at)
	s.failures++
	if s.failures >= maxTries {
		return fmt.Errorf("GET %s: cut off at byte %d: %w", publicURL(s.url), s.at, err)
	}
	if s.failures == 1 {
		return nil // the usual case, a lost connection: go on at once
	}
	return s.client.guard.clock.sleep(s.ctx, pause(s.failures-1))
}

// connect sends requests until a body stands at s.at.
func (s *stream) connect() error {
	for {
		resp, err := s.client.get(s.ctx, s.url, s.header())
		if err != nil {
			return err
		}
		skip, again, err := s.accept(resp)
		if err != nil {
			resp.Body.Close()
			return err
		}
		if again {
			resp.Body.Close()
			continue
		}
		s.body = resp.Body
		if skip == 0 {
			return nil
		}
		n, err := io.CopyN(io.Discard, resp.Body, skip)
		if err == nil {
			return nil
		}
		if n == skip {
			return nil
		}
		if err := s.interrupted(err); err != nil {
			return err
		}
	}
}

func (s *stream) header() http.Header {
	h := http.Header{}
	if s.at > 0 && !s.whole {
		span := fmt.Sprintf("bytes=%d-", s.at)
		if s.size >= 0 {
			// Some registries refuse a range without an end.
			span += strconv.FormatInt(s.size-1, 10)
		}
		h.Set("Range", span)
		if s.state != "" {
			h.Set("If-Range", s.state)
		}
	}
	return h
}

// accept decides what to do with a response: skip that many bytes of it, or ask again
// for the whole, or give up.
func (s *stream) accept(resp *http.Response) (skip int64, again bool, err error) {
	s.modified = resp.Header.Get("Last-Modified")
	ranged := resp.Request.Header.Get("Range") != ""
	total := resp.ContentLength
	switch resp.StatusCode {
	case http.StatusOK:
		skip = s.at
	case http.StatusPartialContent:
		first, size, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || first > s.at {
			if !ranged {
				return 0, false, fmt.Errorf("GET %s: a part of it came that was not asked for", publicURL(s.url))
			}
			s.whole = true
			return 0, true, nil
		}
		skip, total = s.at-first, size
	case http.StatusRequestedRangeNotSatisfiable:
		if !ranged {
			return 0, false, s.client.readStatus(resp)
		}
		s.whole = true
		return 0, true, nil
	default:
		return 0, false, s.client.readStatus(resp)
	}
	if total >= 0 && s.size >= 0 && total != s.size {
		if s.strict {
			return 0, false, fmt.Errorf("GET %s: it has %d bytes, its descriptor says %d", publicURL(s.url), total, s.size)
		}
		return 0, false, s.changed()
	}
	if s.size < 0 && total >= 0 {
		s.size = total
	}
	if !s.remember {
		return skip, false, nil
	}
	state := validator(resp.Header)
	if s.at > 0 && (s.state == "" || state != s.state) {
		return 0, false, s.changed()
	}
	s.state = state
	return skip, false, nil
}

// changed says that the resource cannot be taken up where it was.
func (s *stream) changed() error {
	if s.state == "" {
		return &policyError{text: fmt.Sprintf("GET %s: cut off at byte %d, and the server cannot tell whether the file is still the same", publicURL(s.url), s.at)}
	}
	return &policyError{text: fmt.Sprintf("GET %s: the file changed while it was read", publicURL(s.url))}
}

// validator returns what identifies a resource's content: a strong entity tag, else the
// date of its last change.
func validator(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

// parseContentRange reads "bytes FIRST-LAST/SIZE"; size is -1 for "*".
func parseContentRange(value string) (first, size int64, ok bool) {
	rest, ok := strings.CutPrefix(value, "bytes ")
	if !ok {
		return 0, 0, false
	}
	span, whole, ok1 := strings.Cut(rest, "/")
	from, to, ok2 := strings.Cut(span, "-")
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	first, ok1 = parseCount(from)
	last, ok2 := parseCount(to)
	if !ok1 || !ok2 || last < first {
		return 0, 0, false
	}
	if whole == "*" {
		return first, -1, true
	}
	size, ok = parseCount(whole)
	return first, size, ok && last < size
}

// parseCount reads decimal digits and nothing else: no sign, no space.
func parseCount(s string) (int64, bool) {
	if s == "" || !every(s, isDigit) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
