// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// Restart policies, by Docker's names.
const (
	RestartNo            = "no"
	RestartOnFailure     = "on-failure"
	RestartAlways        = "always"
	RestartUnlessStopped = "unless-stopped"
)

// RestartPolicy says whether a program that ended is started again.
type RestartPolicy struct {
	Name    string `json:"name,omitempty"`    // RestartNo when empty
	Retries int    `json:"retries,omitempty"` // the most of RestartOnFailure; 0: no limit
}

// ParseRestart reads a policy as Docker does: no, on-failure[:N], always or
// unless-stopped.
func ParseRestart(s string) (RestartPolicy, error) {
	name, count, hasCount := strings.Cut(s, ":")
	switch name {
	case "", RestartNo, RestartAlways, RestartUnlessStopped:
		if hasCount {
			return RestartPolicy{}, errors.New("invalid restart policy: maximum retry count can only be used with 'on-failure'")
		}
		return RestartPolicy{Name: name}, nil
	case RestartOnFailure:
		p := RestartPolicy{Name: name}
		if !hasCount {
			return p, nil
		}
		n, err := strconv.Atoi(count)
		if err != nil || n < 0 {
			return RestartPolicy{}, errors.New("invalid restart policy format: maximum retry count must be a positive integer")
		}
		p.Retries = n
		return p, nil
	}
	return RestartPolicy{}, fmt.Errorf("invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", name)
}

// again reports whether a program that ended with status is started again; tries
// is how often it was.
func (p RestartPolicy) again(status, tries int) bool {
	switch p.Name {
	case RestartAlways, RestartUnlessStopped:
		return true
	case RestartOnFailure:
		return status != 0 && (p.Retries == 0 || tries < p.Retries)
	}
	return false
}

// backoff is how long to wait before the next start: Docker's 100 ms, doubled
// each time up to a minute, and from the beginning again once a program has run
// for ten seconds.
type backoff struct{ last time.Duration }

const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = time.Minute
	settled      = 10 * time.Second
)

func (b *backoff) next(ran time.Duration) time.Duration {
	switch {
	case b.last == 0 || ran >= settled:
		b.last = firstBackoff
	default:
		b.last = min(2*b.last, lastBackoff)
	}
	return b.last
}

// again waits as the restart policy has it and starts the program anew, or
// returns nil when that was the container's end.
func (m *monitor) again(ctx context.Context, status int) *program {
	for {
		m.mu.Lock()
		tries, ran := m.state.Restarts, time.Since(m.state.StartedAt)
		over := m.stopped || m.PIDsOf != "" || !m.Restart.again(status, tries)
		changed := m.changed
		m.mu.Unlock()
		if over {
			return nil
		}
		wait := time.NewTimer(m.backoff.next(ran))
		err := m.setState(func(s *State) {
			s.exit(status)
			s.Status = Restarting
		})
		if err != nil {
			return nil
		}
		m.wire.finish(ctx, m.current())
		m.wire.stop()
		m.current().release()
		for waiting := true; waiting; {
			select {
			case <-wait.C:
				waiting = false
			case <-changed:
				m.mu.Lock()
				over, changed = m.stopped || !m.Restart.again(status, tries), m.changed
				m.mu.Unlock()
				if over {
					wait.Stop()
					return nil
				}
			case <-ctx.Done():
				return nil
			}
		}
		p, err := m.startAgain(ctx)
		switch {
		case err == nil:
			return p
		case errors.Is(err, errStopped):
			return nil
		}
		status = statusFailed
		_ = m.setState(func(s *State) { s.Error = err.Error() })
	}
}

// startAgain starts the program in new namespaces, from the record.
//
// The start program is that of the first start, and its parent is this process.
// Nobody else is in the new pid namespace, so that its copy of our memory and
// descriptors is seen by none.
func (m *monitor) startAgain(ctx context.Context) (*program, error) {
	config, err := m.config()
	if err != nil {
		return nil, err
	}
	filter, err := config.filter()
	if err != nil {
		return nil, err
	}
	pipes, err := openPipes(config)
	if err != nil {
		return nil, err
	}
	defer pipes.closeProgramEnds()
	ours, theirs, err := userns.Pair()
	if err != nil {
		return nil, err
	}
	high, err := openHighFiles(ours.File(), theirs, pipes.program)
	theirs.Close()
	if err != nil {
		return nil, err
	}
	defer high.close()
	shared, err := (&Home{dir: m.Home, here: m.Here}).openShared(ctx, config)
	if err != nil {
		return nil, err
	}
	defer shared.close()
	st := newStart(config, m.wire.current(), m.dir, m.Home, filter)
	st.share(shared)
	if st.emulation, err = m.Emulation.compiled(); err != nil {
		return nil, err
	}
	if st.admission, err = newAdmission(m.Group != ""); err != nil {
		return nil, err
	}
	defer st.admission.close()
	st.descriptors, st.again = high.descriptors(), true
	process, err := userns.Clone(unix.CLONE_NEWPID, st.containerProgram())
	high.close()
	if err == nil {
		if err = st.admission.admit(ctx, m.Group, process.PID); err != nil {
			process.Kill()
			process.Wait()
		}
	}
	if err != nil {
		ours.Close()
		return nil, err
	}
	return m.adoptProgram(ctx, config, process, ours, pipes)
}

// errStopped says that the user has stopped the container while its program was
// about to be started again.
var errStopped = errors.New("it was stopped")

// adoptProgram writes down that the program runs and lets it, unless the container
// was stopped meanwhile: who did that found no program to send a signal to.
func (m *monitor) adoptProgram(ctx context.Context, config *Config, process *userns.Process, channel *userns.Conn, pipes *pipes) (*program, error) {
	pidfd, err := unix.PidfdOpen(process.PID, 0)
	if err != nil {
		process.Kill()
		process.Wait()
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	p := newProgram(process.PID, pidfd, channel, m.TTY)
	m.mu.Lock()
	stopped := m.stopped
	if !stopped {
		p.supervision = m.newSupervision()
		p.take(pipes.stdin, pipes.stdout, pipes.stderr)
		m.program, m.running = p, true
		m.state.Restarts++
	}
	m.mu.Unlock()
	if stopped {
		process.Kill()
		process.Wait()
		return nil, errStopped
	}
	err = errors.Join(m.recordStart(p), channel.Send(struct{}{}))
	// The execve waits for who answers its system calls, so they begin before it.
	m.begin(ctx, p)
	if err == nil {
		err = process.Started(ctx)
	}
	if err != nil {
		// It counts as a run that ended at once.
		process.Kill()
		p.failure, err = startFailure(err, config.Command()[0], "")
		_ = m.setState(func(s *State) { s.Error = err.Error() })
	}
	return p, nil
}
