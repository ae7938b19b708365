// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// udpEcho answers datagrams on loopback.
func udpEcho(t *testing.T, network string) uint16 {
	t.Helper()
	host := "127.0.0.1:0"
	if network == "udp6" {
		host = "[::1]:0"
	}
	c, err := net.ListenPacket(network, host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return uint16(c.LocalAddr().(*net.UDPAddr).Port)
}

type datagramArgs struct {
	Network, Address string
	Sizes            []int
}

// guestDatagrams sends datagrams and wants each back before the next.
var guestDatagrams = onGuest("datagrams", func(a datagramArgs) (int, error) {
	c, err := net.Dial(a.Network, a.Address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for i, size := range a.Sizes {
		want, _ := io.ReadAll(stream(uint64(i), int64(size)))
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write(want); err != nil {
			return i, fmt.Errorf("%d bytes: %w", size, err)
		}
		got := make([]byte, 65536)
		n, err := c.Read(got)
		if err != nil {
			return i, fmt.Errorf("%d bytes: %w", size, err)
		}
		if !bytes.Equal(got[:n], want) {
			return i, fmt.Errorf("%d bytes came back as %d others", size, n)
		}
	}
	return len(a.Sizes), nil
})

// TestDatagrams sends datagrams of all sizes both ways, those above the MTU in
// fragments.
func TestDatagrams(t *testing.T) {
	sizes := []int{10, 0, 1, 1400, 1452, 1453, 1472, 1473, 1480, 2000, 2952, 9000, 60000, 65000, 65507 - 40, 3}
	for _, queues := range []int{1, 2} {
		for _, network := range []string{"udp4", "udp6"} {
			t.Run(fmt.Sprintf("%s/queues=%d", network, queues), func(t *testing.T) {
				g := startGuest(t, guestSetup{Queues: queues}, nil)
				to := outside4
				if network == "udp6" {
					to = outside6
				}
				g.do(guestDatagrams, datagramArgs{Network: network, Address: netip.AddrPortFrom(to, udpEcho(t, network)).String(), Sizes: sizes}, nil)
			})
		}
	}
}

type burstArgs struct {
	Address     string
	Count, Size int
	Want        int
}

// guestBurst sends datagrams as fast as it can, then waits for as many to come back
// as it wants, and for what comes right behind them.
var guestBurst = onGuest("burst", func(a burstArgs) (int, error) {
	c, err := net.Dial("udp", a.Address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	b := make([]byte, a.Size)
	for i := range a.Count {
		binary.BigEndian.PutUint32(b, uint32(i))
		if _, err := c.Write(b[:a.Size-i%2]); err != nil { // sizes differ: they cannot all leave as one
			return 0, err
		}
	}
	came := 0
	for {
		wait := time.Minute
		if came >= a.Want {
			wait = 300 * time.Millisecond
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		n, err := c.Read(b)
		if err != nil {
			return came, nil
		}
		if i := int(binary.BigEndian.Uint32(b)); n != a.Size-i%2 {
			return came, fmt.Errorf("datagram %d came with %d bytes", i, n)
		}
		came++
	}
})

// TestBursts sends more at once than one call takes, and wants boundaries kept.
func TestBursts(t *testing.T) {
	g := startGuest(t, guestSetup{}, nil)
	var came int
	g.do(guestBurst, burstArgs{Address: netip.AddrPortFrom(outside4, udpEcho(t, "udp4")).String(), Count: 150, Size: 900, Want: 75}, &came)
	if came < 75 {
		t.Errorf("%d of 150 came back; %+v", came, g.network.Stats())
	}
}

// guestSources opens many sockets and sends one datagram from each.
var guestSources = onGuest("sources", func(a floodArgs) (int, error) {
	to, err := net.ResolveUDPAddr("udp", a.Address)
	if err != nil {
		return 0, err
	}
	for i := range a.Count {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: 20000 + i})
		if err != nil {
			return i, err
		}
		_, err = c.WriteTo([]byte("x"), to)
		c.Close()
		if err != nil {
			return i, err
		}
	}
	return a.Count, nil
})

// TestTenThousandFlows makes more flows than there is room for: those that were
// quiet longest make way, and the engine lives.
func TestTenThousandFlows(t *testing.T) {
	g := startGuest(t, guestSetup{Queues: 2}, func(c *Config) { c.Limits.Flows = 4000 })
	port := udpEcho(t, "udp4")
	g.do(guestSources, floodArgs{Address: netip.AddrPortFrom(outside4, port).String(), Count: 10000}, nil)
	// Two loops may look at once whether there is room.
	if s := g.network.Stats(); s.Flows > 4000+2 || s.Flows < 1000 {
		t.Errorf("%+v", s)
	}
	// Another server: the first may have more in its queue than it can hold.
	g.do(guestDatagrams, datagramArgs{Network: "udp4", Address: netip.AddrPortFrom(outside4, udpEcho(t, "udp4")).String(), Sizes: []int{5, 5000}}, nil)
	t.Logf("%+v, resident %d KiB", g.network.Stats(), resident(t))
}

// guestPing sends echo requests and returns how many were answered.
var guestPing = onGuest("ping", func(address string) (string, error) {
	to := netip.MustParseAddr(address)
	family, proto, kind := unix.AF_INET, unix.IPPROTO_ICMP, byte(icmp4Request)
	if to.Is6() {
		family, proto, kind = unix.AF_INET6, unix.IPPROTO_ICMPV6, byte(icmp6Request)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		return "", err
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, proto)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(to, 0))); err != nil {
		return "", err
	}
	for i, size := range []int{0, 56, 3000} {
		m := append([]byte{kind, 0, 0, 0, 0, 0, 0, byte(i)}, bytes.Repeat([]byte{7}, size)...)
		if _, err := unix.Write(fd, m); err != nil {
			return err.Error(), nil
		}
		b := make([]byte, 8192)
		n, err := unix.Read(fd, b)
		if err != nil {
			return err.Error(), nil
		}
		if n != len(m) || b[7] != byte(i) || !bytes.Equal(b[8:n], m[8:]) {
			return fmt.Sprintf("%d bytes came back as %d", len(m), n), nil
		}
	}
	return "answered", nil
})

