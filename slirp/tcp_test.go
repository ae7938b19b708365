// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sbx/tests/need"
)

// lossy drops a part of the frames for the device and delays others behind their
// successors.
type lossy struct {
	mutex   sync.Mutex
	random  *rand.Rand
	drop    float64
	reorder float64
	held    []byte
}

func (y *lossy) written(frame []byte) [][]byte {
	y.mutex.Lock()
	defer y.mutex.Unlock()
	var out [][]byte
	switch p := y.random.Float64(); {
	case p < y.drop:
	case p < y.drop+y.reorder && y.held == nil:
		y.held = slices.Clone(frame)
		return nil
	default:
		out = append(out, frame)
	}
	if y.held != nil {
		out = append(out, y.held)
		y.held = nil
	}
	return out
}

// TestLoss moves a gibibyte each way while frames for the container are lost and
// overtaken; with -short it is less.
func TestLoss(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprintf("down=%v", down), func(t *testing.T) {
			y := &lossy{random: rand.New(rand.NewPCG(1, 2)), drop: 0.004, reorder: 0.004}
			g := startGuest(t, guestSetup{Queues: 2}, func(c *Config) { c.written = y.written })
			transfer(t, g, "tcp4", transferArgs{Seed: 2, Size: size, Down: down})
			if s := g.network.Stats(); s.Retransmits == 0 && down {
				t.Errorf("nothing was sent again: %+v", s)
			}
		})
	}
}

// TestQueues moves streams through several queues at once.
func TestQueues(t *testing.T) {
	for _, down := range []bool{false, true} {
		g := startGuest(t, guestSetup{Queues: 3}, nil)
		var wait sync.WaitGroup
		for seed := range uint64(8) {
			wait.Go(func() { transfer(t, g, "tcp4", transferArgs{Seed: seed, Size: 20 << 20, Down: down}) })
		}
		wait.Wait()
	}
}

type dialArgs struct {
	Network, Address string
	Send             string // then the sending side is closed
	Hold             bool   // leave the connection open and return at once
}

type dialResult struct {
	Errno    int
	Received string
	Local    string
}

var held struct {
	sync.Mutex
	conns []net.Conn
}

// guestDial connects, says something, reads to the end.
var guestDial = onGuest("dial", func(a dialArgs) (dialResult, error) {
	d := net.Dialer{Timeout: time.Minute}
	c, err := d.Dial(a.Network, a.Address)
	var errno unix.Errno
	if errors.As(err, &errno) {
		return dialResult{Errno: int(errno)}, nil
	}
	if err != nil {
		return dialResult{}, err
	}
	r := dialResult{Local: c.LocalAddr().String()}
	if a.Hold {
		held.Lock()
		held.conns = append(held.conns, c)
		held.Unlock()
		return r, nil
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, a.Send); err != nil {
		return r, err
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
		b, err := io.ReadAll(c)
		if errors.As(err, &errno) {
			r.Errno = int(errno)
			err = nil
		}
		r.Received = string(b)
		return r, err
	}
	b := make([]byte, 65536)
	n, err := c.Read(b)
	if errors.As(err, &errno) {
		r.Errno = int(errno)
		err = nil
	}
	r.Received = string(b[:n])
	return r, err
})

// TestErrors compares what programs in the container see with what they would see
// on the host.
func TestErrors(t *testing.T) {
	g := startGuest(t, guestSetup{}, func(c *Config) {
		c.Policy = PolicyFunc(func(f Flow) Verdict {
			if f.Dst.Addr() == netip.MustParseAddr("192.0.2.9") {
				// A stream to everybody has no route.
				return Verdict{Allow: true, To: netip.MustParseAddrPort("255.255.255.255:9")}
			}
			return toLoopback(f)
		})
	})
	closed := closedPort(t)
	for _, c := range []struct {
		network, address string
		want             []unix.Errno
	}{
		{"tcp", netip.AddrPortFrom(outside4, closed).String(), []unix.Errno{unix.ECONNREFUSED}},
		{"tcp", netip.AddrPortFrom(outside6, closed).String(), []unix.Errno{unix.ECONNREFUSED}},
		{"udp", netip.AddrPortFrom(outside4, closed).String(), []unix.Errno{unix.ECONNREFUSED}},
		{"udp", netip.AddrPortFrom(outside6, closed).String(), []unix.Errno{unix.ECONNREFUSED}},
		{"tcp", "192.0.2.9:80", []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH}},
		{"tcp", "198.51.100.1:80", []unix.Errno{unix.EHOSTUNREACH}},
		{"tcp", "[2001:db8::9]:80", []unix.Errno{unix.EACCES}},
		{"udp", "198.51.100.1:80", []unix.Errno{unix.EHOSTUNREACH}},
		{"tcp", "10.0.2.2:80", []unix.Errno{unix.EHOSTUNREACH}},
		{"tcp", "169.254.169.254:80", []unix.Errno{unix.EHOSTUNREACH}},
	} {
		var r dialResult
		g.do(guestDial, dialArgs{Network: c.network, Address: c.address, Send: "x"}, &r)
		if !slices.Contains(c.want, unix.Errno(r.Errno)) {
			t.Errorf("%s %s: %v, want %v", c.network, c.address, unix.Errno(r.Errno), c.want)
		}
	}
}

