// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// Exec is a program to execute in a container that runs.
type Exec struct {
	Args       []string
	Env        []string // NAME=value, over the container's
	WorkingDir string   // the container's when empty
	User       string   // the container's when empty; looked up in the container as it is now
	TTY        bool
	Privileged bool
}

// Exec executes a program in the container and returns its exit status, as Run
// does. The client enters the container by itself: the monitor hands out what
// names it, and so proves that it lives.
//
// Runs in: the host's namespaces, as the user.
func (c *Container) Exec(ctx context.Context, e Exec, a Attach) (int, error) {
	s := &attachment{Attach: a, tty: e.TTY, left: make(chan struct{})}
	caught := make(chan struct{})
	go func() {
		defer close(caught)
		s.catchSignals()
	}()
	x, err := c.prepare(ctx, e, a.Input)
	if err != nil {
		return statusFailed, err
	}
	defer x.close()
	<-caught
	if err := x.start(ctx, s.size()); err != nil {
		return x.failed(err)
	}
	x.recordStart()
	if !e.TTY {
		s.stdout, s.stderr, s.input = pollable(x.pipes.stdout), pollable(x.pipes.stderr), x.pipes.stdin
	}
	*x.pipes = pipes{}
	defer s.close()
	if e.TTY {
		s.joined = x.terminal
		if a.Input {
			s.input = x.terminal
		}
	}
	s.carry()
	restore := s.takeTerminal()
	defer restore()
	status, err := x.attend(ctx, s, restore)
	if err == nil {
		c.record("exec_die", map[string]string{"execID": x.id, "exitCode": strconv.Itoa(status)})
	}
	return status, err
}

// ExecDetached executes a program in the container and leaves it there.
func (c *Container) ExecDetached(ctx context.Context, e Exec) error {
	x, err := c.prepare(ctx, e, false)
	if err != nil {
		return err
	}
	defer x.close()
	x.leaves = true
	x.pipes.discard()
	if err := x.start(ctx, nil); err != nil {
		_, err = x.failed(err)
		return err
	}
	x.recordStart()
	return x.leave(ctx)
}

// recordStart writes down that the program was executed, with the identifier by
// which its events belong together.
func (x *executed) recordStart() {
	x.id = newID()
	for _, action := range []string{"exec_create: ", "exec_start: "} {
		x.container.record(action+strings.Join(x.program.run.args, " "), map[string]string{"execID": x.id})
	}
}

// executed is a program on its way into a container.
type executed struct {
	container *Container
	link      *link
	program   *start
	entrance  map[string]*os.File // what the monitor handed out
	pipes     *pipes
	process   *userns.Process // who waits for the program
	terminal  *os.File        // the master of its terminal
	id        string          // of its events
	leaves    bool            // the client may leave before the program has ended,
	status    *os.File        // and this, from which its status can be read, is for the monitor then
}

// prepare asks the monitor for the way in, and settles what to execute.
func (c *Container) prepare(ctx context.Context, e Exec, input bool) (*executed, error) {
	l, err := c.dial()
	if err != nil {
		return nil, err
	}
	x := &executed{container: c, link: l, leaves: e.TTY}
	switch c.State.Status {
	case Paused:
		err = fmt.Errorf("container %s is paused, unpause the container before exec", c.Config.Name)
	case Restarting:
		err = fmt.Errorf("container %s is restarting, wait until the container is running", c.Config.Name)
	}
	if err == nil {
		x.entrance, err = l.ask(ctx, request{Do: doJoin})
		err = c.gone(err)
	}
	if err == nil && (x.entrance[filePidfd] == nil || x.entrance[fileUser] == nil) {
		err = errors.New("enter container: its monitor did not say where it is")
	}
	if err == nil {
		err = x.compile(e)
	}
	if err == nil {
		x.pipes, err = openPipes(&Config{TTY: e.TTY, OpenStdin: input})
	}
	if err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// compile looks up the user and builds the start program's facts.
func (x *executed) compile(e Exec) error {
	c := &x.container.Config
	run := execution{args: e.Args, identity: c.Identity, dir: or(e.WorkingDir, c.WorkingDir, "/"), tty: e.TTY, privileged: e.Privileged, beside: true}
	if e.User != "" {
		id, err := x.lookUp(e.User)
		if err != nil {
			return err
		}
		run.identity = id
	}
	env := c.Env
	if e.TTY && !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "TERM=") }) {
		env = append(slices.Clone(env), "TERM=xterm")
	}
	run.env = environmentOf(overlayEnv(env, e.Env), run.identity)
	filter, err := c.filter()
	if err != nil {
		return err
	}
	x.program = &start{config: c, filter: filter, run: run}
	x.program.emulation, err = newEmulation(c, x.container.home.Features, x.container.dir)
	return err
}

// lookUp finds a user by the container's own files as they are now.
func (x *executed) lookUp(user string) (Identity, error) {
	fd := int(x.entrance[filePidfd].Fd())
	id, err := lookUpUser(user, []string{"/proc/" + strconv.Itoa(pidOf(fd)) + "/root"})
	// The pid meant the container only if that still lives.
	if unix.PidfdSendSignal(fd, 0, nil, 0) != nil {
		return id, &NotRunningError{x.container.Config.Name}
	}
	return id, err
}

