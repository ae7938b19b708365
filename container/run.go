// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sbx/seccomp"
	"sbx/userns"
)

// Run starts the container with the client attached to it, and returns the
// program's exit status: its own, or 128+n when signal n ended it. An error is a
// *StartError when the program did not start, and ErrDetached when the user left
// it running.
//
// A container that removes itself ends with its client, unless the user detaches.
//
// Runs in: the host's namespaces, as the user.
func (c *Container) Run(ctx context.Context, a Attach) (int, error) {
	s, err := openAttachment(c.Config.TTY, a)
	if err != nil {
		return statusFailed, fmt.Errorf("open streams: %w", err)
	}
	defer s.close()
	caught := make(chan struct{})
	go func() {
		defer close(caught)
		s.catchSignals()
	}()
	link, err := c.start(ctx, s, caught)
	if err != nil {
		return c.failed(ctx, err)
	}
	defer link.close()
	s.carry()
	restore := s.takeTerminal()
	defer restore()
	healed := make(chan struct{})
	go func() {
		defer close(healed)
		c.home.heal(ctx)
	}()
	defer func() { <-healed }()
	return c.attend(ctx, link, s, restore)
}

// Start starts the container with nobody attached to it.
//
// Runs in: the host's namespaces, as the user.
func (c *Container) Start(ctx context.Context) error {
	s, err := openAttachment(c.Config.TTY, Attach{})
	if err != nil {
		return err
	}
	link, err := c.start(ctx, s, nil)
	if err != nil {
		_, err = c.failed(ctx, err)
		return err
	}
	link.close()
	return nil
}

