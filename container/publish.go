// SPDX-License-Identifier: Apache-2.0

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/slirp"
)

// PublishLocal in place of an address publishes a port on the host's loopback,
// for processes of the same user only.
const PublishLocal = "local"

// Publish is a port of the container that the host is to listen for.
type Publish struct {
	Address string `json:"address,omitempty"` // empty: every one of the host; or PublishLocal
	First   uint16 `json:"first,omitempty"`   // the host's port is one of First to Last;
	Last    uint16 `json:"last,omitempty"`    // zero: any that is free
	Port    uint16 `json:"port"`              // inside
	Proto   string `json:"proto"`             // "tcp" or "udp"
}

// Binding is a port of the host that is bound for a container that runs.
type Binding struct {
	Address string `json:"address"`
	Host    uint16 `json:"host"`
	Port    uint16 `json:"port"`
	Proto   string `json:"proto"`
	Local   bool   `json:"local,omitempty"` // see PublishLocal
}

// ParsePublish reads what -p takes, as Docker does:
// [[address:][host port]:]port[/protocol], where ports may be ranges, an IPv6
// address stands in brackets, and the address may be "local".
func ParsePublish(spec string) ([]Publish, error) {
	rest, proto, err := cutProtocol(spec)
	if err != nil {
		return nil, err
	}
	address, host, inside, err := cutPublish(rest)
	if err != nil {
		return nil, fmt.Errorf("invalid publish specification %q: %w", spec, err)
	}
	if address != "" && address != PublishLocal {
		a, err := netip.ParseAddr(address)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("invalid IP address: %s", address)
		}
		address = a.Unmap().String()
	}
	to, err := slirp.ParsePorts(inside)
	if err != nil {
		return nil, fmt.Errorf("invalid containerPort: %s", inside)
	}
	var from slirp.Ports
	if host != "" && host != "0" {
		if from, err = slirp.ParsePorts(host); err != nil {
			return nil, fmt.Errorf("invalid hostPort: %s", host)
		}
	}
	many := to.Last - to.First
	if from != (slirp.Ports{}) && from.Last-from.First != many && many != 0 {
		return nil, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", inside, host)
	}
	var list []Publish
	for i := uint16(0); ; i++ {
		p := Publish{Address: address, First: from.First, Last: from.Last, Port: to.First + i, Proto: proto}
		if many != 0 && from != (slirp.Ports{}) {
			p.First, p.Last = from.First+i, from.First+i
		}
		list = append(list, p)
		if i == many {
			return list, nil
		}
	}
}

// cutPublish parts a specification without its protocol.
func cutPublish(s string) (address, host, inside string, err error) {
	if strings.HasPrefix(s, "[") {
		end := strings.Index(s, "]:")
		if end < 0 {
			return "", "", "", errors.New("the bracket is not closed, or nothing follows it")
		}
		address, s = s[1:end], s[end+2:]
		if host, inside, ok := strings.Cut(s, ":"); ok && address != "" {
			return address, host, inside, nil
		}
		return "", "", "", errors.New("no port of the container follows the address")
	}
	switch parts := strings.Split(s, ":"); len(parts) {
	case 1:
		return "", "", s, nil
	case 2:
		return "", parts[0], parts[1], nil
	case 3:
		return parts[0], parts[1], parts[2], nil
	}
	return "", "", "", errors.New("too many colons; an IPv6 address stands in brackets")
}

func cutProtocol(s string) (rest, proto string, err error) {
	rest, proto, ok := strings.Cut(s, "/")
	proto = strings.ToLower(proto)
	switch {
	case !ok:
		return rest, "tcp", nil
	case proto == "tcp" || proto == "udp":
		return rest, proto, nil
	case proto == "sctp":
		return "", "", errors.New("invalid proto: sctp cannot be published without privileges")
	}
	return "", "", fmt.Errorf("invalid proto: %s", proto)
}

// ParseExpose reads what --expose takes: port[-port][/protocol].
func ParseExpose(spec string) ([]string, error) {
	rest, proto, err := cutProtocol(spec)
	if err != nil {
		return nil, err
	}
	ports, err := slirp.ParsePorts(rest)
	if err != nil {
		return nil, fmt.Errorf("invalid range format for --expose: %s, error: %w", spec, err)
	}
	var list []string
	for n := int(ports.First); n <= int(ports.Last); n++ {
		list = append(list, strconv.Itoa(n)+"/"+proto)
	}
	return list, nil
}

// publishAll are the exposed ports that nobody has published, each on any free
// port of the host.
func publishAll(exposed []string, given []Publish) ([]Publish, error) {
	var list []Publish
	for _, e := range exposed {
		more, err := ParsePublish(e)
		if err != nil {
			return nil, err
		}
		for _, p := range more {
			if !slices.ContainsFunc(given, func(g Publish) bool { return g.Port == p.Port && g.Proto == p.Proto }) {
				list = append(list, p)
			}
		}
	}
	return list, nil
}

