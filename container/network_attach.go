// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// networkStart is the network of a container that is being started: what the start
// program makes, and what the monitor gets for its engine. All that can fail for a
// reason of the host's (a port that is taken, an address in use) has been done by
// then.
type networkStart struct {
	state NetworkState
	ports *listeners
	ends  []*endpoint
	files bundle // for the monitor

	shared *shared // what other containers have, or nil
}

// Names of files in hello, beside those of the program.
const (
	filePort    = "port"     // a number follows: that of NetworkState.Bindings
	fileEnd     = "endpoint" // that of NetworkState.Places
	fileFlowLog = "flowlog"
	fileCapture = "capture"
)

// openNetwork takes what the container's network needs of the host.
//
// Runs in: the host's namespaces, as the user.
func (c *Container) openNetwork(ctx context.Context) (*networkStart, error) {
	n := &networkStart{ports: &listeners{}}
	var err error
	n.shared, err = c.home.openShared(ctx, &c.Config)
	if err == nil && hasEngine(c.Config.Network) {
		err = n.open(ctx, c)
	}
	if err != nil {
		n.abandon()
		return nil, err
	}
	return n, nil
}

func (n *networkStart) open(ctx context.Context, c *Container) error {
	config := &c.Config
	device := c.home.Features.Device
	if device == "" {
		return &NoDeviceError{Reason: c.home.Features.DeviceReason}
	}
	n.state.Packet = device == devicePacket
	n.state.Queues = min(runtime.NumCPU(), maxQueues)
	if err := n.places(c); err != nil {
		return err
	}
	ports := config.Networking.Ports
	if config.Networking.PublishAll {
		more, err := publishAll(config.Networking.Exposed, ports)
		if err != nil {
			return err
		}
		ports = append(ports[:len(ports):len(ports)], more...)
	}
	var err error
	if n.ports, err = listen(ctx, ports); err != nil {
		n.ports = &listeners{}
		return err
	}
	n.state.Bindings = n.ports.bindings
	for i, l := range n.ports.bound {
		f, err := l.File()
		if err != nil {
			return err
		}
		n.files.add(filePort+strconv.Itoa(i), f)
	}
	for _, out := range []struct{ name, path string }{{fileFlowLog, config.Networking.Log}, {fileCapture, config.Networking.Capture}} {
		if out.path == "" {
			continue
		}
		f, err := os.OpenFile(out.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		n.files.add(out.name, f)
	}
	return nil
}

// places takes an address in each network that the container is in.
func (n *networkStart) places(c *Container) error {
	networking := &c.Config.Networking
	if len(networking.Endpoints) == 0 {
		place, err := bridgePlace(networking.Range)
		if err != nil {
			return err
		}
		n.state.Places = []Place{place}
		return nil
	}
	for i, e := range networking.Endpoints {
		network, err := c.home.FindNetwork(e.Network)
		if err != nil {
			return err
		}
		end, err := network.join(&c.Config, e)
		if err != nil {
			return err
		}
		n.ends = append(n.ends, end)
		n.state.Places = append(n.state.Places, end.place)
		again, err := unix.FcntlInt(end.socket.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		n.files.add(fileEnd+strconv.Itoa(i), os.NewFile(uintptr(again), "endpoint"))
	}
	return nil
}

// close gives up this process's copies: the monitor has its own.
func (n *networkStart) close() {
	n.ports.close()
	n.files.close()
	n.shared.close()
	for _, e := range n.ends {
		e.socket.Close()
	}
}

// end gives up what this process has of the network of a start that has ended so.
func (n *networkStart) end(err error) {
	if err != nil {
		n.abandon()
		return
	}
	n.close()
}

// abandon undoes what was taken.
func (n *networkStart) abandon() {
	n.close()
	for _, e := range n.ends {
		e.leave()
	}
}

// NoDeviceError says that this host gives no device for a container's network.
type NoDeviceError struct{ Reason string }

func (e *NoDeviceError) Error() string { return "make network device: " + e.Reason }

// Hint says what to do without.
func (e *NoDeviceError) Hint() string {
	return "run it with --network none, or with --network host to share this machine's network; an administrator can let users open /dev/net/tun (modprobe tun)"
}

// networkSettings settles the network of a new container: what its flags say, and
// what the image exposes.
func (h *Home) networkSettings(c *Config, o *Options, exposed map[string]struct{}) error {
	n := &c.Networking
	for port := range exposed {
		list, err := ParseExpose(port)
		if err != nil {
			continue // an image may say anything
		}
		n.Exposed = append(n.Exposed, list...)
	}
	slices.Sort(n.Exposed)
	n.Exposed = slices.Compact(n.Exposed)
	if err := h.resolveNetwork(c, o); err != nil {
		return err
	}
	return n.check(c.Network)
}

// resolveNetwork finds the networks that the flags name.
func (h *Home) resolveNetwork(c *Config, o *Options) error {
	n := &c.Networking
	if c.Network == "default" {
		c.Network = NetworkBridge
	}
	switch {
	case len(n.Endpoints) > 0:
		for i := range n.Endpoints {
			network, err := h.FindNetwork(n.Endpoints[i].Network)
			if err != nil {
				return err
			}
			n.Endpoints[i].Network = network.Name
		}
		c.Network = n.Endpoints[0].Network
	case c.Network == "":
		c.Network = NetworkBridge
	case strings.HasPrefix(c.Network, networkOf):
		return h.shareNetwork(c, o)
	}
	return nil
}

// hostsFile is the container's /etc/hosts beside the loopback's lines.
func (n *NetworkState) hostsFile(c *Config) string {
	text := ""
	name := c.Hostname
	if c.Domainname != "" {
		name = c.Hostname + "." + c.Domainname + " " + c.Hostname
	}
	var first Place
	if len(n.Places) > 0 {
		first = n.Places[0]
	}
	for _, h := range c.Networking.hostsAt(first) {
		text += h.addr.String() + "\t" + h.name + "\n"
	}
	for _, p := range n.Places {
		text += p.Address.Addr().String() + "\t" + name + "\n"
		if p.Address6.IsValid() {
			text += p.Address6.Addr().String() + "\t" + name + "\n"
		}
	}
	return text
}

// uses reports whether names are asked of the engine's resolver, and not of the
// servers that --dns names.
func (n *Networking) usesResolver() bool {
	return len(n.DNS) == 0 || len(n.Endpoints) > 0 || n.AllowNet != nil
}

// upstreams are the servers of --dns.
func (n *Networking) upstreams() []netip.AddrPort {
	var list []netip.AddrPort
	for _, s := range n.DNS {
		if a, err := netip.ParseAddr(s); err == nil {
			list = append(list, netip.AddrPortFrom(a, 53))
		}
	}
	return list
}

// place finds where the container is in a network.
func (n *NetworkState) place(network string) (Place, bool) {
	for _, p := range n.Places {
		if p.Network == network {
			return p, true
		}
	}
	return Place{}, false
}

// endpointsOf is the directory of a network's endpoints, in a home.
func endpointsOf(home, network string) string {
	return filepath.Join(filepath.Dir(home), "networks", network, endpointsDir)
}

var errNoSuchPlace = errors.New("it is not in that network")

func (p Place) String() string { return fmt.Sprintf("%s in %s", p.Address.Addr(), p.Network) }
