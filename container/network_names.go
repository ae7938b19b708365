// SPDX-License-Identifier: Apache-2.0

package container

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// localNames are the names that a container's resolver answers itself: those of
// --add-host, and the containers on its networks at that moment.
type localNames struct {
	hosts    map[string][]netip.Addr
	networks func() []string // the directories of their endpoints
}

// newLocalNames reads --add-host.
func newLocalNames(n *Networking, first Place, networks func() []string) *localNames {
	l := &localNames{hosts: map[string][]netip.Addr{}, networks: networks}
	for _, h := range n.hostsAt(first) {
		name := strings.ToLower(h.name)
		l.hosts[name] = append(l.hosts[name], h.addr)
	}
	return l
}

// namedAddress is a line of /etc/hosts.
type namedAddress struct {
	name string
	addr netip.Addr
}

// hostsAt are the --add-host entries for a container in a place.
func (n *Networking) hostsAt(first Place) []namedAddress {
	var list []namedAddress
	for _, spec := range n.AddHosts {
		name, address, err := cutHost(spec)
		if err != nil {
			continue
		}
		if address == hostGateway {
			if first.Gateway.IsValid() {
				list = append(list, namedAddress{name, first.Gateway})
			}
			continue
		}
		if a, err := netip.ParseAddr(address); err == nil {
			list = append(list, namedAddress{name, a})
		}
	}
	return list
}

// Addresses returns those of a name, see slirp.Names.
func (l *localNames) Addresses(name string) ([]netip.Addr, bool) {
	if addrs, ok := l.hosts[name]; ok {
		return addrs, true
	}
	var addrs []netip.Addr
	known := false
	l.visit(func(m *Member) bool {
		if slices.Contains(m.names(), name) {
			known = true
			addrs = append(addrs, m.Address)
			if m.Address6.IsValid() {
				addrs = append(addrs, m.Address6)
			}
		}
		return false
	})
	return addrs, known
}

// NameOf returns the name of an address, see slirp.Names.
func (l *localNames) NameOf(addr netip.Addr) string {
	name := ""
	l.visit(func(m *Member) bool {
		if m.Address == addr || m.Address6 == addr && addr.IsValid() {
			name = m.Name
		}
		return name != ""
	})
	return name
}

// visit shows the members of all networks until one is enough.
func (l *localNames) visit(member func(*Member) (enough bool)) {
	for _, dir := range l.networks() {
		n := &UserNetwork{dir: filepath.Dir(dir)}
		members, err := n.Members()
		if err != nil {
			continue
		}
		for i := range members {
			if member(&members[i]) {
				return
			}
		}
	}
}
