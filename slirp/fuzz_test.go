// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// quietLoop is a loop that nobody runs, on one end of a pair of sockets: what it
// writes can be read from the other.
func quietLoop(t testing.TB, config Config) (*loop, int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(pair[0]), "queue")
	config.Guest4, config.Gateway4, config.DNS4 = testGuest4, testGateway4, testDNS4
	config.Guest6, config.Gateway6, config.DNS6 = testGuest6, testGateway6, testDNS6
	config.Link.Queues = nil
	n := &Network{config: config, limits: Limits{Buffers: 2 << 20, Flows: 64, HalfOpen: 32}, began: time.Now(), owners: map[key]*loop{}}
	n.config.MTU = DefaultMTU
	n.limit()
	n.at.Store(&n.config.Addresses)
	n.superframe = 65535 - ip4Size - tcpSize
	n.queries = make(chan struct{}, 4)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	l, err := newLoop(n, &queue{file: file, fd: pair[0], kind: TUN}, n.limits.Buffers)
	if err != nil {
		t.Fatal(err)
	}
	n.loops = []*loop{l}
	l.now = l.clock()
	t.Cleanup(func() {
		n.cancel()
		n.ended.Wait()
		l.end()
		unix.Close(pair[1])
	})
	return l, pair[1]
}

// readFrame is what the loop wrote last, or nil.
func readFrame(fd int) []byte {
	b := make([]byte, blockSize)
	n, err := read(fd, b)
	if err != nil || n == 0 {
		return nil
	}
	return b[:n]
}

// packetTo is a frame of the container with a transport header and payload.
func packetTo(proto Proto, dst netip.AddrPort, source uint16, l4 []byte) []byte {
	// From the container: the "remote" side of the header's writer is the guest.
	k := key{guest: dst.Addr().As16(), remote: testGuest4.As16(), proto: uint16(proto)}
	if dst.Addr().Is6() {
		k.remote = testGuest6.As16()
	}
	b := make([]byte, VnetHeaderSize+ip6Size+len(l4))
	n := ipHeader(b[VnetHeaderSize:], &k, len(l4), true)
	if proto == TCP || proto == UDP {
		binary.BigEndian.PutUint16(l4, source)
		binary.BigEndian.PutUint16(l4[2:], dst.Port())
	}
	copy(b[VnetHeaderSize+n:], l4)
	b[0] = vnetNeedsCsum
	return b[:VnetHeaderSize+n+len(l4)]
}

// tcpSegment is the header of a segment, without options.
func tcpSegment(seq, ack uint32, flags byte, window uint16, payload string) []byte {
	b := make([]byte, tcpSize+len(payload))
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], window)
	copy(b[tcpSize:], payload)
	return b
}

// FuzzPackets feeds packets to the engine: whatever comes, it neither fails nor
// keeps memory after its flows have ended.
func FuzzPackets(f *testing.F) {
	echo, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer echo.Close()
	to := netip.AddrPortFrom(outside4, 80)
	syn := packetTo(TCP, to, 1000, tcpSegment(1, 0, flagSYN, 1000, ""))
	data := packetTo(TCP, to, 1000, tcpSegment(2, 1, flagACK|flagFIN, 1000, "hello"))
	udp := packetTo(UDP, to, 1000, append([]byte{0, 0, 0, 0, 0, 13, 0, 0}, "hello"...))
	ping := packetTo(ICMP, netip.AddrPortFrom(testGateway4, 0), 0, []byte{8, 0, 0, 0, 0, 1, 0, 1})
	six := packetTo(UDP, netip.AddrPortFrom(outside6, 80), 1000, append([]byte{0, 0, 0, 0, 0, 13, 0, 0}, "hello"...))
	join := func(frames ...[]byte) (all []byte) {
		for _, b := range frames {
			all = binary.BigEndian.AppendUint16(all, uint16(len(b)))
			all = append(all, b...)
		}
		return all
	}
	f.Add(join(syn, data))
	f.Add(join(syn, syn, udp, ping, six))
	f.Add(join(udp, udp, udp))
	f.Fuzz(func(t *testing.T, all []byte) {
		l, _ := quietLoop(t, Config{Policy: PolicyFunc(func(f Flow) Verdict {
			switch f.Proto {
			case UDP:
				return Verdict{Allow: true, To: echo.LocalAddr().(*net.UDPAddr).AddrPort()}
			case TCP:
				return Verdict{Allow: true, To: netip.MustParseAddrPort("127.0.0.1:1")}
			}
			return Verdict{}
		})})
		used := l.arena.waiting()
		for len(all) >= 2 {
			n := min(int(binary.BigEndian.Uint16(all)), len(all)-2)
			frame := l.reading.data[:copy(l.reading.data, all[2:2+n])]
			all = all[2+n:]
			credible(frame)
			l.take(frame)
			l.finishTurn()
		}
		for _, flow := range l.flows {
			flow.close(l, nil)
		}
		for len(l.pieces.waiting) > 0 {
			l.dropPartial(l.pieces.waiting[0])
		}
		if left := l.arena.waiting() - used - l.arena.carved*(blockSize-blockSize/smallSize*smallSize); left > 0 || len(l.timers.heap) > 0 || l.halfOpen != 0 {
			t.Errorf("%d bytes, %d timers, %d half-open flows are left", left, len(l.timers.heap), l.halfOpen)
		}
	})
}

