// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Remove removes the container and what it wrote. One that runs is an error,
// unless force kills it first.
func (c *Container) Remove(ctx context.Context, force bool) error {
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.release()
	if c.State.Status.IsAlive() {
		if !force {
			return &RunningError{Op: "remove", Name: c.Config.Name}
		}
		if err := c.kill(ctx); err != nil {
			return fmt.Errorf("remove container %s: %w", c.Config.Name, err)
		}
		// Who was killed with it can tell of nothing.
		c.record("kill", map[string]string{"signal": strconv.Itoa(int(unix.SIGKILL))})
		c.record("die", map[string]string{"exitCode": strconv.Itoa(statusSignalBase + int(unix.SIGKILL))})
	} else if err := c.awaitPast(ctx); err != nil {
		return fmt.Errorf("remove container %s: %w", c.Config.Name, err)
	}
	// A monitor that has just removed its container was faster.
	if err := c.remove(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove container %s: %w", c.Config.Name, err)
	}
	return nil
}

// RunningError says that a container runs, and so cannot be removed, or started.
type RunningError struct{ Op, Name string }

func (e *RunningError) Error() string { return e.Op + " container " + e.Name + ": it is running" }

// Hint says how all the same.
func (e *RunningError) Hint() string {
	if e.Op == "remove" {
		return "stop it first, or use rm -f"
	}
	return ""
}

// kill kills the monitor, with which the kernel kills everything in the
// container, and waits until it is gone.
func (c *Container) kill(ctx context.Context) error {
	return c.withMonitor(func(fd int) error {
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		return waitPidfd(ctx, fd)
	})
}

// awaitPast waits for the end of the monitor of the last run, which says that the
// container has ended a moment before it has itself.
func (c *Container) awaitPast(ctx context.Context) error {
	if c.State.Monitor.PID == 0 {
		return nil
	}
	return c.withMonitor(func(fd int) error { return waitPidfd(ctx, fd) })
}

// withMonitor calls f with a descriptor of the monitor in the state, if that
// lives. The error is an *ElsewhereError when this machine cannot know.
func (c *Container) withMonitor(f func(fd int) error) error {
	p := c.State.Monitor
	if alive, known := p.alive(c.home.here); !known {
		return &ElsewhereError{Name: c.Config.Name, Place: p.place(c.home.here)}
	} else if !alive {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	// The descriptor cannot come to mean another process; the pid could have
	// before it was opened.
	if alive, _ := p.alive(c.home.here); !alive {
		return nil
	}
	return f(fd)
}

// waitPidfd waits until the process has ended.
func waitPidfd(ctx context.Context, fd int) error {
	wake, cancel, err := os.Pipe()
	if err != nil {
		return err
	}
	defer wake.Close()
	defer cancel.Close()
	stop := context.AfterFunc(ctx, func() { _, _ = cancel.Write([]byte{0}) })
	defer stop()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		return ctx.Err()
	}
}

// remove takes the container out of sight in one step, then away. The caller has
// locked it, and it does not run.
func (c *Container) remove(ctx context.Context) error {
	if err := c.home.dropName(c.Config.Name, c.Config.ID); err != nil {
		return err
	}
	if c.maker != nil {
		defer c.maker.Close()
	}
	trash := filepath.Join(c.home.dir, trashPrefix+c.Config.ID)
	if err := os.Rename(c.dir, trash); err != nil {
		return err
	}
	c.record("destroy", nil)
	var err error
	if c.Config.AutoRemove {
		err = c.home.RemoveAnonymous(ctx, c.Config.Mounts)
	}
	return errors.Join(err, c.home.Store.RemoveTree(ctx, trash))
}
