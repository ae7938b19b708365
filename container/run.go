// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sbx/seccomp"
	"sbx/userns"
)

// Stdio are the three standard streams of the client. They are files because
// the monitor writes to them itself.
type Stdio struct {
	In, Out, Err *os.File
}

// hello is the first message of the client to the monitor, sent before the
// monitor exists. Its files are the ends of the program's streams, see streams.
type hello struct {
	ID         string  `json:"id"`
	Name       string  `json:"name"`
	Home       string  `json:"home"` // the directory of containers
	Here       process `json:"here"` // boot, machine and pid namespace of the client
	TTY        bool    `json:"tty,omitempty"`
	AutoRemove bool    `json:"autoRemove,omitempty"`
	Refused    string  `json:"refused,omitempty"`
	Volumes    []Mount `json:"volumes,omitempty"` // anonymous ones, which go when the container removes itself
}

// request is what a client asks of a running container's monitor.
type request struct {
	Signal int    `json:"signal,omitempty"`
	Rows   uint16 `json:"rows,omitempty"`
	Cols   uint16 `json:"cols,omitempty"`
}

// report is the monitor's last word.
type report struct {
	Status  int  `json:"status"`            // 0-255, 128+n when signalled
	Refused bool `json:"refused,omitempty"` // the program met what hello.Refused says
}

// Run starts the container in the foreground and returns the program's exit
// status: its own, or 128+n when signal n ended it. An error is a *StartError
// when the program did not start.
//
// Runs in: the host's namespaces, as the user.
func (c *Container) Run(ctx context.Context, stdio Stdio) (int, error) {
	if c.State.Status == Running {
		return statusFailed, fmt.Errorf("start container %s: it is running", c.Config.Name)
	}
	s, err := openStreams(&c.Config, stdio)
	if err != nil {
		return statusFailed, err
	}
	defer s.close()
	caught := make(chan struct{})
	go func() {
		defer close(caught)
		s.catchSignals()
	}()
	conn, process, err := c.start(ctx, s, caught)
	if err != nil {
		status, err := startFailure(err, &c.Config)
		c.failed(ctx, status, err)
		return status, err
	}
	defer conn.Close()
	restore := s.takeTerminal()
	defer restore()
	status, err := c.attend(ctx, conn, process, s)
	restore()
	return status, err
}

// start starts monitor and program and returns when both have been executed.
//
// From then on no signal may end the client and leave the container behind, so
// it waits until they are caught: a third of a millisecond, beside the rest.
func (c *Container) start(ctx context.Context, s *streams, caught <-chan struct{}) (*userns.Conn, *userns.Process, error) {
	program, err := seccomp.Default(capabilityNames())
	if err != nil {
		return nil, nil, err
	}
	conn, control, err := userns.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer control.Close()
	theirs, channel, err := userns.Pair()
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	// Both ends of the channel go to the children: the program sends on one and
	// the monitor receives from the other.
	defer theirs.Close()
	defer channel.Close()
	process, err := c.clone(ctx, s, caught, program, conn, control, theirs, channel)
	if err == nil {
		s.closeChildEnds()
		if err = process.Started(ctx); err == nil {
			return conn, process, nil
		}
		conn.Close()
		process.Wait()
		return nil, nil, err
	}
	conn.Close()
	return nil, nil, err
}

func (c *Container) clone(ctx context.Context, s *streams, caught <-chan struct{}, filter *seccomp.Program, conn *userns.Conn, control *os.File, channel *userns.Conn, programEnd *os.File) (*userns.Process, error) {
	high, err := s.highFiles(control, channel.File(), programEnd)
	if err != nil {
		return nil, err
	}
	defer high.close()
	st := &start{
		config: &c.Config, dir: c.dir, stage: filepath.Join(c.home.dir, namesDir), files: hostFiles(&c.Config), filter: filter, size: s.size,
		control: high.fd(0), channel: high.fd(1), programEnd: high.fd(2), null: high.fd(3),
		stdin: high.fd(4), stdout: high.fd(5), stderr: high.fd(6),
	}
	greeting := hello{
		ID: c.Config.ID, Name: c.Config.Name, Home: c.home.dir, Here: c.home.here,
		TTY: c.Config.TTY, AutoRemove: c.Config.AutoRemove, Refused: c.Config.Refused,
	}
	if c.Config.AutoRemove {
		greeting.Volumes = anonymous(c.Config.Mounts)
	}
	if err := conn.Send(greeting, s.monitorEnds()...); err != nil {
		return nil, err
	}
	<-caught
	return userns.Start(ctx, c.Config.Rung, unix.CLONE_NEWPID|unix.CLONE_NEWNS, st.monitorProgram())
}

