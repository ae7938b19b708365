// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Types and codes of ICMP (RFC 792) and ICMPv6 (RFC 4443, 4861).
const (
	icmp4Reply, icmp4Unreachable, icmp4Request = 0, 3, 8
	icmp6Unreachable, icmp6TooBig              = 1, 2
	icmp6Request, icmp6Reply                   = 128, 129
	icmp6Solicitation, icmp6Advertisement      = 135, 136
)

// errorsPerSecond is how many ICMP errors a loop sends to its container.
const errorsPerSecond = 1000

// tokens bound what happens in a second.
type tokens struct {
	second int64
	used   int
}

func (t *tokens) take(now int64) bool {
	if s := now / int64(time.Second); s != t.second {
		t.second, t.used = s, 0
	}
	t.used++
	return t.used <= errorsPerSecond
}

// takeICMP is what happens to an ICMP packet from the container.
func (l *loop) takeICMP(p *packet) {
	if len(p.l4) < icmpSize || p.v6 != (Proto(p.key.proto) == ICMPv6) || !p.intactICMP() {
		l.n.dropped.Add(1)
		return
	}
	request := byte(icmp4Request)
	if p.v6 {
		request = icmp6Request
	}
	switch {
	case p.v6 && p.l4[0] == icmp6Solicitation && l.queue.kind == Packet:
		l.answerSolicitation(p)
		return
	case p.l4[0] != request:
		return
	}
	p.key.guestPort = binary.BigEndian.Uint16(p.l4[4:])
	if at := netip.AddrFrom16(p.key.remote).Unmap(); at == l.n.at.Load().Gateway4 || at == l.n.at.Load().Gateway6 {
		b := l.drawing.data
		l.echo(&p.key, b, copy(b[headroom:headroom+datagramMax], p.l4))
		return
	}
	known, handed := l.find(p)
	if handed {
		return
	}
	if known == nil {
		f := l.connectDatagram(p, l.n.pingSocket)
		if f == nil {
			return
		}
		known = f
	}
	known.input(l, p)
}

// intactICMP verifies the checksum, which the kernel always writes.
func (p *packet) intactICMP() bool {
	if p.v6 {
		return p.intact()
	}
	return fold(sum(0, p.l4)) == 0xffff
}

// pingSocket is a socket for echo requests, if the host's ping_group_range has one
// of the user's groups.
func (n *Network) pingSocket(to netip.AddrPort) (int, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if to.Addr().Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err == unix.EACCES {
		n.noPing.Do(func() { n.debug("echo requests are not for this user: net.ipv4.ping_group_range of the host") })
	}
	return fd, err
}

// inputEcho sends an echo request to the host. The host's kernel puts the
// identifier of the socket into it.
func (f *datagramFlow) inputEcho(l *loop, p *packet) {
	f.record.sent += uint64(len(p.l4))
	if _, errno := send(f.fd, p.l4); errno != 0 && errno != unix.EAGAIN {
		f.hostError(l, errno)
	}
}

// outputEcho sends the answer that was read to loop.drawing to the container, with
// the identifier that it used.
func (f *datagramFlow) outputEcho(l *loop, n int) {
	if n < icmpSize {
		return
	}
	b := l.drawing.data
	binary.BigEndian.PutUint16(b[headroom+4:], f.key.guestPort)
	l.echo(&f.key, b, n)
}

// echo sends the message b[headroom:headroom+n] to the container as a reply.
func (l *loop) echo(k *key, b []byte, n int) {
	m := b[headroom : headroom+n]
	m[0], m[1], m[2], m[3] = icmp4Reply, 0, 0, 0
	if k.v6() {
		m[0] = icmp6Reply
	}
	l.sendICMP(k, b, headroom, n)
}

// sendICMP writes b[at:at+n], a message without its checksum.
func (l *loop) sendICMP(k *key, b []byte, at, n int) {
	m := b[at : at+n]
	s := uint64(0)
	if k.v6() {
		s = pseudoSum(k, n)
	}
	binary.BigEndian.PutUint16(m[2:], ^fold(sum(s, m)))
	if ipSize(k)+n > l.n.config.MTU {
		l.fragments(k, b, at, n)
		return
	}
	start := at - ipSize(k)
	ipHeader(b[start:], k, n, false)
	if k.v6() && m[0] == icmp6Advertisement {
		b[start+7] = 255 // none from beyond a router (RFC 4861 §7.1.2)
	}
	start -= VnetHeaderSize
	vnet(b[start:], gsoNone, 0, 0, 0, 0)
	l.queue.write(b[:at+n], start)
}

// prohibit answers a packet that policy refused.
func (l *loop) prohibit(p *packet) { l.unreachable(p, unix.EACCES) }

