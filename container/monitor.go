// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/userns"
)

const (
	monitorRole = "monitor"
	// Its descriptors beside the conversation with the starter: where it receives
	// what the program sends, and the program's pidfd.
	channelFD = 4
	programFD = 5
)

// monitor owns a container's life. Its parts, each in a file of its own:
//
//	monitor.go          from start to end, and what is written down of it
//	monitor_program.go  the program that runs now, and the starting of the next
//	monitor_output.go   what the program writes, to the log and to who is attached
//	monitor_server.go   clients and their requests
//	monitor_exec.go     what clients execute beside the program
//	monitor_restart.go  whether and when a program that ended is started again
//	monitor_health.go   the health check
//
// A part that lives as long as the container starts in Monitor, one that lives
// as long as a program in monitor.begin; both end with ctx.
type monitor struct {
	hello
	dir     string
	output  *output
	wire    *wire // its network; never nil
	backoff backoff

	mu      sync.Mutex // also of hello.Name, hello.Restart and hello.Held
	state   State
	program *program // that runs, or ran last
	running bool
	paused  bool
	stopped bool // by the user: it is not started again
	// stopping is stopped by stop, and not by a signal.
	stopping bool
	changed  chan struct{} // closed and made anew when running, stopped or the record change
	peers    map[*peer]struct{}
	user     *os.File     // the user namespace, once it was asked for
	guard    *userns.Conn // with the monitor whose container has our processes
	idle     *time.Timer  // of settle
	oomKills uint64       // so far, see countOOM
}

// Monitor is the role that owns a container's life: it reads the program's
// streams, serves clients, waits for the end and writes it down.
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
	wired, err := receiveFiles(ctx, control, h.NetworkFiles)
	if err != nil {
		return fmt.Errorf("receive network: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := newMonitor(h)
	if h.Network != nil {
		m.wire = newWire(h.Home, *h.Network, wired)
	}
	unix.CloseOnExec(programFD)
	p := newProgram(h.firstPID(), programFD, channel, h.TTY)
	p.supervision = h.newSupervision()
	m.program, m.running = p, true
	// Without its record the container could be taken for dead and removed while
	// it runs, and without its socket not be reached: so the program does not
	// start before, see recipe.awaitMonitor.
	m.leaveGroup()
	listener, err := userns.Listen(m.dir, monitorSocket)
	if err = errors.Join(err, m.recordStart(p), m.findGuard(ctx, p), channel.Send(struct{}{})); err != nil {
		_ = p.signal(unix.SIGKILL)
	}
	m.welcome(ctx, control, unbundle(h.Files, files))
	m.begin(ctx, p)
	if listener != nil {
		go m.accept(ctx, listener)
	}
	defer m.idle.Stop()
	for {
		status := m.attend(ctx, p)
		next := m.again(ctx, status)
		if next == nil {
			return m.end(ctx, status)
		}
		p = next
	}
}

func newMonitor(h hello) *monitor {
	m := &monitor{
		hello: h, dir: filepath.Join(h.Home, h.ID), wire: newWire(h.Home, NetworkState{}, nil), peers: map[*peer]struct{}{}, changed: make(chan struct{}),
	}
	m.idle = time.AfterFunc(settleTime, settle)
	m.output = newOutput(h.Refused, m.dir, h.Log)
	return m
}

// config reads the record. No start waits for that: what a start needs is in hello.
func (m *monitor) config() (*Config, error) {
	c := &Config{}
	return c, readJSON(filepath.Join(m.dir, "config.json"), c)
}

// reload takes over what a client has changed in the record: the name, when the
// program is started again, and the limits, where a control group holds them.
func (m *monitor) reload() error {
	c, err := m.config()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Name, m.Restart = c.Name, c.Restart
	m.notify()
	if m.Group == "" {
		return nil
	}
	m.Held = c.Limits.hold(m.Group)
	m.state.Held = m.Held
	return saveState(m.dir, m.state)
}

// begin starts what lives beside a program. It runs beside the program's own
// start, which waits for none of it.
func (m *monitor) begin(ctx context.Context, p *program) {
	go p.receive(ctx, m)
	p.pump(m.output)
	if m.Health {
		go m.checkHealth(ctx, p)
	}
	m.mu.Lock()
	held := slices.Contains(m.Held, "Memory")
	m.mu.Unlock()
	if m.Memory > 0 && !held {
		go m.watchMemory(ctx, p)
	}
}

// attend waits for the program's end, and until all that it wrote has been
// carried to who reads it.
func (m *monitor) attend(ctx context.Context, p *program) int {
	status := p.wait()
	m.mu.Lock()
	m.running, m.paused = false, false
	m.notify()
	m.mu.Unlock()
	m.clearMembers(p)
	p.executed.Wait()
	m.countOOM()
	p.finish()
	if err := p.supervision.finish(ctx, !m.AutoRemove); err != nil {
		_ = m.setState(func(s *State) { s.Error = err.Error() })
	}
	m.record("die", map[string]string{"exitCode": strconv.Itoa(status)})
	return status
}

// notify wakes who waits for a change of running, stopped or the record. The
// caller holds mu.
func (m *monitor) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// recordStart writes that the container runs, and as which processes. The program
// waits for that: what its starter does next is told of after its start.
func (m *monitor) recordStart(p *program) error {
	self := m.Here
	var err error
	if self.PID, err = ownPID(); err != nil {
		return err
	}
	if self.Start, err = startTime(self.PID); err != nil {
		return err
	}
	err = m.setState(func(s *State) {
		*s = State{Status: Running, Monitor: self, PID: pidOf(p.pidfd), StartedAt: time.Now().UTC(), Restarts: s.Restarts, Network: m.wire.current(), Group: m.Group, Held: m.Held}
		if m.Health {
			s.Health = &Health{Status: HealthStarting}
		}
	})
	m.record("start", nil)
	return err
}

// setState changes what is known of the container, and writes it down.
func (m *monitor) setState(change func(*State)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.state)
	return saveState(m.dir, m.state)
}

// end writes down how the container ended, tells the clients, and clears up.
// They hear of it as soon as the name is free and ps tells the truth.
func (m *monitor) end(ctx context.Context, status int) error {
	home, err := os.Open(m.Home)
	if err != nil {
		return err
	}
	defer home.Close()
	ended := m.current()
	m.wire.close(ctx, ended)
	// Nobody waits for that but a next start.
	defer m.wire.finish(ctx, ended)
	last := report{Status: status, Refused: m.output.refused()}
	m.mu.Lock()
	stopping := m.stopping
	m.mu.Unlock()
	if stopping {
		m.record("stop", nil)
	}
	if !m.AutoRemove {
		m.output.close()
		err := m.setState(func(s *State) {
			s.exit(status)
			s.Stopped = m.stopped
		})
		m.farewell(last)
		// Who starts the container again waits for the end of this process.
		m.emptyWork(ctx)
		return err
	}
	h := &Home{dir: m.Home}
	m.mu.Lock()
	err = h.dropName(m.Name, m.ID)
	m.mu.Unlock()
	trash := trashPrefix + m.ID
	if renameErr := os.Rename(m.dir, filepath.Join(m.Home, trash)); renameErr != nil {
		err = errors.Join(err, renameErr)
	}
	err = errors.Join(err, h.RemoveAnonymous(ctx, m.Volumes))
	m.record("destroy", nil)
	m.output.close()
	m.farewell(last)
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
