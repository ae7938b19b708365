// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Step is what the program of a build's RUN has, beyond what every container has.
// None of it is written down: the record of a container is a file.
type Step struct {
	Trees []StepTree
	Files []StepFile
	Env   []string // NAME=value, before the rest of the environment is consulted
	Hosts []string // "ADDRESS\tNAME" lines of /etc/hosts
}

// StepTree is a tree that is mounted for a step: unpacked layers, or a directory.
type StepTree struct {
	Target   string
	Lower    []string // topmost first
	Source   string   // a path in it; no link is followed
	File     bool     // Source is no directory
	Writable bool     // and what is written is thrown away
}

// StepFile is a file in memory that is mounted for a step.
type StepFile struct {
	Target   string
	Data     []byte
	Mode     uint32
	UID, GID uint32
}

// stepHostname is the host name of every step: results must not depend on it.
const stepHostname = "buildkitsandbox"

// CreateStep makes the container of a step. No command lists it, and it does not
// outlive its maker: what dies with it is healed. It must be removed.
func (h *Home) CreateStep(ctx context.Context, b Base, o Options, s Step) (*Container, error) {
	b.Config.Volumes = nil // what a RUN writes there stays in the layer
	o.Hostname, o.step, o.Log = stepHostname, true, LogConfig{Driver: LogNone}
	c, err := h.Create(ctx, b, o)
	if err != nil {
		return nil, err
	}
	for i := range s.Trees {
		if !s.Trees[i].Writable {
			continue
		}
		for _, name := range []string{"upper", "work"} {
			if err := os.MkdirAll(filepath.Join(c.dir, treeDir(i), name), 0o755); err != nil {
				_ = c.Remove(context.WithoutCancel(ctx), true)
				return nil, fmt.Errorf("create container: %w", err)
			}
		}
	}
	c.step = &s
	if c.maker, err = os.OpenFile(filepath.Join(c.dir, makerFile), os.O_RDWR|os.O_CREATE, 0o600); err == nil {
		err = unix.Flock(int(c.maker.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		_ = c.Remove(context.WithoutCancel(ctx), true)
		return nil, fmt.Errorf("create container: %w", err)
	}
	return c, nil
}

// makerFile is locked by whoever has made a step, as long as he lives.
const makerFile = "maker"

// abandoned reports whether a step's maker has died. One that was made a moment
// ago may not have its lock yet.
func (c *Container) abandoned() bool {
	if !c.Config.Step || c.State.Status == Running || c.maker != nil {
		return false
	}
	fd, err := open(filepath.Join(c.dir, makerFile), unix.O_RDWR, 0)
	if err != nil {
		return time.Since(c.Config.Created) > time.Minute
	}
	defer unix.Close(fd)
	return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil
}

func treeDir(i int) string { return fmt.Sprintf("tree-%d", i) }

// LookUp turns USER[:GROUP] into IDs, by the user databases of unpacked layers,
// topmost first.
func LookUp(spec string, lower []string) (Identity, error) { return lookUpUser(spec, lower) }

// LookUpGroup is LookUp for a group.
func LookUpGroup(group string, lower []string) (uint32, error) { return lookUpGroup(group, lower) }

// stepFiles makes the files of a step on the stage, and binds them and its trees.
func (r *recipe) stepMounts() {
	if r.step == nil {
		return
	}
	for i, t := range r.step.Trees {
		r.stepTree(i, t)
	}
	for i, f := range r.step.Files {
		name := fmt.Sprintf("%s/step-%d", r.stage, i)
		what := "mount " + f.Target
		data := f.Data
		r.Call(what, unix.SYS_OPENAT, unix.AT_FDCWD, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600).Into(r.work)
		if len(data) > 0 {
			r.Call(what, unix.SYS_WRITE, r.work, data, len(data))
		}
		r.Call(what, unix.SYS_FCHOWN, r.work, int(f.UID), int(f.GID)).Ignore(unix.EINVAL) // on `single` all are the user's
		r.Call(what, unix.SYS_FCHMOD, r.work, f.Mode)
		r.Call("close "+f.Target, unix.SYS_CLOSE, r.work)
		r.file(f.Target, what)
		r.place(r.a, slotTarget)
		r.Call(what, unix.SYS_MOUNT, name, slot(slotTarget), nil, unix.MS_BIND, nil)
		r.openIn(what, joinPath(f.Target), pathOnly, inRoot).Into(r.a)
		r.place(r.a, slotTarget)
		r.Call(what, unix.SYS_MOUNT, nil, slot(slotTarget), nil, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC*boolInt(f.Mode&0o111 == 0), nil)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// stepTree mounts a tree: a bind of its only directory, or an overlay.
func (r *recipe) stepTree(i int, t StepTree) {
	what := "mount " + t.Target
	at := fmt.Sprintf("%s/%s", r.stage, treeDir(i))
	r.Call(what, unix.SYS_MKDIRAT, unix.AT_FDCWD, at, 0o755)
	host := "" // where the mount is one of the host's
	if len(t.Lower) == 1 && !t.Writable {
		host = t.Lower[0]
		r.Call(what, unix.SYS_MOUNT, host, at, nil, unix.MS_BIND|unix.MS_REC, nil)
	} else {
		first := slotLower + len(r.config.Lower)
		options := "userxattr"
		for j, dir := range t.Lower {
			r.Call("open layer "+dir, unix.SYS_OPENAT, unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(r.work)
			r.place(r.work, first+j)
			if j == 0 {
				options += ",lowerdir=" + slot(first)
			} else {
				options += ":" + slot(first+j)
			}
		}
		if t.Writable {
			dir := filepath.Join(r.dir, treeDir(i))
			for j, name := range []string{"upper", "work"} {
				r.Call(what, unix.SYS_OPENAT, unix.AT_FDCWD, dir+"/"+name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(r.work)
				r.place(r.work, first+len(t.Lower)+j)
				options += "," + name + "dir=" + slot(first+len(t.Lower)+j)
			}
		}
		r.Call(what, unix.SYS_MOUNT, "overlay", at, "overlay", r.guard(), options)
	}
	r.Call(what, unix.SYS_OPENAT, unix.AT_FDCWD, at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Into(r.work)
	r.Call(what, unix.SYS_OPENAT2, r.work, joinPath(t.Source), how(pathOnly, noLinks), howSize).Into(r.work)
	r.place(r.work, slotSource)
	if t.File {
		r.file(t.Target, what)
	} else {
		r.directory(t.Target, what)
	}
	r.place(r.a, slotTarget)
	r.Call(what, unix.SYS_MOUNT, slot(slotSource), slot(slotTarget), nil, unix.MS_BIND, nil)
	r.openIn(what, joinPath(t.Target), pathOnly, inRoot).Into(r.a)
	flags := unix.MS_NOSUID | unix.MS_NODEV
	if !t.Writable {
		flags |= unix.MS_RDONLY
	}
	r.tighten(r.a, flags, host)
	r.Call("close", unix.SYS_CLOSE, slotSource)
}

// joinPath is a path as the recipe opens it in the root: relative, never empty.
func joinPath(p string) string {
	if clean := filepath.Clean("/" + p)[1:]; clean != "" {
		return clean
	}
	return "."
}

// RunStep runs the program of a step and returns its exit status. It takes no
// signals from the terminal: when ctx ends, the program is killed, and everything
// that it has started.
//
// Runs in: the host's namespaces, as the user.
func (c *Container) RunStep(ctx context.Context, out, errs *os.File) (int, error) {
	s, err := openAttachment(false, Attach{Stdio: Stdio{Out: out, Err: errs}, Output: true, Errors: true})
	if err != nil {
		return statusFailed, fmt.Errorf("open streams: %w", err)
	}
	defer s.close()
	l, err := c.start(ctx, s, nil)
	if err != nil {
		if ctx.Err() != nil {
			return statusFailed, ctx.Err()
		}
		return startFailure(err, c.Config.Command()[0], "")
	}
	s.carry()
	end, err := l.end(ctx)
	if err != nil {
		l.process.Kill() // the monitor, and with it all of the container
	}
	l.close()
	// Until the monitor has gone, the upper directory is mounted.
	_, waitErr := l.process.Wait()
	s.finish()
	switch {
	case ctx.Err() != nil:
		return statusFailed, ctx.Err()
	case errors.Is(err, io.EOF):
		return statusSignalBase + int(unix.SIGKILL), errors.New("the step's monitor was killed")
	case err != nil:
		return statusFailed, err
	}
	return end.Status, waitErr
}

// forStep adds what a step of a build has, if c is one's.
func (s *start) forStep(step *Step) {
	if step == nil {
		return
	}
	s.step = step
	s.run.env = append(slices.Clone(s.run.env), step.Env...)
	for i := range s.files {
		if s.files[i].name == "hosts" {
			for _, line := range step.Hosts {
				s.files[i].text += line + "\n"
			}
		}
	}
}
