// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// lock is a container's, held by one command at a time that changes what it is:
// start, remove, rename. It ends with the process that holds it.
type lock struct{ fd int }

// release gives it up, for the copies in children on their way to an execve too.
func (l lock) release() {
	_ = unix.Flock(l.fd, unix.LOCK_UN)
	unix.Close(l.fd)
}

// lock waits for the container to be free, and reads anew what it is then. It is
// a *NotFoundError when it has been removed.
func (c *Container) lock() (lock, error) {
	fd, err := lockDir(c.dir, unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return lock{}, &NotFoundError{c.Config.Name}
	}
	if err != nil {
		return lock{}, fmt.Errorf("lock container %s: %w", c.Config.Name, err)
	}
	l := lock{fd}
	if c.fresh {
		c.fresh = false
		return l, nil
	}
	now, err := c.home.load(c.Config.ID)
	if err != nil {
		l.release()
		if errors.Is(err, fs.ErrNotExist) {
			err = &NotFoundError{c.Config.Name}
		}
		return lock{}, err
	}
	c.Config, c.State = now.Config, now.State
	return l, nil
}

// NotRunningError says that a container would have to run.
type NotRunningError struct{ Name string }

func (e *NotRunningError) Error() string { return "container " + e.Name + " is not running" }

// Hint says what helps.
func (e *NotRunningError) Hint() string { return "start it with: sbx start " + e.Name }

// ElsewhereError says that a container belongs to a run that cannot be reached
// from here.
type ElsewhereError struct{ Name, Place string }

func (e *ElsewhereError) Error() string {
	return fmt.Sprintf("container %s runs %s", e.Name, e.Place)
}

// Hint says where to go.
func (e *ElsewhereError) Hint() string { return "use sbx there" }

// dial connects to the monitor of a container that runs.
func (c *Container) dial() (*link, error) {
	state, err := loadState(c.dir, c.home.here)
	if err != nil {
		return nil, err
	}
	c.State = state
	if place := c.State.Elsewhere(c.home.here); place != "" {
		return nil, &ElsewhereError{Name: c.Config.Name, Place: place}
	}
	if !c.State.Status.IsAlive() {
		return nil, &NotRunningError{c.Config.Name}
	}
	conn, err := userns.Dial(c.dir, monitorSocket)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil, &NotRunningError{c.Config.Name} // it has just ended
	}
	if err != nil {
		return nil, fmt.Errorf("reach the monitor of container %s: %w", c.Config.Name, err)
	}
	return &link{conn: conn}, nil
}

// gone turns the end of a conversation into what it means: the container ended.
func (c *Container) gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return &NotRunningError{c.Config.Name}
	}
	return err
}

// command asks the monitor for one thing.
func (c *Container) command(ctx context.Context, r request, given ...*os.File) error {
	l, err := c.dial()
	if err != nil {
		return err
	}
	defer l.close()
	files, err := l.ask(ctx, r, given...)
	closeFiles(files)
	return c.gone(err)
}