// refuseProtocol answers a packet of a protocol that cannot leave, such as SCTP.
func (l *loop) refuseProtocol(p *packet) { l.unreachable(p, unix.EPROTONOSUPPORT) }

// unreachable answers a packet with the ICMP error that makes the container's
// kernel return err to the program.
func (l *loop) unreachable(p *packet, err error) {
	if a := p.destination(); a.IsMulticast() || a == broadcast {
		return
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.EHOSTUNREACH
	}
	l.quote(&p.key, p.ip, errno, 0)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// unreachableFlow does the same later, when the packet is gone.
func (l *loop) unreachableFlow(k *key, errno unix.Errno, mtu int) {
	var b [ip6Size + udpSize]byte
	back := key{guest: k.remote, remote: k.guest, proto: k.proto}
	n := ipHeader(b[:], &back, udpSize, true)
	t := b[n:]
	switch Proto(k.proto) {
	case TCP, UDP:
		binary.BigEndian.PutUint16(t, k.guestPort)
		binary.BigEndian.PutUint16(t[2:], k.remotePort)
	case ICMP:
		t[0] = icmp4Request
		binary.BigEndian.PutUint16(t[4:], k.guestPort)
	case ICMPv6:
		t[0] = icmp6Request
		binary.BigEndian.PutUint16(t[4:], k.guestPort)
	}
	if Proto(k.proto) == UDP {
		binary.BigEndian.PutUint16(t[4:], udpSize)
	}
	l.quote(k, b[:n+udpSize], errno, mtu)
}

// quote sends an ICMP error about the packet ip, which came from k's guest. A port
// is unreachable where the packet was to go; all else is the gateway's word.
func (l *loop) quote(k *key, ip []byte, errno unix.Errno, mtu int) {
	if !l.errors.take(l.now) {
		return
	}
	about := key{guest: k.guest, remote: k.remote, proto: uint16(ICMP)}
	kind, code := byte(icmp4Unreachable), unreachable4(errno)
	if k.v6() {
		about.proto = uint16(ICMPv6)
		kind, code = unreachable6(errno)
	}
	if errno != unix.ECONNREFUSED {
		at := l.n.at.Load()
		if k.v6() && at.Gateway6.IsValid() {
			about.remote = at.Gateway6.As16()
		} else if !k.v6() && at.Gateway4.IsValid() {
			about.remote = at.Gateway4.As16()
		}
	}
	m := l.scratch[headroom:]
	clear(m[:icmpSize])
	m[0], m[1] = kind, code
	if errno == unix.EMSGSIZE {
		if k.v6() {
			binary.BigEndian.PutUint32(m[4:], uint32(mtu))
		} else {
			binary.BigEndian.PutUint16(m[6:], uint16(mtu))
		}
	}
	n := icmpSize + copy(m[icmpSize:icmpSize+528], ip)
	l.sendICMP(&about, l.scratch[:], headroom, n)
}

func unreachable4(errno unix.Errno) (code byte) {
	switch errno {
	case unix.ENETUNREACH, unix.ENETDOWN, unix.EADDRNOTAVAIL:
		return 0
	case unix.EPROTONOSUPPORT:
		return 2
	case unix.ECONNREFUSED:
		return 3
	case unix.EMSGSIZE:
		return 4
	case unix.EACCES, unix.EPERM:
		return 13
	}
	return 1
}

func unreachable6(errno unix.Errno) (kind, code byte) {
	switch errno {
	case unix.ENETUNREACH, unix.ENETDOWN, unix.EADDRNOTAVAIL:
		return icmp6Unreachable, 0
	case unix.ECONNREFUSED:
		return icmp6Unreachable, 4
	case unix.EMSGSIZE:
		return icmp6TooBig, 0
	case unix.EACCES, unix.EPERM:
		return icmp6Unreachable, 1
	}
	return icmp6Unreachable, 3
}

// answerSolicitation says that the address asked for is at GatewayMAC, unless the
// container asks whether its own is free.
func (l *loop) answerSolicitation(p *packet) {
	if len(p.l4) < 24 || [16]byte(p.l4[8:24]) == p.key.guest {
		return
	}
	k := key{guest: p.key.guest, remote: [16]byte(p.l4[8:24]), proto: uint16(ICMPv6)}
	m := l.scratch[headroom : headroom+32]
	clear(m)
	m[0], m[4] = icmp6Advertisement, 0x60 // solicited, override
	copy(m[8:], k.remote[:])
	m[24], m[25] = 2, 1 // the target's link-layer address
	copy(m[26:], GatewayMAC[:])
	l.sendICMP(&k, l.scratch[:], headroom, len(m))
}
