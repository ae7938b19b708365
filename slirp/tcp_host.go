// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// pumpBlocks are read from one host socket before others have their turn.
	pumpBlocks = 8
	// pinned is how much of a block must be used for it to be kept as it is.
	pinned = 16 << 10
)

// connectOut begins a connection to the outside. The container gets its SYN and
// ACK only after the host is connected, so that it sees what the host saw.
func (l *loop) connectOut(p *packet, s *incoming) {
	if l.full() || l.halfOpen >= l.n.limits.HalfOpen/len(l.n.loops) {
		l.n.dropped.Add(1) // as a kernel does whose backlog is full
		return
	}
	f := newTCP(&p.key)
	f.next = s.seq + 1
	f.negotiate(l, s.options)
	f.active = l.now
	f.record = l.n.account(&p.key)
	if l.n.isResolver(&p.key) {
		l.connectResolver(f)
		return
	}
	to, refused := l.n.decide(&f.record, &p.key)
	if refused {
		l.prohibit(p)
		return
	}
	fd, err := streamSocket(to)
	if err != nil {
		l.n.debug("socket", "err", err)
		l.n.dropped.Add(1)
		return
	}
	f.fd = fd
	if err := unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		l.unreachable(p, err)
		l.n.finish(&f.record, &f.key, err)
		return
	}
	l.adopt(f)
}

// adopt puts a flow with a host socket into the loop.
func (l *loop) adopt(f *tcpFlow) bool {
	slot, err := l.watch(f.fd, f)
	if err != nil {
		unix.Close(f.fd)
		return false
	}
	f.slot = slot
	l.halfOpen++
	if !l.add(&f.key, f) {
		f.close(l, errClosed)
		return false
	}
	return true
}

func streamSocket(to netip.AddrPort) (int, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		tuneStream(fd)
	}
	return fd, err
}

