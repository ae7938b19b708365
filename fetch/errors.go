// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Error is what every function of this package returns. Its text holds no control
// characters, whatever a registry or an archive sent.
type Error struct {
	Op       string // what was tried: "pull docker.io/library/alpine:latest"
	Registry string // the host that was asked, "" for a local file
	Status   int    // of the HTTP response that ended it, 0 if there was none
	Cause    error
	hint     string
}

// Error implements error.
func (e *Error) Error() string { return clean(e.Op) + ": " + clean(e.Cause.Error()) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Hint returns what the user can do about it, or "".
func (e *Error) Hint() string { return clean(e.hint) }

// IsUnanswered reports whether a server was not reached, or could not answer now, so
// that another may be asked in its place.
func (e *Error) IsUnanswered() bool {
	return e.Registry != "" && (e.Status == 0 || e.Status >= http.StatusInternalServerError || e.Status == http.StatusTooManyRequests)
}

// hinted is a cause that knows its remedy.
type hinted struct {
	text string
	hint string
}

func (e *hinted) Error() string { return e.text }
func (e *hinted) Hint() string  { return e.hint }

// statusError is an HTTP response that is not the wanted one.
type statusError struct {
	method     string
	url        string // without its query: signed URLs are secrets
	status     int
	code       string // the first registry error code, such as MANIFEST_UNKNOWN
	message    string
	retryAfter time.Duration
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%s %s: %d", e.method, e.url, e.status)
	if text := http.StatusText(e.status); text != "" {
		s += " " + text
	}
	if e.message != "" {
		s += ": " + e.message
	}
	return s
}

// policyError is a request that this package will not make. It is never retried.
type policyError struct {
	text string
	hint string
}

func (e *policyError) Error() string { return e.text }
func (e *policyError) Hint() string  { return e.hint }

// publicURL is u as it may be shown: no query, no fragment, no credentials.
func publicURL(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, Opaque: u.Opaque}
	return shown.String()
}

// clean escapes what does not print, so that remote text cannot steer a terminal.
func clean(s string) string {
	const most = 4096
	cut := len(s) > most
	if cut {
		s = s[:most]
	}
	if !cut && !strings.ContainsFunc(s, func(r rune) bool { return !printable(r) }) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case printable(r):
			b.WriteString(s[i : i+n])
		case r == '\n':
			b.WriteString(`\n`)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	if cut {
		b.WriteString("...")
	}
	return b.String()
}

// printable excludes control characters and the invisible ones that reorder text.
func printable(r rune) bool { return unicode.IsPrint(r) }
