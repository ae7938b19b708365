// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"sbx/slirp"
)

// Network modes. Any other is the name of a user-defined network, or
// "container:" with a name or ID.
const (
	NetworkBridge = "bridge" // an own network namespace with an engine beside it
	NetworkNone   = "none"   // a network namespace of its own with loopback up
	NetworkHost   = "host"   // the host's

	networkOf = "container:" // the prefix of another container's; its ID follows in a record
)

// Networking is what the flags of run and create say about the network.
type Networking struct {
	Ports      []Publish  `json:"ports,omitempty"`
	Exposed    []string   `json:"exposed,omitempty"` // "80/tcp"; the image's and --expose
	PublishAll bool       `json:"publishAll,omitempty"`
	Endpoints  []Endpoint `json:"endpoints,omitempty"` // of user-defined networks; the first has the default route
	AddHosts   []string   `json:"addHosts,omitempty"`  // NAME:ADDRESS, where ADDRESS may be "host-gateway"
	DNS        []string   `json:"dns,omitempty"`
	DNSSearch  []string   `json:"dnsSearch,omitempty"`
	DNSOptions []string   `json:"dnsOptions,omitempty"`
	// AllowNet are the only destinations, as slirp.ParseRule reads them; nil: all.
	AllowNet []string `json:"allowNet"`
	// HostLoopback are the ports of the host's loopback that the gateway leads to;
	// "all" is every one.
	HostLoopback []string `json:"hostLoopback,omitempty"`
	Log          string   `json:"log,omitempty"`  // a file for one JSON line per flow
	Capture      string   `json:"pcap,omitempty"` // a file for all packets
	Range        string   `json:"range,omitempty"`
}

// Endpoint is a container's place in a user-defined network.
type Endpoint struct {
	Network  string   `json:"network"` // its name
	Aliases  []string `json:"aliases,omitempty"`
	Address  string   `json:"address,omitempty"` // asked for; or any that is free
	Address6 string   `json:"address6,omitempty"`
}

// allPorts in HostLoopback is every port.
const allPorts = "all"

// hostGateway in an --add-host is the address at which the host's loopback is
// reached from inside.
const hostGateway = "host-gateway"

// check settles what the flags say: what does not parse is refused before
// anything is made.
func (n *Networking) check(mode string) error {
	if _, err := n.rules(); err != nil {
		return err
	}
	for _, spec := range n.AddHosts {
		if _, _, err := cutHost(spec); err != nil {
			return err
		}
	}
	for _, s := range n.DNS {
		if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
			return fmt.Errorf("%s is not an ip address", s)
		}
	}
	for _, file := range []string{n.Log, n.Capture} {
		if file != "" && !filepath.IsAbs(file) {
			return fmt.Errorf("open %s: not an absolute path", file)
		}
	}
	if mode == NetworkHost || mode == NetworkNone || strings.HasPrefix(mode, networkOf) {
		return n.checkWithout(mode)
	}
	return nil
}

// checkWithout refuses what is not there without a network of the container's own:
// a policy that nobody would enforce, above all.
func (n *Networking) checkWithout(mode string) error {
	if mode != NetworkNone && n.AllowNet != nil {
		return fmt.Errorf("--allow-net cannot be enforced with --network %s", mode)
	}
	return nil
}

// rules are the policy of the flags, without addresses.
func (n *Networking) rules() (*slirp.Rules, error) {
	r := &slirp.Rules{Watch: n.Log != ""}
	if n.AllowNet != nil {
		r.Only = []slirp.Rule{}
	}
	for _, spec := range n.AllowNet {
		rule, err := slirp.ParseRule(spec)
		if err != nil {
			return nil, fmt.Errorf("--allow-net: %w", err)
		}
		r.Only = append(r.Only, rule)
	}
	for _, spec := range n.HostLoopback {
		if spec == allPorts {
			r.Loopback = append(r.Loopback, slirp.Ports{})
			continue
		}
		ports, err := slirp.ParsePorts(spec)
		if err != nil {
			return nil, fmt.Errorf("--allow-host-loopback: %w", err)
		}
		r.Loopback = append(r.Loopback, ports)
	}
	// host-gateway is Docker's own way to ask for the host's services.
	if len(r.Loopback) == 0 && slices.ContainsFunc(n.AddHosts, func(s string) bool { return strings.HasSuffix(s, hostGateway) }) {
		r.Loopback = []slirp.Ports{{}}
	}
	return r, nil
}

// cutHost parts NAME:ADDRESS, or NAME=ADDRESS as newer Dockers have it.
func cutHost(spec string) (name, address string, err error) {
	i := strings.IndexAny(spec, ":=")
	if i <= 0 {
		return "", "", fmt.Errorf("bad format for add-host: %q", spec)
	}
	name, address = spec[:i], spec[i+1:]
	if address == hostGateway {
		return name, address, nil
	}
	address = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	if _, err := netip.ParseAddr(address); err != nil {
		return "", "", fmt.Errorf("invalid IP address in add-host: %q", address)
	}
	return name, address, nil
}

// hasEngine reports whether a network mode has an engine of the container's own.
func hasEngine(mode string) bool {
	return mode != NetworkNone && mode != NetworkHost && !strings.HasPrefix(mode, networkOf)
}

// NetworkState is what a container's network is while it runs.
type NetworkState struct {
	Places   []Place   `json:"places,omitempty"` // the first has the default route
	Bindings []Binding `json:"bindings,omitempty"`
	Packet   bool      `json:"packet,omitempty"` // a veth pair in place of a tun
	Queues   int       `json:"queues,omitempty"` // of a tun
}

// Place is where a container is in a network.
type Place struct {
	Network  string       `json:"network"`      // NetworkBridge, or the name
	ID       string       `json:"id,omitempty"` // of a user-defined network
	Address  netip.Prefix `json:"address"`
	Gateway  netip.Addr   `json:"gateway"`
	DNS      netip.Addr   `json:"dns"`
	Address6 netip.Prefix `json:"address6,omitzero"`
	Gateway6 netip.Addr   `json:"gateway6,omitzero"`
	DNS6     netip.Addr   `json:"dns6,omitzero"`
	Internal bool         `json:"internal,omitempty"`
	Aliases  []string     `json:"aliases,omitempty"`
}

// MAC is the address that a device would have on an Ethernet; a tun has none.
func (p Place) MAC() string {
	a := p.Address.Addr().As4()
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3]) // as Docker forms them
}
