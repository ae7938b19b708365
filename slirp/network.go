// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"errors"
	"net/netip"
)

// Network is a running engine.
type Network struct {
	config Config
}

// Start runs an engine on the device until ctx ends or Close is called. It
// returns at once: packets that came before wait in the device's queue.
//
// Runs in: the host's network namespace, as the user.
func Start(ctx context.Context, config Config) (*Network, error) {
	_ = ctx
	for _, q := range config.Link.Queues {
		q.Close()
	}
	return nil, errors.New("start network: the engine has not landed yet")
}

// Close ends the engine: listeners and flows are closed, connections reset. A tun
// is made persistent before it is closed, because unregistering a device takes
// 10-40 ms; the end of its namespace removes it. It waits for the loops.
func (n *Network) Close() error { return nil }

// Stats may be called at any time.
func (n *Network) Stats() Stats { return Stats{} }

// SetSwitch puts a switch beside the engine, or removes it (nil). A packet that
// is being forwarded may still reach the old one during the call.
func (n *Network) SetSwitch(Switch) {}

// SetAddresses replaces the container's further addresses, beside Config.Guest4
// and Guest6: those it has in user-defined networks. Packets may have them as
// their source.
func (n *Network) SetAddresses([]netip.Addr) {}

// Deliver hands a frame of a Switch to the container. Any goroutine may call it.
// The kernel of the container checks the header; a frame that is too short, or
// whose destination is not one of the container's addresses, is an error.
func (n *Network) Deliver(frame []byte) error { return nil }
