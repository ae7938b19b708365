// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/binary"
	"net/netip"
)

// Of struct virtio_net_hdr (linux/virtio_net.h), in the byte order of the machine:
// flags, gso_type (1 byte each), hdr_len, gso_size, csum_start, csum_offset (2 each).
const (
	vnetNeedsCsum = 1 // flags: the checksum field holds the sum of the pseudo header only
	vnetDataValid = 2 // flags: the checksum was verified

	gsoNone  = 0
	gsoTCP4  = 1
	gsoTCP6  = 4
	gsoUDPL4 = 5
	gsoECN   = 0x80
)

// Sizes of headers in bytes.
const (
	ethernetSize = 14
	ip4Size      = 20
	ip6Size      = 40
	tcpSize      = 20
	udpSize      = 8
	icmpSize     = 8
)

// key names a flow. IPv4 addresses stand as mapped ones, which no IPv6 packet has
// that is let in.
type key struct {
	guest, remote         [16]byte
	guestPort, remotePort uint16
	proto                 uint16
}

// flow is what Policy and the log see.
func (k *key) flow() Flow {
	return Flow{
		Proto: Proto(k.proto),
		Src:   netip.AddrPortFrom(netip.AddrFrom16(k.guest).Unmap(), k.guestPort),
		Dst:   netip.AddrPortFrom(netip.AddrFrom16(k.remote).Unmap(), k.remotePort),
	}
}

func (k *key) v6() bool { return !netip.AddrFrom16(k.remote).Is4In6() }

// mapped4 is an IPv4 address in the form that keys have.
func mapped4(b []byte) (a [16]byte) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b[:4])
	return a
}

// packet is one IP packet from the container, parsed. The slices point into the
// buffer it was read to.
type packet struct {
	frame []byte // virtio_net_hdr and IP packet, as for a Switch
	ip    []byte // the IP packet, cut to the length that its header says
	l4    []byte // transport header and payload
	key   key    // ports are filled in by the protocol's parser
	v6    bool
	// dontFragment is IPv4's flag; of IPv6 it is always set.
	dontFragment bool
	fragment     fragmentOf
	vnetFlags    byte
	gsoType      byte
	gsoSize      uint16
}

// fragmentOf is the place of a fragment in its datagram.
type fragmentOf struct {
	is     bool
	id     uint32
	offset int
	more   bool
}

// parse reads the headers of frame (virtio_net_hdr, IP packet). It reports false
// for what no router would take: lengths that contradict each other, a wrong
// header checksum, mapped addresses, source routes.
func (p *packet) parse(frame []byte) bool {
	*p = packet{frame: frame}
	if len(frame) < VnetHeaderSize+ip4Size {
		return false
	}
	p.vnetFlags, p.gsoType = frame[0], frame[1]&^gsoECN
	p.gsoSize = binary.NativeEndian.Uint16(frame[4:])
	ip := frame[VnetHeaderSize:]
	switch ip[0] >> 4 {
	case 4:
		return p.parse4(ip)
	case 6:
		return p.parse6(ip)
	}
	return false
}

func (p *packet) parse4(ip []byte) bool {
	size, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if size < ip4Size || total < size || total > len(ip) || fold(sum(0, ip[:size])) != 0xffff {
		return false
	}
	ip = ip[:total]
	p.ip, p.l4 = ip, ip[size:]
	p.key.guest, p.key.remote = mapped4(ip[12:]), mapped4(ip[16:])
	p.key.proto = uint16(ip[9])
	where := binary.BigEndian.Uint16(ip[6:])
	p.dontFragment = where&0x4000 != 0
	if where&0x3fff != 0 {
		p.fragment = fragmentOf{is: true, id: uint32(binary.BigEndian.Uint16(ip[4:])), offset: int(where&0x1fff) * 8, more: where&0x2000 != 0}
	}
	return true
}

