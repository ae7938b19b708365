// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fragmentOfDatagram is a frame with a part of an IP packet's payload.
func fragmentOfDatagram(v6 bool, id, offset int, more bool, part []byte) []byte {
	to := netip.AddrPortFrom(outside4, 0)
	if v6 {
		to = netip.AddrPortFrom(outside6, 0)
		head := []byte{byte(UDP), 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint16(head[2:], uint16(offset))
		if more {
			head[3] |= 1
		}
		binary.BigEndian.PutUint32(head[4:], uint32(id))
		b := packetTo(0, to, 0, append(head, part...))
		b[VnetHeaderSize+6] = 44
		return b
	}
	b := packetTo(0, to, 0, part)
	ip := b[VnetHeaderSize : VnetHeaderSize+ip4Size]
	ip[9] = byte(UDP)
	binary.BigEndian.PutUint16(ip[4:], uint16(id))
	where := uint16(offset / 8)
	if more {
		where |= 1 << 13
	}
	binary.BigEndian.PutUint16(ip[6:], where)
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip)))
	return b
}

// piece is a fragment of a datagram of 48 bytes, its header included.
type piece struct {
	from, to int
	more     bool
}

// TestFragments sends datagrams in pieces: what contradicts itself is dropped whole,
// and nothing of it stays.
func TestFragments(t *testing.T) {
	host, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	l, _ := quietLoop(t, Config{Policy: PolicyFunc(func(Flow) Verdict {
		return Verdict{Allow: true, To: host.LocalAddr().(*net.UDPAddr).AddrPort()}
	})})
	datagram := make([]byte, 48, 1<<17)
	binary.BigEndian.PutUint16(datagram, 1000)
	binary.BigEndian.PutUint16(datagram[2:], 80)
	binary.BigEndian.PutUint16(datagram[4:], 48)
	id := 0
	for _, v6 := range []bool{false, true} {
		// The sum of both families' pseudo headers, so that the payload is to blame.
		k := key{guest: testGuest4.As16(), remote: outside4.As16(), proto: uint16(UDP)}
		if v6 {
			k.guest, k.remote = testGuest6.As16(), outside6.As16()
		}
		datagram[6], datagram[7] = 0, 0
		binary.BigEndian.PutUint16(datagram[6:], ^fold(sum(pseudoSum(&k, 48), datagram)))
		for _, c := range []struct {
			name   string
			pieces []piece
			arrive bool
		}{
			{"in order", []piece{{0, 16, true}, {16, 32, true}, {32, 48, false}}, true},
			{"backwards", []piece{{32, 48, false}, {16, 32, true}, {0, 16, true}}, true},
			{"repeated", []piece{{0, 16, true}, {0, 16, true}, {16, 48, false}}, true},
			{"overlapping", []piece{{0, 24, true}, {16, 48, false}, {0, 16, true}}, false},
			{"overlapping the header", []piece{{0, 16, true}, {8, 48, false}}, false},
			{"covering", []piece{{16, 24, true}, {8, 48, false}, {0, 8, true}}, false},
			{"of two lengths", []piece{{0, 16, true}, {40, 48, false}, {16, 32, false}}, false},
			{"beyond the end", []piece{{0, 40, false}, {40, 48, true}}, false},
			{"not of eight", []piece{{0, 12, true}, {16, 48, false}}, false},
			{"empty", []piece{{0, 16, true}, {16, 16, true}, {16, 48, false}}, false},
			{"with a hole", []piece{{0, 16, true}, {24, 48, false}}, false},
			{"larger than any", []piece{{0, 16, true}, {65528, 65576, false}}, false},
		} {
			id++
			used := l.arena.waiting()
			for _, p := range c.pieces {
				l.take(fragmentOfDatagram(v6, id, p.from, p.more, datagram[:cap(datagram)][p.from:p.to]))
			}
			l.finishTurn()
			got := 0
			b := make([]byte, 100)
			// What was sent over loopback is there at once.
			_ = host.SetReadDeadline(time.Now().Add(time.Millisecond))
			if c.arrive {
				_ = host.SetReadDeadline(time.Now().Add(time.Minute))
			}
			if n, _, err := host.ReadFrom(b); err == nil {
				got = n
			}
			if (got == 40) != c.arrive || got != 0 && got != 40 {
				t.Errorf("v6=%v %s: %d bytes arrived, want them: %v", v6, c.name, got, c.arrive)
			}
			for len(l.pieces.waiting) > 0 {
				l.dropPartial(l.pieces.waiting[0])
			}
			if left := l.arena.waiting() - used; left > 2*blockSize {
				t.Errorf("v6=%v %s: %d bytes are left", v6, c.name, left)
			}
		}
	}
}

// TestFragmentFlood begins datagrams that never end: they wait in little memory.
func TestFragmentFlood(t *testing.T) {
	l, _ := quietLoop(t, Config{})
	used := l.arena.waiting()
	for id := range 5000 {
		l.take(fragmentOfDatagram(id%2 == 0, id, 0, true, make([]byte, 1400)))
	}
	if n := len(l.pieces.waiting); n == 0 || n > maxPieces || l.arena.waiting()-used > maxPieces*blockSize || l.n.dropped.Load() < 5000-maxPieces {
		t.Errorf("%d datagrams wait in %d bytes; %d were dropped", n, l.arena.waiting()-used, l.n.dropped.Load())
	}
	l.now += piecesPatience + 1
	l.finishTurn()
	if n := len(l.pieces.waiting); n != 0 || l.arena.waiting() != used {
		t.Errorf("%d datagrams wait after their time", n)
	}
}

