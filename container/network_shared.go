// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// sharedNetwork is the network of another container that runs, in which one is
// started: --network container:NAME.
//
// The kernel lets nobody into a network namespace but with privileges in the user
// namespace that owns it, which is the other container's. So the whole container,
// with its monitor, is started in that user namespace, and makes none of its own;
// all else it has for itself. What the kernel counts for a user namespace, the
// number of processes, it counts for both.
type sharedNetwork struct {
	pidfd *os.File // of the other's pid 1, which names the namespace
	user  *os.File // the user namespace that owns it
	files []hostFile
}

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
	theirs, ours := other.Config.Rung, c.Rung
	if theirs.Key() != ours.Key() {
		return &ConflictError{fmt.Sprintf("share the network of container %s: its IDs are those of rung %s, and these of rung %s", name, theirs.Name, ours.Name), "use --rung " + theirs.Name + " for both"}
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

// openShared finds the container whose network this one's start is to share. It is
// nil where it shares none.
//
// Runs in: the host's pid namespace, as the user or as the root of a monitor.
func (h *Home) openShared(ctx context.Context, c *Config) (*sharedNetwork, error) {
	id := c.networkOfWhom()
	if id == "" {
		return nil, nil
	}
	other, err := h.Find(id)
	if err != nil {
		return nil, err
	}
	if other.State.Status == Restarting {
		return nil, fmt.Errorf("container %s is restarting, wait until the container is running", other.Config.Name)
	}
	n := &sharedNetwork{files: hostFiles(&other.Config, &other.State.Network)}
	n.pidfd, n.user, err = other.entrance(ctx)
	if err != nil {
		return nil, err
	}
	if n.pidfd == nil {
		return nil, other.noNetwork()
	}
	return n, nil
}

// noNetwork says that the container has no network to share, for it does not run.
func (c *Container) noNetwork() error {
	return &NetworkError{Text: "cannot join network of a non running container: " + c.Config.Name, Advice: "start that first: sbx start " + c.Config.Name}
}

// close gives up this process's copies.
func (n *sharedNetwork) close() {
	if n != nil {
		n.pidfd.Close()
		n.user.Close()
	}
}

// share has the program of this start enter the network of another container, and
// gives it that one's files.
func (s *start) share(n *sharedNetwork) {
	if n != nil {
		s.files, s.joined = n.files, int(n.pidfd.Fd())
	}
}

// startMonitor clones the monitor: in a user namespace of its own, or in that of
// the container whose network it shares.
func (n *sharedNetwork) startMonitor(ctx context.Context, r userns.Rung, p *userns.Prog) (*userns.Process, error) {
	const namespaces = unix.CLONE_NEWPID | unix.CLONE_NEWNS
	if n == nil {
		return userns.Start(ctx, r, namespaces, p)
	}
	return userns.StartIn(ctx, r, int(n.user.Fd()), namespaces, p)
}

// enterNetwork is the step that fails when the other container has just ended,
// with ESRCH, or has been started anew while this one's monitor stayed, with EPERM.
const enterNetwork = "enter network of the other container"

// joinNetwork enters the network of another container, if that is shared.
func (r *recipe) joinNetwork() {
	if r.joined != 0 {
		r.Call(enterNetwork, unix.SYS_SETNS, r.joined, unix.CLONE_NEWNET)
	}
}

// shown is a part of the recipe in which the process's files in /proc must be its
// own. In a user namespace that is shared, its memory is hidden otherwise: it is a
// copy of the client's.
func (r *recipe) shown(part func()) {
	if r.joined == 0 {
		part()
		return
	}
	r.Call("show memory to ourselves", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	part()
	r.Call("hide memory", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