// closedPort is a port of loopback that nobody listens to.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// TestHostResets sees a reset of the outside as a reset inside.
func TestHostResets(t *testing.T) {
	g := startGuest(t, guestSetup{}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.ReadFull(c, make([]byte, 5))
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}()
	var r dialResult
	g.do(guestDial, dialArgs{Network: "tcp", Address: netip.AddrPortFrom(outside4, uint16(l.Addr().(*net.TCPAddr).Port)).String(), Send: "hello"}, &r)
	if unix.Errno(r.Errno) != unix.ECONNRESET {
		t.Errorf("%+v, want ECONNRESET", r)
	}
	waitFor(t, "the flow is gone", func() bool { return g.network.Stats().Flows == 0 })
}

// waitFor waits for what other threads bring about.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 12_000 {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("it never came about: %s", what)
}

// TestHalfClose sends after the other side has ended.
func TestHalfClose(t *testing.T) {
	g := startGuest(t, guestSetup{}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c) // the container's end
		_, _ = c.Write(bytes.Repeat(b, 3))
	}()
	var r dialResult
	g.do(guestDial, dialArgs{Network: "tcp", Address: netip.AddrPortFrom(outside4, uint16(l.Addr().(*net.TCPAddr).Port)).String(), Send: "abc"}, &r)
	if r.Received != "abcabcabc" {
		t.Errorf("%+v", r)
	}
	waitFor(t, "the flow is gone", func() bool { return g.network.Stats().Flows == 0 })
}

type floodArgs struct {
	Address string
	Count   int
}

// guestHold opens many connections and keeps them.
var guestHold = onGuest("hold", func(a floodArgs) (int, error) {
	opened := 0
	for range a.Count {
		c, err := net.DialTimeout("tcp", a.Address, time.Minute)
		if err != nil {
			return opened, err
		}
		opened++
		held.Lock()
		held.conns = append(held.conns, c)
		held.Unlock()
	}
	return opened, nil
})

// guestStuff writes into held connections until they take no more.
var guestStuff = onGuest("stuff", func(limit int) (int, error) {
	held.Lock()
	defer held.Unlock()
	b := make([]byte, 64<<10)
	total := 0
	for _, c := range held.conns {
		sent := 0
		for sent < limit {
			_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			n, err := c.Write(b)
			sent += n
			if err != nil {
				break
			}
		}
		total += sent
	}
	return total, nil
})

// TestManyConnections holds a thousand connections whose other side does not read,
// and wants the engine's memory to be bounded and other flows to live.
func TestManyConnections(t *testing.T) {
	g := startGuest(t, guestSetup{Queues: 2}, func(c *Config) { c.Resolver = deaf{} })
	const count = 1000
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			g.do(guestHold, floodArgs{Address: netip.AddrPortFrom(testDNS4, 53).String(), Count: count / 4}, nil)
		})
	}
	wait.Wait()
	var total int
	g.do(guestStuff, 1<<20, &total)
	// What the container's kernel has taken is on its way to the engine.
	waitFor(t, "what nobody reads fills a quarter of the room", func() bool { return g.network.Stats().Waiting >= defaultBuffers/4 })
	s := g.network.Stats()
	t.Logf("%d bytes are under way, %+v, resident %d KiB", total, s, resident(t))
	if s.Flows < count || s.Waiting > defaultBuffers {
		t.Errorf("%+v", s)
	}
	// Room is kept for those whose other side does read.
	transfer(t, g, "tcp4", transferArgs{Seed: 3, Size: 8 << 20, Down: true})
	transfer(t, g, "tcp4", transferArgs{Seed: 3, Size: 8 << 20})
}

func resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var kib int
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d", &kib)
	}
	return kib
}

// TestLimits refuses what is beyond the limit and goes on when there is room.
func TestLimits(t *testing.T) {
	g := startGuest(t, guestSetup{}, func(c *Config) { c.Limits.Flows = 20 })
	port := hostServer(t, "tcp4", transferArgs{})
	address := netip.AddrPortFrom(outside4, port).String()
	g.do(guestHold, floodArgs{Address: address, Count: 20}, nil)
	fetch := g.begin(guestDial, dialArgs{Network: "tcp", Address: address})
	g.do(guestRelease, 0, nil)
	var r dialResult
	if err := fetch(&r); err != nil || r.Errno != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// guestRelease closes what is held.
var guestRelease = onGuest("release", func(int) (int, error) {
	held.Lock()
	defer held.Unlock()
	for _, c := range held.conns {
		c.Close()
	}
	held.conns = nil
	return 0, nil
})

// TestClose wants the engine to end at once, a tun included.
func TestClose(t *testing.T) {
	need.Need(t, need.Userns)
	g := startGuest(t, guestSetup{Queues: 2}, nil)
	port := hostServer(t, "tcp4", transferArgs{})
	g.do(guestHold, floodArgs{Address: netip.AddrPortFrom(outside4, port).String(), Count: 50}, nil)
	if err := g.network.Close(); err != nil {
		t.Fatal(err)
	}
	if s := g.network.Stats(); s.Flows != 0 {
		t.Errorf("%+v", s)
	}
	// Twice does no harm, and the device is still there: it was made persistent.
	if err := g.network.Close(); err != nil {
		t.Fatal(err)
	}
}
