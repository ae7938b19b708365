// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// endpointsDir holds, for each container that is in a network now, a datagram
// socket named by its address, to which the other monitors send packets, and a
// file beside it that says who that is. An address is taken as long as its socket
// lives: there is nothing to clear up after a container that was killed.
const endpointsDir = "ends"

// Member is a container in a network, as the others see it.
type Member struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Aliases  []string   `json:"aliases,omitempty"`
	Address  netip.Addr `json:"address"`
	Address6 netip.Addr `json:"address6,omitzero"`
}

// names are what a member is called by the others, lower case.
func (m *Member) names() []string {
	list := append([]string{m.Name, m.ID[:min(len(m.ID), shortID)]}, m.Aliases...)
	for i := range list {
		list[i] = strings.ToLower(list[i])
	}
	return list
}

// Members lists the containers in the network, by address.
func (n *UserNetwork) Members() ([]Member, error) {
	dir := filepath.Join(n.dir, endpointsDir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list containers of network %s: %w", n.Name, err)
	}
	var list []Member
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), memberSuffix)
		if !ok {
			continue
		}
		var m Member
		if readJSON(filepath.Join(dir, e.Name()), &m) != nil || m.Address.String() != name {
			continue
		}
		fd, err := dialEndpoint(dir, m.Address)
		if err != nil {
			continue
		}
		unix.Close(fd)
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Member) int { return a.Address.Compare(b.Address) })
	return list, nil
}

const memberSuffix = ".json"

// endpointAddress is the socket of an address. The directory is named by a
// descriptor, for a path of it may be longer than the 108 bytes of a socket's
// (unix(7)).
func endpointAddress(dir int, a netip.Addr) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + a.String()}
}

// dialEndpoint connects to the socket of an address; ECONNREFUSED and ENOENT say
// that nobody has it.
func dialEndpoint(dir string, a netip.Addr) (int, error) {
	at, err := open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, endpointAddress(at, a)); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// endpoint is a container's own place in a network, with its socket.
type endpoint struct {
	place  Place
	socket *os.File
	dir    string
}

// join takes an address in a network for a container. The others find it from
// then on, as long as the socket is open.
func (n *UserNetwork) join(c *Config, e Endpoint) (*endpoint, error) {
	fail := func(err error) (*endpoint, error) {
		return nil, fmt.Errorf("join network %s: %w", n.Name, err)
	}
	lock, err := lockDir(n.dir, unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoNetworkError{n.Name}
	}
	if err != nil {
		return fail(err)
	}
	defer unix.Close(lock)
	dir := filepath.Join(n.dir, endpointsDir)
	at, err := open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(at)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fail(os.NewSyscallError("socket", err))
	}
	socket := os.NewFile(uintptr(fd), "endpoint")
	address, err := n.take(fd, at, dir, e.Address)
	if err != nil {
		socket.Close()
		return fail(err)
	}
	m := Member{ID: c.ID, Name: c.Name, Aliases: e.Aliases, Address: address}
	p := Place{
		Network: n.Name, ID: n.ID, Address: netip.PrefixFrom(address, n.Subnet.Bits()), Gateway: n.Gateway, DNS: n.dns(),
		Internal: n.Internal, Aliases: e.Aliases,
	}
	if n.Subnet6.IsValid() {
		m.Address6, err = n.address6(address, e.Address6)
		if err != nil {
			socket.Close()
			return fail(err)
		}
		p.Address6, p.Gateway6, p.DNS6 = netip.PrefixFrom(m.Address6, n.Subnet6.Bits()), n.Gateway6, n.dns6()
	}
	data, err := json.Marshal(m)
	if err == nil {
		err = writeFile(filepath.Join(dir, address.String()+memberSuffix), data)
	}
	if err != nil {
		socket.Close()
		return fail(err)
	}
	return &endpoint{place: p, socket: socket, dir: dir}, nil
}

// leave gives the address up.
func (e *endpoint) leave() {
	e.socket.Close()
	leavePlace(e.dir, e.place)
}

// leavePlace removes what others find a container by. Its socket must be closed.
func leavePlace(dir string, p Place) {
	// Another may have taken the address already, if the socket was closed before.
	if fd, err := dialEndpoint(dir, p.Address.Addr()); err == nil {
		unix.Close(fd)
		return
	}
	removePlace(dir, p)
}

// removePlace removes it from a place that is still ours.
func removePlace(dir string, p Place) {
	name := filepath.Join(dir, p.Address.Addr().String())
	_ = os.Remove(name + memberSuffix)
	_ = os.Remove(name)
}

// take binds the socket to the address that is asked for, or the first that is
// free. The caller holds the network's lock.
func (n *UserNetwork) take(fd, at int, dir, wanted string) (netip.Addr, error) {
	if wanted != "" {
		a, err := netip.ParseAddr(wanted)
		if err != nil || !n.Subnet.Contains(a) || n.isReserved(a) {
			return netip.Addr{}, fmt.Errorf("invalid address %s: it does not belong to containers of subnet %s", wanted, n.Subnet)
		}
		if err := claim(fd, at, dir, a); err != nil {
			if errors.Is(err, unix.EADDRINUSE) {
				err = errors.New("Address already in use")
			}
			return netip.Addr{}, fmt.Errorf("take address %s: %w", a, err)
		}
		return a, nil
	}
	from := n.Subnet
	if n.Range.IsValid() {
		from = n.Range
	}
	for i := range uint32(min(1<<(32-from.Bits()), maxMembers)) {
		a := nth(from.Addr(), i)
		if n.isReserved(a) {
			continue
		}
		err := claim(fd, at, dir, a)
		if err == nil {
			return a, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return netip.Addr{}, err
		}
	}
	return netip.Addr{}, errors.New("no available IPv4 addresses on this network's address pools")
}

const maxMembers = 1 << 16

// isReserved reports whether an address is not for containers.
func (n *UserNetwork) isReserved(a netip.Addr) bool {
	last := nth(n.Subnet.Addr(), 1<<(32-n.Subnet.Bits())-1)
	return a == n.Gateway || a == n.dns() || a == n.Subnet.Addr() || a == last
}

// claim binds the socket to an address that nobody has; a socket whose container
// is gone is in nobody's way.
func claim(fd, at int, dir string, a netip.Addr) error {
	err := unix.Bind(fd, endpointAddress(at, a))
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	other, dialErr := dialEndpoint(dir, a)
	if dialErr == nil {
		unix.Close(other)
		return err
	}
	if !errors.Is(dialErr, unix.ECONNREFUSED) {
		return err
	}
	if err := unix.Unlinkat(at, a.String(), 0); err != nil {
		return err
	}
	return unix.Bind(fd, endpointAddress(at, a))
}

// address6 is the IPv6 address that goes with an IPv4 one.
func (n *UserNetwork) address6(a netip.Addr, wanted string) (netip.Addr, error) {
	if wanted != "" {
		w, err := netip.ParseAddr(wanted)
		if err != nil || !n.Subnet6.Contains(w) {
			return w, fmt.Errorf("invalid address %s: it does not belong to subnet %s", wanted, n.Subnet6)
		}
		return w, nil
	}
	b, first := a.As4(), n.Subnet.Addr().As4()
	var host uint64
	for i := range b {
		host = host<<8 | uint64(b[i]^first[i])
	}
	return nth6(n.Subnet6.Addr(), host), nil
}
