// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// flagURG is of no meaning to the engine.
const flagURG = 32

// quietFlow is an open connection of a quietLoop, with its host's side.
func quietFlow(t *testing.T) (l *loop, fd int, f *tcpFlow, host net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l, fd = quietLoop(t, Config{Policy: PolicyFunc(func(Flow) Verdict {
		return Verdict{Allow: true, To: listener.Addr().(*net.TCPAddr).AddrPort()}
	})})
	to := netip.AddrPortFrom(outside4, 80)
	l.take(packetTo(TCP, to, 1000, tcpSegment(1, 0, flagSYN, 1000, "")))
	if host, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	for _, known := range l.flows {
		f = known.(*tcpFlow)
	}
	f.ready(l, unix.EPOLLOUT)
	l.take(packetTo(TCP, to, 1000, tcpSegment(2, f.sendNext, flagACK, 1000, "")))
	l.finishTurn()
	for readFrame(fd) != nil {
	}
	if f.state != open {
		t.Fatalf("the connection is in state %d", f.state)
	}
	return l, fd, f, host
}

// say is a segment of the container.
func (f *tcpFlow) say(l *loop, flags byte, payload string) {
	b := tcpSegment(f.next, f.sendNext, flags, 1000, payload)
	if flags&flagURG != 0 {
		binary.BigEndian.PutUint16(b[18:], uint16(len(payload)))
	}
	l.take(packetTo(TCP, netip.AddrPortFrom(outside4, 80), 1000, b))
	l.finishTurn()
}

// flagsOf are the flags of the TCP segments that wait to be read.
func flagsOf(fd int) (flags []byte) {
	for b := readFrame(fd); b != nil; b = readFrame(fd) {
		if ip := b[VnetHeaderSize:]; ip[9] == byte(TCP) {
			flags = append(flags, ip[ip4Size+13])
		}
	}
	return flags
}

// TestKeepAlive has a connection be idle for hours, or half closed for minutes: it
// stays as long as the container answers, and both sides hear of its end when that
// does not.
func TestKeepAlive(t *testing.T) {
	for _, half := range []bool{false, true} {
		l, fd, f, host := quietFlow(t)
		idle := keepAlive
		if half {
			idle = keepAliveHalf
			f.say(l, flagACK|flagFIN, "")
			flagsOf(fd)
		}
		for range 3 {
			l.now += idle + 1
			l.finishTurn()
			if got := flagsOf(fd); len(got) != 1 || got[0] != flagACK {
				t.Fatalf("half=%v: after its time the container is sent %v, want a probe", half, got)
			}
			f.say(l, flagACK, "")
		}
		probes := 0
		for l.now += idle; f.state == open && probes < 100; l.now += keepAliveStep {
			l.finishTurn()
			for _, flags := range flagsOf(fd) {
				if flags == flagACK {
					probes++
				}
			}
		}
		if f.state != dead || len(l.flows) != 0 || probes < keepAlives || probes > keepAlives+1 {
			t.Errorf("half=%v: state %d after %d probes, %d flows", half, f.state, probes, len(l.flows))
		}
		_ = host.SetReadDeadline(time.Now().Add(time.Minute))
		if half {
			if _, err := host.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the host's side reads %v, want the container's end", err)
			}
			continue
		}
		if _, err := host.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the host's side reads %v, want a reset", err)
		}
	}
}

// TestUrgent sends bytes marked as urgent: they are bytes of the stream.
func TestUrgent(t *testing.T) {
	l, _, f, host := quietFlow(t)
	f.say(l, flagACK|flagURG, "hurry")
	f.say(l, flagACK|flagFIN, " up")
	_ = host.SetReadDeadline(time.Now().Add(time.Minute))
	if got, err := io.ReadAll(host); string(got) != "hurry up" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestDatagramsExpire forgets who is silent, sooner where nobody ever answered.
func TestDatagramsExpire(t *testing.T) {
	for _, answers := range []bool{false, true} {
		host, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		l, fd := quietLoop(t, Config{Policy: PolicyFunc(func(Flow) Verdict {
			return Verdict{Allow: true, To: host.LocalAddr().(*net.UDPAddr).AddrPort()}
		})})
		l.take(packetTo(UDP, netip.AddrPortFrom(outside4, 80), 1000, append([]byte{0, 0, 0, 0, 0, 13, 0, 0}, "hello"...)))
		l.finishTurn()
		b := make([]byte, 100)
		n, from, err := host.ReadFrom(b)
		if err != nil || string(b[:n]) != "hello" {
			t.Fatalf("%q, %v", b[:n], err)
		}
		patience := datagramUnanswered
		if answers {
			patience = datagramAnswered
			if _, err := host.WriteTo([]byte("yes"), from); err != nil {
				t.Fatal(err)
			}
			for _, f := range l.flows {
				f.(*datagramFlow).ready(l, unix.EPOLLIN)
			}
			if frame := readFrame(fd); len(frame) != VnetHeaderSize+ip4Size+udpSize+3 {
				t.Errorf("the answer came as %d bytes", len(frame))
			}
		}
		began := l.now
		l.now = began + patience - int64(time.Second)
		l.finishTurn()
		if len(l.flows) != 1 {
			t.Errorf("answers=%v: forgotten before its time", answers)
		}
		l.now = began + patience + 1
		l.finishTurn()
		if len(l.flows) != 0 || l.n.flows.Load() != 0 {
			t.Errorf("answers=%v: %d flows are remembered", answers, len(l.flows))
		}
	}
}

// guestTooLarge sends a datagram and returns the error that comes back.
var guestTooLarge = onGuest("too large", func(address string) (int, error) {
	c, err := net.Dial("udp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(make([]byte, 1400)); err != nil {
		return 0, err
	}
	_, err = c.Read(make([]byte, 10))
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return 0, err
	}
	return int(errno), nil
})

// TestTooLarge has the host find that a datagram does not fit its way: the program
// that sent it hears so.
func TestTooLarge(t *testing.T) {
	g := startGuest(t, guestSetup{}, nil)
	for network, to := range map[string]netip.Addr{"udp4": outside4, "udp6": outside6} {
		host, err := net.ListenPacket(network, netip.AddrPortFrom(toLoopback(Flow{Dst: netip.AddrPortFrom(to, 0)}).To.Addr(), 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		fetch := g.begin(guestTooLarge, netip.AddrPortFrom(to, host.LocalAddr().(*net.UDPAddr).AddrPort().Port()).String())
		if _, _, err := host.ReadFrom(make([]byte, 2000)); err != nil {
			t.Fatal(err)
		}
		l := g.network.loops[0]
		l.post(func() {
			for _, f := range l.flows {
				if d, ok := f.(*datagramFlow); ok && d.key.v6() == to.Is6() {
					l.unreachableFlow(&d.key, unix.EMSGSIZE, 1300)
				}
			}
		})
		var errno int
		if err := fetch(&errno); err != nil || unix.Errno(errno) != unix.EMSGSIZE {
			t.Errorf("%s: %v, %v; want EMSGSIZE", network, unix.Errno(errno), err)
		}
	}
}
