// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sbx/container"
)

// networkGroup has the commands on networks.
func networkGroup() command {
	return command{name: "network", summary: "Manage networks", commands: []command{
		networkConnectCommand(), networkCreateCommand(), networkDisconnectCommand(), inspectTypeCommand(typeNetwork, "NETWORK", "networks"),
		networkListCommand(), networkPruneCommand(), networkRemoveCommand(),
	}}
}

func networkCreateCommand() command {
	return command{
		name: "create", summary: "Create a network", usage: "[OPTIONS] NETWORK", min: 1, max: 1,
		bind: func() ([]option, action) {
			o := &networkCreateOptions{}
			return o.flags(), o.run
		},
	}
}

type networkCreateOptions struct {
	driver                     string
	labels, options            []string
	subnets, gateways, ranges  []string
	internal, ipv6, attachable bool
	ipamDriver                 string
}

func (o *networkCreateOptions) flags() []option {
	attachable := switchFlag(&o.attachable, "attachable", "", "Enable manual container attachment")
	attachable.hidden = true // every network is
	ipam := textFlag(&o.ipamDriver, "ipam-driver", "", "IP Address Management Driver")
	ipam.hidden = true
	return []option{
		attachable, ipam,
		textFlag(&o.driver, "driver", "d", `Driver to manage the Network (default "bridge")`),
		listFlag(&o.gateways, "gateway", "", "IPv4 or IPv6 Gateway for the master subnet"),
		switchFlag(&o.internal, "internal", "", "Restrict external access to the network"),
		listFlag(&o.ranges, "ip-range", "", "Allocate container ip from a sub-range"),
		switchFlag(&o.ipv6, "ipv6", "", "Enable or disable IPv6 address assignment"),
		listFlag(&o.labels, "label", "", "Set metadata on a network"),
		listFlag(&o.options, "opt", "o", "Set driver specific options"),
		listFlag(&o.subnets, "subnet", "", "Subnet in CIDR format that represents a network segment"),
	}
}

func (o *networkCreateOptions) run(ctx context.Context, c *client, operands []string) error {
	if o.driver != "" && o.driver != "bridge" {
		return &usageError{text: fmt.Sprintf("could not find plugin %s in v1 plugin registry: plugin not found", o.driver), hint: "there is bridge; other drivers take root"}
	}
	set, err := labels(nil, o.labels)
	if err != nil {
		return err
	}
	options, err := labels(nil, o.options)
	if err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	n, err := home.CreateNetwork(container.NetworkOptions{
		Name: operands[0], Subnets: o.subnets, Gateways: o.gateways, Ranges: o.ranges, IPv6: o.ipv6, Internal: o.internal, Labels: set, Options: options,
	})
	if err == nil {
		c.print("%s\n", n.ID)
	}
	return err
}

func networkListCommand() command {
	return command{
		name: "ls", aliases: []string{"list"}, summary: "List networks",
		usage: "[OPTIONS]", forms: []string{"sbx network ls", "sbx network list"},
		bind: func() ([]option, action) {
			o := &networkListOptions{}
			return o.flags(), o.run
		},
	}
}

type networkListOptions struct {
	quiet, noTrunc bool
	format         string
	filter         filters
}

func (o *networkListOptions) flags() []option {
	return []option{
		filterFlag(&o.filter),
		textFlag(&o.format, "format", "", formatUsage),
		switchFlag(&o.noTrunc, "no-trunc", "", "Do not truncate the output"),
		switchFlag(&o.quiet, "quiet", "q", "Only display network IDs"),
	}
}

// networkRow is a network as templates see it, with Docker's fields.
type networkRow struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string
	labels    map[string]string
}

// Label is the value of one label.
func (r networkRow) Label(name string) string { return r.labels[name] }

const networkTable = `{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}`

// builtinNetworks are there without being made. Their IDs are the same everywhere.
func builtinNetworks() []networkRow {
	row := func(name, driver, digit string) networkRow {
		return networkRow{Driver: driver, ID: strings.Repeat(digit, 64), IPv4: "true", IPv6: "false", Internal: "false", Name: name, Scope: "local"}
	}
	return []networkRow{row(container.NetworkBridge, "bridge", "b"), row(container.NetworkHost, "host", "a"), row(container.NetworkNone, "null", "0")}
}

func newNetworkRow(n *container.UserNetwork) networkRow {
	return networkRow{
		CreatedAt: n.Created.Local().Format("2006-01-02 15:04:05.999999999 -0700 MST"), Driver: "bridge", ID: n.ID, IPv4: "true", IPv6: fmt.Sprint(n.Subnet6.IsValid()),
		Internal: fmt.Sprint(n.Internal), Labels: labelText(n.Labels), Name: n.Name, Scope: "local", labels: n.Labels,
	}
}

