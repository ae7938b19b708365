// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// What a container's network can go through.
const (
	deviceTUN    = "tun"    // /dev/net/tun
	devicePacket = "packet" // a veth pair and a packet socket
)

// probeDevice finds what this host lets a user make, by making it.
func probeDevice(ctx context.Context, r userns.Rung, f *Features) {
	state := NetworkState{Queues: 1, Places: []Place{{Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 2, 100}), 24)}}}
	f.Device = deviceTUN
	err := tryDevice(ctx, r, state)
	if err == nil {
		return
	}
	f.Device, f.DeviceReason = devicePacket, err.Error()
	state.Packet = true
	if err := tryDevice(ctx, r, state); err != nil {
		f.Device, f.DeviceReason = "", fmt.Sprintf("%s; %v", f.DeviceReason, err)
	}
}

// tryDevice makes a device as a start does, in namespaces that end with the probe.
func tryDevice(ctx context.Context, rung userns.Rung, state NetworkState) error {
	ours, theirs, err := userns.Pair()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	high, err := userns.HighFile(theirs)
	if err != nil {
		return err
	}
	defer high.Close()
	r := &recipe{Prog: &userns.Prog{}, start: &start{config: &Config{Network: NetworkBridge, Rung: rung}, net: state}}
	r.programEnd = int(high.Fd())
	r.work = r.Reg()
	r.farEnd()
	r.Call("create network namespace", unix.SYS_UNSHARE, unix.CLONE_NEWNET)
	r.makeDevice()
	return try(ctx, rung, r.Prog)
}
