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
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// UserNetwork is a network of the user's own: its containers reach each other by
// address and by name. It is stored as config.json in a directory of its name,
// beside the endpoints of the containers that are in it now.
type UserNetwork struct {
	Name     string            `json:"name"`
	ID       string            `json:"id"`
	Created  time.Time         `json:"created"`
	Subnet   netip.Prefix      `json:"subnet"`
	Range    netip.Prefix      `json:"range,omitzero"` // what of it containers get, if not all
	Gateway  netip.Addr        `json:"gateway"`
	Subnet6  netip.Prefix      `json:"subnet6,omitzero"`
	Gateway6 netip.Addr        `json:"gateway6,omitzero"`
	Internal bool              `json:"internal,omitempty"` // no way to the outside
	Labels   map[string]string `json:"labels,omitempty"`
	Options  map[string]string `json:"options,omitempty"` // kept, and without effect

	dir string
}

// NetworkOptions are what network create takes.
type NetworkOptions struct {
	Name           string
	Subnets        []string // an IPv4 and an IPv6 prefix at most; empty: a free one
	Gateways       []string
	Ranges         []string // the part of the IPv4 prefix that containers get addresses of
	IPv6, Internal bool
	Labels         map[string]string
	Options        map[string]string
}

// NetworkError says that something cannot be done with a network, with what helps.
type NetworkError struct{ Text, Advice string }

func (e *NetworkError) Error() string { return e.Text }

// Hint says what helps.
func (e *NetworkError) Hint() string { return e.Advice }

// NoNetworkError says that there is no network of a name.
type NoNetworkError struct{ Name string }

func (e *NoNetworkError) Error() string { return "network " + e.Name + " not found" }

// Hint says how to make it.
func (e *NoNetworkError) Hint() string {
	return "list them with: sbx network ls; make it with: sbx network create " + e.Name
}

// networksDir is where the user's networks are.
func (h *Home) networksDir() string { return filepath.Join(filepath.Dir(h.dir), "networks") }

// CreateNetwork makes a network. Nothing of the host is changed by that: a network
// is what the monitors of its containers make of it.
func (h *Home) CreateNetwork(o NetworkOptions) (*UserNetwork, error) {
	if !validName(o.Name) && (len(o.Name) != 1 || !validName(o.Name+"0")) {
		return nil, fmt.Errorf("invalid network name: %q: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed", o.Name)
	}
	if isReservedNetwork(o.Name) {
		return nil, &NetworkError{Text: fmt.Sprintf("operation is not permitted on predefined %s network", o.Name)}
	}
	dir := h.networksDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create network: %w", err)
	}
	lock, err := lockDir(dir, unix.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("create network: %w", err)
	}
	defer unix.Close(lock)
	others, err := h.Networks()
	if err != nil {
		return nil, err
	}
	n := &UserNetwork{Name: o.Name, ID: newID(), Created: time.Now().UTC(), Internal: o.Internal, Labels: o.Labels, Options: o.Options}
	if slices.ContainsFunc(others, func(u *UserNetwork) bool { return u.Name == o.Name }) {
		return nil, &NetworkError{Text: "network with name " + o.Name + " already exists", Advice: "remove it (sbx network rm " + o.Name + ") or choose another name"}
	}
	if err := n.address(o, others); err != nil {
		return nil, err
	}
	data, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	making := filepath.Join(dir, makingPrefix+n.ID)
	n.dir = filepath.Join(dir, n.Name)
	err = errors.Join(os.Mkdir(making, 0o700), os.Mkdir(filepath.Join(making, endpointsDir), 0o700))
	if err == nil {
		err = writeFile(making+"/config.json", data)
	}
	if err == nil {
		err = os.Rename(making, n.dir)
	}
	if err != nil {
		_ = os.RemoveAll(making)
		return nil, fmt.Errorf("create network: %w", err)
	}
	return n, nil
}

// isReservedNetwork reports whether a name is a mode, and so no network's.
func isReservedNetwork(name string) bool {
	switch name {
	case NetworkBridge, NetworkNone, NetworkHost, "default", "container":
		return true
	}
	return strings.HasPrefix(name, networkOf)
}

