// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// dnsPort is where names are asked for.
const dnsPort = 53

// isResolver reports whether a flow is one to the address for names.
func (n *Network) isResolver(k *key) bool {
	if k.remotePort != dnsPort || n.config.Resolver == nil {
		return false
	}
	at := netip.AddrFrom16(k.remote).Unmap()
	return at == n.config.DNS4 || at == n.config.DNS6
}

// query has the Resolver answer one datagram. The answer is written to the device
// by the goroutine that has it.
func (l *loop) query(p *packet) {
	select {
	case l.n.queries <- struct{}{}:
	default:
		l.n.dropped.Add(1)
		return
	}
	k, message := p.key, slices.Clone(p.l4[udpSize:])
	l.n.ended.Go(func() {
		defer func() { <-l.n.queries }()
		answer := l.n.config.Resolver.Query(l.n.ctx, message, k.flow().Src)
		if answer == nil || len(answer) > datagramMax || l.n.ctx.Err() != nil {
			return
		}
		b := append(make([]byte, headroom, headroom+len(answer)), answer...)
		if ipSize(&k)+udpSize+len(answer) <= l.n.config.MTU {
			start := udpHeader(&k, b, headroom, len(answer))
			vnet(b[start:], gsoNone, 0, 0, ipSize(&k), 6)
			l.queue.write(b, start)
			return
		}
		l.post(func() { l.datagram(&k, b, headroom, len(answer)) })
	})
}

// connectResolver gives a TCP flow to the Resolver, over a pair of sockets.
func (l *loop) connectResolver(f *tcpFlow) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		l.n.dropped.Add(1)
		return
	}
	f.fd = pair[0]
	file := os.NewFile(uintptr(pair[1]), "dns")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		unix.Close(f.fd)
		l.n.dropped.Add(1)
		return
	}
	// The epoll finds the socket writable, as it does one that has connected.
	if !l.adopt(f) {
		conn.Close()
		return
	}
	l.n.ended.Go(func() { l.n.config.Resolver.Serve(l.n.ctx, conn) })
}