func TestPing(t *testing.T) {
	g := startGuest(t, guestSetup{}, nil)
	ping := func(to netip.Addr) (said string) {
		t.Helper()
		g.do(guestPing, to.String(), &said)
		return said
	}
	for _, gateway := range []netip.Addr{testGateway4, testGateway6} {
		if said := ping(gateway); said != "answered" {
			t.Errorf("%s: %s", gateway, said)
		}
	}
	// Others are the host's to allow.
	want := "answered"
	if fd, err := g.network.pingSocket(netip.AddrPortFrom(outside4, 0)); err != nil {
		want = "no route to host"
	} else {
		unix.Close(fd)
	}
	if said := ping(outside4); said != want {
		t.Errorf("%s, want %s", said, want)
	}
}

// repeater is a Resolver that repeats.
type repeater struct{}

func (repeater) Query(_ context.Context, message []byte, _ netip.AddrPort) []byte {
	return bytes.Repeat(message, 2)
}

func (repeater) Serve(_ context.Context, conn net.Conn) {
	defer conn.Close()
	b, _ := io.ReadAll(conn)
	_, _ = conn.Write(bytes.Repeat(b, 3))
}

func TestResolver(t *testing.T) {
	g := startGuest(t, guestSetup{}, func(c *Config) { c.Resolver = repeater{} })
	for _, at := range []netip.Addr{testDNS4, testDNS6} {
		for network, times := range map[string]int{"udp": 2, "tcp": 3} {
			for _, size := range []int{3, 1200} {
				var r dialResult
				question := strings.Repeat("q", size)
				g.do(guestDial, dialArgs{Network: network, Address: netip.AddrPortFrom(at, 53).String(), Send: question}, &r)
				if r.Received != strings.Repeat(question, times) {
					t.Errorf("%s %s: %d bytes, errno %d", network, at, len(r.Received), r.Errno)
				}
			}
		}
	}
	var r dialResult
	g.do(guestDial, dialArgs{Network: "tcp", Address: netip.AddrPortFrom(testDNS4, 80).String()}, &r)
	if unix.Errno(r.Errno) != unix.EHOSTUNREACH {
		t.Errorf("port 80 of the resolver: %+v", r)
	}
}

// deaf is a Resolver that does not read.
type deaf struct{ repeater }

func (deaf) Serve(ctx context.Context, conn net.Conn) {
	<-ctx.Done()
	conn.Close()
}

// lockedBuffer is a writer that two goroutines may use.
type lockedBuffer struct {
	mutex sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.Buffer.Write(p)
}

// TestRecords reads the flow log and the capture of a few flows.
func TestRecords(t *testing.T) {
	var lines, packets lockedBuffer
	g := startGuest(t, guestSetup{}, func(c *Config) { c.FlowLog, c.Pcap = &lines, &packets })
	transfer(t, g, "tcp4", transferArgs{Seed: 5, Size: 5000})
	g.do(guestDial, dialArgs{Network: "tcp", Address: "198.51.100.1:80"}, &dialResult{})
	g.do(guestDial, dialArgs{Network: "tcp", Address: netip.AddrPortFrom(outside4, closedPort(t)).String()}, &dialResult{})
	g.network.Close()
	var got []string
	for line := range strings.Lines(lines.String()) {
		var r Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s refused=%q error=%q sent=%d received=%d", r.Direction, r.Proto, r.Dst.Addr(), r.Refused, r.Error, r.Sent, r.Received))
	}
	slices.Sort(got)
	want := []string{
		`out tcp 192.0.2.1 refused="" error="" sent=5000 received=64`,
		`out tcp 192.0.2.1 refused="" error="connection refused" sent=0 received=0`,
		`out tcp 198.51.100.1 refused="not of this test" error="" sent=0 received=0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	checkCapture(t, packets.Bytes())
}

// checkCapture walks over a pcap file.
func checkCapture(t *testing.T, b []byte) {
	t.Helper()
	if len(b) < 24 || binary.NativeEndian.Uint32(b) != 0xa1b23c4d || b[20] != 101 {
		t.Fatalf("no pcap file: %s", hex.EncodeToString(b[:min(len(b), 24)]))
	}
	count := 0
	for b = b[24:]; len(b) >= 16; count++ {
		n := int(binary.NativeEndian.Uint32(b[8:]))
		if len(b) < 16+n || b[16]>>4 != 4 && b[16]>>4 != 6 {
			t.Fatal("a record that is no IP packet")
		}
		b = b[16+n:]
	}
	if len(b) != 0 || count < 10 {
		t.Errorf("%d records, and %d bytes left", count, len(b))
	}
}