func (o *networkListOptions) run(ctx context.Context, c *client, _ []string) error {
	if err := o.filter.check("dangling", "driver", "id", "label", "name", "scope", "type"); err != nil {
		return err
	}
	dangling, given, err := o.filter.wantsTrue("dangling")
	if err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	list, err := home.Networks()
	if err != nil {
		return err
	}
	rows := builtinNetworks()
	for _, n := range list {
		if given {
			members, err := n.Members()
			if err != nil {
				return err
			}
			if dangling != (len(members) == 0) {
				continue
			}
		}
		rows = append(rows, newNetworkRow(n))
	}
	rows = slices.DeleteFunc(rows, func(r networkRow) bool {
		builtin := r.CreatedAt == ""
		return given && dangling && builtin || !o.filter.labels(r.labels) ||
			!o.filter.any("driver", func(v string) bool { return r.Driver == v }) ||
			!o.filter.any("id", func(v string) bool { return strings.HasPrefix(r.ID, v) }) ||
			!o.filter.any("name", func(v string) bool { return strings.Contains(r.Name, v) }) ||
			!o.filter.any("scope", func(v string) bool { return r.Scope == v }) ||
			!o.filter.any("type", func(v string) bool { return v == "builtin" && builtin || v == "custom" && !builtin })
	})
	slices.SortFunc(rows, func(a, b networkRow) int { return strings.Compare(a.Name, b.Name) })
	for i := range rows {
		if !o.noTrunc {
			rows[i].ID = rows[i].ID[:12]
		}
	}
	format := o.format
	if o.quiet {
		format = "{{.ID}}"
	}
	header := networkRow{
		CreatedAt: "CREATED AT", Driver: "DRIVER", ID: "NETWORK ID", IPv4: "IPV4", IPv6: "IPV6", Internal: "INTERNAL", Labels: "LABELS", Name: "NAME", Scope: "SCOPE",
	}
	text, err := formatRows(format, networkTable, header, rows)
	c.document(text)
	return err
}

func networkRemoveCommand() command {
	return command{
		name: "rm", aliases: []string{"remove"}, summary: "Remove one or more networks",
		usage: "[OPTIONS] NETWORK [NETWORK...]", forms: []string{"sbx network rm", "sbx network remove"}, min: 1, max: -1,
		bind: func() ([]option, action) {
			force := false
			return []option{switchFlag(&force, "force", "f", "Do not error if the network does not exist")},
				func(ctx context.Context, c *client, operands []string) error {
					return removeNetworks(ctx, c, operands, force)
				}
		},
	}
}

func removeNetworks(ctx context.Context, c *client, names []string, force bool) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	return c.each(names, func(name string) error {
		n, err := home.FindNetwork(name)
		if err == nil {
			err = home.RemoveNetwork(n)
		}
		var missing *container.NoNetworkError
		switch {
		case force && errors.As(err, &missing):
			return nil
		case errors.As(err, &missing) && slices.ContainsFunc(builtinNetworks(), func(r networkRow) bool { return r.Name == name }):
			return fmt.Errorf("%s is a pre-defined network and cannot be removed", name)
		case err == nil:
			c.print("%s\n", name)
		}
		return err
	})
}

func networkPruneCommand() command {
	return command{
		name: "prune", summary: "Remove all unused networks", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &networkPruneOptions{}
			filter := filterFlag(&o.filter)
			filter.short = ""
			return []option{filter, switchFlag(&o.force, "force", "f", "Do not prompt for confirmation")}, o.run
		},
	}
}

type networkPruneOptions struct {
	force  bool
	filter filters
}

