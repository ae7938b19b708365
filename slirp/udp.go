// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// takeUDP is what happens to a UDP packet from the container.
func (l *loop) takeUDP(p *packet) {
	if !parseUDP(p) {
		l.n.dropped.Add(1)
		return
	}
	known, handed := l.find(p)
	if handed {
		return
	}
	if known == nil {
		if l.n.isResolver(&p.key) {
			l.query(p)
			return
		}
		f := l.connectDatagram(p, udpSocket)
		if f == nil {
			return
		}
		known = f
	}
	known.input(l, p)
}

// parseUDP verifies the header, cuts p.l4 to the datagram and fills in the ports.
func parseUDP(p *packet) bool {
	if len(p.l4) < udpSize {
		return false
	}
	size := int(binary.BigEndian.Uint16(p.l4[4:]))
	if p.gsoType == gsoUDPL4 {
		size = len(p.l4) // the header's is that of one segment, or of all
	}
	if size < udpSize || size > len(p.l4) {
		return false
	}
	p.l4 = p.l4[:size]
	p.key.guestPort, p.key.remotePort = binary.BigEndian.Uint16(p.l4), binary.BigEndian.Uint16(p.l4[2:])
	if p.key.remotePort == 0 {
		return false
	}
	return binary.BigEndian.Uint16(p.l4[6:]) == 0 && !p.v6 || p.intact()
}

func udpSocket(to netip.AddrPort) (int, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		tuneDatagrams(fd)
	}
	return fd, err
}

// hostBuffer is what waits in a socket of the host's for an engine that has no
// processor at the moment. The kernel gives less where its limit says so.
const hostBuffer = 512 << 10

// tuneDatagrams has datagrams of one sender come many at a time, since Linux 5.0, and
// gives them room.
func tuneDatagrams(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, hostBuffer)
}

// inputUDP sends a datagram to the host, or puts it with others of this turn.
func (f *datagramFlow) inputUDP(l *loop, p *packet) {
	payload := p.l4[udpSize:]
	f.record.sent += uint64(len(payload))
	f.fragmenting(l, p)
	if f.closed {
		return
	}
	if p.gsoType == gsoUDPL4 && p.gsoSize > 0 && len(payload) > int(p.gsoSize) {
		f.flush(l)
		f.transmit(l, payload, int(p.gsoSize))
		return
	}
	if f.filled > 0 && (len(payload) > f.one || f.filled%f.one != 0 || f.filled/f.one >= bulkMax || f.filled+len(payload) > datagramMax) {
		f.flush(l)
		if f.closed || f.filled > 0 {
			l.n.dropped.Add(1) // the host does not take more now
			return
		}
	}
	if f.bulk == nil && len(payload) > 0 && len(payload) <= datagramMax/4 && f.segmented && f.client == nil {
		f.bulk = l.arena.block()
	}
	if f.bulk == nil || len(payload) == 0 {
		f.transmit(l, payload, 0)
		return
	}
	if f.filled == 0 {
		f.one = len(payload)
	}
	f.filled += copy(f.bulk.data[f.filled:], payload)
	if !f.listed {
		f.listed = true
		l.bulk = append(l.bulk, f)
	}
}

// fragmenting tells the host socket whether the container lets its datagrams be
// fragmented on the way. Who probes the path then learns the truth.
func (f *datagramFlow) fragmenting(l *loop, p *packet) {
	want := int8(unix.IP_PMTUDISC_DONT)
	if p.dontFragment {
		want = unix.IP_PMTUDISC_DO
	}
	if f.dontFragment == want || f.client != nil {
		return
	}
	f.flush(l)
	f.dontFragment = want
	if f.key.v6() {
		_ = unix.SetsockoptInt(f.fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, int(want))
	}
	_ = unix.SetsockoptInt(f.fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, int(want))
}

