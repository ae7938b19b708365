// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Port is a port of the container that the host listens for.
type Port struct {
	Proto Proto // TCP or UDP
	// Host is where to listen. Port 0 is any free one. 0.0.0.0 is every IPv4
	// address, :: every IPv6 address and no IPv4 one.
	Host netip.AddrPort
	// Guest is the port inside.
	Guest uint16
	// Admit, where set, is asked about each client before a packet reaches the
	// container (for UDP: each new pair of addresses); who is not admitted is reset.
	// It is called on a loop and must not block longer than reading a file of /proc.
	Admit func(local, remote netip.AddrPort) bool
}

// Listener is a port that is bound on the host, and not yet connected to a
// container. Until then clients wait in its backlog.
type Listener struct {
	port Port
	addr netip.AddrPort
	fd   int

	mutex  sync.Mutex
	loop   *loop // after Publish
	slot   int32
	closed bool

	retry timer // after an accept for which there was no descriptor
}

// Listen binds the port. The error is that of bind(2) (EADDRINUSE, EACCES for
// ports that the kernel keeps to root, EADDRNOTAVAIL), wrapped.
//
// Runs in: the host's network namespace, as the user.
func Listen(_ context.Context, port Port) (*Listener, error) {
	fail := func(err error) (*Listener, error) {
		return nil, fmt.Errorf("listen on %s/%s: %w", port.Host, port.Proto, err)
	}
	kind := unix.SOCK_STREAM
	switch port.Proto {
	case TCP:
	case UDP:
		kind = unix.SOCK_DGRAM
	default:
		return fail(errors.New("neither tcp nor udp"))
	}
	port.Host = netip.AddrPortFrom(port.Host.Addr().Unmap(), port.Host.Port())
	family := unix.AF_INET
	if port.Host.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	l := &Listener{port: port, fd: fd}
	if err := l.bind(family); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	return l, nil
}

func (l *Listener) bind(family int) error {
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(l.fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if l.port.Proto == TCP {
		// Connections that linger do not keep the port from its next container.
		if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	} else {
		// Answers come from the address that was asked.
		level, option := unix.SOL_IP, unix.IP_PKTINFO
		if family == unix.AF_INET6 {
			level, option = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
		}
		if err := unix.SetsockoptInt(l.fd, level, option, 1); err != nil {
			return err
		}
		tuneDatagrams(l.fd)
	}
	if err := unix.Bind(l.fd, sockaddr(l.port.Host)); err != nil {
		return err
	}
	if l.port.Proto == TCP {
		if err := unix.Listen(l.fd, 4096); err != nil {
			return err
		}
	}
	name, err := unix.Getsockname(l.fd)
	if err != nil {
		return err
	}
	l.addr = fromSockaddr(name)
	return nil
}

func fromSockaddr(name unix.Sockaddr) netip.AddrPort {
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// Addr is the address that is bound, with its real port.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Port is what was asked for.
func (l *Listener) Port() Port { return l.port }

// Close stops listening. TCP connections that were accepted go on, UDP flows end.
func (l *Listener) Close() error {
	l.mutex.Lock()
	at := l.loop
	l.mutex.Unlock()
	if at == nil || !at.post(func() { l.end(at) }) {
		l.end(nil)
	}
	return nil
}

// end closes the socket, once; at is the loop that runs it.
func (l *Listener) end(at *loop) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	if at != nil && l.loop == at {
		at.timers.remove(&l.retry)
		at.forget(l.slot)
		for _, f := range at.flows {
			if d, ok := f.(*datagramFlow); ok && d.client != nil && d.client.port == l {
				d.close(at, errClosed)
			}
		}
	}
	unix.Close(l.fd)
}

// Publish connects a bound port with the container, until l or the engine is
// closed. The container sees the client's own address, or the gateway's where the
// client is on this host or of the other address family.
func (n *Network) Publish(l *Listener) error {
	at := n.loops[int(n.turn.Add(1))%len(n.loops)]
	if !at.post(func() { at.publish(l) }) {
		return fmt.Errorf("publish %s: %w", l.addr, errClosed)
	}
	return nil
}

func (l *loop) publish(port *Listener) {
	port.mutex.Lock()
	defer port.mutex.Unlock()
	if port.closed || port.loop != nil {
		return
	}
	slot, err := l.watch(port.fd, port)
	if err != nil {
		l.n.debug("publish", "port", port.addr, "err", err)
		return
	}
	port.loop, port.slot = l, slot
	port.retry.expire = func(l *loop) { port.ready(l, unix.EPOLLIN) }
}

// ready accepts clients, or takes their datagrams.
func (l *Listener) ready(at *loop, events uint32) {
	if events&unix.EPOLLERR != 0 {
		_, _ = unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	}
	if l.port.Proto == UDP {
		l.again(at)
		return
	}
	for {
		fd, name, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			l.accepted(at, fd, fromSockaddr(name))
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			at.timers.set(&l.retry, at.now+int64(100*time.Millisecond))
			return
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED:
		default:
			at.n.debug("accept", "port", l.addr, "err", err)
			return
		}
	}
}

