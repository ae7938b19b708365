// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// loop owns one queue of the device and the flows that began there. All of its
// state belongs to the goroutine of run, but for what stands under mutex.
type loop struct {
	n     *Network
	queue *queue
	epoll int
	wake  int   // an eventfd: something was posted
	now   int64 // nanoseconds, of this turn

	flows    map[key]flow
	halfOpen int
	quiet    recent                     // UDP and ICMP flows, the one that was quiet longest first
	clients  map[clientID]*datagramFlow // of published UDP ports
	slots    []ready
	vacant   []int32 // free slots

	arena   arena
	reading *buffer // where the next packet is read to
	drawing *buffer // where the next datagram from the host is read to
	scratch [headroom + 640]byte
	control [256]byte // of recvmsg and sendmsg
	p       packet    // the one that was read
	timers  timers
	pieces  pieces
	lastID  uint32 // of a datagram that was fragmented
	errors  tokens // ICMP errors

	owing []*tcpFlow      // who must acknowledge at the end of this turn
	busy  []pumper        // whose host socket has more to read than one turn takes
	short []pumper        // who waits for memory
	bulk  []*datagramFlow // who has datagrams to send to the host

	heard     bool          // the device had packets in this turn
	finishing chan struct{} // closed when nothing is on its way to the host, see Finish
	moved     atomic.Uint64 // bytes that host sockets took

	waiting atomic.Int64 // bytes in the arena, for Stats
	handed  atomic.Int32 // packets posted by other loops
	mutex   sync.Mutex
	posted  []func()
	closed  bool
}

// flow is a connection between the container and the outside.
type flow interface {
	// input gets a packet from the container that belongs to the flow.
	input(l *loop, p *packet)
	// close forgets it: sockets, memory, timers, its key. why is for the log.
	close(l *loop, why error)
}

// ready is a host socket in the loop's epoll, edge-triggered.
type ready interface {
	ready(l *loop, events uint32)
}

// pumper is a flow whose turn was cut off.
type pumper interface {
	again(l *loop)
}

const (
	slotWake  = -1
	slotQueue = -2

	// turnPackets are read from the device before acknowledgements are written.
	turnPackets = 32
)

func newLoop(n *Network, q *queue, memory int) (*loop, error) {
	l := &loop{n: n, queue: q, epoll: -1, wake: -1, flows: map[key]flow{}, clients: map[clientID]*datagramFlow{}}
	var err error
	if l.arena, err = newArena(memory); err != nil {
		return nil, err
	}
	l.reading, l.drawing = l.arena.block(), l.arena.block()
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
			err = l.watchFixed()
		}
	}
	if err != nil {
		l.release()
		return nil, fmt.Errorf("start network: %w", err)
	}
	return l, nil
}

func (l *loop) watchFixed() error {
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: slotWake}); err != nil {
		return err
	}
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.queue.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: slotQueue})
}

// release gives back what newLoop took, but for the queue.
func (l *loop) release() {
	for _, fd := range []int{l.epoll, l.wake} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	l.arena.close()
}

// clock is nanoseconds since the engine was started, and never 0.
func (l *loop) clock() int64 { return int64(time.Since(l.n.began)) + 1 }

// run is the loop. It ends when ctx does, with all flows closed.
func (l *loop) run(ctx context.Context) {
	defer l.end()
	stop := context.AfterFunc(ctx, func() { l.post(func() {}) })
	defer stop()
	events := make([]unix.EpollEvent, 128)
	l.now = l.clock()
	trimmed := l.now
	for ctx.Err() == nil {
		n, err := unix.EpollWait(l.epoll, events, l.patience())
		if err != nil && err != unix.EINTR {
			l.n.debug("epoll", "err", err)
			return
		}
		l.now = l.clock()
		l.heard = false
		for i := range max(n, 0) {
			switch e := &events[i]; e.Fd {
			case slotWake:
				l.runPosted()
			case slotQueue:
				l.heard = true
				if !l.readQueue(e.Events) {
					return
				}
			default:
				if s := l.slots[e.Fd]; s != nil {
					s.ready(l, e.Events)
				}
			}
		}
		l.finishTurn()
		if l.finishing != nil && !l.heard {
			l.finishes()
		}
		if l.now-trimmed > int64(time.Second) {
			trimmed = l.now
			l.arena.trim()
		}
	}
}