// address settles the subnets: those that the user asks for, or free ones.
func (n *UserNetwork) address(o NetworkOptions, others []*UserNetwork) error {
	for _, s := range o.Subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("invalid subnet %s: not a prefix such as 172.28.0.0/16", s)
		}
		if p != p.Masked() {
			return fmt.Errorf("invalid subnet %s: it should be %s", p, p.Masked())
		}
		at := &n.Subnet
		most := 29
		if p.Addr().Is6() {
			at, most = &n.Subnet6, 112
		}
		if at.IsValid() || p.Bits() > most || p.Bits() < 8 {
			return fmt.Errorf("invalid subnet %s: want one of each family, of 8 to %d bits", p, most)
		}
		*at = p
	}
	host := hostRoutes()
	used := func(p netip.Prefix) string {
		for _, u := range others {
			if u.Subnet.Overlaps(p) || u.Subnet6.IsValid() && u.Subnet6.Overlaps(p) {
				return "network " + u.Name
			}
		}
		if host.overlap(p) {
			return "a route of this machine"
		}
		return ""
	}
	for _, p := range []netip.Prefix{n.Subnet, n.Subnet6} {
		if !p.IsValid() {
			continue
		}
		if by := used(p); by != "" {
			return &NetworkError{Text: fmt.Sprintf("invalid pool request: Pool overlaps with other one on this address space: %s is %s's", p, by), Advice: "choose another --subnet, or none"}
		}
	}
	if !n.Subnet.IsValid() {
		if n.Subnet = freeSubnet(used); !n.Subnet.IsValid() {
			return &NetworkError{Text: "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network", Advice: "name one with --subnet"}
		}
	}
	if o.IPv6 && !n.Subnet6.IsValid() {
		id := netip.AddrFrom16([16]byte{0xfd, n.ID[0], n.ID[1], n.ID[2], n.ID[3], n.ID[4]})
		n.Subnet6 = netip.PrefixFrom(id, 64)
	}
	if err := n.narrow(o.Ranges); err != nil {
		return err
	}
	n.Gateway = nth(n.Subnet.Addr(), 1)
	if n.Subnet6.IsValid() {
		n.Gateway6 = nth6(n.Subnet6.Addr(), 1)
	}
	for _, s := range o.Gateways {
		a, err := netip.ParseAddr(s)
		switch {
		case err == nil && n.Subnet.Contains(a):
			n.Gateway = a
		case err == nil && n.Subnet6.IsValid() && n.Subnet6.Contains(a):
			n.Gateway6 = a
		default:
			return fmt.Errorf("no matching subnet for gateway %s", s)
		}
	}
	return nil
}

// narrow reads --ip-range.
func (n *UserNetwork) narrow(ranges []string) error {
	for _, s := range ranges {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return fmt.Errorf("invalid range %s: not a prefix such as 172.28.5.0/24", s)
		case p.Addr().Is6():
			return fmt.Errorf("invalid range %s: IPv6 addresses go with the IPv4 ones, and have no range of their own", s)
		case n.Range.IsValid():
			return fmt.Errorf("invalid range %s: %s was given already", s, n.Range)
		case p.Bits() < n.Subnet.Bits() || !n.Subnet.Contains(p.Addr()):
			return fmt.Errorf("no matching subnet for range %s", s)
		}
		n.Range = p.Masked()
	}
	return nil
}

// freeSubnet is the first of Docker's pools that nobody uses.
func freeSubnet(used func(netip.Prefix) string) netip.Prefix {
	for b := byte(18); b < 32; b++ {
		if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, b}), 16); used(p) == "" {
			return p
		}
	}
	for b := 0; b < 256; b += 16 {
		if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(b)}), 20); used(p) == "" {
			return p
		}
	}
	return netip.Prefix{}
}

// dns is the address for names in the network: the last but one, which no
// container gets.
func (n *UserNetwork) dns() netip.Addr { return nth(n.Subnet.Addr(), 1<<(32-n.Subnet.Bits())-2) }

func (n *UserNetwork) dns6() netip.Addr {
	if !n.Subnet6.IsValid() {
		return netip.Addr{}
	}
	return nth6(n.Subnet6.Addr(), 0xfffe)
}

// Networks lists the user's networks by name.
func (h *Home) Networks() ([]*UserNetwork, error) {
	entries, err := os.ReadDir(h.networksDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	var list []*UserNetwork
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		n, err := h.network(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

func (h *Home) network(name string) (*UserNetwork, error) {
	n := &UserNetwork{dir: filepath.Join(h.networksDir(), name)}
	if err := readJSON(filepath.Join(n.dir, "config.json"), n); err != nil {
		return nil, err
	}
	if n.Name != name || !n.Subnet.IsValid() {
		return nil, fmt.Errorf("read network %s: its record says %q", name, n.Name)
	}
	return n, nil
}

// FindNetwork returns the network of a name, an ID or the beginning of one. The
// error is a *NoNetworkError when there is none.
func (h *Home) FindNetwork(name string) (*UserNetwork, error) {
	list, err := h.Networks()
	if err != nil {
		return nil, err
	}
	var found *UserNetwork
	for _, n := range list {
		if n.Name == name || n.ID == name {
			return n, nil
		}
		if name != "" && strings.HasPrefix(n.ID, name) {
			if found != nil {
				return nil, &NetworkError{Text: "several networks have an ID that begins with " + name, Advice: "give more of its digits, or its name"}
			}
			found = n
		}
	}
	if found == nil {
		return nil, &NoNetworkError{name}
	}
	return found, nil
}

// RemoveNetwork removes a network that no container is in.
func (h *Home) RemoveNetwork(n *UserNetwork) error {
	lock, err := lockDir(n.dir, unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return &NoNetworkError{n.Name}
	}
	if err != nil {
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	defer unix.Close(lock)
	members, err := n.Members()
	if err != nil {
		return err
	}
	if len(members) > 0 {
		var names []string
		for _, m := range members {
			names = append(names, m.Name)
		}
		return &NetworkError{
			Text:   fmt.Sprintf("error while removing network: network %s has active endpoints (%s)", n.Name, strings.Join(names, ", ")),
			Advice: "stop these containers, or disconnect them: sbx network disconnect " + n.Name + " " + names[0],
		}
	}
	trash := filepath.Join(h.networksDir(), trashPrefix+n.ID)
	if err := os.Rename(n.dir, trash); err != nil {
		return fmt.Errorf("remove network %s: %w", n.Name, err)
	}
	return os.RemoveAll(trash)
}
