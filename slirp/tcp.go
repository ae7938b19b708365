// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/binary"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// Flags of a TCP header.
const (
	flagFIN = 1
	flagSYN = 2
	flagRST = 4
	flagPSH = 8
	flagACK = 16
)

const (
	// receiveWindow is what the container may send ahead. More only lengthens the
	// queue: how much is under way outside is the host socket's business.
	receiveWindow = 1 << 20
	// flightLimit is what is sent to the container ahead of its acknowledgement.
	flightLimit = 1 << 20
	// windowShift is our side of window scaling (RFC 7323).
	windowShift = 8
)

type tcpState uint8

const (
	connecting tcpState = iota // the container's SYN waits for the host's connect
	answering                  // our SYN and ACK waits for the container's ACK
	calling                    // our SYN, of a published port, waits for the container
	open
	dead
)

// tcpFlow is one connection: the container's kernel on the link, a host socket on
// the other side. Sequence numbers wrap; they are compared by their difference.
type tcpFlow struct {
	key   key
	fd    int
	slot  int32
	state tcpState
	port  *Listener // whose client it is, for a published port

	mss       int  // bytes of payload in a packet to the container
	shift     byte // of the container's windows
	ourShift  byte
	scaled    bool
	owes      bool // it stands in loop.owing
	queued    bool // it stands in loop.busy or loop.short
	readable  bool // the host socket may have bytes
	writable  bool // the host socket may take bytes
	hungUp    bool // the host socket has said that its end comes
	hostEnded bool // its end was read: FIN was sent
	ended     bool // the container's FIN was taken
	shut      bool // the host socket was told

	// From the container to the host.
	next, edge uint32    // the next byte expected; how far the window was opened
	gap        uint32    // where bytes were found missing last
	early      []segment // what came before its turn
	waiting    []segment // bytes that the host socket did not take
	waits      int       // how many bytes

	// From the host to the container.
	unacked, sendNext uint32
	window            uint32    // of the container, from unacked
	sent              []segment // not acknowledged
	duplicates        int       // acknowledgements of the same byte
	recovery          uint32    // what was sent when a loss was seen, +1; 0 is none

	timer    timer
	resendAt int64 // when to send again what is not acknowledged, or to probe a window; 0 is never
	patience int64 // how long that takes
	tries    int
	active   int64 // when the container was heard last
	probed   int64 // when it was asked last whether it is still there
	record   account
}

// segment is bytes of a stream in a buffer; one without a buffer is a FIN.
type segment struct {
	buffer *buffer
	at, n  int
	seq    uint32
}

// incoming is a TCP header from the container.
type incoming struct {
	seq, ack uint32
	flags    byte
	window   uint16
	options  []byte
	payload  []byte
}

// parse reads the header and fills in p's ports.
func (s *incoming) parse(p *packet) bool {
	b := p.l4
	if len(b) < tcpSize {
		return false
	}
	size := int(b[12]>>4) * 4
	if size < tcpSize || size > len(b) {
		return false
	}
	p.key.guestPort, p.key.remotePort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	*s = incoming{
		seq: binary.BigEndian.Uint32(b[4:]), ack: binary.BigEndian.Uint32(b[8:]),
		flags: b[13], window: binary.BigEndian.Uint16(b[14:]),
		options: b[tcpSize:size], payload: b[size:],
	}
	return p.key.guestPort != 0 && p.key.remotePort != 0
}

// length is how far the segment moves the sequence.
func (s *incoming) length() uint32 {
	n := uint32(len(s.payload))
	if s.flags&flagSYN != 0 {
		n++
	}
	if s.flags&flagFIN != 0 {
		n++
	}
	return n
}

// negotiate reads the options of a SYN: segment size and window scale.
func (f *tcpFlow) negotiate(l *loop, options []byte) {
	size := 536
	if f.key.v6() {
		size = 1220
	}
	for len(options) > 0 && options[0] != 0 {
		if options[0] == 1 {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			break
		}
		switch {
		case options[0] == 2 && options[1] == 4:
			size = int(binary.BigEndian.Uint16(options[2:]))
		case options[0] == 3 && options[1] == 3:
			f.scaled, f.shift, f.ourShift = true, min(options[2], 14), windowShift
		}
		options = options[options[1]:]
	}
	f.mss = max(min(size, l.n.segmentSize(f.key.v6())), 64)
}

func before(a, b uint32) bool { return int32(a-b) < 0 }

// takeTCP is what happens to a TCP packet from the container.
func (l *loop) takeTCP(p *packet) {
	var s incoming
	if !s.parse(p) || !p.intact() {
		l.n.dropped.Add(1)
		return
	}
	known, handed := l.find(p)
	switch {
	case handed:
	case known != nil:
		known.(*tcpFlow).segment(l, &s)
	case s.flags&flagRST != 0:
	case s.flags&(flagSYN|flagACK) == flagSYN:
		l.connectOut(p, &s)
	default:
		l.reset(&p.key, &s)
	}
}

