// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// peer is a client of the monitor, and what it has attached.
type peer struct {
	conn  *userns.Conn
	sinks []*sink
	// tied says that the container ends when this client does.
	tied bool
	// awaits says that it wants to hear of the end, follows of each new record.
	awaits, follows bool
	// ward is the mount namespace of a container that shares this one's processes.
	ward *os.File
}

// accept takes clients as long as the monitor lives.
func (m *monitor) accept(ctx context.Context, l *userns.Listener) {
	defer l.Close()
	for {
		// The user is 0 in here, whoever he is outside.
		conn, err := l.Accept(ctx, 0)
		if err != nil {
			return
		}
		p := &peer{conn: conn}
		m.mu.Lock()
		m.peers[p] = struct{}{}
		m.mu.Unlock()
		go m.serve(ctx, p)
	}
}

// welcome takes the starter in as the first client, with the streams that came
// with its hello.
func (m *monitor) welcome(ctx context.Context, control *userns.Conn, files map[string]*os.File) {
	m.program.take(files[fileStdin], files[fileStdout], files[fileStderr])
	p := &peer{conn: control, tied: m.Tied, awaits: true}
	m.attachFiles(p, files, true)
	m.mu.Lock()
	m.peers[p] = struct{}{}
	m.mu.Unlock()
	go m.serve(ctx, p)
}

// serve does what one client asks, in order, until it has gone.
func (m *monitor) serve(ctx context.Context, p *peer) {
	defer m.leave(p)
	for {
		var r request
		files, err := p.conn.Receive(ctx, &r)
		if err != nil {
			return
		}
		given := unbundle(r.Files, files)
		var answer reply
		var out bundle
		if err := m.do(ctx, p, &r, given, &out); err != nil {
			answer.Error = userns.Remote(err)
		}
		closeFiles(given)
		if !r.Ask {
			continue
		}
		answer.Files = out.names
		if err := p.conn.Send(answer, out.files...); err != nil {
			return
		}
	}
}

// do does one request. It takes what it keeps out of given, and puts what is to
// be sent into out; those files stay this process's.
func (m *monitor) do(ctx context.Context, p *peer, r *request, given map[string]*os.File, out *bundle) error {
	switch r.Do {
	case doSignal:
		return m.kill(unix.Signal(r.Signal))
	case doStop:
		return m.stop(ctx, unix.Signal(r.Signal), r.Grace)
	case doResize:
		m.current().resize(r.Rows, r.Cols)
		return nil
	case doAttach:
		m.attachFiles(p, given, false)
		m.await(p)
		if r.Input {
			out.add(fileStdin, m.current().stdin)
		}
		return nil
	case doDetach:
		p.tied = false
		return nil
	case doWait:
		m.await(p)
		return nil
	case doJoin:
		return m.join(out)
	case doPause:
		return m.pause(true)
	case doUnpause:
		return m.pause(false)
	case doConnect:
		return m.connect(ctx, *r, given)
	case doDisconnect:
		return m.disconnect(ctx, *r)
	case doReload:
		return m.reload()
	case doAdopt:
		return m.adopt(given)
	case doWatch:
		return m.watch(r, given)
	case doGuard:
		return p.keep(given)
	case doListener:
		return m.takeListener(ctx, r, given)
	case doFollow:
		return m.follow(p)
	case doOwners:
		return m.current().supervision.saveNow(ctx)
	}
	return fmt.Errorf("do %q: this container's monitor is of a version that does not know it", r.Do)
}

func (m *monitor) await(p *peer) {
	m.mu.Lock()
	p.awaits = true
	m.mu.Unlock()
}

// current is the program that runs, or ran last.
func (m *monitor) current() *program {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.program
}

