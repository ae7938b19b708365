// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"io"
	"net"
	"os"

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
	n.ended.Go(func() {
		defer n.beyond.Add(-1)
		n.carry(os.NewFile(uintptr(fd), "client"), network, port)
	})
}

// carry connects a client with the container's loopback and copies both ways.
func (n *Network) carry(client *os.File, network string, port uint16) {
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
		copyHalf(inner, outer)
	}()
	copyHalf(outer, inner)
	<-done
}

// copyHalf copies one direction and passes its end on.
func copyHalf(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if c, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = c.CloseWrite()
		return
	}
	to.Close()
	from.Close()
}
