// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"sbx/reference"
)

// explain makes the *Error of a failed exchange with host, with the remedy where there
// is one. ref is zero where no registry is concerned. An *Error stays what it is.
func explain(op, host string, ref reference.Ref, err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	cause := plainCause(err)
	e := &Error{Op: op, Registry: host, Cause: cause}
	var status *statusError
	var hint interface{ Hint() string }
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.As(cause, &status):
		e.Status = status.status
		e.hint = statusHint(status, ref)
	case errors.As(cause, &hint):
		e.hint = hint.Hint()
	default:
		e.hint = networkHint(cause)
	}
	return e
}

// statusHint is what a status means to somebody who typed a name.
func statusHint(e *statusError, ref reference.Ref) string {
	switch {
	case e.status == http.StatusTooManyRequests:
		when := "later"
		if e.retryAfter > 0 {
			when = "in " + e.retryAfter.Round(time.Second).String()
		}
		return fmt.Sprintf("the server limits how often it is asked from one address; try again %s", when)
	case e.status == http.StatusProxyAuthRequired:
		return "the proxy wants a password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
	case e.status >= 500:
		return "the server has a problem of its own; try again later"
	case ref.Path == "":
		return ""
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden:
		return fmt.Sprintf("check the spelling of %s; if it is private: sbx login%s", ref.FamiliarName(), loginArgument(ref.Domain))
	case e.status == http.StatusNotFound && e.code == codeNameUnknown:
		return fmt.Sprintf("there is no repository %s; check the spelling", ref.FamiliarName())
	case e.status == http.StatusNotFound && ref.Digest.IsZero():
		return fmt.Sprintf("check that %s has the tag %s", ref.FamiliarName(), ref.Tag)
	}
	return ""
}

// loginArgument is what sbx login takes for a registry.
func loginArgument(domain string) string {
	if domain == hubDomain {
		return ""
	}
	return " " + domain
}

const plainHint = "sbx speaks plain http only to registries on this machine (localhost); for others set insecure = true in config.toml"

const codeNameUnknown = "NAME_UNKNOWN"

// networkHint is what the administrator or the user can do where there was no answer.
func networkHint(err error) string {
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		invalid   *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &dns):
		return "check the name and the network; behind a proxy set HTTPS_PROXY"
	case errors.As(err, &authority):
		return "if this network has an authority of its own: SSL_CERT_FILE=/path/to/its.pem"
	case errors.As(err, &invalid):
		return "the server could not prove who it is; check its name and this machine's clock"
	case errors.Is(err, http.ErrSchemeMismatch), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return plainHint
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, errStalled), errors.Is(err, errEndless):
		return "check that the server runs and that this network reaches it; behind a proxy set HTTPS_PROXY"
	}
	return diskHint(err)
}

// diskHint is for archives that had to be unpacked into a temporary file.
func diskHint(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "a compressed archive is unpacked into a temporary file first; make room there or name another place with TMPDIR"
	}
	return ""
}
