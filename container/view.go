// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// insider is a role of this binary whose root is a container's root filesystem,
// with what is mounted in it. It is in no pid namespace of the container's, so
// nothing in there can see it.
type insider struct {
	conn    *userns.Conn
	process *userns.Process
	release func() // what it needed while it worked
}

func (i *insider) close() {
	i.conn.Close()
	i.process.Kill()
	_, _ = i.process.Wait()
	i.release()
}

// enter starts a role in the container's filesystem: in the mounts of the program
// if it runs, else in mounts made for this, with the container kept from being
// started meanwhile.
//
// Runs in: the host's namespaces, as the user.
func (c *Container) enter(ctx context.Context, role string) (*insider, error) {
	conn, control, err := userns.Pair()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	i := &insider{conn: conn, release: func() {}}
	exe, high, err := insideFiles(control)
	if err == nil {
		i.process, err = c.startInside(ctx, i, role, exe, high)
		exe.Close()
		high.Close()
	}
	if err != nil {
		conn.Close()
		i.release()
		return nil, err
	}
	if err := i.process.Started(ctx); err != nil {
		i.close()
		return nil, fmt.Errorf("enter container %s: %w", c.Config.Name, err)
	}
	return i, nil
}

// insideFiles opens this binary and places the role's end of the conversation, both
// above the descriptors that a start hands out.
func insideFiles(control *os.File) (exe, high *os.File, err error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, nil, err
	}
	defer self.Close()
	if exe, err = userns.HighFile(self); err != nil {
		return nil, nil, err
	}
	if high, err = userns.HighFile(control); err != nil {
		exe.Close()
		return nil, nil, err
	}
	return exe, high, nil
}

func (c *Container) startInside(ctx context.Context, i *insider, role string, exe, control *os.File) (*userns.Process, error) {
	pidfd, user, err := c.entrance(ctx)
	if err != nil {
		return nil, err
	}
	if pidfd == nil {
		lock, err := c.lock()
		if err != nil {
			return nil, err
		}
		i.release = lock.release
		if c.State.Status.IsAlive() {
			return nil, fmt.Errorf("container %s has just been started", c.Config.Name)
		}
		if err := c.awaitPast(ctx); err != nil {
			return nil, err
		}
		return userns.Start(ctx, c.Config.Rung, unix.CLONE_NEWNS, c.viewProgram(role, int(exe.Fd()), int(control.Fd())))
	}
	i.release = func() {
		pidfd.Close()
		user.Close()
	}
	p := &userns.Prog{}
	// The user namespace of the monitor holds all IDs of the rung; the program's
	// own may be another one below.
	p.Call("hide memory", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	p.Call("enter user namespace", unix.SYS_SETNS, int(user.Fd()), unix.CLONE_NEWUSER)
	p.Call("enter mount namespace", unix.SYS_SETNS, int(pidfd.Fd()), unix.CLONE_NEWNS)
	p.Call("die with parent", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	p.ExecveFile(int(exe.Fd()), role, "", []string{}, int(control.Fd()))
	return userns.Fork(p)
}

// viewProgram mounts the container's root filesystem as a start does, with its
// binds and volumes, and becomes a role whose root that is.
//
// Runs in: new user and mount namespaces, with all capabilities there.
func (c *Container) viewProgram(role string, exe, control int) *userns.Prog {
	s := &start{config: &c.Config, dir: c.dir, stage: filepath.Join(c.home.dir, namesDir)}
	r := &recipe{Prog: &userns.Prog{}, start: s}
	r.Call("die with parent", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	r.Call("set umask", unix.SYS_UMASK, 0)
	r.Call("make mounts private", unix.SYS_MOUNT, nil, "/", nil, unix.MS_REC|unix.MS_PRIVATE, nil)
	r.makeStage()
	r.mountRoot()
	for _, m := range sorted(slices.Concat(c.Config.BaseMounts, c.Config.Mounts)) {
		// What the program had in memory has gone with it, and a bind whose source
		// has gone is for the next start to report.
		if m.Type != Tmpfs && exists(m.Source) {
			r.mount(m)
		}
	}
	if c.Config.ReadOnly {
		r.remountReadOnly(".", 0)
	}
	r.Call("change directory to root", unix.SYS_FCHDIR, r.root)
	r.Call("change root", unix.SYS_CHROOT, ".")
	r.ExecveFile(exe, role, "", []string{}, control)
	return r.Prog
}

// entrance asks the monitor for what a process needs to enter the container: its
// pid 1 and the user namespace. It returns nothing when the container does not run.
func (c *Container) entrance(ctx context.Context) (pidfd, user *os.File, err error) {
	l, err := c.dial()
	var stopped *NotRunningError
	if errors.As(err, &stopped) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer l.close()
	files, err := l.ask(ctx, request{Do: doJoin})
	if err == nil && (files[filePidfd] == nil || files[fileUser] == nil) {
		err = errors.New("the monitor gave no way in")
	}
	if err != nil {
		closeFiles(files)
		return nil, nil, fmt.Errorf("enter container %s: %w", c.Config.Name, c.gone(err))
	}
	if pidfd, err = userns.HighFile(files[filePidfd]); err == nil {
		user, err = userns.HighFile(files[fileUser])
	}
	closeFiles(files)
	return pidfd, user, err
}

func exists(name string) bool {
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil
}
