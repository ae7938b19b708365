// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guestSay sends a stream and leaves, as a program does that ends.
var guestSay = onGuest("say", func(a transferArgs) (int64, error) {
	c, err := net.Dial("tcp", a.Address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return io.Copy(c, stream(a.Seed, a.Size))
})

// TestFinish has a container say more than the host takes at once, and end. What it
// said arrives as long as somebody reads; else its end does not look like one.
func TestFinish(t *testing.T) {
	const size = 24 << 20
	for _, queues := range []int{1, 2} {
		for _, reads := range []bool{true, false} {
			g := startGuest(t, guestSetup{Queues: queues}, nil)
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			to := netip.AddrPortFrom(outside4, uint16(l.Addr().(*net.TCPAddr).Port))
			said := g.begin(guestSay, transferArgs{Address: to.String(), Seed: 1, Size: size})
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if !reads {
				if err := g.network.Finish(context.Background(), 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("finished with %v although nobody reads", err)
				}
				g.network.Close()
				if n, err := io.Copy(io.Discard, c); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("%d bytes of %d ended with %v, want a reset", n, size, err)
				}
				continue
			}
			read := make(chan int64, 1)
			go func() {
				n, _ := io.Copy(io.Discard, c)
				read <- n
			}()
			if err := said(nil); err != nil {
				t.Fatal(err)
			}
			if err := g.network.Finish(context.Background(), time.Minute); err != nil {
				t.Error(err)
			}
			g.network.Close()
			if n := <-read; n != size {
				t.Errorf("%d bytes came, of %d", n, size)
			}
		}
	}
}

// TestFinishInside has a server on the container's loopback say more than its client takes
// at once, and end.
func TestFinishInside(t *testing.T) {
	const size = 24 << 20
	for _, reads := range []bool{true, false} {
		inside, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer inside.Close()
		g := startGuest(t, guestSetup{}, func(c *Config) {
			c.DialGuest = func(context.Context, string, uint16) (*os.File, error) {
				c, err := net.Dial("tcp4", inside.Addr().String())
				if err != nil {
					return nil, err
				}
				defer c.Close()
				return c.(*net.TCPConn).File()
			}
		})
		l := publish(t, g, Port{Proto: TCP, Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 9090})
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := inside.Accept()
		if err != nil {
			t.Fatal(err)
		}
		said := make(chan error, 1)
		go func() {
			_, err := io.Copy(server, stream(1, size))
			server.Close()
			said <- err
		}()
		if !reads {
			if err := g.network.Finish(context.Background(), 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("finished with %v although nobody reads", err)
			}
			server.Close()
			<-said
			continue
		}
		read := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(io.Discard, client)
			read <- n
			client.Close()
		}()
		if err := <-said; err != nil {
			t.Fatal(err)
		}
		if err := g.network.Finish(context.Background(), time.Minute); err != nil {
			t.Error(err)
		}
		g.network.Close()
		if n := <-read; n != size {
			t.Errorf("%d bytes came, of %d", n, size)
		}
	}
}
