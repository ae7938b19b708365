// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"net"
	"net/netip"
)

// Proto is a transport protocol, by its number in an IP header.
type Proto uint8

// The protocols that flows have. An ICMP flow is one of echo requests; its ports
// are the identifier (source) and 0.
const (
	ICMP   Proto = 1
	TCP    Proto = 6
	UDP    Proto = 17
	ICMPv6 Proto = 58
)

// String is the protocol's name as users write it.
func (p Proto) String() string {
	switch p {
	case ICMP, ICMPv6:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "unknown"
}

// Flow is who talks to whom, as the packet in the container has it.
type Flow struct {
	Proto    Proto
	Src, Dst netip.AddrPort
}

// Verdict is what a Policy says about a flow. The zero Verdict refuses it.
type Verdict struct {
	Allow bool
	// To is where the host socket connects; the zero AddrPort is Flow.Dst.
	// Nothing is asked about it again: it is the final address.
	To netip.AddrPort
	// Name is the name that was looked up for the address, for the log.
	Name string
	// Reason says why, for the log, where Allow is false.
	Reason string
}

// Policy decides which flows go outside.
//
// Decide is asked once for each new flow, before a host socket is made, also for
// TCP packets that were made by hand: without a flow they get nowhere. It is
// called by several loops at once, must not block, and sees addresses as they
// stand in the packet: mapped IPv4 addresses (::ffff:a.b.c.d) are dropped before.
// It is not asked about the resolver's address, echo requests to the gateway, and
// what a Switch takes.
//
// A refused flow ends as behind a router that prohibits it: an ICMP error, which
// programs see as EHOSTUNREACH for TCP and UDP.
type Policy interface {
	Decide(Flow) Verdict
}

// PolicyFunc is a function as Policy.
type PolicyFunc func(Flow) Verdict

// Decide calls f.
func (f PolicyFunc) Decide(flow Flow) Verdict { return f(flow) }

// Resolver answers questions about names, which were sent to Config.DNS4 or DNS6.
type Resolver interface {
	// Query returns the answer to one message that came over UDP, or nil for none.
	// It runs on its own goroutine, at most Limits.Queries at once (what comes
	// beyond is dropped). An answer larger than the asker said it takes must have
	// been truncated by Query. The message is Query's to keep.
	Query(ctx context.Context, message []byte, from netip.AddrPort) []byte
	// Serve speaks DNS over TCP on conn until either side ends, and closes it.
	// It runs on its own goroutine and ends with ctx.
	Serve(ctx context.Context, conn net.Conn)
}

// VnetHeaderSize is the length of the virtio_net_hdr in front of a frame, in bytes.
const VnetHeaderSize = 10

// Switch takes packets to other containers.
//
// A frame is a virtio_net_hdr and an IP packet: up to 64 KiB for the segments of
// one TCP stream, and a checksum that may not have been filled in. The header
// says so; both travel unchanged from one engine to the other.
type Switch interface {
	// Takes reports whether packets to dst are the switch's. It is asked for each
	// packet, by several loops at once: it looks into a set and does nothing else.
	Takes(dst netip.Addr) bool
	// Forward gets a frame whose source is one of the container's own addresses.
	// The bytes are valid during the call only. It must not block: what cannot be
	// sent now is dropped.
	Forward(frame []byte)
}
