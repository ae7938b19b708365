// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sbx/slirp"
)

// A container that ends leaves its networks at once: its names and addresses are
// free for others. What its programs had sent by then still arrives, as it does from
// a machine: the kernel of their namespace goes on for them, until finish.

// leave gives the names and addresses up. Connections that there are go on.
func (s *netSwitch) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.left.Swap(true) {
		return
	}
	for _, p := range s.places {
		// The socket lives, so that nobody else has the address yet: see claim.
		removePlace(p.dir, p.Place)
	}
}

// begins reports whether a frame with an IP packet may begin something: it is
// anything but a segment of a TCP connection that both sides know.
func begins(frame []byte) bool {
	packet := frame[slirp.VnetHeaderSize:]
	proto, header := packet[9], int(packet[0]&15)*4
	if packet[0]>>4 == 6 {
		proto, header = packet[6], 40
	}
	const flags, syn = 13, 2
	return proto != unix.IPPROTO_TCP || len(packet) <= header+flags || packet[header+flags]&syn != 0
}

// handOver gives a frame to our successor, if we have left and somebody else has the
// address that it is for. What is under way for us is at an end then: the others send
// all that is for the address to one place.
func (s *netSwitch) handOver(p switchedPlace, frame []byte) bool {
	dst, ok := destination(frame)
	if !ok || !s.left.Load() || !begins(frame) || !s.Takes(dst) {
		return false
	}
	p.socket.Close() // nothing comes after it
	s.Forward(frame)
	s.close()
	return true
}

// move wakes finish.
func (s *netSwitch) move() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// finish waits until the other containers have all that this one's programs had
// sent when they ended: no frame waits for them, and no connection to one of them
// is about to end. It gives up when nothing has moved for the time of silence, and
// with ctx.
func (s *netSwitch) finish(ctx context.Context, silence time.Duration, in *inside) error {
	patience := time.NewTimer(silence)
	defer patience.Stop()
	for s.owes(ctx, in) {
		select {
		case <-s.moved:
			patience.Reset(silence)
		case <-patience.C:
			return context.DeadlineExceeded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *netSwitch) owes(ctx context.Context, in *inside) bool {
	s.mu.RLock()
	var peers []netip.Addr
	behind := false
	for a, p := range s.peers {
		peers = append(peers, a)
		behind = behind || p.isBehind()
	}
	s.mu.RUnlock()
	if behind || len(peers) == 0 || in == nil {
		return behind
	}
	var ending []netip.Addr
	err := in.do(ctx, func() (err error) { ending, err = endingStreams(); return err })
	return err == nil && slices.ContainsFunc(ending, func(a netip.Addr) bool { return slices.Contains(peers, a) })
}

// endingStreams lists the other sides of the TCP connections, of the network
// namespace that it is called in, which were closed here while the other side has
// not got everything; sock_diag(7).
func endingStreams() ([]netip.Addr, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var list []netip.Addr
	answer := make([]byte, 32<<10)
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := unix.Sendto(fd, endingRequest(family), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, os.NewSyscallError("sendto", err)
		}
		for more := true; more; {
			n, _, err := unix.Recvfrom(fd, answer, 0)
			if err != nil {
				return nil, os.NewSyscallError("recvfrom", err)
			}
			if list, more, err = appendRemotes(list, answer[:n]); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// endingRequest asks for the connections that wait for the other side to know of our
// end.
func endingRequest(family byte) []byte {
	const finWait1, lastAck, closing = 4, 9, 11 // include/net/tcp_states.h
	b := make([]byte, unix.SizeofNlMsghdr+sizeofDiagReq)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	r := b[unix.SizeofNlMsghdr:]
	r[0], r[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<finWait1|1<<lastAck|1<<closing)
	return b
}

// appendRemotes reads struct inet_diag_msg of each message.
func appendRemotes(list []netip.Addr, answer []byte) (_ []netip.Addr, more bool, err error) {
	const remote = 4 + 4 + 16
	for len(answer) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(answer))
		if size < unix.SizeofNlMsghdr || size > len(answer) {
			break
		}
		body := answer[unix.SizeofNlMsghdr:size]
		switch kind := binary.NativeEndian.Uint16(answer[4:]); {
		case kind == unix.NLMSG_DONE:
			return list, false, nil
		case kind == unix.NLMSG_ERROR && len(body) >= 4:
			return nil, false, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		case kind != sockDiagByFamily || len(body) < remote+16:
			return nil, false, errors.New("list sockets: not an answer")
		case body[0] == unix.AF_INET:
			list = append(list, netip.AddrFrom4([4]byte(body[remote:])))
		default:
			list = append(list, netip.AddrFrom16([16]byte(body[remote:])).Unmap())
		}
		answer = answer[min((size+3)&^3, len(answer)):]
	}
	return list, true, nil
}
