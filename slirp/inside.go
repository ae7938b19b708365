// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxInside are connections to the container's own loopback at once.
const maxInside = 1024

// refusedInside is what happens to a client whose port is open on no address that
// the device leads to: the server may listen on the container's loopback only.
func (f *tcpFlow) refusedInside(l *loop) {
	n := l.n
	if n.config.DialGuest == nil || n.beyond.Add(1) > maxInside {
		if n.config.DialGuest != nil {
			n.beyond.Add(-1)
		}
		f.resetHost()
		f.close(l, unix.ECONNREFUSED)
		return
	}
	fd, port, network := f.fd, f.key.guestPort, "tcp4"
	if f.key.v6() {
		network = "tcp6"
	}
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	f.fd = -1
	f.close(l, nil)
	n.carried.begin()
	n.ended.Go(func() {
		defer n.beyond.Add(-1)
		spoken := sync.OnceFunc(n.carried.end)
		defer spoken()
		n.carry(os.NewFile(uintptr(fd), "client"), network, port, spoken)
	})
}

// carried are the connections that DialGuest carries, as far as the container's side has
// not ended.
type carried struct {
	moved atomic.Uint64 // bytes that clients' sockets took

	mu     sync.Mutex
	count  int
	silent chan struct{} // closed when count becomes 0, where somebody waits
}

func (c *carried) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
}

func (c *carried) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count--; c.count == 0 && c.silent != nil {
		close(c.silent)
		c.silent = nil
	}
}

// silence is closed once there is none.
func (c *carried) silence() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if c.silent == nil {
		c.silent = make(chan struct{})
	}
	return c.silent
}

// carry connects a client with the container's loopback and copies both ways. It calls
// spoken when the client has all that came from inside.
func (n *Network) carry(client *os.File, network string, port uint16, spoken func()) {
	outer, err := net.FileConn(client)
	client.Close()
	if err != nil {
		return
	}
	defer outer.Close()
	reset := func() {
		if t, ok := outer.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
	}
	file, err := n.config.DialGuest(n.ctx, network, port)
	if err != nil {
		n.debug("dial inside", "port", port, "err", err)
		reset()
		return
	}
	inner, err := net.FileConn(file)
	file.Close()
	if err != nil {
		reset()
		return
	}
	defer inner.Close()
	stop := context.AfterFunc(n.ctx, func() {
		outer.Close()
		inner.Close()
	})
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(inner, outer, nil)
	}()
	copyHalf(outer, inner, &n.carried.moved)
	spoken()
	<-done
}

// carriedAtOnce is after how many bytes a copy counts them.
const carriedAtOnce = 64 << 10

// copyHalf copies one direction, counting, and passes its end on.
func copyHalf(to, from net.Conn, moved *atomic.Uint64) {
	var err error
	for err == nil {
		var k int64
		k, err = io.CopyN(to, from, carriedAtOnce)
		if moved != nil {
			moved.Add(uint64(k))
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if c, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = c.CloseWrite()
		return
	}
	to.Close()
	from.Close()
}
