// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A flow that was never answered is forgotten sooner, as connection tracking does.
	datagramUnanswered = int64(30 * time.Second)
	datagramAnswered   = int64(180 * time.Second)

	// pumpDatagrams are read from one host socket before others have their turn.
	pumpDatagrams = 64
	// datagramMax is the largest UDP payload.
	datagramMax = 65507
	// bulkMax is how many datagrams leave with one call (UDP_MAX_SEGMENTS of old kernels).
	bulkMax = 64
)

// datagramFlow is UDP between two addresses, or echo requests of one identifier:
// one host socket, connected; that of a published port is shared.
type datagramFlow struct {
	key    key
	fd     int
	slot   int32
	client *client // of a published port; else nil
	queued bool
	closed bool
	// dontFragment is what the host socket was told; -1 is nothing.
	dontFragment int8
	segmented    bool // the host takes several datagrams with one call
	answered     bool

	// Datagrams of one turn, of one size but for the last, to leave with one call.
	bulk        *buffer
	filled, one int
	listed      bool // it stands in loop.bulk

	timer      timer
	active     int64
	older, new *datagramFlow // neighbours in loop.quiet
	moved      int64         // when it became the newest in loop.quiet; 0 is never
	record     account
}

// recent is a list of flows, the one first that was quiet longest.
type recent struct{ first, last *datagramFlow }

func (r *recent) push(f *datagramFlow) {
	f.older, f.new = r.last, nil
	if r.last != nil {
		r.last.new = f
	} else {
		r.first = f
	}
	r.last = f
}

func (r *recent) remove(f *datagramFlow) {
	if f.older != nil {
		f.older.new = f.new
	} else if r.first == f {
		r.first = f.new
	}
	if f.new != nil {
		f.new.older = f.older
	} else if r.last == f {
		r.last = f.older
	}
	f.older, f.new = nil, nil
}

// newDatagram is a flow without a socket.
func newDatagram(k *key) *datagramFlow {
	f := &datagramFlow{key: *k, fd: -1, slot: -1, dontFragment: -1, segmented: true}
	f.timer.expire = f.expire
	return f
}

// connectDatagram begins a flow to the outside.
func (l *loop) connectDatagram(p *packet, socket func(to netip.AddrPort) (int, error)) *datagramFlow {
	if l.full() && !l.evict() {
		l.n.dropped.Add(1)
		return nil
	}
	f := newDatagram(&p.key)
	f.record = l.n.account(&p.key)
	to, refused := l.n.decide(&f.record, &p.key)
	if refused {
		l.prohibit(p)
		return nil
	}
	fd, err := socket(to)
	if err == nil {
		f.fd = fd
		err = unix.Connect(fd, sockaddr(to))
	}
	if err == nil {
		f.slot, err = l.watch(fd, f)
	}
	if err != nil {
		if f.fd >= 0 {
			unix.Close(f.fd)
		}
		l.unreachable(p, err)
		l.n.finish(&f.record, &f.key, err)
		return nil
	}
	return l.adoptDatagram(f)
}

// adoptDatagram puts a flow into the loop.
func (l *loop) adoptDatagram(f *datagramFlow) *datagramFlow {
	l.quiet.push(f)
	if !l.add(&f.key, f) {
		f.close(l, errClosed)
		return nil
	}
	f.touch(l)
	return f
}

// evict closes the datagram flow that was quiet longest, to make room for another.
func (l *loop) evict() bool {
	f := l.quiet.first
	if f == nil {
		return false
	}
	f.close(l, nil)
	return true
}

// touch is called with each packet.
func (f *datagramFlow) touch(l *loop) {
	f.active = l.now
	if f.moved == 0 || l.now-f.moved > int64(time.Second) {
		f.moved = l.now
		l.quiet.remove(f)
		l.quiet.push(f)
		l.timers.set(&f.timer, l.now+f.patience())
	}
}

func (f *datagramFlow) patience() int64 {
	if f.answered {
		return datagramAnswered
	}
	return datagramUnanswered
}

func (f *datagramFlow) expire(l *loop) {
	if due := f.active + f.patience(); due > l.now {
		l.timers.set(&f.timer, due)
		return
	}
	f.close(l, nil)
}

func (f *datagramFlow) input(l *loop, p *packet) {
	f.touch(l)
	if f.key.proto == uint16(UDP) {
		f.inputUDP(l, p)
		return
	}
	f.inputEcho(l, p)
}

// ready is the epoll's word about the host socket.
func (f *datagramFlow) ready(l *loop, events uint32) {
	if events&unix.EPOLLERR != 0 {
		if errno, err := unix.GetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
			f.hostError(l, unix.Errno(errno))
		}
	}
	if events&unix.EPOLLOUT != 0 && f.filled > 0 {
		f.flush(l)
	}
	if events&unix.EPOLLIN != 0 && !f.closed {
		f.pump(l)
	}
}

// pump reads from the host socket and sends to the container.
func (f *datagramFlow) pump(l *loop) {
	for range pumpDatagrams {
		m := message{data: l.drawing.data[headroom : headroom+datagramMax]}
		switch errno := m.receive(f.fd, l.control[:]); errno {
		case 0:
		case unix.EAGAIN:
			return
		default:
			if !f.hostError(l, errno) {
				return
			}
			continue
		}
		f.answered = true
		f.touch(l)
		f.record.received += uint64(m.n)
		if f.key.proto == uint16(UDP) {
			l.deliverUDP(&f.key, l.drawing.data, m.n, m.segment)
		} else {
			f.outputEcho(l, m.n)
		}
	}
	if !f.queued {
		f.queued = true
		l.busy = append(l.busy, f)
	}
}

func (f *datagramFlow) again(l *loop) {
	f.queued = false
	if !f.closed {
		f.pump(l)
	}
}

// hostError tells the container what the host's kernel said, and reports whether
// the socket is of use still: after an error of the way it is made anew with the
// next packet, for the host's addresses may have changed.
func (f *datagramFlow) hostError(l *loop, errno unix.Errno) bool {
	mtu := 0
	if errno == unix.EMSGSIZE {
		mtu = pathMTU(f.fd, f.key.v6())
	}
	l.unreachableFlow(&f.key, errno, mtu)
	switch errno {
	case unix.ECONNREFUSED, unix.EMSGSIZE, unix.EHOSTUNREACH, unix.EACCES, unix.EPERM:
		return true
	}
	f.close(l, errno)
	return false
}

// pathMTU is what the host knows of the way of a connected socket.
func pathMTU(fd int, v6 bool) int {
	level, option := unix.SOL_IP, unix.IP_MTU
	if v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_MTU
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return 1280
	}
	return mtu
}

func (f *datagramFlow) close(l *loop, why error) {
	if f.closed {
		return
	}
	f.closed = true
	if f.bulk != nil {
		l.arena.free(f.bulk)
		f.bulk, f.filled = nil, 0
	}
	l.timers.remove(&f.timer)
	l.quiet.remove(f)
	if f.client != nil {
		delete(l.clients, clientID(*f.client))
	}
	if f.slot >= 0 {
		l.forget(f.slot)
	}
	if f.fd >= 0 {
		unix.Close(f.fd)
	}
	l.remove(&f.key, f)
	l.n.finish(&f.record, &f.key, why)
}
