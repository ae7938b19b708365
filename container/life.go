// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// defaultGrace is how many seconds stop waits before it kills, as on Docker.
const defaultGrace = 10

// Stop asks the container's program to end, with a signal (the container's own
// if 0), and kills it if it has not within grace seconds (the container's own if
// nil, for ever if negative). It returns when the container has ended; one that
// does not run is as it should be.
func (c *Container) Stop(ctx context.Context, signal unix.Signal, grace *int) error {
	l, err := c.dial()
	var ended *NotRunningError
	if errors.As(err, &ended) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.close()
	r := request{Do: doStop, Signal: int(signal), Grace: defaultGrace}
	if c.Config.StopTimeout != nil {
		r.Grace = *c.Config.StopTimeout
	}
	if grace != nil {
		r.Grace = *grace
	}
	if r.Signal == 0 {
		s, err := ParseSignal(c.Config.StopSignal)
		if err != nil {
			s = unix.SIGTERM
		}
		r.Signal = int(s)
	}
	if l.tell(request{Do: doWait}) == nil {
		_, _ = l.ask(ctx, r) // the end, or its absence, says how that went
	}
	_, err = l.end(ctx)
	if errors.As(c.gone(err), &ended) {
		return nil
	}
	return err
}

// Kill sends the container's program a signal. The error is a *NotRunningError
// when there is none.
func (c *Container) Kill(ctx context.Context, signal unix.Signal) error {
	err := c.command(ctx, request{Do: doSignal, Signal: int(signal)})
	if err != nil {
		return fmt.Errorf("kill container %s: %w", c.Config.Name, err)
	}
	return nil
}

// Pause stops every process of the container where it is, by SIGSTOP. A program
// that watches its children sees that they stopped.
func (c *Container) Pause(ctx context.Context) error {
	l, err := c.dial()
	if err == nil {
		l.close()
		if c.State.Status == Paused {
			return fmt.Errorf("container %s is already paused", c.Config.Name)
		}
		err = c.command(ctx, request{Do: doPause})
	}
	return err
}

// Unpause lets the processes of a paused container go on.
func (c *Container) Unpause(ctx context.Context) error {
	l, err := c.dial()
	if err == nil {
		l.close()
		if c.State.Status != Paused {
			return fmt.Errorf("container %s is not paused", c.Config.Name)
		}
		err = c.command(ctx, request{Do: doUnpause})
	}
	return err
}

// Wait waits until the container does not run any more, and returns the exit
// status of its program. One that was never started has 0.
func (c *Container) Wait(ctx context.Context) (int, error) {
	l, err := c.dial()
	var ended *NotRunningError
	if errors.As(err, &ended) {
		return c.State.ExitCode, nil
	}
	if err != nil {
		return 0, err
	}
	defer l.close()
	if err := l.tell(request{Do: doWait}); err != nil && !errors.As(c.gone(err), &ended) {
		return 0, err
	}
	end, err := l.end(ctx)
	if err == nil {
		return end.Status, nil
	}
	if !errors.As(c.gone(err), &ended) {
		return 0, err
	}
	// The monitor was killed, or ended as we came.
	now, err := loadState(c.dir, c.home.here)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return now.ExitCode, err
}

// Sync makes the record of a new container durable.
func (c *Container) Sync() error {
	for _, path := range []string{c.dir + "/config.json", c.dir, c.home.dir} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = f.Sync()
		f.Close()
		// Some filesystems have nothing to do for a directory.
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("write container %s: %w", c.Config.Name, err)
		}
	}
	return nil
}

// Restart stops the container, if it runs, and starts it.
func (c *Container) Restart(ctx context.Context, signal unix.Signal, grace *int) error {
	if err := c.Stop(ctx, signal, grace); err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		return err
	}
	c.record("restart", nil)
	return nil
}