// start starts monitor and program and returns when both have been executed. The
// container is locked until then.
//
// From the clone on no signal may end an attached client and leave the container
// behind, so it waits until they are caught: a third of a millisecond, beside the
// rest.
func (c *Container) start(ctx context.Context, s *attachment, caught <-chan struct{}) (_ *link, err error) {
	lock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer lock.release()
	if c.State.Status.IsAlive() {
		return nil, &RunningError{Op: "start", Name: c.Config.Name}
	}
	if err := c.awaitPast(ctx); err != nil {
		return nil, err
	}
	program, err := c.Config.filter()
	if err != nil {
		return nil, err
	}
	net, err := c.openNetwork(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { net.end(err) }()
	conn, control, err := userns.Pair()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	theirs, channel, err := userns.Pair()
	if err != nil {
		conn.Close()
		return nil, err
	}
	l := &link{conn: conn}
	l.process, err = c.clone(ctx, l, s, caught, program, net, control, theirs, channel)
	// Both ends of the channel are the children's: the program sends on one and
	// the monitor receives from the other, up to its end.
	theirs.Close()
	channel.Close()
	if err != nil {
		conn.Close()
		return nil, err
	}
	if err := l.process.Started(ctx); err != nil {
		// It is not to be tried again.
		_ = l.tell(request{Do: doStop, Signal: int(unix.SIGKILL)})
		conn.Close()
		l.process.Wait()
		return nil, err
	}
	return l, nil
}

func (c *Container) clone(ctx context.Context, l *link, s *attachment, caught <-chan struct{}, filter *seccomp.Program, net *networkStart, control *os.File, channel *userns.Conn, programEnd *os.File) (*userns.Process, error) {
	pipes, err := openPipes(&c.Config)
	if err != nil {
		return nil, err
	}
	defer pipes.close()
	high, err := openHighFiles(channel.File(), programEnd, pipes.program, control)
	if err != nil {
		return nil, err
	}
	defer high.close()
	group := c.openScope(ctx, s.Input || s.Output || s.Errors)
	defer group.close()
	st := newStart(&c.Config, net.state, c.dir, c.home.dir, filter)
	st.share(net.shared)
	st.admission = group.gate()
	st.forStep(c.step)
	st.size, st.control, st.descriptors = s.size(), high.other(0), high.descriptors()
	if net.shared != nil {
		st.channelCopy = int(channel.File().Fd())
	}
	if st.emulation, err = newEmulation(&c.Config, c.home.Features, c.dir); err != nil {
		return nil, err
	}
	greeting, err := c.greeting(s, pipes)
	if err != nil {
		return nil, err
	}
	greeting.hello.Emulation = st.emulation
	greeting.hello.Network, greeting.hello.NetworkFiles = &net.state, net.files.names
	greet := func(dir string, held []string) error {
		greeting.hello.Group, greeting.hello.Held = dir, held
		if err := l.conn.Send(greeting.hello, greeting.files.files...); err != nil {
			return err
		}
		return net.files.send(l.conn)
	}
	if group == nil {
		if err := greet("", nil); err != nil {
			return nil, err
		}
	}
	if caught != nil {
		<-caught
	}
	process, err := net.shared.startMonitor(ctx, c.Config.Rung, st.monitorProgram())
	if err == nil && group != nil {
		err = group.admit(&c.Config, process, greet)
	}
	if err == nil && s.input == nil && c.inputIsOnes(s) {
		s.input, pipes.stdin = pipes.stdin, nil
	}
	return process, err
}

// inputIsOnes reports whether the program's input is this client's alone, and
// ends with it (Docker's StdinOnce).
func (c *Container) inputIsOnes(s *attachment) bool { return s.Input && c.Config.StdinOnce && !s.tty }

// greeting is hello with its files, which stay the caller's.
type greeting struct {
	hello hello
	files bundle
}

func (c *Container) greeting(s *attachment, p *pipes) (greeting, error) {
	g := greeting{hello: hello{
		ID: c.Config.ID, Name: c.Config.Name, Home: c.home.dir, Here: c.home.here,
		TTY: c.Config.TTY, AutoRemove: c.Config.AutoRemove, Tied: c.Config.Step || c.Config.AutoRemove && (s.Output || s.Input || s.Errors),
		Refused: c.Config.Refused, Log: c.Config.Log, Restart: c.Config.Restart, Health: c.Config.Health.isOn(),
	}}
	g.hello.PIDsOf = c.Config.pidsOfWhom()
	if c.Config.AutoRemove {
		g.hello.Volumes = anonymous(c.Config.Mounts)
	}
	g.hello.MemorySwap = c.Config.Limits.MemorySwap
	g.hello.Memory, g.hello.Attributes = c.Config.Limits.Memory, containerEvent(&c.Config, "", nil).Attributes
	if sig, err := ParseSignal(c.Config.StopSignal); err == nil {
		g.hello.StopSignal = int(sig)
	}
	g.files.add(fileStdout, p.stdout)
	g.files.add(fileStderr, p.stderr)
	switch {
	case c.inputIsOnes(s):
	case s.Input && p.stdin != nil:
		again, err := unix.FcntlInt(p.stdin.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return g, os.NewSyscallError("fcntl", err)
		}
		s.input = os.NewFile(uintptr(again), p.stdin.Name())
		fallthrough
	default:
		g.files.add(fileStdin, p.stdin)
	}
	for i, f := range s.theirs.files {
		g.files.add(s.theirs.names[i], f)
	}
	g.hello.Files = g.files.names
	return g, nil
}

// failed settles what becomes of a container whose program did not start: it is
// as it was created, but for the status; or gone, if it was to remove itself.
func (c *Container) failed(ctx context.Context, err error) (int, error) {
	var running *RunningError
	if errors.As(err, &running) {
		return statusFailed, err
	}
	status, err := startFailure(err, c.Config.Command()[0], "")
	if c.Config.AutoRemove {
		_ = c.remove(context.WithoutCancel(ctx))
		return status, err
	}
	c.State.exit(status)
	c.State.Error = err.Error()
	if c.State.StartedAt.IsZero() {
		c.State.Status = Created
	}
	_ = saveState(c.dir, c.State)
	return status, err
}
