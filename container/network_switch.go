// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sbx/slirp"
)

// netSwitch carries packets between the engines of the containers on a network:
// each sends to the socket of the other's endpoint. A packet travels as the kernel
// of its sender made it, up to 64 KiB for many segments at once, and nobody in
// between looks into it.
//
// Who else could write to an endpoint is the same user: the directory is 0700.
type netSwitch struct {
	moved chan struct{} // holds one: a frame came, or one that waited left
	left  atomic.Bool   // nobody finds us any more

	mu     sync.RWMutex
	places []switchedPlace
	peers  map[netip.Addr]*switchPeer
	closed bool
}

type switchedPlace struct {
	Place
	dir    string   // of the network's endpoints
	socket *os.File // ours
}

// maxPeers bounds how many other containers are remembered at once; maxBehind is
// how many bytes wait for one that does not read.
const (
	maxPeers  = 4096
	maxBehind = 4 << 20
	maxFrame  = 1<<16 + slirp.VnetHeaderSize
)

func newSwitch() *netSwitch {
	return &netSwitch{moved: make(chan struct{}, 1), peers: map[netip.Addr]*switchPeer{}}
}

// plug adds a network; frames that come from there go to deliver until its socket
// is closed.
func (s *netSwitch) plug(p switchedPlace, deliver func([]byte) error) {
	s.mu.Lock()
	s.places = append(s.places, p)
	s.mu.Unlock()
	go func() {
		buf := make([]byte, maxFrame)
		for {
			n, err := p.socket.Read(buf)
			if err != nil {
				return
			}
			if s.handOver(p, buf[:n]) {
				return
			}
			if n > 0 {
				_ = deliver(buf[:n]) // what is no packet for us is dropped
				s.move()
			}
		}
	}()
}

// unplug takes a network away again.
func (s *netSwitch) unplug(network string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest []switchedPlace
	for _, p := range s.places {
		if p.Network != network {
			rest = append(rest, p)
			continue
		}
		p.socket.Close()
		leavePlace(p.dir, p.Place)
		for a, peer := range s.peers {
			if p.has(a) {
				peer.close()
				delete(s.peers, a)
			}
		}
	}
	s.places = rest
}

// close leaves every network.
func (s *netSwitch) close() {
	s.mu.Lock()
	places := s.places
	s.closed = true
	s.mu.Unlock()
	for _, p := range places {
		s.unplug(p.Network)
	}
}

// has reports whether an address is one of the network's containers.
func (p *Place) has(a netip.Addr) bool {
	switch {
	case a.Is4():
		return p.Address.Contains(a) && a != p.Gateway && a != p.DNS
	case p.Address6.IsValid():
		return p.Address6.Contains(a) && a != p.Gateway6 && a != p.DNS6
	}
	return false
}

// Takes reports whether a container has the address, see slirp.Switch. Packets to
// an address that nobody has are the engine's, which refuses them at once.
func (s *netSwitch) Takes(dst netip.Addr) bool {
	s.mu.RLock()
	var at *switchedPlace
	for i := range s.places {
		if s.places[i].has(dst) {
			at = &s.places[i]
			break
		}
	}
	known := at != nil && s.peers[dst] != nil
	s.mu.RUnlock()
	return known || at != nil && s.meet(at, dst)
}

// meet connects to the container that has an address, if there is one.
func (s *netSwitch) meet(at *switchedPlace, dst netip.Addr) bool {
	name := dst
	if dst.Is6() {
		if name = at.memberOf(dst); !name.IsValid() {
			return false
		}
	}
	fd, err := dialEndpoint(at.dir, name)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[dst] != nil || s.closed || len(s.peers) >= maxPeers {
		unix.Close(fd)
		return s.peers[dst] != nil
	}
	s.peers[dst] = &switchPeer{socket: os.NewFile(uintptr(fd), "peer"), moved: s.move}
	return true
}

// memberOf is the IPv4 address, which names the socket, of the member that has an
// IPv6 address.
func (p *switchedPlace) memberOf(a netip.Addr) netip.Addr {
	n := &UserNetwork{dir: filepath.Dir(p.dir)}
	members, _ := n.Members()
	for _, m := range members {
		if m.Address6 == a {
			return m.Address
		}
	}
	return netip.Addr{}
}

// Forward sends a frame to the container that its packet is for, see slirp.Switch.
func (s *netSwitch) Forward(frame []byte) {
	dst, ok := destination(frame)
	if !ok {
		return
	}
	// Who has gone may have a successor at the address.
	for tries := 0; tries < 2 && !s.sendTo(dst, frame); tries++ {
		if !s.Takes(dst) {
			return
		}
	}
}

// sendTo sends a frame to the peer at an address. It reports false when that has
// gone, and forgets it.
func (s *netSwitch) sendTo(dst netip.Addr, frame []byte) bool {
	s.mu.RLock()
	peer := s.peers[dst]
	s.mu.RUnlock()
	if peer == nil {
		return false
	}
	if peer.send(frame) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[dst] == peer {
		peer.close()
		delete(s.peers, dst)
		s.move()
	}
	return false
}

// destination is the address that a frame's packet is for.
func destination(frame []byte) (netip.Addr, bool) {
	if len(frame) < slirp.VnetHeaderSize+20 {
		return netip.Addr{}, false
	}
	packet := frame[slirp.VnetHeaderSize:]
	switch {
	case packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20])), true
	case packet[0]>>4 == 6 && len(packet) >= 40:
		return netip.AddrFrom16([16]byte(packet[24:40])), true
	}
	return netip.Addr{}, false
}

// switchPeer is the way to another container.
type switchPeer struct {
	socket *os.File
	moved  func() // called when nothing waits any more

	mu      sync.Mutex
	waiting [][]byte // what its socket had no room for, in order
	bytes   int
}

// send sends a frame, or keeps a copy until there is room. What is too much is
// dropped, as by any switch. It reports false when the other side has gone.
func (p *switchPeer) send(frame []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes == 0 {
		err := p.try(frame)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
			return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, os.ErrClosed)
		}
	}
	if p.bytes+len(frame) > maxBehind {
		return true
	}
	if p.bytes == 0 {
		go p.drain()
	}
	p.waiting = append(p.waiting, append([]byte(nil), frame...))
	p.bytes += len(frame)
	return true
}

func (p *switchPeer) try(frame []byte) error {
	raw, err := p.socket.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) { sendErr = unix.Send(int(fd), frame, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) }); err != nil {
		return err
	}
	return sendErr
}

// drain writes what waits, as there is room. The frame that is being written
// counts as waiting, so that none overtakes it.
func (p *switchPeer) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.bytes > 0 {
		frame := p.waiting[0]
		p.mu.Unlock()
		_, err := p.socket.Write(frame)
		p.mu.Lock()
		p.waiting = p.waiting[1:]
		p.bytes -= len(frame)
		if err != nil {
			p.waiting, p.bytes = nil, 0
		}
	}
	p.waiting = nil
	p.moved()
}

// isBehind reports whether frames wait.
func (p *switchPeer) isBehind() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes > 0
}

func (p *switchPeer) close() { p.socket.Close() }
