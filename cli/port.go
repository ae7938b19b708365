// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"sbx/container"
)

func portCommand() command {
	return command{
		name: "port", summary: "List port mappings or a specific mapping for the container",
		usage: "CONTAINER [PRIVATE_PORT[/PROTO]]", forms: []string{"sbx container port", "sbx port"}, min: 1, max: 2,
		bind: func() ([]option, action) { return nil, port },
	}
}

// port prints where the host listens for the container's ports.
func port(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := home.Find(operands[0])
	if err != nil {
		return err
	}
	bindings := sortedBindings(ctr)
	if len(operands) == 1 {
		for _, b := range bindings {
			c.print("%d/%s -> %s\n", b.Port, b.Proto, hostSide(b))
		}
		return nil
	}
	number, proto, ok := strings.Cut(operands[1], "/")
	if !ok {
		proto = "tcp"
	}
	if n, err := strconv.ParseUint(number, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("invalid port: %s", operands[1])
	}
	found := false
	for _, b := range bindings {
		if strconv.Itoa(int(b.Port)) == number && b.Proto == proto {
			c.print("%s\n", hostSide(b))
			found = true
		}
	}
	if !found {
		return fmt.Errorf("no public port '%s/%s' published for %s", number, proto, ctr.Config.Name)
	}
	return nil
}

func hostSide(b container.Binding) string {
	return net.JoinHostPort(b.Address, strconv.Itoa(int(b.Host)))
}

// sortedBindings are a container's, in the order that Docker prints them.
func sortedBindings(c *container.Container) []container.Binding {
	list := slices.Clone(c.State.Network.Bindings)
	slices.SortStableFunc(list, func(a, b container.Binding) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port), cmp.Compare(len(a.Address), len(b.Address))*-1)
	})
	return list
}

// portRun are ports in a row that are published alike.
type portRun struct {
	address     string
	host, first int // where they begin
	n           int
	proto       string
}

// portsText writes a container's ports as ps does: those that are published with
// where, and those that are only exposed.
func portsText(c *container.Container) string {
	if !c.State.Status.IsAlive() {
		return ""
	}
	var runs []portRun
	add := func(r portRun) {
		for i := range runs {
			// The host's ports run along, or there are none.
			if o := &runs[i]; o.address == r.address && o.proto == r.proto && o.first+o.n == r.first && (r.host == 0 && o.host == 0 || r.host != 0 && o.host+o.n == r.host) {
				o.n++
				return
			}
		}
		runs = append(runs, r)
	}
	published := map[string]bool{}
	for _, b := range sortedBindings(c) {
		published[fmt.Sprintf("%d/%s", b.Port, b.Proto)] = true
		add(portRun{address: b.Address, host: int(b.Host), first: int(b.Port), n: 1, proto: b.Proto})
	}
	for _, e := range sortedExposed(c) {
		number, proto, _ := strings.Cut(e, "/")
		if n, err := strconv.Atoi(number); err == nil && !published[e] {
			add(portRun{first: n, n: 1, proto: proto})
		}
	}
	var list []string
	for _, r := range runs {
		text := portRange(r.first, r.n) + "/" + r.proto
		if r.host != 0 {
			text = bracketed(r.address) + ":" + portRange(r.host, r.n) + "->" + text
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func sortedExposed(c *container.Container) []string {
	number := func(s string) int {
		text, _, _ := strings.Cut(s, "/")
		n, _ := strconv.Atoi(text)
		return n
	}
	list := slices.Clone(c.Config.Networking.Exposed)
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(cmp.Compare(number(a), number(b)), cmp.Compare(a, b)) })
	return list
}

func portRange(first, n int) string {
	if n == 1 {
		return strconv.Itoa(first)
	}
	return strconv.Itoa(first) + "-" + strconv.Itoa(first+n-1)
}

func bracketed(address string) string {
	if strings.Contains(address, ":") {
		return "[" + address + "]"
	}
	return address
}

// networkNames are the networks that a container is in.
func networkNames(c *container.Container) []string {
	if len(c.Config.Networking.Endpoints) == 0 {
		return []string{c.Config.Network}
	}
	var names []string
	for _, e := range c.Config.Networking.Endpoints {
		names = append(names, e.Network)
	}
	return names
}

// portBindings are the ports that a container was asked to publish, as inspect
// has them under HostConfig.
func portBindings(c *container.Container) map[string][]portRecord {
	m := map[string][]portRecord{}
	for _, p := range c.Config.Networking.Ports {
		key := fmt.Sprintf("%d/%s", p.Port, p.Proto)
		host := ""
		if p.First != 0 {
			host = portRange(int(p.First), int(p.Last-p.First)+1)
		}
		m[key] = append(m[key], portRecord{HostIP: p.Address, HostPort: host})
	}
	return m
}

// newNetworkRecord is a container's network as it is now.
func newNetworkRecord(c *container.Container) networkRecord {
	r := networkRecord{Ports: map[string][]portRecord{}, Networks: map[string]endpointRecord{}}
	if c.State.Status.IsAlive() {
		for _, e := range c.Config.Networking.Exposed {
			r.Ports[e] = nil
		}
	}
	for _, b := range sortedBindings(c) {
		key := fmt.Sprintf("%d/%s", b.Port, b.Proto)
		r.Ports[key] = append(r.Ports[key], portRecord{HostIP: b.Address, HostPort: strconv.Itoa(int(b.Host))})
	}
	for i, p := range c.State.Network.Places {
		e := endpointRecord{
			NetworkID: p.ID, EndpointID: endpointID(c.ID(), or(p.ID, p.Network)), IPAddress: p.Address.Addr().String(), IPPrefixLen: p.Address.Bits(), Gateway: p.Gateway.String(), MacAddress: p.MAC(), Aliases: p.Aliases,
		}
		if p.Address6.IsValid() {
			e.GlobalIPv6Address, e.GlobalIPv6PrefixLen, e.IPv6Gateway = p.Address6.Addr().String(), p.Address6.Bits(), p.Gateway6.String()
		}
		r.Networks[p.Network] = e
		if i == 0 {
			r.IPAddress, r.IPPrefixLen, r.Gateway, r.MacAddress = e.IPAddress, e.IPPrefixLen, e.Gateway, e.MacAddress
			r.GlobalIPv6Address, r.GlobalIPv6PrefixLen, r.IPv6Gateway = e.GlobalIPv6Address, e.GlobalIPv6PrefixLen, e.IPv6Gateway
		}
	}
	alone := c.Config.Network == container.NetworkHost || c.Config.Network == container.NetworkNone
	if len(r.Networks) > 0 || c.State.Status.IsAlive() && !alone {
		return r // one that runs may have left them all
	}
	for _, e := range c.Config.Networking.Endpoints {
		r.Networks[e.Network] = endpointRecord{Aliases: e.Aliases}
	}
	if len(r.Networks) == 0 && !strings.HasPrefix(c.Config.Network, "container:") {
		r.Networks[c.Config.Network] = endpointRecord{}
	}
	return r
}
