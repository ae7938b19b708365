// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/json"
	"io"
	"net/netip"
	"sync"
	"time"
)

// Record is a line of the flow log: one flow, written when it ends.
type Record struct {
	Time      time.Time      `json:"time"` // when it began
	Seconds   float64        `json:"seconds"`
	Direction string         `json:"direction"` // "out", or "in" through a published port
	Proto     string         `json:"proto"`     // "tcp", "udp" or "icmp"
	Src       netip.AddrPort `json:"src"`       // as the container sees it
	Dst       netip.AddrPort `json:"dst"`
	To        netip.AddrPort `json:"to,omitzero"` // where the host connected to, if not to dst
	Name      string         `json:"name,omitempty"`
	Refused   string         `json:"refused,omitempty"` // the policy's reason
	Error     string         `json:"error,omitempty"`   // what the host's kernel said
	Sent      uint64         `json:"sent"`              // bytes from the container
	Received  uint64         `json:"received"`          // bytes to the container
}

// account is what a flow remembers for its Record.
type account struct {
	began          time.Time
	in             bool
	to             netip.AddrPort
	name, refused  string
	sent, received uint64
}

func (n *Network) account(*key) account {
	if n.flowLog == nil {
		return account{}
	}
	return account{began: time.Now()}
}

// finish writes the record of a flow that ends.
func (n *Network) finish(a *account, k *key, why error) { n.log(a, k, why) }

func (n *Network) log(a *account, k *key, why error) {
	if n.flowLog == nil || a.began.IsZero() {
		return
	}
	flow := k.flow()
	r := Record{
		Time: a.began, Seconds: time.Since(a.began).Seconds(), Direction: "out", Proto: flow.Proto.String(),
		Src: flow.Src, Dst: flow.Dst, To: a.to, Name: a.name, Refused: a.refused, Sent: a.sent, Received: a.received,
	}
	if a.in {
		r.Direction, r.Src, r.Dst = "in", flow.Dst, flow.Src
	}
	if why != nil {
		r.Error = why.Error()
	}
	a.began = time.Time{} // once
	n.flowLog.write(r)
}

// flowLog writes records beside the loops.
type flowLog struct {
	records chan Record
	mutex   sync.Mutex // of closed
	closed  bool
	done    chan struct{}
}

// flowLogMax are records that may wait for a slow writer.
const flowLogMax = 1024

func newFlowLog(w io.Writer) *flowLog {
	g := &flowLog{records: make(chan Record, flowLogMax), done: make(chan struct{})}
	go func() {
		defer close(g.done)
		for r := range g.records {
			if line, err := json.Marshal(r); err == nil {
				_, _ = w.Write(append(line, '\n'))
			}
		}
	}()
	return g
}

func (g *flowLog) write(r Record) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.closed {
		return
	}
	select {
	case g.records <- r:
	default:
	}
}

func (g *flowLog) close() {
	g.mutex.Lock()
	if !g.closed {
		g.closed = true
		close(g.records)
	}
	g.mutex.Unlock()
	<-g.done
}
