// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// hubTokenServer issues the tokens of Docker Hub.
const hubTokenServer = "auth.docker.io"

// tokenServerKey marks a request that may carry the credential to one token server; the
// value is scheme://host:port.
type tokenServerKey struct{}

// mayAuthenticate reports whether realm, which the registry has named, may be sent the
// registry's password: the registry's own host, a host of the same registrable domain,
// Docker Hub's token server, or one that the user has approved (CVE-2026-48978). Where the
// registry speaks https, so must the realm.
func (s *session) mayAuthenticate(realm *url.URL) bool {
	home, host := hostOf(s.host), strings.ToLower(realm.Hostname())
	switch {
	case realm.User != nil || host == "":
		return false
	case realm.Scheme == "http":
		return s.scheme == "http" && (host == home || isLoopback(host) && isLoopback(home))
	case realm.Scheme != "https":
		return false
	case host == home, slices.Contains(s.approved, host), slices.Contains(s.approved, strings.ToLower(realm.Host)):
		return true
	case home == hubRegistry:
		return host == hubTokenServer && dialAddress(realm) == hubTokenServer+":443"
	}
	return sameSite(home, host)
}

// sameSite reports whether two names are of one registrable domain. Addresses and names
// without a dot are of none.
func sameSite(a, b string) bool {
	for _, host := range []string{a, b} {
		if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
			return false
		}
	}
	siteA, errA := publicsuffix.EffectiveTLDPlusOne(a)
	siteB, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && siteA == siteB
}
