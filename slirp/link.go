// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is one descriptor of the link, with frames (virtio_net_hdr, IP packet) as
// both kinds of links have them. A loop owns it, but any goroutine may write.
type queue struct {
	file *os.File
	fd   int
	kind LinkKind
	uso  bool // a superframe of UDP datagrams may be written
	room int  // bytes that the kernel keeps for us to read; 0 is as many as there are
	// written sees each frame before it is written, where tests inject loss: what it
	// returns is written instead.
	written func(frame []byte) [][]byte
	capture *capture
	failed  atomic.Uint64 // writes that the kernel refused
}

// newQueue prepares a descriptor: not blocking, offloads on. It owns file from then on.
func newQueue(file *os.File, kind LinkKind) (*queue, error) {
	q := &queue{file: file, fd: int(file.Fd()), kind: kind}
	if err := unix.SetNonblock(q.fd, true); err != nil {
		return nil, fmt.Errorf("prepare link: %w", err)
	}
	switch kind {
	case TUN:
		const offload = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
		const uso = unix.TUN_F_USO4 | unix.TUN_F_USO6 // since Linux 6.2
		if unix.IoctlSetInt(q.fd, unix.TUNSETOFFLOAD, offload|uso) == nil {
			q.uso = true
		} else if err := unix.IoctlSetInt(q.fd, unix.TUNSETOFFLOAD, offload); err != nil {
			return nil, fmt.Errorf("set offloads of the tun: %w", err)
		}
	case Packet:
		if err := unix.SetsockoptInt(q.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return nil, fmt.Errorf("set PACKET_VNET_HDR: %w", err)
		}
		// What does not fit is lost. The kernel cuts this to its net.core.rmem_max.
		_ = unix.SetsockoptInt(q.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		if size, err := unix.GetsockoptInt(q.fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil {
			q.room = size / 2 // the other half is the kernel's own, for each packet
		}
	}
	return q, nil
}

// read returns a frame in b, or nil where none waits.
func (q *queue) read(b []byte) ([]byte, error) {
	if q.kind == TUN {
		n, err := read(q.fd, b)
		if n <= 0 {
			return nil, err
		}
		return b[:n], nil
	}
	for {
		n, err := read(q.fd, b)
		if n <= 0 {
			return nil, err
		}
		if n < VnetHeaderSize+ethernetSize || q.own(b[VnetHeaderSize:n]) {
			continue
		}
		kind := binary.BigEndian.Uint16(b[VnetHeaderSize+12:])
		if kind != 0x0800 && kind != 0x86dd {
			q.answerARP(b[VnetHeaderSize:n])
			continue
		}
		// Offsets in the virtio_net_hdr count from the link's header.
		for at := 2; at <= 6; at += 4 {
			if v := binary.NativeEndian.Uint16(b[at:]); v >= ethernetSize {
				binary.NativeEndian.PutUint16(b[at:], v-ethernetSize)
			}
		}
		copy(b[ethernetSize:], b[:VnetHeaderSize])
		return b[ethernetSize:n], nil
	}
}

// write sends b[start:], a frame. The 14 bytes in front of it are overwritten.
// What the kernel does not take is lost, as on any link.
func (q *queue) write(b []byte, start int) {
	if q.written != nil {
		for _, frame := range q.written(b[start:]) {
			padded := append(make([]byte, ethernetSize, ethernetSize+len(frame)), frame...)
			q.put(padded, ethernetSize)
		}
		return
	}
	q.put(b, start)
}

func (q *queue) put(b []byte, start int) {
	if q.capture != nil {
		q.capture.packet(b[start+VnetHeaderSize:])
	}
	if q.kind == Packet {
		start = q.ethernet(b, start)
	}
	if err := write(q.fd, b[start:]); err != 0 {
		q.failed.Add(1)
	}
}

// ethernet puts the link's header between virtio_net_hdr and packet.
func (q *queue) ethernet(b []byte, start int) int {
	front := start - ethernetSize
	for at := 2; at <= 6; at += 4 {
		if v := binary.NativeEndian.Uint16(b[start+at:]); v != 0 {
			binary.NativeEndian.PutUint16(b[start+at:], v+ethernetSize)
		}
	}
	copy(b[front:], b[start:start+VnetHeaderSize])
	header := b[front+VnetHeaderSize:]
	kind := uint16(0x0800)
	if header[ethernetSize]>>4 == 6 {
		kind = 0x86dd
	}
	copy(header, GuestMAC[:])
	copy(header[6:], GatewayMAC[:])
	binary.BigEndian.PutUint16(header[12:], kind)
	return front
}

// own reports whether we sent the frame: a packet socket also sees those.
func (q *queue) own(frame []byte) bool { return [6]byte(frame[6:12]) == GatewayMAC }

// answerARP says that every address but the asker's own is at GatewayMAC.
func (q *queue) answerARP(frame []byte) {
	const size = ethernetSize + 28
	if len(frame) < size || binary.BigEndian.Uint16(frame[12:]) != 0x0806 {
		return
	}
	request := frame[ethernetSize:]
	if binary.BigEndian.Uint64(request)>>16 != 0x000108000604 || request[7] != 1 || [4]byte(request[14:18]) == [4]byte(request[24:28]) {
		return
	}
	answer := make([]byte, VnetHeaderSize+size)
	b := answer[VnetHeaderSize:]
	copy(b, frame[6:12])
	copy(b[6:], GatewayMAC[:])
	copy(b[12:], frame[12:ethernetSize+6])
	b = b[ethernetSize:]
	b[7] = 2
	copy(b[8:], GatewayMAC[:])
	copy(b[14:], request[24:28])
	copy(b[18:], request[8:18])
	_ = write(q.fd, answer)
}

// close gives the descriptor back. A tun is made persistent before: to unregister
// it would wait 10-40 ms for readers of the kernel; its namespace takes it along.
func (q *queue) close() {
	if q.kind == TUN {
		_ = unix.IoctlSetInt(q.fd, unix.TUNSETPERSIST, 1)
	}
	q.file.Close()
}

// The calls of the fast path: without allocation, and with Syscall, because a
// RawSyscall that takes long holds up the garbage collector.

func read(fd int, b []byte) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, nil
		}
		return 0, errno
	}
}

func write(fd int, b []byte) unix.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// send is send(2) without the signal; it never waits.
func send(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			n = 0
		}
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// receive is recv(2); it never waits.
func receive(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			n = 0
		}
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}