// addresses are where a port is to be listened for.
func (p Publish) addresses() []netip.Addr {
	switch p.Address {
	case "":
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	case PublishLocal:
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	a, err := netip.ParseAddr(p.Address)
	if err != nil {
		return nil
	}
	return []netip.Addr{a}
}

// PortError says that a port of the host cannot be had, in Docker's words.
type PortError struct {
	Address netip.AddrPort
	Proto   string
	Err     error
	Free    uint16 // another port that can be had; 0: none is known
	Port    uint16 // inside
}

func (e *PortError) Error() string {
	why := e.Err.Error()
	var errno unix.Errno
	switch {
	case errors.Is(e.Err, unix.EADDRINUSE):
		why = "port is already allocated"
	case errors.As(e.Err, &errno):
		why = errno.Error()
	}
	return fmt.Sprintf("bind for %s/%s failed: %s", e.Address, e.Proto, why)
}

func (e *PortError) Unwrap() error { return e.Err }

// Hint offers the next port that is free.
func (e *PortError) Hint() string {
	var text string
	if errors.Is(e.Err, unix.EACCES) {
		text = "the kernel keeps ports below " + or(readLine("/proc/sys/net/ipv4/ip_unprivileged_port_start"), "1024") + " for root"
	}
	if e.Free != 0 {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("port %[1]d is free: -p %[1]d:%[2]d", e.Free, e.Port)
		if e.Proto != "tcp" {
			text += "/" + e.Proto
		}
	}
	return text
}

// listeners are ports that are bound for a container.
type listeners struct {
	bound    []*slirp.Listener
	bindings []Binding
}

func (l *listeners) close() {
	for _, b := range l.bound {
		b.Close()
	}
}

// listen binds the ports, all or none.
//
// Runs in: the host's network namespace, as the user.
func listen(ctx context.Context, ports []Publish) (*listeners, error) {
	l := &listeners{}
	// What names its port goes first, so that no other takes it by chance.
	ports = slices.Clone(ports)
	slices.SortStableFunc(ports, func(a, b Publish) int { return cmp.Compare(b.rank(), a.rank()) })
	for _, p := range ports {
		if err := l.add(ctx, p); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (p Publish) rank() int {
	switch {
	case p.First == 0:
		return 0
	case p.First != p.Last:
		return 1
	}
	return 2
}

// maxDraws is how often a port that is free for one address of several may be
// taken for another.
const maxDraws = 16

// add binds one port, on the first of its range that is free on all addresses.
func (l *listeners) add(ctx context.Context, p Publish) error {
	var last error
	tries := maxDraws
	if p.First != 0 {
		tries = int(p.Last-p.First) + 1
	}
	for i := range tries {
		port := uint16(0)
		if p.First != 0 {
			port = p.First + uint16(i)
		}
		bound, err := p.bind(ctx, port)
		if err == nil {
			for _, b := range bound {
				l.bound = append(l.bound, b)
				l.bindings = append(l.bindings, Binding{
					Address: b.Addr().Addr().String(), Host: b.Addr().Port(), Port: p.Port, Proto: p.Proto, Local: p.Address == PublishLocal,
				})
			}
			return nil
		}
		last = err
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	var failed *PortError
	if errors.As(last, &failed) && p.First != 0 {
		failed.Free = p.free(ctx)
	}
	return last
}

// free finds a port to offer in place of one that cannot be had: the next
// hundred, from 8000 on for those that only root may have.
func (p Publish) free(ctx context.Context) uint16 {
	first := int(p.Last) + 1
	if first <= 1024 {
		first = 8000 + int(p.First)
	}
	for port := first; port < min(first+100, 65536); port++ {
		if bound, err := p.bind(ctx, uint16(port)); err == nil {
			for _, b := range bound {
				b.Close()
			}
			return uint16(port)
		}
	}
	return 0
}

// bind binds one port of the host on all addresses; a family that the host does
// not have is left out when the user named none.
func (p Publish) bind(ctx context.Context, port uint16) ([]*slirp.Listener, error) {
	var bound []*slirp.Listener
	addresses := p.addresses()
	for i, a := range addresses {
		at := slirp.Port{Proto: protocol(p.Proto), Host: netip.AddrPortFrom(a, port), Guest: p.Port}
		b, err := slirp.Listen(ctx, at)
		if err != nil {
			if i > 0 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
				continue
			}
			for _, b := range bound {
				b.Close()
			}
			return nil, &PortError{Address: at.Host, Proto: p.Proto, Err: err, Port: p.Port}
		}
		port = b.Addr().Port()
		bound = append(bound, b)
	}
	return bound, nil
}

func protocol(name string) slirp.Proto {
	if name == "udp" {
		return slirp.UDP
	}
	return slirp.TCP
}
