// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// maxTries bounds how often one request is sent, and how often in a row a body may
	// end without having brought progressStep.
	maxTries     = 5
	firstPause   = 500 * time.Millisecond
	longestPause = 8 * time.Second
	// longestRetryAfter is what a server may ask us to wait; beyond it the user is told
	// instead.
	longestRetryAfter = time.Minute
	// worthTelling is a wait that is not silent any more.
	worthTelling = time.Second
	progressStep = 256 << 10
	// stallAfter is how long a server may think before its first byte and between two.
	stallAfter = time.Minute
	// controlDeadline is for a whole exchange about anything but a blob, so that one
	// byte a minute is no way out.
	controlDeadline = 5 * time.Minute
)

// errStalled is the cause of a request that stallAfter ended.
var errStalled = errors.New("no data for a minute")

// errEndless is the cause of a request that controlDeadline ended.
var errEndless = errors.New("no complete answer within five minutes")

// pause is the wait before the given try, counted from 1: doubling, with jitter so that
// twenty pulls do not come back together.
func pause(try int) time.Duration {
	d := min(firstPause<<min(try-1, 10), longestPause)
	return d*3/4 + rand.N(d/2)
}

// parseRetryAfter reads seconds or a date. A missing or unreadable header is 0, false.
func parseRetryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0, false
	}
	if every(value, isDigit) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(365*24*time.Hour/time.Second) {
			return 365 * 24 * time.Hour, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	when, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return max(when.Sub(now), 0), true
}

func retryableStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryable tells whether sending the request again can help. What the user or the
// administrator has to put right (names, certificates, closed ports, policy) cannot.
func retryable(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	var (
		policy    *policyError
		dns       *net.DNSError
		invalid   *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case errors.Is(err, errStalled):
		return true
	case errors.As(err, &policy), errors.As(err, &invalid), errors.As(err, &authority), errors.As(err, &record), errors.As(err, &alert):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return true
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return true
	}
	// net/http keeps its HTTP/2 errors and these two to itself.
	text := err.Error()
	return strings.Contains(text, "http2: ") || strings.Contains(text, "stream error: ") || strings.Contains(text, "server closed idle connection")
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func every(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}
