// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"
)

// stream is bytes that both sides can make and check.
func stream(seed uint64, size int64) io.Reader {
	var key [32]byte
	key[0] = byte(seed)
	return io.LimitReader(rand.NewChaCha8(key), size)
}

func sumOf(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

type transferArgs struct {
	Address string
	Seed    uint64
	Size    int64
	Down    bool
	Slow    time.Duration // between the first reads
}

// guestTransfer sends a stream and returns nothing, or reads one and returns its sum.
var guestTransfer = onGuest("transfer", func(a transferArgs) (string, error) {
	c, err := net.Dial("tcp", a.Address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if a.Down {
		return sumOf(slowly(c, a.Slow))
	}
	if _, err := io.Copy(c, stream(a.Seed, a.Size)); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
})

// slowly makes the first 20 reads small and late.
func slowly(r io.Reader, pause time.Duration) io.Reader {
	if pause == 0 {
		return r
	}
	left := 20
	return readerFunc(func(b []byte) (int, error) {
		if left > 0 {
			left--
			time.Sleep(pause)
			b = b[:min(len(b), 1000)]
		}
		return r.Read(b)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// hostServer accepts connections on loopback: it sends a stream to who is silent
// (down), or reads to the end and answers with the sum.
func hostServer(t *testing.T, network string, a transferArgs) (port uint16) {
	t.Helper()
	host := "127.0.0.1:0"
	if network == "tcp6" {
		host = "[::1]:0"
	}
	l, err := net.Listen(network, host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if a.Down {
					_, _ = io.Copy(c, stream(a.Seed, a.Size))
					return
				}
				sum, err := sumOf(slowly(c, a.Slow))
				if err != nil {
					sum = err.Error()
				}
				_, _ = io.WriteString(c, sum)
			}()
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestTransfer(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, down := range []bool{false, true} {
			for _, slow := range []time.Duration{0, 5 * time.Millisecond} {
				t.Run(fmt.Sprintf("%s/down=%v/slow=%v", network, down, slow > 0), func(t *testing.T) {
					g := startGuest(t, guestSetup{}, nil)
					transfer(t, g, network, transferArgs{Seed: 1, Size: 50 << 20, Down: down, Slow: slow})
				})
			}
		}
	}
}

// transfer moves a stream and compares its sum on both sides.
func transfer(t *testing.T, g *guest, network string, a transferArgs) {
	t.Helper()
	to := outside4
	if network == "tcp6" {
		to = outside6
	}
	a.Address = netip.AddrPortFrom(to, hostServer(t, network, a)).String()
	var got string
	g.do(guestTransfer, a, &got)
	want, _ := sumOf(stream(a.Seed, a.Size))
	if got != want {
		t.Errorf("sum %q, want %q; %+v", got, want, g.network.Stats())
	}
}

// TestPacketLink runs the engine over a packet socket, as where there is no tun.
func TestPacketLink(t *testing.T) {
	g := startGuest(t, guestSetup{Kind: Packet}, nil)
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, down := range []bool{false, true} {
			transfer(t, g, network, transferArgs{Seed: 1, Size: 20 << 20, Down: down})
		}
	}
	for network, to := range map[string]netip.Addr{"udp4": outside4, "udp6": outside6} {
		g.do(guestDatagrams, datagramArgs{Network: network, Address: netip.AddrPortFrom(to, udpEcho(t, network)).String(), Sizes: []int{10, 1400, 9000, 60000}}, nil)
	}
	var port int
	g.do(guestServe, "tcp/0.0.0.0:0", &port)
	l := publish(t, g, Port{Proto: TCP, Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: uint16(port)})
	if got, err := clientAsks("tcp", l.Addr().String(), "hi"); got != "10.0.2.2 hi" {
		t.Errorf("%q, %v", got, err)
	}
}
