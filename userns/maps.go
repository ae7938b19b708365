// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The steps whose failure means that the host refuses the map.
const (
	stepMapIDs  = "write ID map"
	stepReadMap = "wait for ID map"
)

// mapper is the client's part of mapping: on `mapped`, the pipe whose byte tells
// the child that newuidmap and newgidmap have done their work.
type mapper struct{ r, w *os.File }

func (m *mapper) close() {
	if m.r != nil {
		m.r.Close()
	}
	if m.w != nil {
		m.w.Close()
	}
}

// prelude is the start of every program in a new user namespace: the ID maps.
//
// On `single` the child writes its own: one ID needs no helper, and setgroups
// must be denied before gid_map may be written (user_namespaces(7)). On `mapped`
// it waits for the client, which runs the set-user-ID helpers.
func (r Rung) prelude() (*Prog, *mapper, error) {
	p, m := &Prog{}, &mapper{}
	if !r.IsMapped() {
		MapOne(p, 0, r.UID, 0, r.GID)
		return p, m, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	m.r, m.w = os.NewFile(uintptr(fds[0]), "map pipe"), os.NewFile(uintptr(fds[1]), "map pipe")
	// The child's own copy of the write end would hide the client's death.
	p.Call("close map pipe", unix.SYS_CLOSE, fds[1])
	p.Call(stepReadMap, unix.SYS_READ, fds[0], make([]byte, 1), 1).NonZero()
	r.BecomeRoot(p)
	return p, m, nil
}

// BecomeRoot adds what makes a process that is in a user namespace of the rung
// its root. On `single` it is that already: there is nobody else.
func (r Rung) BecomeRoot(p *Prog) {
	if !r.IsMapped() {
		return
	}
	p.Call("set group ID", unix.SYS_SETRESGID, 0, 0, 0)
	p.Call("clear supplementary groups", unix.SYS_SETGROUPS, 0, nil)
	p.Call("set user ID", unix.SYS_SETRESUID, 0, 0, 0)
}

// MapOne adds to p the writing of the ID maps of the user namespace that the
// process is in: a single user and a single group ID.
//
// Runs in: the new user namespace, with a procfs on /proc.
func MapOne(p *Prog, insideUID, outsideUID, insideGID, outsideGID int) {
	mapOne(p, unix.AT_FDCWD, "/proc/self/", insideUID, outsideUID, insideGID, outsideGID)
}

// MapOneIn is MapOne through a descriptor of a procfs that knows this process.
func MapOneIn(p *Prog, proc Reg, insideUID, outsideUID, insideGID, outsideGID int) {
	mapOne(p, proc, "self/", insideUID, outsideUID, insideGID, outsideGID)
}

func mapOne(p *Prog, at any, prefix string, insideUID, outsideUID, insideGID, outsideGID int) {
	fd := p.Reg()
	for _, f := range []struct {
		name, text string
	}{
		{"setgroups", "deny"},
		{"gid_map", fmt.Sprintf("%d %d 1", insideGID, outsideGID)},
		{"uid_map", fmt.Sprintf("%d %d 1", insideUID, outsideUID)},
	} {
		p.Call(stepMapIDs, unix.SYS_OPENAT, at, prefix+f.name, unix.O_WRONLY|unix.O_CLOEXEC, 0).Into(fd)
		p.Call(stepMapIDs, unix.SYS_WRITE, fd, []byte(f.text), len(f.text))
		p.Call("close ID map", unix.SYS_CLOSE, fd)
	}
}

// mapIDs runs newuidmap and newgidmap on the child and lets it go on.
func (m *mapper) mapIDs(ctx context.Context, r Rung, pid int) error {
	if m.w == nil {
		return nil
	}
	m.r.Close()
	m.r = nil
	// The two are independent; each is a set-user-ID program of a millisecond.
	groups := make(chan error, 1)
	go func() { groups <- runMapper(ctx, "newgidmap", pid, mapArgs(r.GID, r.GIDs)) }()
	err := runMapper(ctx, "newuidmap", pid, mapArgs(r.UID, r.UIDs))
	if err = errors.Join(err, <-groups); err != nil {
		return err
	}
	if _, err := m.w.Write([]byte{0}); err != nil {
		return fmt.Errorf("map IDs: %w", err)
	}
	return nil
}

func runMapper(ctx context.Context, program string, pid int, args []string) error {
	cmd := exec.CommandContext(ctx, program, append([]string{strconv.Itoa(pid)}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(bytes.ToValidUTF8(out, []byte("?")))); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	e := &SetupError{Op: program, Err: err}
	if path, lookErr := exec.LookPath(program); lookErr != nil {
		e.Gate = "install the package that holds " + program + " (uidmap on Debian, shadow-utils elsewhere), or use --rung single"
	} else if !privileged(path) {
		e.Gate = path + " has lost its setuid bit or file capability; an administrator can reinstall its package; until then use --rung single"
	}
	return e
}

// privileged reports whether a program is set-user-ID or carries capabilities.
func privileged(path string) bool {
	fi, err := os.Stat(path)
	if err != nil {
		return false
	}
	if fi.Mode()&os.ModeSetuid != 0 {
		return true
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}
