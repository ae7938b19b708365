// SPDX-License-Identifier: Apache-2.0

// Package slirp gives a network namespace the user's own connectivity, one host socket per flow, and publishes its ports.
//
// The data flow:
//
//	container's kernel -> tun or packet socket -> packet -> flow -> host socket      loop.go, packet.go
//	    TCP    acknowledgement, window, retransmit list; the host's kernel does the rest   tcp*.go
//	    UDP    a connected host socket for each pair of addresses                  udp*.go
//	    ICMP   echo through the host's ping socket; errors of the host passed on   icmp.go
//	    a packet to the address for names      -> Resolver                         seams.go
//	    a packet to another container          -> Switch                           seams.go
//	    what is new goes outside               -> Policy, on the final address     seams.go
//	host's listener -> accept -> SYN into the container, with the client's address  publish.go
//
// The only TCP peer is the kernel of the container, over a link in memory that
// nearly never loses. So a flow has no congestion control, no selective
// acknowledgement: what is lost is sent again, by either side. Only a veth pair
// brings segments out of their order, when processors send at the same time; a few
// are kept then.
//
// # Processes and namespaces
//
// The engine runs in the monitor, in the host's network namespace, as the user.
// The device is made inside the container's network namespace by what starts the
// container; its descriptor is sent here (Link). Nothing here needs a capability.
//
// # Invariants
//
// Each queue of the device has one loop, which owns the flows that began there:
// their state has no lock. Whatever comes from another goroutine is posted to the
// loop.
//
// Everything is bounded: flows, half-open connections, bytes that wait (an arena
// of fixed size for each loop), fragments, queries under way. Beyond a bound
// packets are dropped, as a network does; the container's kernel sends them again.
//
// No packet leaves whose source is not the container's own address, and none goes
// to a host socket before Policy has seen the address that is connected to.
//
// # Never
//
// It does not reach the host's loopback unless Policy rewrites an address to it,
// opens no listener but those of Listen, and configures no device.
package slirp
