// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"strings"
)

// networkOfWhom is the ID of the container whose network this one shares, or
// empty.
func (c *Config) networkOfWhom() string {
	id, shares := strings.CutPrefix(c.Network, networkOf)
	if !shares {
		return ""
	}
	return id
}

// shareNetwork settles --network container:NAME for a new container: the name
// becomes an ID, and what belongs to the network is the other container's.
func (h *Home) shareNetwork(c *Config, o *Options) error {
	name := c.networkOfWhom()
	if name == "" {
		return errors.New("invalid network mode: invalid container format container:<name|id>")
	}
	other, err := h.Find(name)
	if err != nil {
		return err
	}
	if err := checkShared(o); err != nil {
		return err
	}
	if err := c.sameIDs(&other.Config, "network"); err != nil {
		return err
	}
	c.Network = networkOf + other.Config.ID
	if other.Config.Network == NetworkHost {
		c.Network = NetworkHost
	}
	if !c.Privileges.HostUTS {
		c.Hostname, c.Domainname = other.Config.Hostname, other.Config.Domainname
	}
	return nil
}

// checkShared refuses, in Docker's words, flags that are for a network of one's own.
func checkShared(o *Options) error {
	n := &o.Networking
	for _, c := range []struct {
		given bool
		what  string
	}{
		{o.Hostname != "", "hostname and the network mode"},
		{len(n.DNS)+len(n.DNSSearch)+len(n.DNSOptions) > 0, "dns and the network mode"},
		{len(n.AddHosts) > 0, "custom host-to-IP mapping and the network mode"},
		{len(n.Ports) > 0 || n.PublishAll, "port publishing and the container type network mode"},
		{len(n.Exposed) > 0, "port exposing and the container type network mode"},
		{n.AllowNet != nil, "--allow-net and the network mode"},
		{len(n.HostLoopback) > 0, "--allow-host-loopback and the network mode"},
		{n.Log != "", "--net-log and the network mode"},
		{n.Capture != "", "--net-pcap and the network mode"},
	} {
		if c.given {
			return &ConflictError{"conflicting options: " + c.what, "give it to the container whose network this is"}
		}
	}
	return nil
}

// noNetwork says that the container has no network to share, for it does not run.
func (c *Container) noNetwork() error {
	return &NetworkError{Text: "cannot join network of a non running container: " + c.Config.Name, Advice: startFirst(c)}
}