// credible makes the source and the header's checksum those of a container, so
// that what is behind them is reached.
func credible(frame []byte) {
	if len(frame) < VnetHeaderSize+ip4Size {
		return
	}
	ip := frame[VnetHeaderSize:]
	switch {
	case ip[0]>>4 == 4:
		copy(ip[12:], testGuest4.AsSlice())
		if size := int(ip[0]&15) * 4; size >= ip4Size && size <= len(ip) {
			ip[10], ip[11] = 0, 0
			binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip[:size])))
		}
	case ip[0]>>4 == 6 && len(ip) >= ip6Size:
		copy(ip[8:], testGuest6.AsSlice())
	}
}

// TestTimers compares the heap with a list.
func TestTimers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var ts timers
	all := make([]*timer, 50)
	for i := range all {
		all[i] = &timer{}
	}
	for now := int64(1); now < 5000; now++ {
		ts.set(all[random.IntN(len(all))], now+random.Int64N(100))
		if random.IntN(10) == 0 {
			ts.remove(all[random.IntN(len(all))])
		}
		for x := ts.pop(now); x != nil; x = ts.pop(now) {
			if x.due != 0 || x.index != 0 {
				t.Fatalf("popped %+v at %d", x, now)
			}
		}
		for _, x := range all {
			if x.due != 0 && x.due <= now {
				t.Fatalf("%+v is overdue at %d", x, now)
			}
		}
	}
}

// TestForged sends what a container makes by hand: it never reaches a host socket.
func TestForged(t *testing.T) {
	asked := 0
	l, fd := quietLoop(t, Config{Policy: PolicyFunc(func(f Flow) Verdict {
		asked++
		return Refuse.Decide(f)
	})})
	for _, address := range []string{"127.0.0.1:22", "127.8.8.8:22", "0.0.0.0:22", "169.254.169.254:80", "255.255.255.255:80", "224.0.0.1:80", "[::1]:22", "[::]:22", "[fe80::1]:22", "[ff02::1]:22", "10.0.2.100:22", "[::ffff:127.0.0.1]:22"} {
		to := netip.MustParseAddrPort(address)
		var frame []byte
		if to.Addr().Is4In6() {
			frame = packetTo(TCP, netip.AddrPortFrom(outside6, 22), 1000, tcpSegment(1, 0, flagSYN, 1000, ""))
			mapped := to.Addr().As16()
			copy(frame[VnetHeaderSize+24:], mapped[:])
		} else {
			frame = packetTo(TCP, to, 1000, tcpSegment(1, 0, flagSYN, 1000, ""))
		}
		l.take(frame)
		for out := readFrame(fd); out != nil; out = readFrame(fd) {
			if proto := out[VnetHeaderSize+9]; out[VnetHeaderSize]>>4 == 4 && proto != byte(ICMP) {
				t.Errorf("%s was answered by protocol %d", address, proto)
			}
		}
	}
	if len(l.flows) != 0 || asked == 0 {
		t.Errorf("%d flows, %d questions", len(l.flows), asked)
	}
	// A source that is not the container's.
	frame := packetTo(TCP, netip.AddrPortFrom(outside4, 80), 1000, tcpSegment(1, 0, flagSYN, 1000, ""))
	frame[VnetHeaderSize+15]++
	ip := frame[VnetHeaderSize : VnetHeaderSize+ip4Size]
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip)))
	asked = 0
	l.take(frame)
	if asked != 0 || readFrame(fd) != nil {
		t.Error("a forged source was not dropped")
	}
}

// TestSynFlood opens connections to who does not answer: their number is bounded.
func TestSynFlood(t *testing.T) {
	full, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(full)
	if err := unix.Bind(full, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(full, 0); err != nil {
		t.Fatal(err)
	}
	name, _ := unix.Getsockname(full)
	to := fromSockaddr(name)
	l, _ := quietLoop(t, Config{Policy: PolicyFunc(func(Flow) Verdict { return Verdict{Allow: true, To: to} })})
	for i := range 200 {
		l.take(packetTo(TCP, netip.AddrPortFrom(outside4, 80), uint16(1000+i), tcpSegment(1, 0, flagSYN, 1000, "")))
		l.finishTurn()
	}
	if l.halfOpen != 32 || len(l.flows) != 32 || l.n.dropped.Load() != 200-32 {
		t.Errorf("%d half-open of %d flows, %d dropped", l.halfOpen, len(l.flows), l.n.dropped.Load())
	}
}
