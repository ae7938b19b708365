// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sbx/fakeroot"
	"sbx/userns"
)

// firstChild is the pid, in the monitor's namespace, of the program that the
// starter cloned: the container's pid 1.
const firstChild = 2

// program is one run of the container's program, seen from its monitor. A
// container that is restarted has several, one after the other.
type program struct {
	pid     int // in the monitor's namespace
	pidfd   int
	pidfile *os.File      // the same, to send
	ended   chan struct{} // closed at its end
	failure int           // its status, when it could not be started
	channel *userns.Conn  // what the start program sends
	tty     bool
	stdin   *os.File // the write end of its input, while the monitor has one
	sources []source // what it writes

	supervision *supervision // nil where nothing is emulated

	terminal chan struct{} // closed when master is known, or never will be
	master   *os.File      // of its terminal
	pumps    sync.WaitGroup
	receiver sync.WaitGroup
	executed sync.WaitGroup // processes in whose end somebody is interested; added to while it runs
	network  sync.WaitGroup // the start of its engine; nobody adds to it after receiver

	mu   sync.Mutex
	held map[string]*os.File // namespaces: "mnt" and "net"
}

// source is one of the pipes that the program writes to.
type source struct {
	stream byte
	file   *os.File
}

func newProgram(pid, pidfd int, channel *userns.Conn, tty bool) *program {
	p := &program{
		pid: pid, pidfd: pidfd, pidfile: os.NewFile(uintptr(pidfd), "pidfd"), ended: make(chan struct{}),
		channel: channel, tty: tty, terminal: make(chan struct{}), held: map[string]*os.File{},
	}
	p.receiver.Add(1)
	p.pumps.Add(1) // until pump has added those of the pipes, or receive that of the terminal
	return p
}

// take gives the program's pipes to the pumps that begin with pump.
func (p *program) take(stdin, stdout, stderr *os.File) {
	p.stdin = stdin
	if stdout != nil {
		p.sources = append(p.sources, source{streamOut, pollable(stdout)})
	}
	if stderr != nil {
		p.sources = append(p.sources, source{streamErr, pollable(stderr)})
	}
}

// pump begins to carry what the program writes. A terminal's output follows when
// receive has it.
func (p *program) pump(out *output) {
	for _, s := range p.sources {
		p.pumps.Go(func() { out.carry(s.stream, s.file) })
	}
	if !p.tty {
		p.pumps.Done()
	}
}

// gate is the pidfd of a process by which others enter the container: of pid 1,
// or of the child that it has as a mere reaper, see forkProgram.
func (p *program) gate() *os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.held[filePidfd]; f != nil {
		return f
	}
	return p.pidfile
}

// receive takes what the start program sends before it executes: namespaces,
// which are kept so that taking them apart delays nobody (see
// recipe.holdNamespaces), and the terminal. Its end of the channel closes with
// the execve, or with its failure.
func (p *program) receive(ctx context.Context, m *monitor) {
	defer p.receiver.Done()
	for p.receiveNext(ctx, m) {
	}
	p.setTerminal(nil, nil)
	p.channel.Close()
}

// receiveNext takes one thing that the start program sends. It is false when there
// is nothing more to come.
func (p *program) receiveNext(ctx context.Context, m *monitor) bool {
	var message struct{ What string }
	files, err := p.channel.Receive(ctx, &message)
	if err != nil || len(files) == 0 {
		return false
	}
	switch message.What {
	case "terminal":
		p.setTerminal(files[0], m.output)
	case sentDevice:
		// The program's execve waits for what comes after this, and not for an engine.
		p.network.Go(func() { m.startNetwork(ctx, p, files) })
	case doListener:
		m.supervise(ctx, p, fakeroot.Listener{File: files[0], User: m.Emulation.user()})
	default:
		p.mu.Lock()
		p.held[message.What] = files[0]
		p.mu.Unlock()
	}
	return true
}

// awaitNetwork waits until the program has its network, or will never have one.
func (p *program) awaitNetwork() {
	p.receiver.Wait()
	p.network.Wait()
}

// setTerminal makes the terminal known, or that there is none.
func (p *program) setTerminal(master *os.File, out *output) {
	select {
	case <-p.terminal:
		return
	default:
	}
	if master != nil {
		p.master = pollable(master)
		p.pumps.Go(func() { out.carry(streamOut, p.master) })
	}
	if p.tty {
		p.pumps.Done()
	}
	close(p.terminal)
}

// typed writes what a client typed into the program's terminal.
func (p *program) typed(data []byte) error {
	<-p.terminal
	if p.master == nil {
		return os.ErrClosed
	}
	_, err := p.master.Write(data)
	return err
}

func (p *program) resize(rows, cols uint16) {
	<-p.terminal
	resizeTerminal(p.master, &unix.Winsize{Row: rows, Col: cols})
}

// resizeTerminal sets the size of a terminal by its master, if there is one.
func resizeTerminal(master *os.File, size *unix.Winsize) {
	if master == nil {
		return
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
}

func (p *program) signal(s unix.Signal) error { return unix.PidfdSendSignal(p.pidfd, s, nil, 0) }

// wait waits for the program's end and returns its status, 128+n when it was signalled.
func (p *program) wait() int {
	defer close(p.ended)
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(p.pid, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return statusFailed
		case p.failure != 0:
			return p.failure
		case ws.Signaled():
			return statusSignalBase + int(ws.Signal())
		default:
			return ws.ExitStatus()
		}
	}
}

// finish waits until everything that the program wrote has been carried. The
// program is dead, and with it everyone in its pid namespace; a writer that
// still holds a pipe was given it from outside and is not waited for.
func (p *program) finish() {
	p.receiver.Wait()
	for _, s := range p.sources {
		_ = s.file.SetReadDeadline(time.Unix(1, 0))
	}
	if p.master != nil {
		_ = p.master.SetReadDeadline(time.Unix(1, 0))
	}
	p.pumps.Wait()
}

// release gives up what is left of a program that has ended, for the next.
func (p *program) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeFiles(p.held)
	if p.stdin != nil {
		p.stdin.Close()
	}
	p.pidfile.Close()
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

// ownPID is this process's pid, as the mounted procfs counts: the host's.
func ownPID() (int, error) {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(self)
}

// pidOf is the pid that a pidfd names, as the mounted procfs counts (proc(5), fdinfo).
func pidOf(fd int) int {
	data, err := readFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, _ := strconv.Atoi(strings.TrimSpace(v))
			return pid
		}
	}
	return 0
}