// attachFiles joins a client's files to the program's streams, from here on.
func (m *monitor) attachFiles(p *peer, files map[string]*os.File, vital bool) {
	for _, f := range []struct {
		name   string
		stream byte
	}{{fileOut, streamOut}, {fileErr, streamErr}, {fileTerminal, streamOut}} {
		file := files[f.name]
		if file == nil {
			continue
		}
		delete(files, f.name)
		s := &sink{stream: f.stream, file: pollable(file), vital: vital && f.name != fileTerminal}
		p.sinks = append(p.sinks, s)
		m.output.attach(s)
		if f.name == fileTerminal {
			go m.takeInput(s.file)
		}
	}
}

// takeInput brings what a client types to the terminal of the program that runs
// at that moment.
func (m *monitor) takeInput(from *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			// A program that is between two runs hears nothing.
			_ = m.current().typed(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// leave lets go what a client had attached. A container that is tied to it ends.
func (m *monitor) leave(p *peer) {
	for _, s := range p.sinks {
		m.output.detach(s)
	}
	m.mu.Lock()
	delete(m.peers, p)
	m.mu.Unlock()
	p.conn.Close()
	m.endWard(p)
	m.idle.Reset(settleTime)
	if p.tied {
		_ = m.kill(unix.SIGKILL)
	}
}

// kill sends a signal to the program. One that is to end it keeps it from being
// started again, as on Docker.
func (m *monitor) kill(s unix.Signal) error {
	m.mu.Lock()
	if s == unix.SIGKILL || int(s) == m.StopSignal {
		m.stopped = true
		m.notify()
	}
	p, running := m.program, m.running
	m.mu.Unlock()
	if !running {
		return errNotRunning
	}
	return m.send(p, s)
}

// send sends the program a signal of a user's, which is an event.
func (m *monitor) send(p *program, s unix.Signal) error {
	m.record("kill", map[string]string{"signal": strconv.Itoa(int(s))})
	return p.signal(s)
}

// errNotRunning says that the program has just ended, or waits to be restarted.
var errNotRunning = errors.New("it is not running")

// stop asks the program to end, and kills it if it does not within grace
// seconds. A container between two programs stays as it is. The client hears of
// the end by itself.
func (m *monitor) stop(ctx context.Context, s unix.Signal, grace int) error {
	m.mu.Lock()
	m.stopped, m.stopping = true, true
	m.notify()
	p, running := m.program, m.running
	m.mu.Unlock()
	if !running {
		return nil
	}
	_ = m.pause(false)
	if err := m.send(p, s); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	if grace < 0 {
		return nil
	}
	go func() {
		timer := time.NewTimer(time.Duration(grace) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
			_ = m.send(p, unix.SIGKILL) // the pidfd cannot mean another process
		case <-p.ended:
		case <-ctx.Done():
		}
	}()
	return nil
}

// pause stops every process of the container, or lets them go on.
func (m *monitor) pause(on bool) error {
	s, status, event := unix.SIGCONT, Running, "unpause"
	if on {
		s, status, event = unix.SIGSTOP, Paused, "pause"
	}
	m.mu.Lock()
	running, as := m.running, m.paused == on
	var err error
	if running && !as {
		if err = m.signalAll(m.program, s); err == nil {
			m.paused, m.state.Status = on, status
			err = saveState(m.dir, m.state)
		}
	}
	m.mu.Unlock()
	switch {
	case !running:
		return errNotRunning
	case err == nil && !as:
		m.record(event, nil)
	}
	return err
}

// follow has the client told of every new record of the log.
func (m *monitor) follow(p *peer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.awaits, p.follows = true, true
	m.output.log.onWrite(m.written)
	return nil
}

// written tells those who follow the log that there is more. One that has not
// yet looked after the last word needs no other.
func (m *monitor) written() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.peers {
		if p.follows {
			_ = p.conn.TrySend(reply{Written: true})
		}
	}
}

// farewell tells of the end. Who has no room for the message reads end of file
// after it all the same, and finds the rest in the state.
func (m *monitor) farewell(last report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.peers {
		if p.awaits {
			_ = p.conn.TrySend(reply{Ended: &last})
		}
	}
}