// parse6 walks over the extension headers that a container's kernel writes.
func (p *packet) parse6(ip []byte) bool {
	if len(ip) < ip6Size {
		return false
	}
	length := int(binary.BigEndian.Uint16(ip[4:]))
	if ip6Size+length > len(ip) {
		return false // a jumbogram has length 0, and there are none here
	}
	ip = ip[:ip6Size+length]
	p.ip, p.v6, p.dontFragment = ip, true, true
	copy(p.key.guest[:], ip[8:24])
	copy(p.key.remote[:], ip[24:40])
	if netip.AddrFrom16(p.key.guest).Is4In6() || netip.AddrFrom16(p.key.remote).Is4In6() {
		return false
	}
	next, rest := ip[6], ip[ip6Size:]
	for {
		switch next {
		case 0, 60: // hop-by-hop and destination options
			if len(rest) < 8 || len(rest) < 8+int(rest[1])*8 {
				return false
			}
			next, rest = rest[0], rest[8+int(rest[1])*8:]
			continue
		case 44:
			if len(rest) < 8 || p.fragment.is {
				return false
			}
			where := binary.BigEndian.Uint16(rest[2:])
			p.fragment = fragmentOf{is: where&^6 != 0, id: binary.BigEndian.Uint32(rest[4:]), offset: int(where &^ 7), more: where&1 != 0}
			next, rest = rest[0], rest[8:]
			if p.fragment.is && p.fragment.offset > 0 {
				p.key.proto, p.l4 = uint16(next), rest
				return true
			}
			continue
		}
		p.key.proto, p.l4 = uint16(next), rest
		return true
	}
}

func (p *packet) destination() netip.Addr { return netip.AddrFrom16(p.key.remote).Unmap() }

// intact verifies the checksum of the transport header, unless the kernel has not
// written it yet.
func (p *packet) intact() bool {
	if p.vnetFlags&(vnetNeedsCsum|vnetDataValid) != 0 {
		return true
	}
	return fold(sum(p.pseudo(len(p.l4)), p.l4)) == 0xffff
}

// pseudo is the sum of the pseudo header (RFC 9293, 8200 §8.1).
func (p *packet) pseudo(length int) uint64 { return pseudoSum(&p.key, length) }

func pseudoSum(k *key, length int) uint64 {
	// Of a mapped address, the twelve bytes in front of the IPv4 one add up to
	// 0xffff, which is zero in ones' complement.
	return sum(sum(uint64(k.proto)+uint64(length), k.guest[:]), k.remote[:])
}

// sum adds b to the ones' complement sum s.
func sum(s uint64, b []byte) uint64 {
	for len(b) >= 32 {
		for i := 0; i < 32; i += 4 {
			s += uint64(binary.BigEndian.Uint32(b[i:]))
		}
		b = b[32:]
	}
	for len(b) >= 4 {
		s += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

// fold is a sum in 16 bits.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s&0xffff)
}

// vnet writes a virtio_net_hdr. With a csumStart of 0 the checksum is complete.
func vnet(b []byte, gsoType byte, headers, gsoSize, csumStart, csumOffset int) {
	b[0], b[1] = 0, gsoType
	if csumStart != 0 {
		b[0] = vnetNeedsCsum
	}
	if gsoType == gsoNone {
		headers, gsoSize = 0, 0
	}
	binary.NativeEndian.PutUint16(b[2:], uint16(headers))
	binary.NativeEndian.PutUint16(b[4:], uint16(gsoSize))
	binary.NativeEndian.PutUint16(b[6:], uint16(csumStart))
	binary.NativeEndian.PutUint16(b[8:], uint16(csumOffset))
}

// ipHeader writes the header of a packet from k's remote side to the container and
// returns its size. length is what follows.
func ipHeader(b []byte, k *key, length int, dontFragment bool) int {
	if k.v6() {
		binary.BigEndian.PutUint32(b, 6<<28)
		binary.BigEndian.PutUint16(b[4:], uint16(length))
		b[6], b[7] = byte(k.proto), 64
		copy(b[8:], k.remote[:])
		copy(b[24:], k.guest[:])
		return ip6Size
	}
	binary.BigEndian.PutUint32(b, 0x45<<24|uint32(ip4Size+length))
	binary.BigEndian.PutUint32(b[4:], 0)
	if dontFragment {
		b[6] = 0x40
	}
	b[8], b[9], b[10], b[11] = 64, byte(k.proto), 0, 0
	copy(b[12:], k.remote[12:])
	copy(b[16:], k.guest[12:])
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(0, b[:ip4Size])))
	return ip4Size
}
