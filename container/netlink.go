// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// netlinkMessage is a request to the kernel's routing tables, rtnetlink(7), laid
// out before the fork: a start program only sends bytes.
type netlinkMessage struct {
	name string // what it does, for its error
	data []byte
	at   int // where the index of a device is to be filled in; 0: nowhere
}

func newNetlink(name string, kind, flags int, fixed []byte) *netlinkMessage {
	m := &netlinkMessage{name: name, data: make([]byte, unix.SizeofNlMsghdr, 256)}
	binary.NativeEndian.PutUint16(m.data[4:], uint16(kind))
	binary.NativeEndian.PutUint16(m.data[6:], uint16(unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags))
	m.data = append(m.data, fixed...)
	return m
}

// attribute adds one, aligned to four bytes; children are attributes of their own.
func (m *netlinkMessage) attribute(kind int, value []byte) {
	m.data = appendAttribute(m.data, kind, value)
}

func appendAttribute(to []byte, kind int, value []byte) []byte {
	to = binary.NativeEndian.AppendUint16(to, uint16(unix.SizeofRtAttr+len(value)))
	to = binary.NativeEndian.AppendUint16(to, uint16(kind))
	to = append(to, value...)
	for len(to)%unix.NLMSG_ALIGNTO != 0 {
		to = append(to, 0)
	}
	return to
}

func (m *netlinkMessage) bytes() []byte {
	binary.NativeEndian.PutUint32(m.data, uint32(len(m.data)))
	return m.data
}

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func cString(s string) []byte { return append([]byte(s), 0) }

// linkUp sets a device up, and its MTU.
func linkUp(device string, mtu int) *netlinkMessage {
	m := newNetlink("set "+device+" up", unix.RTM_NEWLINK, 0, linkHeader(unix.IFF_UP))
	m.attribute(unix.IFLA_IFNAME, cString(device))
	m.attribute(unix.IFLA_MTU, number(uint32(mtu)))
	return m
}

// linkHeader is a struct ifinfomsg.
func linkHeader(flags uint32) []byte {
	h := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(h[8:], flags)
	binary.NativeEndian.PutUint32(h[12:], flags)
	return h
}

// addAddress gives an address to a device, whose index is filled in. Nobody else
// on the link could have it: it is not probed for (RFC 4862 5.4).
func addAddress(device string, p netip.Prefix) *netlinkMessage {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0], h[1], h[2] = family(p.Addr()), byte(p.Bits()), unix.IFA_F_NODAD
	m := newNetlink("add address "+p.String()+" to "+device, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, h)
	m.at = unix.SizeofNlMsghdr + 4
	m.attribute(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.attribute(unix.IFA_ADDRESS, p.Addr().AsSlice())
	return m
}

// removeAddress is its opposite.
func removeAddress(device string, p netip.Prefix) *netlinkMessage {
	m := addAddress(device, p)
	m.name = "remove address " + p.String() + " from " + device
	binary.NativeEndian.PutUint16(m.data[4:], unix.RTM_DELADDR)
	binary.NativeEndian.PutUint16(m.data[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return m
}

// addDefaultRoute sends what has no other route to a gateway, in place of another.
func addDefaultRoute(gateway netip.Addr) *netlinkMessage {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[4], h[5], h[6], h[7] = family(gateway), unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	m := newNetlink("add route by "+gateway.String(), unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h)
	m.attribute(unix.RTA_GATEWAY, gateway.AsSlice())
	return m
}

// removeDefaultRoute is its opposite.
func removeDefaultRoute(gateway netip.Addr) *netlinkMessage {
	m := addDefaultRoute(gateway)
	m.name = "remove route by " + gateway.String()
	binary.NativeEndian.PutUint16(m.data[4:], unix.RTM_DELROUTE)
	binary.NativeEndian.PutUint16(m.data[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return m
}

// addVeth makes a pair of devices: one here, the other in the network namespace
// whose descriptor is filled in at m.at.
func addVeth(near, far string, nearMAC, farMAC [6]byte, mtu int) *netlinkMessage {
	m := newNetlink("create veth pair", unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkHeader(0))
	m.attribute(unix.IFLA_IFNAME, cString(near))
	m.attribute(unix.IFLA_ADDRESS, nearMAC[:])
	m.attribute(unix.IFLA_MTU, number(uint32(mtu)))
	peer := linkHeader(0) // an end without the other cannot be set up
	peer = appendAttribute(peer, unix.IFLA_IFNAME, cString(far))
	peer = appendAttribute(peer, unix.IFLA_ADDRESS, farMAC[:])
	peer = appendAttribute(peer, unix.IFLA_MTU, number(uint32(mtu)))
	inPeer := len(peer) + unix.SizeofRtAttr
	peer = appendAttribute(peer, unix.IFLA_NET_NS_FD, number(0))
	const vethInfoPeer = 1 // linux/veth.h
	data := appendAttribute(nil, vethInfoPeer, peer)
	info := appendAttribute(nil, unix.IFLA_INFO_KIND, []byte("veth"))
	inInfo := len(info) + unix.SizeofRtAttr // to the attribute IFLA_INFO_DATA's value
	info = appendAttribute(info, unix.IFLA_INFO_DATA, data)
	m.at = len(m.data) + unix.SizeofRtAttr + inInfo + unix.SizeofRtAttr + inPeer
	m.attribute(unix.IFLA_LINKINFO, info)
	return m
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// netlink adds the sending of requests and the reading of the kernel's answers.
// index is what is filled in where a request wants it.
func netlink(p *userns.Prog, socket, index userns.Reg, messages ...*netlinkMessage) {
	for _, m := range messages {
		data := m.bytes()
		if m.at != 0 {
			p.Store((*int32)(unsafe.Pointer(&data[m.at])), index)
		}
		p.Call(m.name, unix.SYS_SENDTO, socket, data, len(data), 0, nil, 0)
		answer := make([]byte, 1024) // struct nlmsgerr, with the request behind it
		p.Call(m.name, unix.SYS_RECVFROM, socket, answer, len(answer), 0, nil, nil)
		p.Check(m.name, (*int32)(unsafe.Pointer(&answer[unix.SizeofNlMsghdr])))
	}
}

// send sends a request and reads the kernel's answer.
func (m *netlinkMessage) send(socket int, index uint32) error {
	data := m.bytes()
	if m.at != 0 {
		binary.NativeEndian.PutUint32(data[m.at:], index)
	}
	if err := unix.Sendto(socket, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 1024)
	n, _, err := unix.Recvfrom(socket, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return unix.EBADMSG
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}