// attend lives beside the container until its monitor reports the end: it
// carries the terminal's input, its size and the signals.
func (c *Container) attend(ctx context.Context, conn *userns.Conn, process *userns.Process, s *streams) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go s.feed()
	go forwardSignals(ctx, s.signals, conn, s, cancel)
	healed := make(chan struct{})
	go func() {
		defer close(healed)
		c.home.heal(ctx)
	}()
	defer func() { <-healed }()
	var end report
	if _, err := conn.Receive(ctx, &end); err != nil {
		if ctx.Err() != nil {
			return statusSignalBase + int(unix.SIGHUP), nil
		}
		if errors.Is(err, io.EOF) {
			process.Wait()
			return statusSignalBase + int(unix.SIGKILL), errors.New("the container's monitor was killed")
		}
		return statusFailed, err
	}
	s.finish()
	if end.Refused && end.Status != 0 && c.Config.Advice != "" {
		return end.Status, &StartError{Code: end.Status, Advice: c.Config.Advice}
	}
	return end.Status, nil
}

// failed settles what becomes of a container whose program did not start: it is
// as it was created, but for the status; or gone, if it was to remove itself.
func (c *Container) failed(ctx context.Context, status int, err error) {
	if c.Config.AutoRemove {
		_ = c.remove(context.WithoutCancel(ctx))
		return
	}
	c.State = State{Status: Created, ExitCode: status, Error: err.Error()}
	_ = saveState(c.dir, c.State)
}

// Remove removes the container and what it wrote. One that runs is an error,
// unless force kills it first.
func (c *Container) Remove(ctx context.Context, force bool) error {
	if c.State.Status == Running {
		if !force {
			return &RunningError{c.Config.Name}
		}
		if err := c.kill(ctx); err != nil {
			return fmt.Errorf("remove container %s: %w", c.Config.Name, err)
		}
	}
	if err := c.remove(ctx); err != nil {
		return fmt.Errorf("remove container %s: %w", c.Config.Name, err)
	}
	return nil
}

// RunningError says that a container runs, and so cannot be removed.
type RunningError struct{ Name string }

func (e *RunningError) Error() string { return "remove container " + e.Name + ": it is running" }

// Hint says how all the same.
func (e *RunningError) Hint() string { return "stop it first, or use rm -f" }

// kill kills the monitor, with which the kernel kills everything in the
// container, and waits until it is gone.
func (c *Container) kill(ctx context.Context) error {
	fd, err := unix.PidfdOpen(c.State.Monitor.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", c.State.Monitor.PID, err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	// The descriptor cannot come to mean another process; the pid could have
	// before it was opened.
	if alive, known := c.State.Monitor.alive(); !alive {
		if !known {
			return errors.New("it runs on another machine, or outside of this container")
		}
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return waitPidfd(ctx, fd)
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

// remove takes the container out of sight in one step, then away.
func (c *Container) remove(ctx context.Context) error {
	if err := c.home.dropName(c.Config.Name, c.Config.ID); err != nil {
		return err
	}
	trash := filepath.Join(c.home.dir, trashPrefix+c.Config.ID)
	if err := os.Rename(c.dir, trash); err != nil {
		return err
	}
	var err error
	if c.Config.AutoRemove {
		err = c.home.RemoveAnonymous(ctx, c.Config.Mounts)
	}
	return errors.Join(err, c.home.Store.RemoveTree(ctx, trash))
}
