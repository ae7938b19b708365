// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"net/netip"
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
