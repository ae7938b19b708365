// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"sbx/userns"
)

// Stdio are the three standard streams of the client.
type Stdio struct {
	In, Out, Err *os.File
}

// Attach is how a client joins the streams of a container, or of a process that
// it executes there.
type Attach struct {
	Stdio
	// Input, Output and Errors say which of the streams are joined.
	Input, Output, Errors bool
	// DetachKeys leave a terminal when they are typed in this order; see
	// ParseDetachKeys.
	DetachKeys []byte
	// Deaf says that signals of the client are its own, and not the program's.
	Deaf bool
}

// ErrDetached says that the user left, and that the program goes on.
var ErrDetached = errors.New("read escape sequence")

// attachment joins the client's streams to those of a program: without a terminal
// by a pipe for each, with one by a socket that both ends are joined by. The
// client carries the bytes itself. That lets it leave at any time, and nobody
// else ever holds the terminal or the files that the user's shell gave it.
type attachment struct {
	Attach
	tty     bool
	theirs  bundle   // the monitor's ends
	stdout  *os.File // ours, to read
	stderr  *os.File
	input   *os.File // ours, to write; nil when there is none
	joined  *os.File // the socket
	signals chan os.Signal
	raw     bool // the client's terminal is in raw mode
	patient bool // the program is pid 1, and deaf by default
	carried sync.WaitGroup
	left    chan struct{} // closed when the detach keys were typed
}