// tuneStream leaves the sizes of buffers to the host's kernel, which knows the way
// ahead; segments go out as the container's kernel cut them.
func tuneStream(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// ready is the epoll's word about the host socket.
func (f *tcpFlow) ready(l *loop, events uint32) {
	const failed = unix.EPOLLERR | unix.EPOLLHUP
	f.hungUp = f.hungUp || events&(unix.EPOLLRDHUP|failed) != 0
	f.readable = f.readable || events&(unix.EPOLLIN|unix.EPOLLRDHUP|failed) != 0
	if events&unix.EPOLLERR != 0 || f.state == connecting && events&(unix.EPOLLOUT|failed) != 0 {
		if errno, err := unix.GetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || errno != 0 {
			f.hostFailed(l, unix.Errno(errno))
			return
		}
	}
	switch {
	case f.state == connecting && events&unix.EPOLLOUT != 0:
		f.answer(l)
	case f.state == calling && events&failed == failed:
		f.abort(l, unix.ECONNRESET)
	case f.state == open:
		if events&unix.EPOLLOUT != 0 {
			f.writable = true
			f.drain(l)
		}
		if f.state == open && f.readable {
			f.pump(l)
		}
	}
}

// answer tells the container that the host is connected.
func (f *tcpFlow) answer(l *loop) {
	f.state, f.writable = answering, true
	f.sendNext++
	f.patience = synPatience
	f.resendAt = l.now + f.patience
	f.emitSYN(l)
	f.arm(l)
}

// answered waits for the third packet of the handshake. It reports whether the
// segment is to be processed further.
func (f *tcpFlow) answered(l *loop, s *incoming) bool {
	if s.flags&flagSYN != 0 {
		if s.seq == f.next-1 {
			f.emitSYN(l)
		}
		return false
	}
	if s.flags&(flagACK|flagRST) == flagACK && s.ack != f.sendNext {
		l.reset(&f.key, s)
		return false
	}
	if s.flags&(flagACK|flagRST) == flagACK {
		f.establish(l)
	}
	return true
}

// establish is the end of either handshake.
func (f *tcpFlow) establish(l *loop) {
	f.state = open
	f.unacked = f.sendNext
	l.halfOpen--
	f.tries, f.patience, f.resendAt = 0, firstPatience, 0
	f.arm(l)
}

// hostFailed passes an error of the host socket on: a reset, or the ICMP error
// that makes the container's connect fail in the same way.
func (f *tcpFlow) hostFailed(l *loop, errno unix.Errno) {
	if f.state != connecting {
		f.abort(l, errno)
		return
	}
	if errno == unix.ECONNREFUSED || errno == unix.ECONNRESET || errno == 0 {
		f.emit(l, l.scratch[:], headroom, 0, 0, flagRST|flagACK, nil)
	} else {
		l.unreachableFlow(&f.key, errno, 0)
	}
	f.close(l, errno)
}

// takeData takes what is next in the stream and drops what is not: the container
// sends it again.
func (f *tcpFlow) takeData(l *loop, s *incoming) {
	f.owe(l)
	payload, seq := s.payload, s.seq
	if before(seq, f.next) {
		old := int(f.next - seq)
		if old > len(payload) {
			return
		}
		payload, seq = payload[old:], f.next
	}
	if seq != f.next || f.ended {
		f.keepEarly(l, seq, payload, s.flags)
		f.missing(l)
		return
	}
	cut := int(f.edge - f.next)
	if len(payload) > cut {
		payload = payload[:max(cut, 0)]
		s.flags &^= flagFIN
	}
	if len(payload) > 0 {
		took := f.forward(l, payload)
		if f.state != open {
			return
		}
		if took < len(payload) {
			return
		}
		if len(f.early) > 0 && !f.takeEarly(l) {
			return
		}
	}
	if s.flags&flagFIN != 0 && len(f.early) == 0 {
		f.next++
		f.ended = true
		f.endHost(l)
		f.arm(l)
	}
}

// missing tells the container that bytes before these were lost. Its kernel counts
// acknowledgements and sends again at the third; a tun keeps the order, so that
// there is no need to wait for further segments, of which there may be none.
func (f *tcpFlow) missing(l *loop) {
	times := 1
	if f.gap != f.next && l.queue.kind == TUN {
		f.gap, times = f.next, 4
	}
	for range times {
		f.owes = true
		f.acknowledge(l)
	}
}

// maxEarly are the segments that one flow keeps out of their order.
const maxEarly = 32

// keepEarly keeps a segment that has overtaken others: what the container's
// processors send through a veth pair at the same time comes in any order.
func (f *tcpFlow) keepEarly(l *loop, seq uint32, payload []byte, flags byte) {
	if l.queue.kind != Packet || f.ended || flags&flagFIN != 0 || len(payload) == 0 || len(f.early) >= maxEarly ||
		seq+uint32(len(payload))-f.next > f.edge-f.next || l.arena.scarce(4) {
		return
	}
	for _, e := range f.early {
		if e.seq == seq {
			return
		}
	}
	if b := l.arena.fit(len(payload)); b != nil {
		f.early = append(f.early, segment{buffer: b, n: copy(b.data, payload), seq: seq})
	}
}

// takeEarly forwards what was kept and is next. It reports whether the flow goes on.
func (f *tcpFlow) takeEarly(l *loop) bool {
	for i := 0; i < len(f.early); i++ {
		e := f.early[i]
		if before(f.next, e.seq) {
			continue
		}
		took, rest := 0, e.buffer.data[:0]
		if done := int(f.next - e.seq); done < e.n {
			rest = e.buffer.data[done:e.n]
			took = f.forward(l, rest)
		}
		if f.state != open {
			return false
		}
		l.arena.free(e.buffer)
		f.early = append(f.early[:i], f.early[i+1:]...)
		if took < len(rest) {
			return true
		}
		i = -1 // another may be next now
	}
	return true
}

// forward writes payload to the host socket, straight from where it was read to,
// and keeps what the socket does not take. It returns how much it took over.
func (f *tcpFlow) forward(l *loop, payload []byte) (took int) {
	if f.waits == 0 {
		n, errno := send(f.fd, payload)
		if errno != 0 && errno != unix.EAGAIN {
			f.hostFailed(l, errno)
			return 0
		}
		took = n
		l.moved.Add(uint64(n))
	}
	if took < len(payload) {
		f.writable = false
		took += f.keep(l, payload[took:])
	}
	f.next += uint32(took)
	f.record.sent += uint64(took)
	return took
}

// keep puts payload into the list of what waits for the host. A large one keeps
// the block it was read to.
func (f *tcpFlow) keep(l *loop, payload []byte) (took int) {
	if l.arena.scarce(4) {
		return 0 // the last quarter is for the other direction
	}
	at := cap(l.reading.data) - cap(payload)
	if len(payload) >= pinned && at >= 0 && &l.reading.data[at] == &payload[0] {
		if next := l.arena.block(); next != nil {
			f.waiting = append(f.waiting, segment{buffer: l.reading, at: at, n: len(payload)})
			f.waits += len(payload)
			l.reading = next
			return len(payload)
		}
	}
	if n := len(f.waiting); n > 0 {
		s := &f.waiting[n-1]
		took = copy(s.buffer.data[s.at+s.n:], payload)
		s.n += took
	}
	if rest := payload[took:]; len(rest) > 0 {
		if b := l.arena.fit(len(rest)); b != nil {
			n := copy(b.data, rest)
			f.waiting = append(f.waiting, segment{buffer: b, n: n})
			took += n
		}
	}
	f.waits += took
	return took
}

// drain writes what waits to the host socket.
func (f *tcpFlow) drain(l *loop) {
	had := f.waits
	i := 0
	for ; i < len(f.waiting); i++ {
		s := &f.waiting[i]
		n, errno := send(f.fd, s.buffer.data[s.at:s.at+s.n])
		if errno != 0 && errno != unix.EAGAIN {
			f.hostFailed(l, errno)
			return
		}
		f.waits -= n
		l.moved.Add(uint64(n))
		s.at, s.n = s.at+n, s.n-n
		if s.n > 0 {
			f.writable = false
			break
		}
		l.arena.free(s.buffer)
	}
	f.waiting = f.waiting[:copy(f.waiting, f.waiting[i:])]
	if f.waits == 0 && f.ended {
		f.endHost(l)
		f.finished(l)
		return
	}
	// The container is told of the room when there is enough to be worth a packet.
	if had > f.waits && (f.waits == 0 || f.edge-f.next < uint32(l.receiveWindow()/2)) {
		f.owe(l)
	}
}

// endHost tells the host socket that the container has ended, after the last byte.
func (f *tcpFlow) endHost(l *loop) {
	if f.waits > 0 || f.shut {
		return
	}
	f.shut = true
	if err := unix.Shutdown(f.fd, unix.SHUT_WR); err != nil && err != unix.ENOTCONN {
		l.n.debug("shutdown", "err", err)
	}
}

// pump reads from the host socket and sends to the container, as far as its window
// and our memory go.
func (f *tcpFlow) pump(l *loop) {
	if f.state != open || f.hostEnded {
		return
	}
	for turns := 0; f.readable; turns++ {
		room := f.room(l)
		if room == 0 {
			if len(f.sent) == 0 && f.resendAt == 0 {
				f.resendAt = l.now + f.patience // the window is shut: ask again later
				f.arm(l)
			}
			return
		}
		if turns == pumpBlocks {
			f.queue(&l.busy)
			return
		}
		b := l.arena.block()
		if b == nil {
			f.queue(&l.short)
			return
		}
		n, errno := receive(f.fd, b.data[headroom:headroom+room])
		if n == 0 {
			l.arena.free(b)
			f.hostSilent(l, errno)
			return
		}
		if n < room && !f.hungUp {
			f.readable = false
		}
		f.transfer(l, b, n)
	}
}

// hostSilent is a read that brought nothing.
func (f *tcpFlow) hostSilent(l *loop, errno unix.Errno) {
	switch errno {
	case unix.EAGAIN:
		f.readable, f.hungUp = false, false
	case 0:
		f.readable, f.hostEnded = false, true
		f.push(l, segment{seq: f.sendNext})
		f.sendNext++
		f.finished(l)
	default:
		f.hostFailed(l, errno)
	}
}

// transfer sends n bytes that were read to block b, which is kept until they are
// acknowledged; a few are copied, so that they do not pin it.
func (f *tcpFlow) transfer(l *loop, b *buffer, n int) {
	if n <= smallPayload {
		if small := l.arena.fit(n); small != nil {
			copy(small.data[headroom:], b.data[headroom:headroom+n])
			l.arena.free(b)
			b = small
		}
	}
	f.record.received += uint64(n)
	seq := f.sendNext
	f.sendNext += uint32(n)
	f.push(l, segment{buffer: b, at: headroom, n: n, seq: seq})
}

// push sends a segment for the first time.
func (f *tcpFlow) push(l *loop, s segment) {
	f.sent = append(f.sent, s)
	if len(f.sent) == 1 {
		f.tries, f.patience = 0, firstPatience
		f.resendAt = l.now + f.patience
		f.arm(l)
	}
	f.transmit(l, &f.sent[len(f.sent)-1])
}

// room is how much may be read from the host now.
func (f *tcpFlow) room(l *loop) int {
	flight := int(f.sendNext - f.unacked)
	room := min(int(f.window), flightLimit) - flight
	if room <= 0 || room < f.mss && flight > 0 {
		return 0 // no silly windows (RFC 9293 §3.8.6.2.1)
	}
	return min(room, l.n.superframe/f.mss*f.mss)
}

// queue puts the flow into a list of the loop, once.
func (f *tcpFlow) queue(list *[]pumper) {
	if !f.queued {
		f.queued = true
		*list = append(*list, f)
	}
}

// again is the flow's next turn.
func (f *tcpFlow) again(l *loop) {
	f.queued = false
	f.pump(l)
}
