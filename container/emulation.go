// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"sbx/fakeroot"
	"sbx/overlay"
	"sbx/seccomp"
	"sbx/userns"
)

// ownersName is the table of owners that files of the container cannot carry
// themselves: beside its upper directory, as a layer's is beside its root.
const ownersName = "owners.json"

// aptConfig is where a container in mode Zero has the file for apt: in its own
// /dev, so that it never gets into an image.
const aptConfig = "/dev/apt.conf"

// emulation is what a start needs to emulate root with the one ID of `single`.
// The monitor gets it with its hello.
type emulation struct {
	Mode            fakeroot.Mode        `json:"mode"`
	Features        fakeroot.Features    `json:"features"`
	Upper           string               `json:"upper,omitempty"`
	Table           string               `json:"table"`            // a file, which need not be there
	Layers          []string             `json:"layers,omitempty"` // lower directories, topmost first
	Own             []string             `json:"own"`              // mount points, see fakeroot.Options
	Volumes         []fakeroot.Volume    `json:"volumes,omitempty"`
	Keep            bool                 `json:"keep,omitempty"` // Table is worth something if the monitor is killed
	ForeignRoot     bool                 `json:"foreignRoot,omitempty"`
	NoNewPrivileges bool                 `json:"noNewPrivileges,omitempty"`
	User            fakeroot.Credentials `json:"user"`
	filter          *seccomp.Program
}

// RootEmulation is how much of root is emulated in the container on this host,
// by the words of --root-emulation, and why it is no more.
func (c *Container) RootEmulation() (mode, reason string) {
	m, reason := c.features().emulationMode(&c.Config)
	return m.String(), reason
}

// features are those of this host; none for a record that is of none.
func (c *Container) features() Features {
	if c.home == nil {
		return Features{}
	}
	return c.home.Features
}

// RootEmulation is what a container gets here unless it asks for something else,
// and why that is not all there is.
func (f Features) RootEmulation() (mode, reason string) {
	m, reason := f.emulationMode(&Config{Rung: f.Rung})
	return m.String(), reason
}

// RungSingle is the name of the rung that root emulation is for.
const RungSingle = userns.Single

// Warning is what the user of a container should read before it runs, or empty.
func (c *Container) Warning() string {
	if m, _ := c.features().emulationMode(&c.Config); m == fakeroot.Zero {
		return fakeroot.ZeroWarning
	}
	return ""
}

// emulationMode settles what the record leaves open. With real IDs, or with the
// one ID mapped to the container's user, there is nothing to emulate.
func (f Features) emulationMode(c *Config) (fakeroot.Mode, string) {
	if c.Rung.IsMapped() || c.KeepID {
		return fakeroot.None, ""
	}
	return c.RootEmulation.Settle(f.Emulation)
}

// checkEmulation refuses wishes that contradict each other.
func checkEmulation(c *Config) error {
	emulates := c.RootEmulation != fakeroot.Auto && c.RootEmulation != fakeroot.None
	switch {
	case emulates && c.Rung.IsMapped():
		return &ConflictError{fmt.Sprintf("root emulation %s on rung %s: its IDs are real", c.RootEmulation, c.Rung.Name), "leave out --root-emulation, or use --rung single"}
	case emulates && c.KeepID:
		return &ConflictError{fmt.Sprintf("root emulation %s with the user's ID kept", c.RootEmulation), "use one of --root-emulation and --userns keep-id"}
	case c.KeepID && c.Rung.IsMapped():
		return &ConflictError{"keep the user's ID on rung " + c.Rung.Name, "use --rung single with --userns keep-id"}
	}
	return nil
}

// ConflictError says that two things that were asked for exclude each other.
type ConflictError struct{ what, hint string }

func (e *ConflictError) Error() string { return e.what }

// Hint says which to leave out.
func (e *ConflictError) Hint() string { return e.hint }

// newEmulation is the emulation of a container's next run; nil where there is none.
func newEmulation(c *Config, f Features, dir string) (*emulation, error) {
	mode, _ := f.emulationMode(c)
	if mode == fakeroot.None {
		return nil, nil
	}
	e := layout(c, dir)
	e.Mode, e.Features, e.User = mode, f.Emulation, credentials(c.Identity)
	e.NoNewPrivileges, e.Keep = c.Privileges.NoNewPrivs, !c.AutoRemove && !c.Step
	return e.compiled()
}

// layout is where the container's files and what is known of them lie.
func layout(c *Config, dir string) *emulation {
	e := &emulation{Own: []string{"/dev", "/dev/shm"}}
	switch c.Root {
	case rootOverlay:
		e.Upper, e.Table, e.Layers = filepath.Join(dir, "upper"), filepath.Join(dir, ownersName), c.Lower
	case rootCopy:
		e.Upper, e.Table = filepath.Join(dir, "rootfs"), filepath.Join(dir, "rootfs."+ownersName)
	case rootDir:
		e.ForeignRoot = true
	}
	for _, m := range c.Mounts {
		if m.Type != Bind || m.Kept {
			e.Own = append(e.Own, m.Target)
		}
		if m.Type == Volume || m.Kept {
			e.Volumes = append(e.Volumes, fakeroot.Volume{Target: m.Target, Dir: m.Source, Sub: m.Subpath, Table: m.Source + "." + ownersName})
		}
	}
	return e
}

