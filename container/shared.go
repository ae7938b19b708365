// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// shared is what a container that is started has of others that run: their
// network (--network container:NAME), their shared memory and message queues (--ipc),
// their processes (--pid).
//
// The kernel lets nobody into a namespace but with privileges in the user
// namespace that owns it, which is the other container's. So the whole container,
// with its monitor, is started in that user namespace, and makes none of its own;
// all else it has for itself. What the kernel counts for a user namespace, the
// number of processes, it counts for both.
type shared struct {
	user  *os.File   // the user namespace that owns them
	net   *os.File   // the pidfd of the other's pid 1, which names the namespace; or nil
	ipc   *os.File   // the same
	pid   *os.File   // the same
	files []hostFile // of a network
}

// others are containers whose namespaces a program enters, by pidfds of 20 or
// more; 0: none.
type others struct{ net, ipc, pid int }

// shares are the IDs of the containers that this one needs to run.
func (c *Config) shares() []string {
	ids := []string{c.networkOfWhom(), c.ipcOfWhom(), c.pidsOfWhom()}
	return slices.DeleteFunc(ids, func(id string) bool { return id == "" })
}

// ipcOfWhom is the ID of the container whose IPC namespace this one shares, or empty.
func (c *Config) ipcOfWhom() string {
	id, shares := strings.CutPrefix(c.Privileges.IPC, networkOf)
	if !shares {
		return ""
	}
	return id
}

// sameIDs refuses to share what belongs to other IDs than the container's.
func (c *Config) sameIDs(other *Config, what string) error {
	theirs, ours := other.Rung, c.Rung
	if theirs.Key() == ours.Key() {
		return nil
	}
	return &ConflictError{
		fmt.Sprintf("share the %s of container %s: its IDs are those of rung %s, and these of rung %s", what, other.Name, theirs.Name, ours.Name),
		"use --rung " + theirs.Name + " for both",
	}
}

// shareIPC settles --ipc for a new container: a name becomes an ID.
func (h *Home) shareIPC(c *Config) error {
	mode := c.Privileges.IPC
	name, shares := strings.CutPrefix(mode, networkOf)
	if !shares {
		if slices.Contains([]string{"", IPCPrivate, IPCShareable, IPCNone, IPCHost}, mode) {
			return nil
		}
		return fmt.Errorf("invalid IPC mode: %s", mode)
	}
	if name == "" {
		return fmt.Errorf("invalid IPC mode: %s", mode)
	}
	other, err := h.Find(name)
	if err != nil {
		return err
	}
	switch other.Config.Privileges.IPC {
	case IPCHost:
		c.Privileges.IPC = IPCHost
		return nil
	case "", IPCPrivate, IPCNone:
		return &ConflictError{fmt.Sprintf("join IPC namespace: container %s: non-shareable IPC", name), "create that one with --ipc shareable"}
	}
	c.Privileges.IPC = networkOf + other.Config.ID
	return c.sameIDs(&other.Config, "IPC namespace")
}

