// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/userns"
)

const (
	monitorRole = "monitor"
	// Its descriptors beside the conversation with the client: where it receives
	// what the program sends, and the program's pidfd.
	channelFD = 4
	programFD = 5
)

// Monitor is the role that owns a container's life: it reads the program's
// streams, takes the client's signals, waits for the end and writes it down.
//
// Runs in: the container's user namespace as uid 0, pid 1 of a pid namespace
// around the container's, and a copy of the host's mounts.
func Monitor(ctx context.Context, control *userns.Conn) error {
	var h hello
	files, err := control.Receive(ctx, &h)
	if err != nil {
		return fmt.Errorf("receive container: %w", err)
	}
	channel, err := userns.Inherited(channelFD)
	if err != nil {
		return err
	}
	m := &monitor{hello: h, control: control, pidfd: programFD, dir: filepath.Join(h.Home, h.ID)}
	unix.CloseOnExec(m.pidfd)
	// Without its record the container could be taken for dead and removed while
	// it runs, so the program does not start before: see recipe.awaitMonitor.
	if err := errors.Join(m.recordStart(), channel.Send(struct{}{})); err != nil {
		m.signal(unix.SIGKILL)
	}
	pumps := m.connect(ctx, channel, files)
	go m.listen(ctx)
	status := m.reap()
	pumps.finish()
	return m.end(ctx, status, pumps.refused())
}

type monitor struct {
	hello
	control *userns.Conn
	pidfd   int
	dir     string
	state   State
	held    []*os.File // namespaces, see recipe.holdNamespaces
	master  *os.File   // of the terminal; set by connect before listen reads it
}

// recordStart writes that the container runs, and as which processes.
func (m *monitor) recordStart() error {
	self, err := os.Readlink("/proc/self") // as the host's procfs counts
	if err != nil {
		return err
	}
	p := m.Here
	if p.PID, err = strconv.Atoi(self); err != nil {
		return err
	}
	if p.Start, err = startTime(p.PID); err != nil {
		return err
	}
	m.state = State{Status: Running, Monitor: p, PID: pidOf(m.pidfd), StartedAt: time.Now().UTC()}
	return saveState(m.dir, m.state)
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

// connect starts the pumps between the program's streams and the client's.
func (m *monitor) connect(ctx context.Context, channel *userns.Conn, files []*os.File) *pumps {
	p := &pumps{needle: []byte(m.Refused)}
	if !m.TTY {
		for i := range len(files) / 2 {
			p.start(pollable(files[2*i]), files[2*i+1])
		}
		return p
	}
	// The program sends the terminal's master once it has opened it; when it
	// fails before, its end of the channel closes.
	master, err := m.receiveTerminal(ctx, channel)
	if err != nil || len(files) != 1 {
		return p
	}
	m.master = pollable(master)
	client := pollable(files[0])
	p.start(m.master, client)
	go func() {
		// End of file here is the client's death or end of input: a terminal has
		// no such thing, and control tells of deaths.
		buf := make([]byte, 4096)
		for {
			n, err := client.Read(buf)
			if n > 0 {
				if _, err := m.master.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

// receiveTerminal waits for the terminal among what the program sends. The
// namespaces that come before it are kept as long as this process lives.
func (m *monitor) receiveTerminal(ctx context.Context, channel *userns.Conn) (*os.File, error) {
	for {
		var message struct{ What string }
		files, err := channel.Receive(ctx, &message)
		if err != nil {
			return nil, err
		}
		if len(files) != 1 {
			return nil, errors.New("receive terminal: no descriptor came with it")
		}
		if message.What == "terminal" {
			return files[0], nil
		}
		m.held = append(m.held, files[0])
	}
}

// listen takes the client's requests until it is gone. A container that was to
// remove itself ends with its client.
func (m *monitor) listen(ctx context.Context) {
	for {
		var r request
		files, err := m.control.Receive(ctx, &r)
		for _, f := range files {
			f.Close()
		}
		switch {
		case err != nil:
			if m.AutoRemove {
				m.signal(unix.SIGKILL)
			}
			return
		case r.Signal != 0:
			m.signal(unix.Signal(r.Signal))
		case r.Rows != 0 && m.master != nil:
			resize(m.master, r.Rows, r.Cols)
		}
	}
}

func (m *monitor) signal(s unix.Signal) {
	_ = unix.PidfdSendSignal(m.pidfd, s, nil, 0)
}

func resize(master *os.File, rows, cols uint16) {
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// reap waits for the program, and on the way for every orphan of the namespace.
func (m *monitor) reap() int {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return statusFailed
		}
		if pid != firstChild {
			continue
		}
		if ws.Signaled() {
			return statusSignalBase + int(ws.Signal())
		}
		return ws.ExitStatus()
	}
}

// firstChild is the pid of the container's pid 1 in the monitor's namespace.
const firstChild = 2

// end writes down how the container ended, tells the client, and clears up. The
// client hears of it as soon as the name is free and ps tells the truth.
func (m *monitor) end(ctx context.Context, status int, refused bool) error {
	home, err := os.Open(m.Home)
	if err != nil {
		return err
	}
	defer home.Close()
	last := report{Status: status, Refused: refused}
	if !m.AutoRemove {
		m.state.Status, m.state.PID, m.state.ExitCode, m.state.FinishedAt = Exited, 0, status, time.Now().UTC()
		err := saveState(m.dir, m.state)
		m.emptyWork(ctx)
		return errors.Join(err, m.control.Send(last))
	}
	h := &Home{dir: m.Home}
	err = h.dropName(m.Name, m.ID)
	trash := trashPrefix + m.ID
	if renameErr := os.Rename(m.dir, filepath.Join(m.Home, trash)); renameErr != nil {
		err = errors.Join(err, renameErr)
	}
	err = errors.Join(err, h.RemoveAnonymous(ctx, m.Volumes), m.control.Send(last))
	return errors.Join(err, overlay.RemoveAll(ctx, home, trash))
}

// emptyWork removes overlay's own directory, whose mode 000 would be in the way
// of a plain `rm -rf` of the store.
func (m *monitor) emptyWork(ctx context.Context) {
	if work, err := os.Open(filepath.Join(m.dir, "work")); err == nil {
		_ = overlay.RemoveAll(ctx, work, "work")
		work.Close()
	}
}

// contains reports whether needle is in what was read, also across two reads.
func contains(tail *[]byte, data, needle []byte) bool {
	if len(needle) == 0 {
		return false
	}
	joined := append(*tail, data...)
	found := bytes.Contains(joined, needle)
	keep := min(len(joined), len(needle)-1)
	*tail = append([]byte(nil), joined[len(joined)-keep:]...)
	return found
}
