// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"sbx/userns"
)

// streams are the two ends of the program's three streams while the client is
// attached.
//
// Without a terminal the program has pipes; the monitor reads its output and
// writes to the client's own files, and the client feeds its input. With one,
// the program has a terminal whose master the monitor holds, and client and
// monitor are joined by a socket.
type streams struct {
	client   Stdio
	tty      bool
	child    [3]*os.File // the program's ends, without a terminal
	monitor  []*os.File  // what goes to the monitor: pairs of source and sink
	input    *os.File    // where the client's input goes; nil when it has none
	joined   *os.File    // the client's end of the socket, with a terminal
	size     *unix.Winsize
	finished chan struct{}
	signals  chan os.Signal // for the container; nil until caught
	raw      bool           // the client's terminal is in raw mode
}

// openStreams makes the pipes, or the socket, of a container to start.
func openStreams(c *Config, client Stdio) (*streams, error) {
	s := &streams{client: client, tty: c.TTY, finished: make(chan struct{})}
	open := s.openPipes
	if c.TTY {
		open = s.openSocket
	}
	if err := open(c.OpenStdin); err != nil {
		s.close()
		return nil, fmt.Errorf("open streams: %w", err)
	}
	return s, nil
}

func (s *streams) openPipes(withInput bool) error {
	defer close(s.finished)
	var err error
	if withInput {
		s.child[0], s.input, err = pipe()
	} else {
		s.child[0], err = os.Open(os.DevNull)
	}
	if err != nil {
		return err
	}
	for i, sink := range []*os.File{s.client.Out, s.client.Err} {
		r, w, err := pipe()
		if err != nil {
			return err
		}
		s.child[i+1] = w
		s.monitor = append(s.monitor, r, sink)
	}
	return nil
}

// pipe makes a pipe whose ends block: they are for programs that expect that.
func pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

func (s *streams) openSocket(withInput bool) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	s.joined = os.NewFile(uintptr(fds[0]), "terminal")
	s.monitor = []*os.File{os.NewFile(uintptr(fds[1]), "terminal")}
	if withInput {
		s.input = s.joined
	}
	if size, err := unix.IoctlGetWinsize(int(s.client.Out.Fd()), unix.TIOCGWINSZ); err == nil {
		s.size = size
	}
	return nil
}

func (s *streams) monitorEnds() []*os.File { return s.monitor }

// closeChildEnds gives up what only the children may hold: as long as a copy is
// open here, no reader sees the end.
func (s *streams) closeChildEnds() {
	for i, f := range s.child {
		if f != nil {
			f.Close()
			s.child[i] = nil
		}
	}
	for i, f := range s.monitor {
		if f != s.client.Out && f != s.client.Err {
			s.monitor[i].Close()
		}
	}
	s.monitor = nil
	if s.tty {
		go func() {
			defer close(s.finished)
			_, _ = io.Copy(s.client.Out, s.joined)
		}()
	}
}

func (s *streams) close() {
	for _, f := range append(s.child[:], s.input, s.joined) {
		if f != nil {
			f.Close()
		}
	}
	for _, f := range s.monitor {
		if f != s.client.Out && f != s.client.Err {
			f.Close()
		}
	}
}

// takeTerminal puts the client's terminal into raw mode, so that every key
// reaches the program, and returns what puts it back. That may be called twice.
func (s *streams) takeTerminal() func() {
	if !s.tty || s.input == nil {
		return func() {}
	}
	fd := int(s.client.In.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return func() {} // the input is no terminal
	}
	s.raw = true
	return sync.OnceFunc(func() { _ = term.Restore(fd, state) })
}

// feed carries the client's input to the program until either ends.
func (s *streams) feed() {
	if s.input == nil {
		return
	}
	_, _ = io.Copy(s.input, s.client.In)
	switch {
	case !s.tty:
		s.input.Close()
	case s.raw:
		// In raw mode no key means end of file: the terminal has gone. The shell
		// that should pass SIGHUP on may have gone before.
		s.signals <- unix.SIGHUP
	}
}

// finish waits until all output of the program has been written.
func (s *streams) finish() { <-s.finished }

// highFiles are duplicates of descriptors at numbers that the start programs do
// not use.
type highFiles []*os.File

func (s *streams) highFiles(first ...*os.File) (highFiles, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	var high highFiles
	for _, f := range append(append(first, null), s.child[:]...) {
		if f == nil {
			f = null
		}
		h, err := userns.HighFile(f)
		if err != nil {
			high.close()
			return nil, err
		}
		high = append(high, h)
	}
	return high, nil
}

func (h highFiles) fd(i int) int { return int(h[i].Fd()) }

func (h highFiles) close() {
	for _, f := range h {
		f.Close()
	}
}

// pumps carry the program's output to its readers, in the monitor.
type pumps struct {
	needle  []byte // what to look for, see hello.Refused
	wait    sync.WaitGroup
	mu      sync.Mutex
	found   bool
	sources []*os.File
}

// start begins to carry from source, which must be pollable, to sink; both are
// closed at the end. When
// the sink refuses (its reader is gone), the source is closed too, and the
// program learns of it by its next write.
func (p *pumps) start(source, sink *os.File) {
	p.sources = append(p.sources, source)
	p.wait.Go(func() {
		defer source.Close()
		defer sink.Close()
		buf := make([]byte, 32<<10)
		var tail []byte
		for {
			n, err := read(source, buf)
			if n > 0 {
				if contains(&tail, buf[:n], p.needle) {
					p.mu.Lock()
					p.found = true
					p.mu.Unlock()
				}
				if _, err := sink.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
}

// read reads what is there. When the deadline that finish sets has passed, it
// takes what is left without waiting for more.
func read(f *os.File, buf []byte) (int, error) {
	n, err := f.Read(buf)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	if err := raw.Control(func(fd uintptr) { n, readErr = unix.Read(int(fd), buf) }); err != nil {
		return 0, err
	}
	if readErr == nil && n <= 0 {
		readErr = io.EOF
	}
	return max(n, 0), readErr
}

// finish waits until everything that the program wrote has been carried. The
// program is dead, and with it everyone in its pid namespace; a writer that
// still holds a pipe was given it from outside and is not waited for.
func (p *pumps) finish() {
	for _, f := range p.sources {
		_ = f.SetReadDeadline(time.Unix(1, 0))
	}
	p.wait.Wait()
}

func (p *pumps) refused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.found
}

// pollable makes reads of f wait in the runtime's poller, with deadlines. It
// must only be used on files that no other process holds: the flag is shared.
func pollable(f *os.File) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return f
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return f
	}
	f.Close()
	return os.NewFile(uintptr(fd), f.Name())
}
