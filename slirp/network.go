// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The defaults of Limits.
const (
	defaultFlows    = 16384
	defaultHalfOpen = 1024
	defaultBuffers  = 32 << 20
	defaultQueries  = 256
	// spareDescriptors stay free for what is not a flow.
	spareDescriptors = 128
)

// Network is a running engine.
type Network struct {
	config Config
	limits Limits
	loops  []*loop
	began  time.Time
	ctx    context.Context
	cancel context.CancelFunc
	ended  sync.WaitGroup

	superframe int // the most payload of one TCP frame
	at         atomic.Pointer[Addresses]
	capture    *capture
	flowLog    *flowLog
	noPing     sync.Once
	queries    chan struct{}
	beyond     atomic.Int64 // connections that DialGuest carries
	carried    carried
	turn       atomic.Uint32

	mutex  sync.Mutex
	owners map[key]*loop // of all flows, where there are several loops

	flows                         atomic.Int64
	refused, retransmits, dropped atomic.Uint64
}

// Start runs an engine on the device until ctx ends or Close is called. It
// returns at once: packets that came before wait in the device's queue.
//
// Runs in: the host's network namespace, as the user.
func Start(ctx context.Context, config Config) (*Network, error) {
	n := &Network{config: config, limits: config.Limits, began: time.Now(), owners: map[key]*loop{}}
	if err := n.prepare(); err != nil {
		for _, l := range n.loops {
			l.release()
		}
		for _, f := range config.Link.Queues {
			f.Close()
		}
		return nil, err
	}
	n.ctx, n.cancel = context.WithCancel(ctx)
	for _, l := range n.loops {
		n.ended.Go(func() { l.run(n.ctx) })
	}
	return n, nil
}

// prepare fills in what Config leaves open and makes the loops.
func (n *Network) prepare() error {
	c := &n.config
	if len(c.Link.Queues) == 0 {
		return errors.New("start network: no device")
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.MTU < 576 || c.MTU > 65535 {
		return fmt.Errorf("start network: mtu %d is not in 576..65535", c.MTU)
	}
	if c.Policy == nil {
		c.Policy = Refuse
	}
	n.at.Store(&c.Addresses)
	n.superframe = 65535 - ip4Size - tcpSize
	n.limit()
	n.queries = make(chan struct{}, n.limits.Queries)
	if c.Pcap != nil {
		n.capture = newCapture(c.Pcap)
	}
	if c.FlowLog != nil {
		n.flowLog = newFlowLog(c.FlowLog)
	}
	for _, file := range c.Link.Queues {
		q, err := newQueue(file, c.Link.Kind)
		if err != nil {
			return err
		}
		q.capture, q.written = n.capture, c.written
		l, err := newLoop(n, q, n.limits.Buffers/len(c.Link.Queues))
		if err != nil {
			return err
		}
		n.loops = append(n.loops, l)
	}
	return nil
}

// limit fills in the limits. There are never more flows than descriptors.
func (n *Network) limit() {
	fill := func(v *int, otherwise int) {
		if *v <= 0 {
			*v = otherwise
		}
	}
	fill(&n.limits.Flows, defaultFlows)
	fill(&n.limits.HalfOpen, defaultHalfOpen)
	fill(&n.limits.Buffers, defaultBuffers)
	fill(&n.limits.Queries, defaultQueries)
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil && files.Cur < uint64(n.limits.Flows+spareDescriptors) {
		n.limits.Flows = max(int(files.Cur)-spareDescriptors, 16)
	}
}

// Close ends the engine: listeners and flows are closed. A tun is made persistent
// before it is closed, because unregistering a device takes 10-40 ms; the end of
// its namespace removes it. It waits for the loops.
func (n *Network) Close() error {
	n.cancel()
	n.ended.Wait()
	if n.capture != nil {
		n.capture.close()
	}
	if n.flowLog != nil {
		n.flowLog.close()
	}
	return nil
}

// Stats may be called at any time.
func (n *Network) Stats() Stats {
	s := Stats{Flows: int(n.flows.Load()), Refused: n.refused.Load(), Retransmits: n.retransmits.Load(), Dropped: n.dropped.Load()}
	for _, l := range n.loops {
		s.Waiting += int(l.waiting.Load())
	}
	return s
}

// SetAddresses replaces the container's addresses and gateways, as it enters and
// leaves networks. Flows stay as they are.
func (n *Network) SetAddresses(a Addresses) {
	a.Further = slices.Clone(a.Further)
	n.at.Store(&a)
}

// Deliver hands a frame of a Switch to the container. Any goroutine may call it.
// The kernel of the container checks the header; a frame that is too short, or
// whose destination is not one of the container's addresses, is an error.
func (n *Network) Deliver(frame []byte) error {
	var p packet
	if !p.parse(frame) {
		return errors.New("deliver frame: not an IP packet")
	}
	if !n.isOurs(&p.key.remote, p.v6) {
		return fmt.Errorf("deliver frame: %s is not the container's", p.destination())
	}
	if n.ctx.Err() != nil {
		return errClosed
	}
	b := make([]byte, ethernetSize+len(frame))
	copy(b[ethernetSize:], frame)
	n.loops[0].queue.write(b, ethernetSize)
	return nil
}

// isGuest reports whether a packet's source is one of the container's addresses.
func (n *Network) isGuest(p *packet) bool { return n.isOurs(&p.key.guest, p.v6) }

func (n *Network) isOurs(a *[16]byte, v6 bool) bool {
	ours, addr := n.at.Load(), netip.AddrFrom16(*a)
	if !v6 {
		addr = addr.Unmap()
	}
	return addr == ours.Guest4 || addr == ours.Guest6 || slices.Contains(ours.Further, addr)
}

// segmentSize is the most payload of a TCP packet on the device.
func (n *Network) segmentSize(v6 bool) int {
	if v6 {
		return n.config.MTU - ip6Size - tcpSize
	}
	return n.config.MTU - ip4Size - tcpSize
}

// decide asks the policy about a new flow.
func (n *Network) decide(a *account, k *key) (to netip.AddrPort, refused bool) {
	flow := k.flow()
	if at := flow.Dst.Addr(); at.IsMulticast() || at == broadcast || n.isOurs(&k.remote, k.v6()) {
		n.dropped.Add(1)
		return to, true
	}
	v := n.config.Policy.Decide(flow)
	a.name = v.Name
	if !v.Allow {
		a.refused = v.Reason
		if a.refused == "" {
			a.refused = "policy"
		}
		n.refused.Add(1)
		n.log(a, k, nil)
		return to, true
	}
	to = flow.Dst
	if v.To.IsValid() {
		to = v.To
		a.to = to
	}
	return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), false
}

