// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
)

// DefaultMTU is the MTU of the container's device. With segmentation offload a
// larger one is not faster, and it would lie to path MTU discovery.
const DefaultMTU = 1500

// Addresses are the container's on its device, and who is beside it there.
type Addresses struct {
	// Guest is where published ports go; packets from any other source than this and
	// Further are dropped.
	Guest4, Guest6 netip.Addr
	// Gateway answers echo requests, and is who clients on the host itself seem to be.
	// Other packets to it are asked of Policy, which may rewrite them
	// (host.docker.internal), and are refused without one.
	Gateway4, Gateway6 netip.Addr
	// Further are addresses in other networks.
	Further []netip.Addr
}

// Config says what a Network connects, and to what.
//
// An address family is off where its Guest is the zero Addr.
type Config struct {
	// Link is the device. Start takes it over, also where Start fails.
	Link Link
	// MTU of the container's device in bytes, its IP headers included; 0 is DefaultMTU.
	// The device itself must have been given the same.
	MTU int

	// Addresses are those at first, see SetAddresses.
	Addresses
	// DNS is the address for names: port 53 of it, over UDP and TCP, is Resolver's.
	DNS4, DNS6 netip.Addr

	// Policy decides on each flow to the outside; nil is Refuse, which only keeps
	// special addresses shut.
	Policy Policy
	// Switch takes what is for other containers, from the first packet on; nil is none.
	Switch Switch
	// Resolver answers what is sent to DNS4 and DNS6; nil refuses it.
	Resolver Resolver
	// DialGuest connects to 127.0.0.1:port (or ::1) inside the container, for a
	// published port that nobody listens to on Guest. network is tcp4 or tcp6. It
	// returns a connected stream socket, which the engine then owns. nil is: the
	// client is reset. It runs on its own goroutine and must end with ctx.
	DialGuest func(ctx context.Context, network string, port uint16) (*os.File, error)

	// Limits bound what the engine holds. Zero fields mean the defaults.
	Limits Limits
	// FlowLog gets one JSON line for each flow that ends or is refused, see Record.
	// Each line is one Write, made beside the loops; a writer that is too slow loses
	// lines and never stops packets.
	FlowLog io.Writer
	// Pcap gets a pcap file of all packets on the device, both ways: the file's
	// header at Start, then records. Superframes stand there as the kernel hands
	// them over. A writer that is too slow loses packets of the capture only.
	Pcap io.Writer
	// Log gets what someone who debugs wants to know; nil is none.
	Log *slog.Logger

	// written, where tests set it, sees each frame for the device: what it returns is
	// written instead. Several goroutines call it.
	written func(frame []byte) [][]byte
}

// Limits bound what an engine holds, over all its loops. See defaults for sizes.
type Limits struct {
	Flows    int // TCP, UDP and ICMP flows at once
	HalfOpen int // TCP connections whose other side has not answered
	Buffers  int // bytes that wait for the host or for the container
	Queries  int // names being looked up
}

// LinkKind is what the descriptors of a Link are.
type LinkKind int

// The kinds of links.
const (
	// TUN: descriptors of /dev/net/tun, one per queue, made with the flags
	// IFF_TUN|IFF_NO_PI|IFF_VNET_HDR, and IFF_MULTI_QUEUE where there are several
	// (TUNRequest). Offloads are switched on by Start.
	TUN LinkKind = iota
	// Packet: one AF_PACKET socket (SOCK_RAW) that is bound to the far end of a
	// veth pair, whose near end is the container's device with the address
	// GuestMAC. Start switches PACKET_VNET_HDR on. The far end has no IP address
	// and any MAC but GatewayMAC; the engine answers ARP and neighbour discovery.
	Packet
)

// Link is the device of the container, as seen from outside.
type Link struct {
	Kind   LinkKind
	Queues []*os.File
}

// GuestMAC and GatewayMAC are the ends of a Packet link.
var (
	GuestMAC   = [6]byte{0x02, 's', 'b', 'x', 0, 100}
	GatewayMAC = [6]byte{0x02, 's', 'b', 'x', 0, 2}
)

// Stats is what a Network did and holds.
type Stats struct {
	Flows       int    // now
	Refused     uint64 // by Policy
	Retransmits uint64 // TCP segments sent again into the container
	Dropped     uint64 // packets from the container that went nowhere
	Waiting     int    // bytes that wait, see Limits.Buffers
}