// accepted sends a client on to one of the loops.
func (l *Listener) accepted(at *loop, fd int, remote netip.AddrPort) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return
	}
	local := fromSockaddr(name)
	if at.full() || l.port.Admit != nil && !l.port.Admit(local, remote) {
		closeReset(fd)
		return
	}
	tuneStream(fd)
	to := at.n.loops[int(at.n.turn.Add(1))%len(at.n.loops)]
	if to == at {
		at.call(l, fd, local, remote)
	} else if !to.post(func() { to.call(l, fd, local, remote) }) {
		unix.Close(fd)
	}
}

// call begins a connection into the container for a client of a published port.
func (l *loop) call(port *Listener, fd int, local, remote netip.AddrPort) {
	k, ok := l.clientKey(TCP, port.port.Guest, local, remote)
	if !ok || l.halfOpen >= l.n.limits.HalfOpen {
		closeReset(fd)
		return
	}
	f := newTCP(&k)
	f.fd, f.state, f.port, f.writable = fd, calling, port, true
	f.record = l.n.account(&k)
	f.record.in = true
	f.active = l.now
	if !l.adopt(f) {
		return
	}
	f.sendNext++
	f.patience = synPatience
	f.resendAt = l.now + f.patience
	f.emitSYN(l)
	f.arm(l)
}

// closeReset closes a connection so that its other side hears that it was refused.
func closeReset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

// clientKey is how the container sees a client.
func (l *loop) clientKey(proto Proto, guestPort uint16, local, remote netip.AddrPort) (key, bool) {
	c := l.n.at.Load()
	seen := remote.Addr().Unmap()
	guest, gateway := c.Guest4, c.Gateway4
	if seen.Is6() && c.Guest6.IsValid() || !c.Guest4.IsValid() {
		guest, gateway = c.Guest6, c.Gateway6
	}
	if seen.Is6() != guest.Is6() || seen == local.Addr().Unmap() || seen.IsLoopback() || seen.IsLinkLocalUnicast() || seen == guest {
		seen = gateway
	}
	if !guest.IsValid() || !seen.IsValid() {
		return key{}, false
	}
	k := key{guest: guest.As16(), remote: seen.As16(), guestPort: guestPort, remotePort: remote.Port(), proto: uint16(proto)}
	for tries := 0; l.taken(&k); tries++ {
		if tries == 64 {
			return k, false
		}
		k.remotePort = uint16(1024 + rand.IntN(0xffff-1024))
	}
	return k, true
}

// called waits for the container's SYN and ACK.
func (f *tcpFlow) called(l *loop, s *incoming) {
	if s.flags&flagACK == 0 {
		return
	}
	if s.ack != f.sendNext {
		l.reset(&f.key, s)
		return
	}
	switch {
	case s.flags&flagRST != 0:
		f.refusedInside(l)
	case s.flags&flagSYN != 0:
		f.next = s.seq + 1
		f.edge = f.next + 65535
		f.negotiate(l, s.options)
		f.establish(l)
		f.window = uint32(s.window) // not scaled in a SYN
		f.owe(l)
		if f.readable {
			f.pump(l)
		}
	}
}
