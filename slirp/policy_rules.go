// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Rules is the Policy of containers. The zero Rules lets out what a container may
// reach by default: everything but this machine's loopback, the link and the
// metadata services of clouds. Its fields must not be changed once it is in use;
// Move is for that.
type Rules struct {
	// Gateways are the addresses inside that stand for this machine's loopback.
	Gateways []netip.Addr
	// Inside are the networks that the container's addresses are of. Nothing of
	// them is on the outside, whatever the host routes.
	Inside []netip.Prefix
	// Loopback is which ports of the host's loopback the gateways lead to. None:
	// they lead nowhere.
	Loopback []Ports
	// Only are the destinations allowed, nil being all. A rule that names an
	// address opens it even if it is refused by default, loopback excepted.
	Only []Rule
	// Closed refuses everything: a network without an outside.
	Closed bool
	// Watch remembers the names of addresses although no rule needs them: for the log.
	Watch bool

	moved   atomic.Pointer[surroundings]
	mu      sync.Mutex
	learned map[netip.Addr]lesson
}

// surroundings are what changes when a container enters or leaves a network.
type surroundings struct {
	gateways []netip.Addr
	inside   []netip.Prefix
	closed   bool
}

// Move replaces Gateways, Inside and Closed of rules that are in use.
func (p *Rules) Move(gateways []netip.Addr, inside []netip.Prefix, closed bool) {
	p.moved.Store(&surroundings{gateways, inside, closed})
}

func (p *Rules) around() surroundings {
	if m := p.moved.Load(); m != nil {
		return *m
	}
	return surroundings{p.Gateways, p.Inside, p.Closed}
}

// lesson is an address that a name of a rule has had.
type lesson struct {
	name  string
	until time.Time
}

// Bounds of what is remembered of names.
const (
	maxLessons = 4096
	minLesson  = 10 * time.Minute // programs keep addresses longer than their TTL
	maxLesson  = 24 * time.Hour
)

// Decide lets a flow out, or says why not. The gateways are rewritten to the
// host's loopback where that is open; every other address stands for itself.
func (p *Rules) Decide(flow Flow) Verdict {
	dst, name := flow.Dst, ""
	addr := dst.Addr()
	refused := func(why string) Verdict { return Verdict{Reason: why} }
	if addr.Zone() != "" || !addr.IsValid() {
		return refused("no address of another host")
	}
	around := p.around()
	for _, g := range around.gateways {
		if addr == g {
			return p.loopback(dst)
		}
	}
	if around.closed {
		return refused("the network is internal")
	}
	for _, in := range around.inside {
		if in.Contains(addr) {
			return refused("nobody has this address in the container's network")
		}
	}
	if why := neverReached(addr); why != "" {
		return refused(why)
	}
	rule := byAll
	if p.Only != nil || p.Watch {
		rule, name = p.match(dst)
	}
	switch why := byDefault(addr); {
	case rule == byNone:
		return Verdict{Reason: "--allow-net does not name it", Name: name}
	case why != "" && rule != byAddress:
		return Verdict{Reason: why, Name: name}
	}
	return Verdict{Allow: true, Name: name}
}

// loopback is the verdict on a flow to a gateway.
func (p *Rules) loopback(dst netip.AddrPort) Verdict {
	for _, r := range p.Loopback {
		if r.Contains(dst.Port()) {
			to := netip.AddrFrom4([4]byte{127, 0, 0, 1})
			if dst.Addr().Is6() {
				to = netip.IPv6Loopback()
			}
			return Verdict{Allow: true, To: netip.AddrPortFrom(to, dst.Port())}
		}
	}
	return Verdict{Reason: "the host's loopback is closed"}
}

// What opens a destination.
const (
	byNone    = iota
	byAll     // there are no rules
	byAddress // a rule names its address
	byName    // a rule names a name that has its address
)

// match holds a destination against the rules, and finds its name.
func (p *Rules) match(dst netip.AddrPort) (rule int, name string) {
	p.mu.Lock()
	l, ok := p.learned[dst.Addr()]
	p.mu.Unlock()
	if ok && time.Now().Before(l.until) {
		name = l.name
	}
	if p.Only == nil {
		return byAll, name
	}
	for _, r := range p.Only {
		if r.Prefix.IsValid() && r.Prefix.Contains(dst.Addr()) && r.Ports.Contains(dst.Port()) {
			return byAddress, name
		}
	}
	for _, r := range p.Only {
		if name != "" && r.matchesName(name) && r.Ports.Contains(dst.Port()) {
			return byName, name
		}
	}
	return byNone, name
}

// PermitsName reports whether a name may be looked up outside.
func (p *Rules) PermitsName(name string) bool {
	if p.around().closed {
		return false
	}
	if p.Only == nil {
		return true
	}
	name = foldName(name)
	for _, r := range p.Only {
		if r.matchesName(name) {
			return true
		}
	}
	return false
}

// Learn remembers that a name has an address, so that rules of names hold for
// what programs then connect to. Names without a rule are not remembered, or, where
// there are no rules, only to Watch. Of too many addresses the ones that end first
// are forgotten.
func (p *Rules) Learn(name string, addr netip.Addr, ttl time.Duration) {
	if p.Only == nil && !p.Watch || !p.PermitsName(name) {
		return
	}
	now := time.Now()
	l := lesson{foldName(name), now.Add(min(max(ttl, minLesson), maxLesson))}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.learned == nil {
		p.learned = map[netip.Addr]lesson{}
	}
	if _, known := p.learned[addr]; !known && len(p.learned) >= maxLessons {
		p.forget(now)
	}
	p.learned[addr] = l
}

// forget makes room: what is over goes, or else what is over first.
func (p *Rules) forget(now time.Time) {
	var first netip.Addr
	for a, l := range p.learned {
		if now.After(l.until) {
			delete(p.learned, a)
		} else if !first.IsValid() || l.until.Before(p.learned[first].until) {
			first = a
		}
	}
	if len(p.learned) >= maxLessons {
		delete(p.learned, first)
	}
}
