// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sbx/fakeroot"
	"sbx/overlay"
	"sbx/store"
	"sbx/userns"
)

// Features are what this host allows, found by doing it.
type Features struct {
	Rung          userns.Rung `json:"rung"`
	RungReason    string      `json:"rungReason,omitempty"` // why not the higher one
	RungHint      string      `json:"rungHint,omitempty"`
	Overlay       bool        `json:"overlay"`
	OverlayReason string      `json:"overlayReason,omitempty"`
	// Scratch is a local directory for what containers write, where the store's
	// filesystem cannot take that; empty when it can.
	Scratch string `json:"scratch,omitempty"`
	// Emulation is what the kernel can do of root emulation; empty where the rung
	// has no use for it.
	Emulation fakeroot.Features `json:"emulation,omitzero"`
	// Device is what a container's network goes through, deviceTUN or devicePacket;
	// empty where neither can be made, and DeviceReason says why not the better one.
	Device       string `json:"device,omitempty"`
	DeviceReason string `json:"deviceReason,omitempty"`
	// OwnFileReason says why programs of a container can get at the file that sbx was
	// started from, if they can: see userns.Prog.Leave.
	OwnFileReason string `json:"ownFileReason,omitempty"`
}

// verdict is Features as they are remembered, with what they hold for.
type verdict struct {
	For      occasion
	Features Features
}

// occasion is one boot of one machine, a user and what he asked for.
type occasion struct {
	Version       int // of the probes
	Boot, Machine string
	UID           int
	Rung          string
}

// verdictVersion changes when the probes do.
const verdictVersion = 4

// features probes the host, or remembers what an earlier command found.
func features(ctx context.Context, dir, rung string, h process) (Features, error) {
	if rung != "" && rung != userns.Single && rung != userns.Mapped {
		return Features{}, fmt.Errorf("choose rung %q: there are %s and %s", rung, userns.Mapped, userns.Single)
	}
	now := occasion{Version: verdictVersion, Boot: h.Boot, Machine: h.Machine, UID: os.Getuid(), Rung: rung}
	path := filepath.Join(dir, "cache", "host-"+or(rung, "any")+".json")
	var got verdict
	if err := readJSON(path, &got); err == nil && got.For == now && stillThere(got.Features.Scratch) {
		return switchedOff(got.Features), nil
	}
	// The store is made before anything is written beside it: a folder with
	// something in it is not taken for one.
	if _, err := store.Open(dir, userns.SingleRung()); err != nil {
		return Features{}, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Features{}, fmt.Errorf("create store: %w", err)
	}
	f, err := probe(ctx, dir, rung)
	if err != nil {
		return Features{}, err
	}
	// The verdict is a convenience: on a full disk every command probes anew.
	_ = writeJSON(path, verdict{now, f})
	return switchedOff(f), nil
}

func stillThere(scratch string) bool {
	return scratch == "" || checkScratch(scratch) == nil
}

// switchedOff takes away what the environment names, as the tests of the fallbacks
// do: SBX_NO_OVERLAY, SBX_NO_TUN, SBX_NO_PACKET.
func switchedOff(f Features) Features {
	if os.Getenv("SBX_NO_OVERLAY") == "1" {
		f.Overlay, f.OverlayReason, f.Scratch = false, "switched off by SBX_NO_OVERLAY", ""
	}
	if os.Getenv("SBX_NO_TUN") == "1" && f.Device == deviceTUN {
		f.Device, f.DeviceReason = devicePacket, "switched off by SBX_NO_TUN"
	}
	if os.Getenv("SBX_NO_PACKET") == "1" && f.Device == devicePacket {
		f.Device = ""
	}
	return f
}

// probe climbs the ladder from the top.
func probe(ctx context.Context, dir, rung string) (Features, error) {
	var f Features
	if rung != userns.Single {
		r, err := userns.MappedRung()
		if err == nil {
			f, err = probeRung(ctx, dir, r)
		}
		if err == nil {
			return f, nil
		}
		if rung == userns.Mapped {
			return f, fmt.Errorf("climb to rung mapped: %w", err)
		}
		f.RungReason, f.RungHint = err.Error(), hintOf(err)
	}
	g, err := probeRung(ctx, dir, userns.SingleRung())
	if err != nil {
		return f, err
	}
	g.RungReason, g.RungHint = f.RungReason, f.RungHint
	g.Emulation = probeEmulation(ctx, g.Rung)
	return g, nil
}

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// probeRung tries a rung, and on it the overlay that containers need.
func probeRung(ctx context.Context, dir string, r userns.Rung) (Features, error) {
	f := Features{Rung: r}
	if err := probeNamespaces(ctx, dir, r); err != nil {
		return f, err
	}
	probeDevice(ctx, r, &f)
	if err := userns.TryLeave(ctx); err != nil {
		f.OwnFileReason = err.Error()
	}
	err := probeOverlay(ctx, r, dir, dir)
	if err == nil {
		f.Overlay = true
		return f, nil
	}
	if ctx.Err() != nil {
		return f, context.Cause(ctx)
	}
	f.OverlayReason = err.Error()
	scratch := "/var/tmp/sbx-" + strconv.Itoa(os.Getuid())
	if checkScratch(scratch) != nil {
		return f, nil
	}
	if probeOverlay(ctx, r, dir, scratch) == nil {
		f.Overlay, f.Scratch = true, scratch
	} else {
		_ = os.Remove(scratch) // unless containers have something there
	}
	return f, nil
}