func (o *networkPruneOptions) run(ctx context.Context, c *client, _ []string) error {
	if err := o.filter.check("label", "label!", "until"); err != nil {
		return err
	}
	if !o.force && !c.agreed("WARNING! This will remove all custom networks not used by at least one container.") {
		return nil
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	p := &pruned{}
	err = p.networks(home, o.filter)
	c.write(strings.Join(p.sections, ""))
	return err
}

func networkConnectCommand() command {
	return command{
		name: "connect", summary: "Connect a container to a network", usage: "[OPTIONS] NETWORK CONTAINER", min: 2, max: 2,
		bind: func() ([]option, action) {
			e := &container.Endpoint{}
			flags := []option{
				listFlag(&e.Aliases, "alias", "", "Add network-scoped alias for the container"),
				textFlag(&e.Address, "ip", "", `IPv4 address (e.g., "172.30.100.104")`),
				textFlag(&e.Address6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`),
			}
			return flags, func(ctx context.Context, c *client, operands []string) error {
				home, err := c.open(ctx, "")
				if err != nil {
					return err
				}
				ctr, err := home.Find(operands[1])
				if err != nil {
					return err
				}
				e.Network = operands[0]
				return ctr.Connect(ctx, *e)
			}
		},
	}
}

func networkDisconnectCommand() command {
	return command{
		name: "disconnect", summary: "Disconnect a container from a network", usage: "[OPTIONS] NETWORK CONTAINER", min: 2, max: 2,
		bind: func() ([]option, action) {
			force := false
			return []option{switchFlag(&force, "force", "f", "Force the container to disconnect from a network")},
				func(ctx context.Context, c *client, operands []string) error {
					home, err := c.open(ctx, "")
					if err != nil {
						return err
					}
					ctr, err := home.Find(operands[1])
					if err != nil {
						return err
					}
					return ctr.Disconnect(ctx, operands[0])
				}
		},
	}
}

// userNetworkRecord is a network as network inspect prints it, with Docker's fields.
type userNetworkRecord struct {
	Name       string
	ID         string `json:"Id"`
	Created    string
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       ipamRecord
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom configFromRecord
	ConfigOnly bool
	Containers map[string]memberRecord
	Options    map[string]string
	Labels     map[string]string
}

// configFromRecord is the network whose configuration another one has: there is
// none, and Docker says so.
type configFromRecord struct{ Network string }

type ipamRecord struct {
	Driver  string
	Options map[string]string
	Config  []ipamConfigRecord
}

type ipamConfigRecord struct {
	Subnet  string `json:",omitempty"`
	IPRange string `json:",omitempty"`
	Gateway string `json:",omitempty"`
}

type memberRecord struct {
	Name        string
	EndpointID  string
	MacAddress  string
	IPv4Address string
	IPv6Address string
}

// endpointID names a container's place in a network, which has no record of its own.
func endpointID(container, network string) string {
	sum := sha256.Sum256([]byte(container + network))
	return hex.EncodeToString(sum[:])
}

func findNetwork(home *container.Home, name string) (any, error) {
	n, err := home.FindNetwork(name)
	var missing *container.NoNetworkError
	if errors.As(err, &missing) {
		for _, b := range builtinNetworks() {
			if b.Name == name || b.ID == name {
				return &userNetworkRecord{
					Name: b.Name, ID: b.ID, Created: stamp(time.Time{}), Scope: b.Scope, Driver: b.Driver, EnableIPv4: true, IPAM: ipamRecord{Driver: "default", Config: []ipamConfigRecord{}},
					Containers: map[string]memberRecord{}, Options: map[string]string{}, Labels: map[string]string{},
				}, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return newUserNetworkRecord(n)
}

func newUserNetworkRecord(n *container.UserNetwork) (*userNetworkRecord, error) {
	members, err := n.Members()
	if err != nil {
		return nil, err
	}
	r := &userNetworkRecord{
		Name: n.Name, ID: n.ID, Created: stamp(n.Created), Scope: "local", Driver: "bridge", EnableIPv4: true, EnableIPv6: n.Subnet6.IsValid(),
		IPAM:     ipamRecord{Driver: "default", Config: []ipamConfigRecord{{Subnet: n.Subnet.String(), Gateway: n.Gateway.String()}}},
		Internal: n.Internal, Containers: map[string]memberRecord{}, Options: n.Options, Labels: n.Labels,
	}
	if n.Range.IsValid() {
		r.IPAM.Config[0].IPRange = n.Range.String()
	}
	if n.Subnet6.IsValid() {
		r.IPAM.Config = append(r.IPAM.Config, ipamConfigRecord{Subnet: n.Subnet6.String(), Gateway: n.Gateway6.String()})
	}
	if r.Options == nil {
		r.Options = map[string]string{}
	}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	for _, m := range members {
		at := container.Place{Address: netip.PrefixFrom(m.Address, n.Subnet.Bits())}
		e := memberRecord{Name: m.Name, EndpointID: endpointID(m.ID, n.ID), IPv4Address: at.Address.String(), MacAddress: at.MAC()}
		if m.Address6.IsValid() {
			e.IPv6Address = netip.PrefixFrom(m.Address6, n.Subnet6.Bits()).String()
		}
		r.Containers[m.ID] = e
	}
	return r, nil
}
