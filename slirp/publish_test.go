// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guestServe listens and says to each client who it seems to be, and what it said.
var guestServe = onGuest("serve", func(address string) (int, error) {
	network, address, _ := strings.Cut(address, "/")
	if network == "udp" {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			return 0, err
		}
		go func() {
			b := make([]byte, 65536)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(from.String())
				_, _ = c.WriteTo([]byte(host+" "+string(b[:n])), from)
			}
		}()
		return c.LocalAddr().(*net.UDPAddr).Port, nil
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return 0, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				_, _ = fmt.Fprintf(c, "%s %s", host, b)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, nil
})

// clientAsks is a client on the host.
func clientAsks(network, address, say string) (string, error) {
	c, err := net.Dial(network, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, say); err != nil {
		return "", err
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
		b, err := io.ReadAll(c)
		return string(b), err
	}
	b := make([]byte, 65536)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func publish(t *testing.T, g *guest, p Port) *Listener {
	t.Helper()
	l, err := Listen(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := g.network.Publish(l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPublish(t *testing.T) {
	for _, queues := range []int{1, 2} {
		g := startGuest(t, guestSetup{Queues: queues}, nil)
		for _, c := range []struct{ network, host, inside, sees string }{
			{"tcp", "127.0.0.1:0", "0.0.0.0:8080", "10.0.2.2"},
			{"tcp", "[::1]:0", "[::]:8081", "fd00::2"},
			{"udp", "127.0.0.1:0", "0.0.0.0:8080", "10.0.2.2"},
			{"udp", "[::1]:0", "[::]:8081", "fd00::2"},
		} {
			var port int
			g.do(guestServe, c.network+"/"+c.inside, &port)
			proto := TCP
			if c.network == "udp" {
				proto = UDP
			}
			l := publish(t, g, Port{Proto: proto, Host: netip.MustParseAddrPort(c.host), Guest: uint16(port)})
			for i := range 20 {
				say := strings.Repeat("s", 1+i*300)
				got, err := clientAsks(c.network, l.Addr().String(), say)
				if err != nil || got != c.sees+" "+say {
					t.Fatalf("%s %s, %d bytes: %q, %v; %+v", c.network, c.host, len(say), got[:min(len(got), 40)], err, g.network.Stats())
				}
			}
		}
	}
}

// TestPublishBeyond publishes ports that nobody listens to, on the container's
// loopback only, and to clients who are not admitted.
func TestPublishBeyond(t *testing.T) {
	var inside func(port uint16) (*os.File, error)
	g := startGuest(t, guestSetup{}, func(c *Config) {
		c.DialGuest = func(_ context.Context, _ string, port uint16) (*os.File, error) { return inside(port) }
	})
	inside = func(port uint16) (*os.File, error) {
		if port != 9090 {
			return nil, unix.ECONNREFUSED
		}
		// What netlink and namespaces would bring: a stream to a server.
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		server := os.NewFile(uintptr(pair[1]), "server")
		go func() {
			defer server.Close()
			b := make([]byte, 100)
			n, _ := server.Read(b)
			_, _ = server.WriteString("loopback " + string(b[:n]))
		}()
		return os.NewFile(uintptr(pair[0]), "inside"), nil
	}
	local := netip.MustParseAddrPort("127.0.0.1:0")
	l := publish(t, g, Port{Proto: TCP, Host: local, Guest: 9090})
	if got, err := clientAsks("tcp", l.Addr().String(), "hi"); got != "loopback hi" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	l = publish(t, g, Port{Proto: TCP, Host: local, Guest: 9091})
	if got, err := clientAsks("tcp", l.Addr().String(), "hi"); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%q, %v, want a reset", got, err)
	}
	var port int
	g.do(guestServe, "tcp/0.0.0.0:0", &port)
	l = publish(t, g, Port{Proto: TCP, Host: local, Guest: uint16(port), Admit: func(_, remote netip.AddrPort) bool { return !remote.Addr().IsLoopback() }})
	if got, err := clientAsks("tcp", l.Addr().String(), "hi"); err == nil {
		t.Errorf("%q was admitted", got)
	}
}

// TestListen wants bind's own errors.
func TestListen(t *testing.T) {
	l, err := Listen(t.Context(), Port{Proto: TCP, Host: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(t.Context(), Port{Proto: TCP, Host: l.Addr()}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v, want EADDRINUSE", err)
	}
	if _, err := Listen(t.Context(), Port{Proto: UDP, Host: netip.MustParseAddrPort("192.0.2.77:0")}); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("%v, want EADDRNOTAVAIL", err)
	}
}

// pairSwitch joins two containers.
type pairSwitch struct {
	to   *atomic.Pointer[Network]
	dst  netip.Addr
	lost *sync.Map
}

func (s pairSwitch) Takes(dst netip.Addr) bool { return dst == s.dst }

func (s pairSwitch) Forward(frame []byte) {
	if err := s.to.Load().Deliver(frame); err != nil {
		s.lost.Store(err.Error(), true)
	}
}

// guestAddress adds an address to eth0.
var guestAddress = onGuest("address", func(address string) (string, error) {
	return "", runIP("addr", "add", address, "dev", "eth0")
})

// TestSwitch moves a stream from one container to another.
func TestSwitch(t *testing.T) {
	var lost sync.Map
	var guests [2]*guest
	var engines [2]atomic.Pointer[Network]
	at := [2]netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")}
	for i := range guests {
		guests[i] = startGuest(t, guestSetup{Queues: 2}, func(c *Config) {
			c.Switch = pairSwitch{to: &engines[1-i], dst: at[1-i], lost: &lost}
		})
		engines[i].Store(guests[i].network)
		guests[i].do(guestAddress, at[i].String()+"/16", nil)
		guests[i].network.SetAddresses(Addresses{Guest4: testGuest4, Gateway4: testGateway4, Further: []netip.Addr{at[i]}})
	}
	var port int
	guests[1].do(guestServe, "tcp/0.0.0.0:0", &port)
	say := strings.Repeat("0123456789", 3<<10) // a reply that fits into a message
	var r dialResult
	guests[0].do(guestDial, dialArgs{Network: "tcp", Address: netip.AddrPortFrom(at[1], uint16(port)).String(), Send: say}, &r)
	if r.Received != at[0].String()+" "+say {
		t.Errorf("%d bytes, errno %d", len(r.Received), r.Errno)
	}
	lost.Range(func(k, _ any) bool {
		t.Error(k)
		return true
	})
}