// flush sends what this turn gathered. What the host does not take now waits for
// the next event of its socket.
func (f *datagramFlow) flush(l *loop) {
	f.listed = false
	if f.filled == 0 || f.closed {
		return
	}
	segment := f.one
	if f.filled <= f.one {
		segment = 0
	}
	if !f.transmit(l, f.bulk.data[:f.filled], segment) || f.closed {
		return
	}
	f.filled = 0
	l.arena.free(f.bulk)
	f.bulk = nil
}

// transmit sends datagrams of a size (0: one) to the host. It reports false where
// they should be tried again later.
func (f *datagramFlow) transmit(l *loop, data []byte, segment int) bool {
	for tries := 0; ; tries++ {
		m := message{data: data, segment: segment}
		if f.client != nil {
			m.named, m.peer, m.local = true, f.client.peer, f.client.local
		}
		errno := m.send(f.descriptor(), l.control[:])
		switch {
		case errno == 0:
			return true
		case errno == unix.EAGAIN || errno == unix.ENOBUFS:
			return errno == unix.ENOBUFS
		case segment > 0 && (errno == unix.EINVAL || errno == unix.EIO || errno == unix.EMSGSIZE || errno == unix.ENOPROTOOPT || errno == unix.EOPNOTSUPP):
			f.segmented = false
			for len(data) > 0 && !f.closed {
				n := min(segment, len(data))
				f.transmit(l, data[:n], 0)
				data = data[n:]
			}
			return true
		case tries == 0 && errno == unix.ECONNREFUSED:
			l.unreachableFlow(&f.key, errno, 0) // of an earlier datagram: this one has not left
		default:
			f.hostError(l, errno)
			return true
		}
	}
}

// descriptor is the socket that the flow sends with.
func (f *datagramFlow) descriptor() int {
	if f.client != nil {
		return f.client.port.fd
	}
	return f.fd
}

// deliverUDP sends the n bytes behind b's headroom to the container, as datagrams
// of a size (0: one).
func (l *loop) deliverUDP(k *key, b []byte, n, segment int) {
	if segment <= 0 || segment >= n {
		l.datagram(k, b, headroom, n)
		return
	}
	ip := ipSize(k)
	if l.queue.uso && segment+udpSize+ip <= l.n.config.MTU && n+udpSize+ip <= 0xffff {
		start := udpHeader(k, b, headroom, n)
		vnet(b[start:], gsoUDPL4, ip+udpSize, segment, ip, 6)
		l.queue.write(b[:headroom+n], start)
		return
	}
	for at, end := headroom, headroom+n; at < end; at += segment {
		l.datagram(k, b, at, min(segment, end-at))
	}
}

// udpHeader puts the headers in front of a payload, with the sum of the pseudo
// header. It returns where the frame begins.
func udpHeader(k *key, b []byte, at, n int) (start int) {
	u := b[at-udpSize : at]
	binary.BigEndian.PutUint16(u, k.remotePort)
	binary.BigEndian.PutUint16(u[2:], k.guestPort)
	binary.BigEndian.PutUint16(u[4:], uint16(udpSize+n))
	binary.BigEndian.PutUint16(u[6:], fold(pseudoSum(k, udpSize+n)))
	start = at - udpSize - ipSize(k)
	ipHeader(b[start:], k, udpSize+n, false)
	return start - VnetHeaderSize
}

func ipSize(k *key) int {
	if k.v6() {
		return ip6Size
	}
	return ip4Size
}

// datagram sends b[at:at+n] to the container as one datagram, in fragments if it
// is larger than the device's packets.
func (l *loop) datagram(k *key, b []byte, at, n int) {
	start := udpHeader(k, b, at, n)
	ip := ipSize(k)
	if ip+udpSize+n <= l.n.config.MTU {
		vnet(b[start:], gsoNone, 0, 0, ip, 6)
		l.queue.write(b[:at+n], start)
		return
	}
	u := b[at-udpSize : at+n]
	checksum := ^fold(sum(0, u)) // the field holds the pseudo header's already
	if checksum == 0 {
		checksum = 0xffff
	}
	binary.BigEndian.PutUint16(u[6:], checksum)
	l.fragments(k, b, at-udpSize, udpSize+n)
}
