// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"sbx/container"
)

// networkFlags are the flags of run and create about the network.
type networkFlags struct {
	network                    []string
	publish, expose            []string
	publishAll                 bool
	addHosts                   []string
	dns, dnsSearch, dnsOptions []string
	aliases                    []string
	ip, ip6                    string
	allowNet                   []string
	hostLoopback               loopbackPorts
	log, capture               string
}

func (f *networkFlags) options() []option {
	network := listFlag(&f.network, "network", "", `Connect a container to a network ("bridge", "none", "host", "container:NAME" or one that you made)`)
	network.alias, network.kind = "net", "network"
	alias := listFlag(&f.aliases, "network-alias", "", "Add network-scoped alias for the container")
	alias.alias = "net-alias"
	dnsOption := listFlag(&f.dnsOptions, "dns-option", "", "Set DNS options")
	dnsOption.alias = "dns-opt"
	return []option{
		listFlag(&f.addHosts, "add-host", "", "Add a custom host-to-IP mapping (host:ip)"),
		{name: "allow-host-loopback", kind: "ports", bare: "all", usage: "Let the container reach this machine's loopback by the gateway's address, or these ports of it", value: &f.hostLoopback},
		listFlag(&f.allowNet, "allow-net", "", "Let the container reach only this (host[:port][,..])"),
		listFlag(&f.dns, "dns", "", "Set custom DNS servers"),
		dnsOption,
		listFlag(&f.dnsSearch, "dns-search", "", "Set custom DNS search domains"),
		listFlag(&f.expose, "expose", "", "Expose a port or a range of ports"),
		textFlag(&f.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)"),
		textFlag(&f.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)"),
		textFlag(&f.log, "net-log", "", "Write a JSON line for each connection to the file"),
		textFlag(&f.capture, "net-pcap", "", "Write all packets to the file, for tcpdump and Wireshark"),
		network,
		alias,
		listFlag(&f.publish, "publish", "p", "Publish a container's port(s) to the host"),
		switchFlag(&f.publishAll, "publish-all", "P", "Publish all exposed ports to random ports"),
	}
}

// loopbackPorts is the value of --allow-host-loopback.
type loopbackPorts []string

func (v *loopbackPorts) Set(s string) error {
	for p := range strings.SplitSeq(s, ",") {
		if p == "" {
			return errors.New("a port is missing")
		}
		*v = append(*v, p)
	}
	return nil
}

// apply reads the values into the options of a container.
func (f *networkFlags) apply(c *client, o *container.Options) error {
	n := &o.Networking
	var err error
	for _, spec := range f.publish {
		ports, err := container.ParsePublish(spec)
		if err != nil {
			return err
		}
		n.Ports = append(n.Ports, ports...)
	}
	for _, spec := range f.expose {
		ports, err := container.ParseExpose(spec)
		if err != nil {
			return err
		}
		n.Exposed = append(n.Exposed, ports...)
	}
	n.PublishAll, n.AddHosts, n.DNS, n.DNSSearch, n.DNSOptions = f.publishAll, f.addHosts, f.dns, f.dnsSearch, f.dnsOptions
	for _, list := range f.allowNet {
		for spec := range strings.SplitSeq(list, ",") {
			n.AllowNet = append(n.AllowNet, strings.TrimSpace(spec))
		}
	}
	n.HostLoopback = f.hostLoopback
	for _, file := range []struct {
		path string
		to   *string
	}{{f.log, &n.Log}, {f.capture, &n.Capture}} {
		if file.path == "" {
			continue
		}
		if *file.to, err = filepath.Abs(file.path); err != nil {
			return err
		}
	}
	if err := f.mode(o); err != nil {
		return err
	}
	if len(n.Ports) > 0 && (o.Network == container.NetworkHost || o.Network == container.NetworkNone) {
		c.notice("WARNING: Published ports are discarded when using %s network mode", o.Network)
	}
	return f.configured(c, n)
}

// mode reads --network. Networks that the user made may be several, each with
// options of its own: name=NET,alias=NAME,ip=ADDRESS.
func (f *networkFlags) mode(o *container.Options) error {
	for _, spec := range f.network {
		name, e, err := parseEndpoint(spec)
		if err != nil {
			return err
		}
		switch {
		case name == "" || name == "default":
			name = container.NetworkBridge
			fallthrough
		case slices.Contains([]string{container.NetworkBridge, container.NetworkNone, container.NetworkHost}, name), strings.HasPrefix(name, "container:"):
			if o.Network != "" && o.Network != name || len(o.Networking.Endpoints) > 0 {
				return fmt.Errorf("conflicting options: network %s cannot be combined with others", name)
			}
			o.Network = name
			continue
		case o.Network != "":
			return fmt.Errorf("conflicting options: network %s cannot be combined with others", o.Network)
		}
		o.Networking.Endpoints = append(o.Networking.Endpoints, e)
	}
	if len(f.aliases) == 0 && f.ip == "" && f.ip6 == "" {
		return nil
	}
	if len(o.Networking.Endpoints) == 0 {
		if len(f.aliases) > 0 {
			return errors.New("network-scoped alias is supported only for containers in user defined networks")
		}
		return errors.New("user specified IP address is supported on user defined networks only")
	}
	first := &o.Networking.Endpoints[0]
	first.Aliases = append(first.Aliases, f.aliases...)
	first.Address, first.Address6 = or(f.ip, first.Address), or(f.ip6, first.Address6)
	return nil
}

// parseEndpoint reads one --network.
func parseEndpoint(spec string) (string, container.Endpoint, error) {
	if !strings.Contains(spec, "=") {
		return spec, container.Endpoint{Network: spec}, nil
	}
	var e container.Endpoint
	for field := range strings.SplitSeq(spec, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch strings.ToLower(key) {
		case "name":
			e.Network = value
		case "alias":
			e.Aliases = append(e.Aliases, value)
		case "ip":
			e.Address = value
		case "ip6":
			e.Address6 = value
		case "mac-address", "link-local-ip", "driver-opt", "gw-priority":
			return "", e, fmt.Errorf("--network option %s: not supported", key)
		default:
			return "", e, fmt.Errorf("invalid field %s in --network %s", key, spec)
		}
	}
	if e.Network == "" {
		return "", e, fmt.Errorf("invalid --network %s: it has no name", spec)
	}
	return e.Network, e, nil
}

// configured fills in what the configuration says: where ports are published that
// name no address, and the range of addresses. The file is read only for that.
func (f *networkFlags) configured(c *client, n *container.Networking) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	n.Range = config.Network.Range
	if config.Publish.Address == "" {
		return nil
	}
	for i := range n.Ports {
		n.Ports[i].Address = or(n.Ports[i].Address, config.Publish.Address)
	}
	return nil
}