// openShared finds the containers whose namespaces this one's start is to share.
// It is nil where it shares none.
//
// Runs in: the host's pid namespace, as the user or as the root of a monitor.
func (h *Home) openShared(ctx context.Context, c *Config) (_ *shared, err error) {
	if len(c.shares()) == 0 {
		return nil, nil
	}
	s := &shared{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if id := c.networkOfWhom(); id != "" {
		other, err := s.open(ctx, h, id, &s.net)
		if err != nil {
			return nil, err
		}
		if s.net == nil {
			return nil, other.noNetwork()
		}
		s.files = hostFiles(&other.Config, &other.State.Network)
	}
	for _, n := range []struct {
		id, name string
		into     **os.File
	}{{c.ipcOfWhom(), "IPC", &s.ipc}, {c.pidsOfWhom(), "PID", &s.pid}} {
		if n.id == "" {
			continue
		}
		other, err := s.open(ctx, h, n.id, n.into)
		if err == nil && *n.into == nil {
			err = &ConflictError{fmt.Sprintf("container %s is not running", other.Config.Name), startFirst(other)}
		}
		if err != nil {
			return nil, fmt.Errorf("join %s namespace: %w", n.name, err)
		}
	}
	return s, nil
}

// open asks a container for the way in. The descriptor stays nil when it does not run.
func (s *shared) open(ctx context.Context, h *Home, id string, into **os.File) (*Container, error) {
	other, err := h.Find(id)
	if err != nil {
		return nil, err
	}
	if other.State.Status == Restarting {
		return nil, fmt.Errorf("container %s is restarting, wait until the container is running", other.Config.Name)
	}
	pidfd, user, err := other.entrance(ctx)
	if err != nil || pidfd == nil {
		return other, err
	}
	*into = pidfd
	if s.user == nil {
		s.user = user
		return other, nil
	}
	defer user.Close()
	if same, err := sameFile(s.user, user); err != nil || !same {
		return nil, errors.Join(err, &ConflictError{
			"share namespaces of two containers that share none with each other", "start one of the two in the other's namespace, as --network container:NAME does",
		})
	}
	return other, nil
}

func sameFile(a, b *os.File) (bool, error) {
	one, err := a.Stat()
	if err != nil {
		return false, err
	}
	other, err := b.Stat()
	return err == nil && os.SameFile(one, other), err
}

func startFirst(c *Container) string { return "start that first: sbx start " + c.Config.Name }

// close gives up this process's copies.
func (s *shared) close() {
	if s == nil {
		return
	}
	for _, f := range []*os.File{s.user, s.net, s.ipc, s.pid} {
		if f != nil {
			f.Close()
		}
	}
}

// share has the program of this start enter what is shared.
func (s *start) share(with *shared) {
	if with == nil {
		return
	}
	if with.net != nil {
		s.files, s.others.net = with.files, int(with.net.Fd())
	}
	if with.ipc != nil {
		s.others.ipc = int(with.ipc.Fd())
	}
	if with.pid != nil {
		s.others.pid = int(with.pid.Fd())
	}
}

// startMonitor clones the monitor: in a user namespace of its own, or in that of
// the containers whose namespaces it shares.
func (s *shared) startMonitor(ctx context.Context, r userns.Rung, p *userns.Prog) (*userns.Process, error) {
	namespaces := uintptr(unix.CLONE_NEWPID | unix.CLONE_NEWNS)
	if s == nil {
		return userns.Start(ctx, r, namespaces, p)
	}
	if s.pid != nil {
		namespaces = unix.CLONE_NEWNS // whose parent is in another pid namespace cannot be in one of its own
	}
	return userns.StartIn(ctx, r, int(s.user.Fd()), namespaces, p)
}

// The steps that fail when the other container has just ended, with ESRCH, or has
// been started anew while this one's monitor stayed, with EPERM.
const (
	enterNetwork = "enter network of the other container"
	enterIPC     = "enter IPC namespace of the other container"
	enterMounts  = "enter mounts of the other container"
	enterPIDs    = "enter pid namespace of the other container"
)

func entersOther(step string) bool {
	return slices.Contains([]string{enterNetwork, enterIPC, enterMounts, enterPIDs}, step)
}

// joinOthers enters what is shared with other containers.
func (r *recipe) joinOthers() {
	if r.others.net != 0 {
		r.Call(enterNetwork, unix.SYS_SETNS, r.others.net, unix.CLONE_NEWNET)
	}
	if r.others.ipc != 0 {
		r.joinIPC()
	}
}

// joinIPC enters the IPC namespace of another container, and takes a copy of the
// mount at its /dev/shm, which only somebody in its mount namespace can. What is
// there is the other's doing, but it can be nothing that the other does not see.
func (r *recipe) joinIPC() {
	const step = "share /dev/shm"
	own, root := r.Reg(), r.Reg()
	r.shm = r.Reg()
	r.Call(enterIPC, unix.SYS_SETNS, r.others.ipc, unix.CLONE_NEWIPC)
	r.Call(step, unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0).Into(own)
	r.Call(step, unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(root)
	r.Call(enterMounts, unix.SYS_SETNS, r.others.ipc, unix.CLONE_NEWNS)
	r.Call("open /dev/shm of the other container", unix.SYS_OPEN_TREE, unix.AT_FDCWD, "/dev/shm",
		unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW).Into(r.shm)
	r.Call(step, unix.SYS_SETNS, own, unix.CLONE_NEWNS)
	r.Call(step, unix.SYS_FCHDIR, root)
	r.Call(step, unix.SYS_CHROOT, ".")
	r.Call(step, unix.SYS_CLOSE, own)
	r.Call(step, unix.SYS_CLOSE, root)
}

// mountSharedMemory mounts what joinIPC took, at a path below /dev.
func (r *recipe) mountSharedMemory(at string) {
	r.Call("create /dev/shm", unix.SYS_MKDIRAT, r.a, "shm", 0o755)
	r.Call("mount /dev/shm", unix.SYS_MOVE_MOUNT, r.shm, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
	r.tighten(r.shm, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	r.Call("close", unix.SYS_CLOSE, r.shm)
}

// shown is a part of the recipe in which the process's files in /proc must be its
// own. In a user namespace that is shared, its memory is hidden otherwise: it is a
// copy of the client's.
func (r *recipe) shown(part func()) {
	if r.others == (others{}) {
		part()
		return
	}
	r.Call("show memory to ourselves", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	part()
	r.Call("hide memory", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