// checkScratch makes the directory if it is missing, and refuses one that
// another user could have put there.
func checkScratch(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !fi.IsDir() || fi.Mode().Perm() != 0o700 || int(st.Uid) != os.Getuid() {
		return fmt.Errorf("use %s: not a directory of this user with mode 0700", dir)
	}
	return nil
}

// try runs a program in the namespaces of a rung to its end.
func try(ctx context.Context, r userns.Rung, p *userns.Prog) error {
	p.Exit(0)
	child, err := userns.Start(ctx, r, unix.CLONE_NEWNS, p)
	if err != nil {
		return err
	}
	err = child.Started(ctx)
	ws, waitErr := child.Wait()
	if err == nil {
		err = waitErr
	}
	if err == nil && ws.ExitStatus() != 0 {
		err = fmt.Errorf("try rung %s: status %d", r.Name, ws.ExitStatus())
	}
	return err
}

// probeNamespaces makes a user namespace with the rung's map and mounts in it:
// some hosts allow the first and refuse the second (AppArmor on Ubuntu 24.04).
// On `mapped` a file in the store must also take another owner, which network
// filesystems refuse.
func probeNamespaces(ctx context.Context, dir string, r userns.Rung) error {
	at, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return fmt.Errorf("probe %s: %w", dir, err)
	}
	defer os.RemoveAll(at)
	p := &userns.Prog{}
	if r.IsMapped() {
		p.Call("give a file in the store to another ID", unix.SYS_FCHOWNAT, unix.AT_FDCWD, at, 1, 1, 0)
		p.Call("give a file in the store back", unix.SYS_FCHOWNAT, unix.AT_FDCWD, at, 0, 0, 0)
	}
	p.Call("mount in a user namespace", unix.SYS_MOUNT, "tmpfs", at, "tmpfs", 0, nil)
	err = try(ctx, r, p)
	var step *userns.StepError
	if errors.As(err, &step) && strings.HasPrefix(step.Step, "mount") {
		return &userns.SetupError{Op: "mount in a user namespace", Err: step.Errno,
			Gate: "a security module lets this user make user namespaces but not use them; an administrator can allow it (on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile for this binary)"}
	}
	return err
}

// probeOverlay mounts an overlay whose lower directory is in one place and whose
// upper is in another, and does what containers do: remove a lower file, and
// make a directory where a lower one was removed.
func probeOverlay(ctx context.Context, r userns.Rung, lower, upper string) error {
	at, err := os.MkdirTemp(upper, ".probe-")
	if err != nil {
		return fmt.Errorf("probe %s: %w", upper, err)
	}
	defer removeProbe(upper, at)
	low, err := os.MkdirTemp(lower, ".probe-")
	if err != nil {
		return fmt.Errorf("probe %s: %w", lower, err)
	}
	defer removeProbe(lower, low)
	for _, d := range []string{low + "/d", at + "/upper", at + "/work", at + "/root"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(low+"/f", []byte("x"), 0o644); err != nil {
		return err
	}
	p := &userns.Prog{}
	fd := p.Reg()
	p.Call("open lower directory", unix.SYS_OPENAT, unix.AT_FDCWD, low, unix.O_PATH|unix.O_CLOEXEC, 0).Into(fd)
	p.Call("place descriptor", unix.SYS_DUP3, fd, slotLower, 0)
	p.Call("change directory", unix.SYS_CHDIR, at)
	p.Call("mount overlay", unix.SYS_MOUNT, "overlay", "root", "overlay", 0, "lowerdir="+slot(slotLower)+",upperdir=upper,workdir=work,userxattr")
	p.Call("remove a file through the overlay", unix.SYS_UNLINKAT, unix.AT_FDCWD, "root/f", 0)
	p.Call("remove a directory through the overlay", unix.SYS_UNLINKAT, unix.AT_FDCWD, "root/d", unix.AT_REMOVEDIR)
	p.Call("make it again", unix.SYS_MKDIRAT, unix.AT_FDCWD, "root/d", 0o755)
	return try(ctx, r, p)
}

// removeProbe removes what a probe left, overlay's shut work directory included.
func removeProbe(parent, path string) {
	dir, err := os.Open(parent)
	if err != nil {
		return
	}
	defer dir.Close()
	_ = overlay.RemoveAll(context.Background(), dir, filepath.Base(path))
}
