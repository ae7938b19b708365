// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// dialAddress is the host:port that a request for u connects to if there is no proxy.
func dialAddress(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

func hostOf(hostport string) string {
	u := url.URL{Host: hostport}
	return strings.ToLower(u.Hostname())
}

// isLoopback tells whether host, without a port, names this machine in its own words.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// isInnermost tells whether host is spelled as an address that only this machine can
// mean: its own, or a link-local one such as the cloud's metadata service.
func isInnermost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return isLoopback(host) || (err == nil && innermost(ip.Unmap()))
}

func innermost(ip netip.Addr) bool {
	return ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast()
}

type (
	targetKey    struct{}
	unlimitedKey struct{}
)

// target is what a connection is made for, as the dialer must know it.
type target struct {
	host    string // host:port
	foreign bool   // not the host that the user named
}

// checkAddress is called with each address before it is connected to. Names are checked
// here, after resolution, because anyone may let a name point anywhere.
func (g *guard) checkAddress(ctx context.Context, hostport, address string) error {
	to, ok := ctx.Value(targetKey{}).(target)
	if !ok || to.host != hostport {
		return nil // a proxy: it connects, and decides
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dial %s: %w", hostport, err)
	}
	ip := ap.Addr().WithZone("").Unmap()
	host, _, _ := net.SplitHostPort(hostport)
	switch {
	case isLoopback(host):
		if !ip.IsLoopback() {
			return &policyError{text: fmt.Sprintf("refuse %s: %s is not an address of this machine", host, ip)}
		}
	case !to.foreign:
		if innermost(ip) || ip.IsPrivate() {
			g.homeInside.Store(true)
		}
	case isLoopback(hostOf(g.home)):
	case innermost(ip), ip.IsPrivate() && !g.homeInside.Load():
		return &policyError{text: fmt.Sprintf("refuse %s: %s points to %s inside the local network", host, g.home, ip)}
	}
	return nil
}

// dialer returns the transport's DialContext.
func (g *guard) dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: stallAfter / 2}
		d.ControlContext = func(ctx context.Context, _, resolved string, _ syscall.RawConn) error {
			return g.checkAddress(ctx, strings.ToLower(address), resolved)
		}
		return d.DialContext(ctx, network, address)
	}
}