func openAttachment(tty bool, a Attach) (*attachment, error) {
	s := &attachment{Attach: a, tty: tty, left: make(chan struct{})}
	if err := s.open(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *attachment) open() (err error) {
	if s.tty {
		if !s.Output && !s.Input {
			return nil
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return os.NewSyscallError("socketpair", err)
		}
		s.joined = os.NewFile(uintptr(fds[0]), "terminal")
		s.theirs.add(fileTerminal, os.NewFile(uintptr(fds[1]), "terminal"))
		if s.Input {
			s.input = s.joined
		}
		return nil
	}
	var w *os.File
	if s.Output {
		if s.stdout, w, err = pipe(); err != nil {
			return err
		}
		s.theirs.add(fileOut, w)
	}
	if s.Errors {
		if s.stderr, w, err = pipe(); err != nil {
			return err
		}
		s.theirs.add(fileErr, w)
	}
	return nil
}

// size is that of the client's terminal, or nil.
func (s *attachment) size() *unix.Winsize {
	if !s.tty || s.Out == nil {
		return nil
	}
	size, err := unix.IoctlGetWinsize(int(s.Out.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 {
		return nil
	}
	return size
}

// carry begins to bring the program's output to the client's own. As long as a
// copy of the monitor's ends is open here, the end is not seen.
func (s *attachment) carry() {
	s.theirs.close()
	for _, way := range []struct{ from, to *os.File }{{s.stdout, s.Out}, {s.stderr, s.Err}, {s.joined, s.Out}} {
		if way.from == nil || (way.from == s.joined && !s.Output) {
			continue
		}
		s.carried.Go(func() {
			carry(way.to, way.from)
			if way.from != s.joined {
				// When our reader has left, the program's writer is to know.
				way.from.Close()
			}
		})
	}
}

// carry carries what comes from a file, until its end or the deadline of drain.
func carry(to, from *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := read(from, buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// feed carries the client's input to the program until either ends. sent is
// called when it was the input that did.
func (s *attachment) feed(sent func()) {
	if s.input == nil {
		return
	}
	var in io.Reader = s.In
	keys := &escape{keys: s.DetachKeys, from: s.In}
	if s.tty {
		in = keys
	}
	_, err := io.Copy(s.input, in)
	switch {
	case errors.Is(err, ErrDetached):
		close(s.left)
	case !s.tty:
		s.input.Close()
		sent()
	case s.raw:
		// In raw mode no key means end of file: the terminal has gone. The shell
		// that should pass SIGHUP on may have gone before.
		s.signals <- unix.SIGHUP
	}
}

// takeTerminal puts the client's terminal into raw mode, so that every key
// reaches the program, and returns what puts it back. That may be called twice.
func (s *attachment) takeTerminal() func() {
	if !s.tty || s.input == nil {
		return func() {}
	}
	fd := int(s.In.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return func() {} // the input is no terminal
	}
	s.raw = true
	return sync.OnceFunc(func() { _ = term.Restore(fd, state) })
}

// finish waits until all output of the program has been written.
func (s *attachment) finish() { s.carried.Wait() }

func (s *attachment) close() {
	s.theirs.close()
	for _, f := range []*os.File{s.stdout, s.stderr, s.input, s.joined} {
		if f != nil {
			f.Close()
		}
	}
}

// Attach joins the streams of the container as it runs, and returns the
// program's exit status once it has ended. The error is a *NotRunningError when
// it does not run, and ErrDetached when the user left.
//
// Runs in: the host's namespaces, as the user.
func (c *Container) Attach(ctx context.Context, a Attach) (int, error) {
	link, err := c.dial()
	if err != nil {
		return statusFailed, err
	}
	defer link.close()
	s, err := openAttachment(c.Config.TTY, a)
	if err != nil {
		return statusFailed, err
	}
	defer s.close()
	s.catchSignals()
	ask := request{Do: doAttach, Input: a.Input && !c.Config.TTY, Files: s.theirs.names}
	files, err := link.ask(ctx, ask, s.theirs.files...)
	if err != nil {
		return statusFailed, err
	}
	s.input = or2(files[fileStdin], s.input)
	s.carry()
	restore := s.takeTerminal()
	defer restore()
	return c.attend(ctx, link, s, restore)
}

// attend lives beside the container until its monitor reports the end, or the
// user leaves: it carries the terminal's input, its size and the signals.
func (c *Container) attend(ctx context.Context, link *link, s *attachment, restore func()) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go s.feed(func() {})
	s.patient = true
	to := controls{
		signal: func(n unix.Signal) { _ = link.tell(request{Do: doSignal, Signal: int(n)}) },
		resize: func(size *unix.Winsize) { _ = link.tell(request{Do: doResize, Rows: size.Row, Cols: size.Col}) },
	}
	go s.forwardSignals(ctx, to, cancel)
	go func() {
		select {
		case <-s.left:
			cancel(ErrDetached)
		case <-ctx.Done():
		}
	}()
	end, err := link.end(ctx)
	var signalled *leftError
	switch {
	case err == nil:
		s.finish()
		restore()
		return end.Status, c.advice(end)
	case errors.Is(context.Cause(ctx), ErrDetached):
		restore()
		// One that was to end with its client is asked not to.
		return 0, errors.Join(link.tell(request{Do: doDetach}), ErrDetached)
	case errors.As(context.Cause(ctx), &signalled):
		restore()
		if signalled.detach {
			_ = link.tell(request{Do: doDetach})
		} else {
			to.signal(signalled.signal)
		}
		return statusSignalBase + int(signalled.signal), nil
	case errors.Is(err, io.EOF):
		s.finish()
		restore()
		return c.lostMonitor(link)
	}
	return statusFailed, err
}

// lostMonitor is what became of a container whose monitor ended without a word
// to us: it was killed, or had no room to tell.
func (c *Container) lostMonitor(link *link) (int, error) {
	if link.process != nil {
		link.process.Wait()
	}
	now, err := loadState(c.dir, c.home.here)
	if err == nil && now.Status == Exited && !now.lost {
		return now.ExitCode, nil
	}
	return statusSignalBase + int(unix.SIGKILL), errors.New("the container's monitor was killed")
}

// advice is what the base has to say to a program that met what it does not allow.
func (c *Container) advice(end *report) error {
	if end.Refused && end.Status != 0 && c.Config.Advice != "" {
		return &StartError{Code: end.Status, Advice: c.Config.Advice}
	}
	return nil
}

func or2(a, b *os.File) *os.File {
	if a != nil {
		return a
	}
	return b
}

// link is a client's connection to a monitor.
type link struct {
	conn    *userns.Conn
	process *userns.Process // of the monitor, in its starter
	ended   *report         // it came while an answer was awaited
}

func (l *link) close() { l.conn.Close() }

// tell sends a request that needs no answer.
func (l *link) tell(r request, files ...*os.File) error { return l.conn.Send(r, files...) }

// ask sends a request and waits for the answer. An error of the monitor's is
// returned as if it had happened here.
func (l *link) ask(ctx context.Context, r request, files ...*os.File) (map[string]*os.File, error) {
	r.Ask = true
	if err := l.conn.Send(r, files...); err != nil {
		return nil, err
	}
	for {
		var answer reply
		received, err := l.conn.Receive(ctx, &answer)
		if err != nil {
			return nil, err
		}
		given := unbundle(answer.Files, received)
		switch {
		case answer.Ended != nil:
			l.ended = answer.Ended
		case answer.Written:
		case answer.Error != nil:
			closeFiles(given)
			return nil, answer.Error
		default:
			return given, nil
		}
	}
}

// end waits for the report of the end. It is io.EOF when the monitor has gone
// without one.
func (l *link) end(ctx context.Context) (*report, error) {
	for l.ended == nil {
		var answer reply
		files, err := l.conn.Receive(ctx, &answer)
		if err != nil {
			return nil, err
		}
		closeFiles(unbundle(nil, files))
		l.ended = answer.Ended
	}
	return l.ended, nil
}