// start forks the program and waits until it has been executed.
func (x *executed) start(ctx context.Context, size *unix.Winsize) error {
	conn, theirs, err := userns.Pair()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := x.handOver(); err != nil {
		theirs.Close()
		return err
	}
	var told *os.File
	if x.leaves {
		if x.status, told, err = pipe(); err != nil {
			theirs.Close()
			return err
		}
		defer told.Close()
	}
	high, err := openHighFiles(x.link.conn.File(), theirs, x.pipes.program, x.entrance[filePidfd], x.entrance[fileUser], told)
	theirs.Close()
	if err != nil {
		return err
	}
	defer high.close()
	x.program.size, x.program.descriptors = size, high.descriptors()
	if x.leaves {
		x.program.status = high.other(2)
	}
	group := x.container.State.Group
	if x.program.admission, err = newAdmission(group != ""); err != nil {
		return err
	}
	defer x.program.admission.close()
	x.process, err = userns.Fork(x.program.joinProgram(gate{pidfd: high.other(0), user: high.other(1)}))
	high.close()
	x.pipes.closeProgramEnds()
	if err != nil {
		return err
	}
	if err := x.program.admission.admit(ctx, group, x.process.PID); err != nil {
		return err
	}
	x.receive(ctx, conn)
	return x.process.Started(ctx)
}

// handOver writes the request by which the program gives the monitor the listener
// of its filter. Nobody waits for an answer: a monitor that cannot serve it closes
// it, and the execve fails.
func (x *executed) handOver() error {
	run := &x.program.run
	if !x.program.emulatesUsers() {
		return nil
	}
	text, err := json.Marshal(request{Do: doListener, Files: []string{doListener}, Identity: &run.identity, Paths: run.paths()})
	run.handOver = string(text)
	return err
}

// receive takes the terminal, which the start program sends before it executes. A
// program that fails on its way sends none; Started then says why.
func (x *executed) receive(ctx context.Context, conn *userns.Conn) {
	if !x.program.run.tty {
		return
	}
	var message struct{ What string }
	files, err := conn.Receive(ctx, &message)
	if err != nil || len(files) != 1 {
		closeAll(files)
		return
	}
	x.terminal = pollable(files[0])
}

// failed reads why the program could not be executed.
func (x *executed) failed(err error) (int, error) {
	if x.process != nil {
		var step *userns.StepError
		if !errors.As(err, &step) { // it may be on its way yet
			x.process.Kill()
		}
		x.process.Wait()
	}
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPIPE) {
		return statusFailed, &NotRunningError{x.container.Config.Name}
	}
	return startFailure(err, x.program.run.args[0], x.program.run.dir)
}

// attend lives beside the program until it ends, or the user leaves.
func (x *executed) attend(ctx context.Context, s *attachment, restore func()) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go s.feed(func() {})
	to := controls{
		signal: func(n unix.Signal) { _ = unix.Kill(x.process.PID, n) },
		resize: func(size *unix.Winsize) { resizeTerminal(x.terminal, size) },
	}
	go s.forwardSignals(ctx, to, cancel)
	ended := make(chan unix.WaitStatus, 1)
	go func() {
		ws, err := x.process.Wait()
		if err != nil {
			ws = statusFailed << 8
		}
		ended <- ws
	}()
	select {
	case ws := <-ended:
		s.drain()
		restore()
		if ws.Signaled() {
			return statusSignalBase + int(ws.Signal()), nil
		}
		return ws.ExitStatus(), nil
	case <-s.left:
		restore()
		return 0, errors.Join(x.leave(ctx), ErrDetached)
	case <-ctx.Done():
		restore()
		var signalled *leftError
		if errors.As(context.Cause(ctx), &signalled) {
			to.signal(signalled.signal) // no detached client executes
			return statusSignalBase + int(signalled.signal), nil
		}
		return statusFailed, ctx.Err()
	}
}

// leave gives the monitor what is left of the program to attend to: its end, and
// its terminal, which closed would end the program.
func (x *executed) leave(ctx context.Context) error {
	if err := x.link.tell(request{Do: doWatch, Name: x.id, Files: []string{fileStatus}}, x.status); err != nil {
		return x.container.gone(err)
	}
	if x.terminal == nil {
		return nil
	}
	_, err := x.link.ask(ctx, request{Do: doAdopt, Files: []string{fileTerminal}}, x.terminal)
	return err
}

func (x *executed) close() {
	x.link.close()
	closeFiles(x.entrance)
	if x.pipes != nil {
		x.pipes.close()
	}
	for _, f := range []*os.File{x.terminal, x.status} {
		if f != nil {
			f.Close()
		}
	}
}

// discard has the program write to nobody and read nothing.
func (p *pipes) discard() {
	p.close()
	*p = pipes{}
}

// drain waits until all that the program wrote has been carried. Others may hold
// its pipes or terminal open: for them there is no waiting.
func (s *attachment) drain() {
	for _, f := range []*os.File{s.stdout, s.stderr, s.joined} {
		if f != nil {
			_ = f.SetReadDeadline(time.Unix(1, 0))
		}
	}
	s.finish()
}
