// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is one call of recvmsg(2) or sendmsg(2), without allocation.
type message struct {
	data    []byte
	n       int            // bytes that were received
	segment int            // UDP_GRO or UDP_SEGMENT: the size of each datagram in data; 0 is one
	peer    netip.AddrPort // where unconnected sockets have it
	local   netip.Addr     // the address of this host it was sent to, or is to come from
	named   bool           // read or use peer and local
}

// receive never waits. control is scratch memory.
func (m *message) receive(fd int, control []byte) unix.Errno {
	var name unix.RawSockaddrInet6
	iov := unix.Iovec{Base: unsafe.SliceData(m.data)}
	iov.SetLen(len(m.data))
	h := unix.Msghdr{Iov: &iov, Iovlen: 1, Control: unsafe.SliceData(control)}
	h.SetControllen(len(control))
	if m.named {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&name)), unix.SizeofSockaddrInet6
	}
	for {
		n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		m.n = int(n)
		break
	}
	if m.named {
		m.peer = fromRaw(&name)
	}
	m.segment = 0
	for c := control[:h.Controllen]; len(c) >= unix.SizeofCmsghdr; {
		size := int(binary.NativeEndian.Uint64(c))
		level, kind := binary.NativeEndian.Uint32(c[8:]), binary.NativeEndian.Uint32(c[12:])
		if size < unix.SizeofCmsghdr || size > len(c) {
			break
		}
		body := c[unix.SizeofCmsghdr:size]
		switch {
		case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(body) >= 2:
			m.segment = int(binary.NativeEndian.Uint16(body))
		case level == unix.SOL_IP && kind == unix.IP_PKTINFO && len(body) >= 12:
			m.local = netip.AddrFrom4([4]byte(body[8:12]))
		case level == unix.SOL_IPV6 && kind == unix.IPV6_PKTINFO && len(body) >= 16:
			m.local = netip.AddrFrom16([16]byte(body[:16]))
		}
		next := (size + 7) &^ 7
		if next > len(c) {
			break
		}
		c = c[next:]
	}
	return 0
}

// send never waits.
func (m *message) send(fd int, control []byte) unix.Errno {
	var name unix.RawSockaddrInet6
	iov := unix.Iovec{Base: unsafe.SliceData(m.data)}
	iov.SetLen(len(m.data))
	h := unix.Msghdr{Iov: &iov, Iovlen: 1}
	used := 0
	add := func(level, kind uint32, size int) []byte {
		c := control[used : used+unix.CmsgSpace(size)]
		clear(c)
		binary.NativeEndian.PutUint64(c, uint64(unix.CmsgLen(size)))
		binary.NativeEndian.PutUint32(c[8:], level)
		binary.NativeEndian.PutUint32(c[12:], kind)
		used += len(c)
		return c[unix.SizeofCmsghdr:]
	}
	if m.segment > 0 {
		binary.NativeEndian.PutUint16(add(unix.SOL_UDP, unix.UDP_SEGMENT, 2), uint16(m.segment))
	}
	if m.named {
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&name)), toRaw(&name, m.peer)
		switch {
		case m.local.Is4():
			a := m.local.As4()
			copy(add(unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)[4:], a[:]) // ipi_spec_dst
		case m.local.Is6():
			a := m.local.As16()
			copy(add(unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo), a[:])
		}
	}
	if used > 0 {
		h.Control = unsafe.SliceData(control)
		h.SetControllen(used)
	}
	for {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// fromRaw and toRaw convert addresses as the kernel has them.

func fromRaw(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), port)
}

func toRaw(name *unix.RawSockaddrInet6, a netip.AddrPort) uint32 {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&name.Port))[:], a.Port())
	if a.Addr().Is4() {
		name.Family = unix.AF_INET
		(*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr = a.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	name.Family, name.Addr = unix.AF_INET6, a.Addr().As16()
	return unix.SizeofSockaddrInet6
}