// reset answers a segment that belongs to no connection (RFC 9293 §3.5.2).
func (l *loop) reset(k *key, s *incoming) {
	f := tcpFlow{key: *k}
	if s.flags&flagACK != 0 {
		f.emit(l, l.scratch[:], headroom, 0, s.ack, flagRST, nil)
		return
	}
	f.next = s.seq + s.length()
	f.emit(l, l.scratch[:], headroom, 0, 0, flagRST|flagACK, nil)
}

func (f *tcpFlow) input(l *loop, p *packet) {
	var s incoming
	if s.parse(p) {
		f.segment(l, &s)
	}
}

// segment is what a connection does with a segment from the container.
func (f *tcpFlow) segment(l *loop, s *incoming) {
	f.active = l.now
	switch f.state {
	case dead:
		return
	case connecting:
		if s.flags&flagRST != 0 {
			f.close(l, errGuestReset)
		}
		return
	case answering:
		if !f.answered(l, s) {
			return
		}
	case calling:
		f.called(l, s)
		return
	}
	if s.flags&flagRST != 0 {
		if d := s.seq - f.next; d <= f.edge-f.next || s.seq == f.next-1 {
			f.resetHost()
			f.close(l, errGuestReset)
		}
		return
	}
	if s.flags&flagSYN != 0 {
		f.emit(l, l.scratch[:], headroom, 0, f.sendNext, flagACK, nil) // RFC 5961 §4
		return
	}
	if s.flags&flagACK == 0 {
		return
	}
	if !f.acked(l, s) {
		return
	}
	if s.length() > 0 {
		f.takeData(l, s)
	} else if before(s.seq, f.next) {
		f.owe(l) // a probe of the keep-alive timer, or of a closed window
	}
	if f.state == open {
		f.finished(l)
	}
	if f.state == open && f.readable {
		f.pump(l)
	}
}

// acked takes the acknowledgement and the window of a segment. It reports false
// where the segment is to be ignored.
func (f *tcpFlow) acked(l *loop, s *incoming) bool {
	moved, flight := s.ack-f.unacked, f.sendNext-f.unacked
	if moved > flight {
		if int32(moved) > 0 {
			f.owe(l) // it acknowledges what was never sent
			return false
		}
		return true // an old segment, overtaken by others
	}
	window := uint32(s.window) << f.shift
	switch {
	case moved > 0:
		f.free(l, s.ack)
		f.tries, f.patience, f.duplicates, f.resendAt = 0, firstPatience, 0, 0
		if len(f.sent) > 0 {
			f.resendAt = l.now + f.patience
			if f.recovery != 0 && before(s.ack, f.recovery-1) {
				f.resendFirst(l) // the next hole (RFC 6582)
			} else {
				f.recovery = 0
			}
		} else {
			f.recovery = 0
		}
		f.arm(l)
	case flight > 0 && len(s.payload) == 0 && window == f.window && s.flags&flagFIN == 0:
		f.duplicates++
		// With few segments under way there are not three to be acknowledged (RFC 5827).
		if f.recovery == 0 && f.duplicates >= max(min(3, len(f.sent)-1), 1) {
			f.recovery = f.sendNext + 1
			f.resendFirst(l)
		}
	case flight == 0 && window > 0 && f.resendAt != 0:
		f.tries, f.patience, f.resendAt = 0, firstPatience, 0 // the window is open again
	}
	f.window = window
	return true
}

// free drops what ack acknowledges from the list.
func (f *tcpFlow) free(l *loop, ack uint32) {
	f.unacked = ack
	i := 0
	for ; i < len(f.sent); i++ {
		s := &f.sent[i]
		done := ack - s.seq
		if s.buffer == nil {
			if int32(done) < 1 {
				break
			}
			continue
		}
		if int32(done) < int32(s.n) {
			if int32(done) > 0 {
				s.at, s.n, s.seq = s.at+int(done), s.n-int(done), ack
			}
			break
		}
		l.arena.free(s.buffer)
	}
	f.sent = f.sent[:copy(f.sent, f.sent[i:])]
}

// finished closes the connection when both sides have ended and know it.
func (f *tcpFlow) finished(l *loop) {
	if f.hostEnded && f.shut && len(f.sent) == 0 {
		if f.owes {
			f.acknowledge(l)
		}
		f.close(l, nil)
	}
}

// owe has the loop acknowledge at the end of its turn.
func (f *tcpFlow) owe(l *loop) {
	if !f.owes {
		f.owes = true
		l.owing = append(l.owing, f)
	}
}

func (f *tcpFlow) acknowledge(l *loop) {
	if f.owes && f.state == open {
		f.emit(l, l.scratch[:], headroom, 0, f.sendNext, flagACK, nil)
	}
	f.owes = false
}