// full reports whether there may be no more flows.
func (l *loop) full() bool { return l.n.flows.Load() >= int64(l.n.limits.Flows) }

// find returns the flow that a packet belongs to. One that another loop owns is
// handed to that: a device with several queues may change its mind about the
// queue of a flow that was quiet for some seconds.
func (l *loop) find(p *packet) (f flow, handed bool) {
	if f = l.flows[p.key]; f != nil || len(l.n.loops) == 1 {
		return f, false
	}
	l.n.mutex.Lock()
	owner := l.n.owners[p.key]
	l.n.mutex.Unlock()
	if owner == nil || owner == l {
		return nil, false
	}
	l.hand(owner, p)
	return nil, true
}

// handMax are packets that may wait to be taken over by another loop.
const handMax = 256

// hand copies a packet to another loop.
func (l *loop) hand(to *loop, p *packet) {
	moved := *p
	moved.frame, moved.ip = nil, slices.Clone(p.ip)
	moved.l4 = moved.ip[len(p.ip)-len(p.l4):]
	if to.handed.Add(1) > handMax {
		to.handed.Add(-1)
		l.n.dropped.Add(1)
		return
	}
	to.post(func() {
		to.handed.Add(-1)
		if moved.fragment.is {
			to.takeFragment(&moved)
			return
		}
		to.dispatch(&moved)
	})
}

// add enters a flow under its key. It reports false where another loop was faster.
func (l *loop) add(k *key, f flow) bool {
	if len(l.n.loops) > 1 {
		l.n.mutex.Lock()
		defer l.n.mutex.Unlock()
		if l.n.owners[*k] != nil {
			return false
		}
		l.n.owners[*k] = l
	}
	l.flows[*k] = f
	l.n.flows.Add(1)
	return true
}

// taken reports whether there is a flow of that key on any loop.
func (l *loop) taken(k *key) bool {
	if len(l.n.loops) == 1 {
		return l.flows[*k] != nil
	}
	l.n.mutex.Lock()
	defer l.n.mutex.Unlock()
	return l.n.owners[*k] != nil
}

// remove takes out what add entered; twice does no harm.
func (l *loop) remove(k *key, f flow) {
	if l.flows[*k] != f {
		return
	}
	delete(l.flows, *k)
	l.n.flows.Add(-1)
	if len(l.n.loops) > 1 {
		l.n.mutex.Lock()
		delete(l.n.owners, *k)
		l.n.mutex.Unlock()
	}
}

func (n *Network) debug(message string, args ...any) {
	if n.config.Log != nil {
		n.config.Log.Debug(message, args...)
	}
}