// compiled adds the filter, which is not sent to the monitor.
func (e *emulation) compiled() (*emulation, error) {
	if e == nil || e.filter != nil {
		return e, nil
	}
	filter, err := fakeroot.Filter(e.Mode)
	if err != nil {
		return nil, err
	}
	e.filter = filter
	return e, nil
}

// user is who the container's own program starts as.
func (e *emulation) user() fakeroot.Credentials {
	if e == nil {
		return fakeroot.Credentials{}
	}
	return e.User
}

func credentials(id Identity) fakeroot.Credentials { return fakeroot.User(id.UID, id.GID, id.Groups) }

// options read what the supervisor must know of the files.
//
// Runs in: the monitor, in the host's mounts.
func (e *emulation) options() (fakeroot.Options, error) {
	o := fakeroot.Options{
		Upper: e.Upper, Own: e.Own, Volumes: e.Volumes, ForeignRoot: e.ForeignRoot, NoNewPrivileges: e.NoNewPrivileges, Features: e.Features,
	}
	var err error
	if e.Table != "" {
		if o.Owners, err = overlay.ReadOwners(e.Table); err != nil {
			return o, err
		}
	}
	for _, dir := range e.Layers {
		var owners overlay.Owners
		if filepath.Base(dir) == "root" { // as the store unpacks layers
			if owners, err = overlay.ReadOwners(filepath.Join(filepath.Dir(dir), ownersName)); err != nil {
				return o, err
			}
		}
		o.Layers = append(o.Layers, fakeroot.Layer{Dir: dir, Owners: owners})
	}
	return o, nil
}

// emulateRoot installs the filter by which the kernel asks the monitor, and
// sends the monitor its listener. Whatever is trapped waits from then on until
// the monitor has joined; the execve is the first such call.
func (r *recipe) emulateRoot() {
	e := r.emulation
	if e == nil {
		return
	}
	const step = "install filter of root emulation"
	program := unsafe.Pointer(e.filter.Fprog())
	r.Keep(e.filter)
	if !e.Mode.Listens() {
		r.Call(step, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, e.filter.Flags(), program)
		return
	}
	r.Call(step, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, e.Features.FilterFlags(), program).Into(r.work)
	if r.run.handOver != "" {
		r.send(r.channel, r.run.handOver, r.work)
	} else {
		r.send(r.programEnd, `{"what":"`+doListener+`"}`, r.work)
	}
	// The last copy is the monitor's: if it cannot serve, the execve fails, and
	// does not wait for ever.
	r.Call("close listener", unix.SYS_CLOSE, r.work)
}

// emulatesUsers reports whether the program's user is one that the monitor says
// it is. The one that the kernel knows stays root, with what root may do here: a
// program with a set-user-ID bit must be able to become it.
func (s *start) emulatesUsers() bool { return s.emulation != nil && s.emulation.Mode.Listens() }

// configureApt tells apt that it need not become another user, where becoming
// one is faked.
func (r *recipe) configureApt() {
	if r.emulation == nil || r.emulation.Mode != fakeroot.Zero {
		return
	}
	const step = "write " + aptConfig
	r.Call(step, unix.SYS_OPENAT, r.root, aptConfig[1:], unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644).Into(r.work)
	r.Call(step, unix.SYS_WRITE, r.work, []byte(fakeroot.APTConfig), len(fakeroot.APTConfig))
	r.Call(step, unix.SYS_CLOSE, r.work)
}

// environment adds what programs need to know of the emulation.
func (e *emulation) environment(env []string) []string {
	if e == nil || e.Mode != fakeroot.Zero {
		return env
	}
	return append(env[:len(env):len(env)], "APT_CONFIG="+aptConfig)
}

// probeEmulation finds out what the kernel can do for root emulation.
func probeEmulation(ctx context.Context, r userns.Rung) fakeroot.Features {
	f := fakeroot.Probe()
	if !f.Notify {
		return f
	}
	if err := probeAccess(ctx, r); err != nil {
		f.Notify, f.Reason = false, "the memory of other processes cannot be read: "+err.Error()
	}
	return f
}

// probeAccess looks whether the memory of another process of the user's can be
// read, without which nothing can be answered for it: Yama's scope 3 forbids it.
func probeAccess(ctx context.Context, r userns.Rung) error {
	text := []byte("memory of a child, and of its parent")
	p := &userns.Prog{}
	p.Keep(text)
	p.Call("wait", unix.SYS_PPOLL, nil, 0, nil, nil, 0)
	child, err := userns.Start(ctx, r, 0, p)
	if err != nil {
		return err
	}
	got := make([]byte, len(text))
	local := []unix.Iovec{{Base: &got[0], Len: uint64(len(got))}}
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&text[0])), Len: len(text)}}
	_, err = unix.ProcessVMReadv(child.PID, local, remote, 0)
	child.Kill()
	_ = child.Started(ctx)
	_, waitErr := child.Wait()
	return errors.Join(err, waitErr)
}