// TestErrorFlood is refused again and again: the container gets so many errors and
// no more, as from a router.
func TestErrorFlood(t *testing.T) {
	l, fd := quietLoop(t, Config{Policy: Refuse})
	errors := 0
	ping := []byte{icmp4Request, 0, 0, 0, 0, 1, 0, 1}
	binary.BigEndian.PutUint16(ping[2:], ^fold(sum(0, ping)))
	for i := range 3000 {
		proto, l4 := UDP, append([]byte{0, 0, 0, 0, 0, 13, 0, 0}, "hello"...)
		switch i % 3 {
		case 1:
			proto, l4 = TCP, tcpSegment(1, 0, flagSYN, 1000, "")
		case 2:
			proto, l4 = ICMP, ping
		}
		l.take(packetTo(proto, netip.MustParseAddrPort("127.0.0.1:80"), uint16(1000+i), l4))
		for readFrame(fd) != nil {
			errors++
		}
	}
	if errors != errorsPerSecond || len(l.flows) != 0 {
		t.Errorf("%d errors, %d flows", errors, len(l.flows))
	}
}

// TestPingFlood sends echo requests of many identifiers: each is a flow, and those
// that were quiet longest make way.
func TestPingFlood(t *testing.T) {
	l, fd := quietLoop(t, Config{Policy: PolicyFunc(func(Flow) Verdict {
		return Verdict{Allow: true, To: netip.MustParseAddrPort("127.0.0.1:0")}
	})})
	answers := 0
	for i := range 500 {
		for _, to := range []netip.Addr{outside4, testGateway4} {
			ping := []byte{icmp4Request, 0, 0, 0, byte(i >> 8), byte(i), 0, 1}
			binary.BigEndian.PutUint16(ping[2:], ^fold(sum(0, ping)))
			l.take(packetTo(ICMP, netip.AddrPortFrom(to, 0), 0, ping))
		}
		for frame := readFrame(fd); frame != nil; frame = readFrame(fd) {
			if frame[VnetHeaderSize+ip4Size] == icmp4Reply {
				answers++
			}
		}
	}
	if len(l.flows) > l.n.limits.Flows || answers < 500 {
		t.Errorf("%d flows; the gateway answered %d of 500", len(l.flows), answers)
	}
}

// stubborn is a Resolver that answers nothing before its time.
type stubborn struct {
	repeater
	asked *atomic.Int64
}

func (s stubborn) Query(ctx context.Context, _ []byte, _ netip.AddrPort) []byte {
	s.asked.Add(1)
	<-ctx.Done()
	return nil
}

// TestQueryFlood asks a resolver that does not answer: so many questions are under
// way, and the others are dropped.
func TestQueryFlood(t *testing.T) {
	var asked atomic.Int64
	l, _ := quietLoop(t, Config{Resolver: stubborn{asked: &asked}})
	for i := range 1000 {
		l.take(packetTo(UDP, netip.AddrPortFrom(testDNS4, 53), uint16(1000+i), append([]byte{0, 0, 0, 0, 0, 13, 0, 0}, "hello"...)))
	}
	if got, want := l.n.dropped.Load(), uint64(1000-cap(l.n.queries)); got != want || len(l.flows) != 0 {
		t.Errorf("%d of 1000 were dropped, want %d; %d flows", got, want, len(l.flows))
	}
	waitFor(t, "those under way have asked", func() bool { return asked.Load() == int64(cap(l.n.queries)) })
}

// TestPortsExhausted has as many clients of a published port as there are ports: one
// more is told so, and gets no connection of another's.
func TestPortsExhausted(t *testing.T) {
	l, _ := quietLoop(t, Config{})
	host, client := netip.MustParseAddrPort("203.0.113.1:80"), netip.MustParseAddrPort("203.0.113.9:4000")
	k, ok := l.clientKey(TCP, 80, host, client)
	if !ok || netip.AddrFrom16(k.remote).Unmap() != client.Addr() || k.remotePort != client.Port() {
		t.Fatalf("the first client is %+v, %v", k.flow(), ok)
	}
	for port := range 1 << 16 {
		k.remotePort = uint16(port)
		l.flows[k] = &tcpFlow{state: dead, fd: -1, slot: -1}
	}
	defer clear(l.flows)
	if k, ok := l.clientKey(TCP, 80, host, client); ok {
		t.Errorf("one more is %+v", k.flow())
	}
	if _, ok := l.clientKey(TCP, 81, host, client); !ok {
		t.Error("another port has no client either")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	l.call(&Listener{port: Port{Guest: 80}}, pair[0], host, client)
	if n, err := unix.Read(pair[1], make([]byte, 1)); n > 0 || err == unix.EAGAIN || l.halfOpen != 0 {
		t.Errorf("the client reads %d, %v; %d half-open", n, err, l.halfOpen)
	}
}

// TestHugeRecord writes what a name's owner chose into the flow log.
func TestHugeRecord(t *testing.T) {
	var lines lockedBuffer
	l, _ := quietLoop(t, Config{Policy: PolicyFunc(func(Flow) Verdict {
		return Verdict{Name: "a\"\n{" + strings.Repeat("x", 1000), Reason: "no\n"}
	})})
	l.n.flowLog = newFlowLog(&lines)
	l.take(packetTo(TCP, netip.AddrPortFrom(outside4, 80), 1000, tcpSegment(1, 0, flagSYN, 1000, "")))
	l.n.flowLog.close()
	if got := lines.String(); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "}\n") {
		t.Errorf("%q", got)
	}
}
