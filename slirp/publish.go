// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"errors"
	"net/netip"
)

// Port is a port of the container that the host listens for.
type Port struct {
	Proto Proto // TCP or UDP
	// Host is where to listen. Port 0 is any free one. 0.0.0.0 is every IPv4
	// address, :: every IPv6 address and no IPv4 one.
	Host netip.AddrPort
	// Guest is the port inside.
	Guest uint16
	// Admit, where set, is asked about each client before a packet reaches the
	// container (for UDP: each new pair of addresses); who is not admitted is reset.
	// It is called on a loop and must not block longer than reading a file of /proc.
	Admit func(local, remote netip.AddrPort) bool
}

// Listener is a port that is bound on the host, and not yet connected to a
// container. Until then clients wait in its backlog.
type Listener struct {
	port Port
}

// Listen binds the port. The error is that of bind(2) (EADDRINUSE, EACCES for
// ports that the kernel keeps to root, EADDRNOTAVAIL), wrapped.
//
// Runs in: the host's network namespace, as the user.
func Listen(ctx context.Context, port Port) (*Listener, error) {
	_ = ctx
	return nil, errors.New("listen: the engine has not landed yet")
}

// Addr is the address that is bound, with its real port.
func (l *Listener) Addr() netip.AddrPort { return l.port.Host }

// Port is what was asked for.
func (l *Listener) Port() Port { return l.port }

// Close stops listening. Connections that were accepted go on.
func (l *Listener) Close() error { return nil }

// Publish connects a bound port with the container, until l or the engine is
// closed. The container sees the client's own address, or the gateway's where the
// client is on this host or of the other address family.
func (n *Network) Publish(l *Listener) error { return nil }
