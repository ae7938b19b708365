// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"sbx/slirp"
)

// connect puts the container into another network while it runs.
func (w *wire) connect(ctx context.Context, p Place, socket *os.File) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	places := append(slices.Clone(w.state.Places), p)
	if err := w.reconfigure(ctx, p.addresses(guestDevice), changedRoutes(w.state.Places, places)); err != nil {
		return err
	}
	w.beside.plug(switchedPlace{Place: p, dir: endpointsOf(w.home, p.Network), socket: pollable(socket)}, w.deliver)
	w.move(places)
	return nil
}

// disconnect takes the container out of a network while it runs.
func (w *wire) disconnect(ctx context.Context, network string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.state.place(network)
	if !ok {
		return errNoSuchPlace
	}
	places := slices.DeleteFunc(slices.Clone(w.state.Places), func(other Place) bool { return other.Network == network })
	gone := []*netlinkMessage{removeAddress(guestDevice, p.Address)}
	if p.Address6.IsValid() {
		gone = append(gone, removeAddress(guestDevice, p.Address6))
	}
	err := w.reconfigure(ctx, changedRoutes(w.state.Places, places), gone)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	w.beside.unplug(network)
	w.move(places)
	return nil
}

// reconfigure changes the device, step by step. The caller holds mu.
func (w *wire) reconfigure(ctx context.Context, steps ...[]*netlinkMessage) error {
	if w.engine == nil || w.inside == nil {
		return errNotRunning
	}
	return w.inside.do(ctx, func() error { return netlinkCall(guestDevice, slices.Concat(steps...)...) })
}

// move tells the engine and the policy where the container is now. The caller
// holds mu.
func (w *wire) move(places []Place) {
	w.state.Places = places
	w.moveRules()
	w.engine.SetAddresses(w.addresses())
}

func (w *wire) moveRules() {
	var gateways []netip.Addr
	var inside []netip.Prefix
	internal := true
	for _, p := range w.state.Places {
		gateways, inside = append(gateways, p.Gateway), append(inside, p.Address.Masked())
		if p.Address6.IsValid() {
			gateways, inside = append(gateways, p.Gateway6), append(inside, p.Address6.Masked())
		}
		internal = internal && p.Internal
	}
	w.rules.Move(gateways, inside, internal)
}

// addresses are those of the first network, with the others'.
func (w *wire) addresses() slirp.Addresses {
	var a slirp.Addresses
	for i, p := range w.state.Places {
		if i == 0 {
			a.Guest4, a.Gateway4 = p.Address.Addr(), p.Gateway
			a.Guest6, a.Gateway6 = p.Address6.Addr(), p.Gateway6
			continue
		}
		a.Further = append(a.Further, p.Address.Addr())
		if p.Address6.IsValid() {
			a.Further = append(a.Further, p.Address6.Addr())
		}
	}
	return a
}

// wayOut are the gateways of the default routes: those of the first network that
// is not internal.
func wayOut(places []Place) (gateway, gateway6 netip.Addr) {
	for _, p := range places {
		if !p.Internal {
			return p.Gateway, p.Gateway6
		}
	}
	return netip.Addr{}, netip.Addr{}
}

// defaultRoutes are the requests for them.
func defaultRoutes(places []Place) []*netlinkMessage { return changedRoutes(nil, places) }

// changedRoutes are the requests for the default routes of a container that was in
// some networks and is now in others.
func changedRoutes(before, now []Place) []*netlinkMessage {
	var list []*netlinkMessage
	old4, old6 := wayOut(before)
	new4, new6 := wayOut(now)
	for _, way := range [][2]netip.Addr{{old4, new4}, {old6, new6}} {
		switch old, at := way[0], way[1]; {
		case old == at:
		case !at.IsValid():
			list = append(list, removeDefaultRoute(old))
		default:
			list = append(list, addDefaultRoute(at))
		}
	}
	return list
}
