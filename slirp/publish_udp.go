// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// client is who sent a datagram to a published port.
type client struct {
	port  *Listener
	peer  netip.AddrPort
	local netip.Addr // which address of the host it asked
}

// clientID tells clients apart before they have a key.
type clientID client

// again takes datagrams of clients.
func (l *Listener) again(at *loop) {
	if l.closed {
		return
	}
	for range pumpDatagrams {
		m := message{data: at.drawing.data[headroom : headroom+datagramMax], named: true}
		switch errno := m.receive(l.fd, at.control[:]); errno {
		case 0:
		case unix.EAGAIN:
			return
		default:
			continue // an ICMP error about an earlier answer
		}
		if f := l.clientFlow(at, &m); f != nil {
			f.answered = true
			f.touch(at)
			f.record.received += uint64(m.n)
			at.deliverUDP(&f.key, at.drawing.data, m.n, m.segment)
		}
	}
	at.busy = append(at.busy, l)
}

// clientFlow returns the flow of a client, new or known.
func (l *Listener) clientFlow(at *loop, m *message) *datagramFlow {
	id := clientID{port: l, peer: m.peer, local: m.local}
	if f := at.clients[id]; f != nil {
		return f
	}
	local := netip.AddrPortFrom(m.local, l.addr.Port())
	if l.port.Admit != nil && !l.port.Admit(local, m.peer) {
		return nil
	}
	if at.full() && !at.evict() {
		return nil
	}
	k, ok := at.clientKey(UDP, l.port.Guest, local, m.peer)
	if !ok {
		return nil
	}
	f := newDatagram(&k)
	f.client = &client{port: l, peer: m.peer, local: m.local}
	f.record = at.n.account(&k)
	f.record.in = true
	if at.adoptDatagram(f) == nil {
		return nil
	}
	at.clients[id] = f
	return f
}