// patience is how long the loop may wait, in milliseconds.
func (l *loop) patience() int {
	if len(l.busy) > 0 || l.finishing != nil && l.heard {
		return 0
	}
	at, some := l.timers.next()
	if !some {
		return -1
	}
	left := (at - l.now + int64(time.Millisecond) - 1) / int64(time.Millisecond)
	return int(min(max(left, 0), math.MaxInt32))
}

// readQueue takes packets from the device. It reports whether there is still one.
func (l *loop) readQueue(events uint32) bool {
	for range turnPackets {
		frame, err := l.queue.read(l.reading.data)
		if err != nil {
			// EIO is a tun that is down, EBADFD one without a device.
			return err != unix.EBADFD
		}
		if frame == nil {
			return events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 || l.queue.kind != TUN || events&unix.EPOLLIN != 0
		}
		l.take(frame)
	}
	return true
}

// take hands a frame from the device to whom it concerns.
func (l *loop) take(frame []byte) {
	p := &l.p
	if l.n.capture != nil && len(frame) > VnetHeaderSize {
		l.n.capture.packet(frame[VnetHeaderSize:])
	}
	if !p.parse(frame) || !l.n.isGuest(p) {
		l.n.dropped.Add(1)
		return
	}
	if s := l.n.config.Switch; s != nil && s.Takes(p.destination()) {
		s.Forward(frame)
		return
	}
	if p.fragment.is {
		l.takeFragment(p)
		return
	}
	l.dispatch(p)
}

// dispatch hands a whole packet to its flow, or begins one.
func (l *loop) dispatch(p *packet) {
	switch Proto(p.key.proto) {
	case TCP:
		l.takeTCP(p)
	case UDP:
		l.takeUDP(p)
	case ICMP, ICMPv6:
		l.takeICMP(p)
	default:
		l.refuseProtocol(p)
	}
}

// finishTurn does what was put off so that it happens once for many packets.
func (l *loop) finishTurn() {
	for _, f := range l.bulk {
		f.flush(l)
	}
	l.bulk = l.bulk[:0]
	for i := 0; i < len(l.owing); i++ {
		l.owing[i].acknowledge(l)
	}
	l.owing = l.owing[:0]
	if len(l.short) > 0 && len(l.arena.blocks) > 0 {
		l.busy = append(l.busy, l.short...)
		l.short = l.short[:0]
	}
	if n := len(l.busy); n > 0 {
		turn := l.busy
		l.busy = nil
		for _, f := range turn {
			f.again(l)
		}
	}
	for t := l.timers.pop(l.now); t != nil; t = l.timers.pop(l.now) {
		t.expire(l)
	}
	l.waiting.Store(int64(l.arena.waiting()))
}

// post runs f on the loop. It reports false where the loop has ended.
func (l *loop) post(f func()) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.closed {
		return false
	}
	l.posted = append(l.posted, f)
	if len(l.posted) == 1 {
		_ = write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
	return true
}

func (l *loop) runPosted() {
	var count [8]byte
	_, _ = read(l.wake, count[:])
	l.mutex.Lock()
	posted := l.posted
	l.posted = nil
	l.mutex.Unlock()
	for _, f := range posted {
		f()
	}
}

// watch puts a host socket into the epoll, edge-triggered in both directions.
func (l *loop) watch(fd int, r ready) (slot int32, err error) {
	if n := len(l.vacant); n > 0 {
		slot = l.vacant[n-1]
		l.vacant = l.vacant[:n-1]
	} else {
		slot = int32(len(l.slots))
		l.slots = append(l.slots, nil)
	}
	l.slots[slot] = r
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&math.MaxUint32, Fd: slot}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		l.forget(slot)
		return 0, err
	}
	return slot, nil
}

// forget frees a slot; its descriptor is closed by the caller.
func (l *loop) forget(slot int32) {
	l.slots[slot] = nil
	l.vacant = append(l.vacant, slot)
}

// end closes everything.
func (l *loop) end() {
	l.mutex.Lock()
	l.closed = true
	posted := l.posted
	l.posted = nil
	l.mutex.Unlock()
	for _, f := range posted {
		f() // it may hold a descriptor
	}
	for _, f := range l.flows {
		if t, ok := f.(*tcpFlow); ok && t.isSending() {
			t.resetHost() // the stream has been cut off: its end must not look like one
		}
		f.close(l, errClosed)
	}
	for _, s := range l.slots {
		if c, ok := s.(*Listener); ok {
			c.end(l)
		}
	}
	l.release()
	l.queue.close()
}
