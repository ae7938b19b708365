// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Connect puts the container into a network of the user's, now if it runs, and at
// every start from then on.
func (c *Container) Connect(ctx context.Context, e Endpoint) error {
	fail := func(err error) error {
		return fmt.Errorf("connect container %s to network %s: %w", c.Config.Name, e.Network, err)
	}
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.release()
	config := c.Config
	if !hasEngine(config.Network) {
		return fail(&NetworkError{Text: loneNetwork(config.Network)})
	}
	if isReservedNetwork(e.Network) {
		return fail(reservedNetwork(e.Network))
	}
	network, err := c.home.FindNetwork(e.Network)
	if err != nil {
		return err
	}
	e.Network = network.Name
	isIn := func(o Endpoint) bool { return o.Network == e.Network }
	if slices.ContainsFunc(config.Networking.Endpoints, isIn) {
		return fail(&NetworkError{Text: "endpoint with name " + config.Name + " already exists in network " + e.Network})
	}
	config.Networking.Endpoints = append(slices.Clone(config.Networking.Endpoints), e)
	if len(config.Networking.Endpoints) == 1 {
		config.Network = e.Network // the default network gives way at the next start
	}
	if c.State.Status.IsAlive() {
		end, err := network.join(&config, e)
		if err != nil {
			return fail(err)
		}
		err = c.command(ctx, request{Do: doConnect, Ask: true, Place: &end.place, Files: []string{fileEnd}}, end.socket)
		end.socket.Close()
		if err != nil {
			end.leave()
			return fail(err)
		}
	}
	c.Config = config
	if err := c.saveConfig(); err != nil {
		return fail(err)
	}
	return nil
}

// loneNetwork is why a container in a network mode is in no other network, in
// Docker's words.
func loneNetwork(mode string) string {
	if mode == NetworkNone {
		return "container cannot be connected to multiple networks with one of the networks in private (none) mode"
	}
	return "container sharing network namespace with another container or host cannot be connected to any other network"
}

// reservedNetwork is why nobody is connected to one of the networks that are there
// without being made.
func reservedNetwork(name string) error {
	switch name {
	case NetworkHost:
		return &NetworkError{Text: "container cannot be disconnected from host network or connected to host network"}
	case NetworkBridge, "default":
		return &NetworkError{Text: "the default network is for containers that are in no other", Advice: "every network but an internal one leads outside by itself"}
	}
	return &NetworkError{Text: loneNetwork(NetworkNone)}
}

// Disconnect takes the container out of a network. The default network is left by
// whoever has come into another since the start.
func (c *Container) Disconnect(ctx context.Context, name string) error {
	fail := func(err error) error {
		return fmt.Errorf("disconnect container %s from network %s: %w", c.Config.Name, name, err)
	}
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.release()
	if network, err := c.home.FindNetwork(name); err == nil {
		name = network.Name
	}
	before := len(c.Config.Networking.Endpoints)
	rest := slices.DeleteFunc(slices.Clone(c.Config.Networking.Endpoints), func(e Endpoint) bool { return e.Network == name })
	_, isIn := c.State.Network.place(name)
	switch {
	case name == NetworkBridge && before == 0 && hasEngine(c.Config.Network):
		return fail(&NetworkError{Text: "it is in no other network", Advice: "connect it to another first, or run it with --network none"})
	case name == NetworkHost || c.Config.Network == NetworkHost:
		return fail(reservedNetwork(NetworkHost))
	case len(rest) == before && !(name == NetworkBridge && isIn):
		return fail(&NetworkError{Text: "container " + c.Config.Name + " is not connected to network " + name})
	}
	if c.State.Status.IsAlive() {
		err := c.command(ctx, request{Do: doDisconnect, Ask: true, Name: name})
		if err != nil {
			return fail(err)
		}
	}
	c.Config.Networking.Endpoints = rest
	switch {
	case len(rest) == 0:
		c.Config.Network = NetworkBridge
	case c.Config.Network == name:
		c.Config.Network = rest[0].Network
	}
	if err := c.saveConfig(); err != nil {
		return fail(err)
	}
	return nil
}

// saveConfig writes the changed record. The caller holds the container's lock.
func (c *Container) saveConfig() error {
	return writeJSON(filepath.Join(c.dir, "config.json"), c.Config)
}

// connect and disconnect are the monitor's side.
func (m *monitor) connect(ctx context.Context, r request, given map[string]*os.File) error {
	f := given[fileEnd]
	if f == nil || r.Place == nil {
		return errors.New("connect: no endpoint came")
	}
	delete(given, fileEnd)
	// The program runs before its engine does, and may have told somebody so.
	m.current().awaitNetwork()
	if err := m.wire.connect(ctx, *r.Place, f); err != nil {
		f.Close()
		return err
	}
	return m.setState(func(s *State) { s.Network = m.wire.current() })
}

func (m *monitor) disconnect(ctx context.Context, r request) error {
	m.current().awaitNetwork()
	if err := m.wire.disconnect(ctx, r.Name); err != nil {
		return err
	}
	return m.setState(func(s *State) { s.Network = m.wire.current() })
}

// PruneNetworks removes the networks that no container is in, or would be in at
// its start, and that match; it returns their names.
func (h *Home) PruneNetworks(matches func(*UserNetwork) bool) ([]string, error) {
	list, err := h.Networks()
	if err != nil {
		return nil, err
	}
	containers, err := h.List()
	if err != nil {
		return nil, err
	}
	var removed []string
	var failed error
	for _, n := range list {
		used := slices.ContainsFunc(containers, func(c *Container) bool {
			return slices.ContainsFunc(c.Config.Networking.Endpoints, func(e Endpoint) bool { return e.Network == n.Name })
		})
		if used || !matches(n) {
			continue
		}
		err := h.RemoveNetwork(n)
		var busy *NetworkError
		switch {
		case err == nil:
			removed = append(removed, n.Name)
		case errors.As(err, &busy) && strings.Contains(busy.Text, "active endpoints"):
		default:
			failed = errors.Join(failed, err)
		}
	}
	return removed, failed
}

// RemoveNetworks removes every network, when nothing of the home is to stay.
func (h *Home) RemoveNetworks() error { return os.RemoveAll(h.networksDir()) }