// emit writes one packet, or a superframe of many: the headers go in front of the
// payload b[at:at+n].
func (f *tcpFlow) emit(l *loop, b []byte, at, n int, seq uint32, flags byte, options []byte) {
	header := tcpSize + len(options)
	ip := ip4Size
	kind := byte(gsoTCP4)
	if f.key.v6() {
		ip, kind = ip6Size, gsoTCP6
	}
	t := b[at-header : at]
	binary.BigEndian.PutUint16(t, f.key.remotePort)
	binary.BigEndian.PutUint16(t[2:], f.key.guestPort)
	binary.BigEndian.PutUint32(t[4:], seq)
	ack := f.next
	if flags&flagACK == 0 {
		ack = 0
	}
	binary.BigEndian.PutUint32(t[8:], ack)
	t[12], t[13] = byte(header/4)<<4, flags
	binary.BigEndian.PutUint16(t[14:], f.advertise(l, flags))
	binary.BigEndian.PutUint16(t[16:], fold(pseudoSum(&f.key, header+n)))
	binary.BigEndian.PutUint16(t[18:], 0)
	copy(t[tcpSize:], options)
	start := at - header - ip
	ipHeader(b[start:], &f.key, header+n, true)
	if n <= f.mss {
		kind = gsoNone
	}
	start -= VnetHeaderSize
	vnet(b[start:], kind, ip+header, f.mss, ip, 16)
	l.queue.write(b[:at+n], start)
}

// advertise is the window field of a packet. What was once promised is not taken
// back; beyond, it shrinks with what waits and with the memory that is left.
func (f *tcpFlow) advertise(l *loop, flags byte) uint16 {
	if flags&flagRST != 0 {
		return 0
	}
	window := l.receiveWindow()
	switch {
	case flags&flagSYN != 0:
		f.edge = f.next + 65535 // never scaled
		return 65535
	case l.arena.scarce(4):
		window = 64 << 10
		if f.waits > 0 {
			window = 0
		}
	case l.arena.scarce(2):
		window = min(window, 256<<10)
	}
	edge := f.next + uint32(max(window-f.waits, 0))
	if before(edge, f.edge) {
		edge = f.edge
	}
	field := min((edge-f.next)>>f.ourShift, 65535)
	if e := f.next + field<<f.ourShift; before(f.edge, e) {
		f.edge = e
	}
	return uint16(field)
}

// receiveWindow is what one flow may have under way to us. A tun keeps packets by
// their number; the memory of a packet socket is shared by all flows.
func (l *loop) receiveWindow() int {
	if l.queue.room == 0 {
		return receiveWindow
	}
	return min(max(l.queue.room/max(len(l.flows), 1), 64<<10), receiveWindow)
}

// synOptions are those of our SYN: segment size and, where wanted, window scale.
func (f *tcpFlow) synOptions(l *loop, scale bool) []byte {
	size := l.n.segmentSize(f.key.v6())
	options := []byte{2, 4, byte(size >> 8), byte(size)}
	if scale {
		options = append(options, 1, 3, 3, windowShift)
	}
	return options
}

// emitSYN sends the SYN of the state, again if need be.
func (f *tcpFlow) emitSYN(l *loop) {
	flags, scale := byte(flagSYN), true
	if f.state == answering {
		flags, scale = flagSYN|flagACK, f.scaled
	}
	options := f.synOptions(l, scale)
	f.emit(l, l.scratch[:], headroom, 0, f.sendNext-1, flags, options)
}

// newTCP is a flow with its first sequence number.
func newTCP(k *key) *tcpFlow {
	f := &tcpFlow{key: *k, fd: -1, slot: -1, patience: firstPatience, mss: 536}
	f.unacked = rand.Uint32()
	f.sendNext = f.unacked
	f.timer.expire = f.expire
	return f
}

// close forgets the connection; the host sees an orderly end, unless resetHost
// was called before.
func (f *tcpFlow) close(l *loop, why error) {
	if f.state == dead {
		return
	}
	if f.state != open {
		l.halfOpen--
	}
	f.state = dead
	for i := range f.sent {
		if b := f.sent[i].buffer; b != nil {
			l.arena.free(b)
		}
	}
	for i := range f.waiting {
		l.arena.free(f.waiting[i].buffer)
	}
	for i := range f.early {
		l.arena.free(f.early[i].buffer)
	}
	f.sent, f.waiting, f.early, f.waits = nil, nil, nil, 0
	l.timers.remove(&f.timer)
	if f.slot >= 0 {
		l.forget(f.slot)
	}
	if f.fd >= 0 {
		unix.Close(f.fd)
	}
	l.remove(&f.key, f)
	l.n.finish(&f.record, &f.key, why)
}

// abort resets both sides.
func (f *tcpFlow) abort(l *loop, why error) {
	if f.state == open || f.state == answering {
		f.emit(l, l.scratch[:], headroom, 0, f.sendNext, flagRST|flagACK, nil)
	}
	f.resetHost()
	f.close(l, why)
}

// resetHost makes the close of the host socket a reset.
func (f *tcpFlow) resetHost() {
	if f.fd >= 0 {
		_ = unix.SetsockoptLinger(f.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
}
