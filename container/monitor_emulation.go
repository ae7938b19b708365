// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	"sbx/fakeroot"
)

// supervision answers the system calls of one run of the container. A restart
// gets another: its programs have other mounts.
type supervision struct {
	emulation  *emulation
	supervisor *fakeroot.Supervisor
	procfs     *os.File
	ready      chan struct{} // closed when the two are there, or err
	err        error
	stopKeep   context.CancelFunc
}

// newSupervision gets ready for the listener of the container's program while that is
// still being started. It is nil where nothing is emulated.
func (h *hello) newSupervision() *supervision {
	e := h.Emulation
	if e == nil || !e.Mode.Listens() {
		return nil
	}
	procfs := fakeroot.OpenProcfs
	if h.PIDsOf != "" {
		procfs = func() (*os.File, error) { return os.Open("/proc") } // this monitor is in the host's pid namespace
	}
	s := &supervision{emulation: e, ready: make(chan struct{})}
	go func() {
		defer close(s.ready)
		s.err = s.prepare(procfs)
	}()
	return s
}

func (s *supervision) prepare(procfs func() (*os.File, error)) error {
	options, err := s.emulation.options()
	if err != nil {
		return err
	}
	if s.procfs, err = procfs(); err != nil {
		return err
	}
	if s.supervisor, err = fakeroot.New(options); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stopKeep = cancel
	if s.emulation.Keep {
		go s.supervisor.Keep(ctx, s.emulation.Table)
	}
	return nil
}

// saveNow writes down what files of the container cannot carry, so that somebody
// else can read it.
func (s *supervision) saveNow(ctx context.Context) error {
	if s == nil {
		return nil
	}
	<-s.ready
	if s.err != nil {
		return nil
	}
	return s.supervisor.SaveNow(ctx, s.emulation.Table)
}

// serve answers for a program, in the container's mount namespace, until no
// process with its filter is left. When that cannot be, the listener is closed:
// the program's execve then fails, where it would wait for ever.
func (s *supervision) serve(ctx context.Context, l fakeroot.Listener, mounts *os.File) error {
	if s == nil {
		l.File.Close()
		return errors.New("serve system calls: nothing is emulated")
	}
	<-s.ready
	err := s.err
	if err == nil && mounts == nil {
		err = errors.New("the container sent no mount namespace")
	}
	if err != nil {
		l.File.Close()
		return fmt.Errorf("serve system calls: %w", err)
	}
	l.Mounts, l.Procfs = int(mounts.Fd()), s.procfs
	if err := s.supervisor.Serve(ctx, l); err != nil {
		return fmt.Errorf("serve system calls: %w", err)
	}
	return nil
}

// finish writes down what the files cannot carry, once the programs are gone.
func (s *supervision) finish(ctx context.Context, save bool) error {
	if s == nil {
		return nil
	}
	<-s.ready
	if s.err != nil {
		return s.err
	}
	s.stopKeep()
	table := s.emulation.Table
	if !save {
		table = ""
	}
	err := s.supervisor.Save(ctx, table)
	s.supervisor.Close()
	s.procfs.Close()
	return err
}

// supervise has the system calls of a process of the container answered. It
// returns at once.
func (m *monitor) supervise(ctx context.Context, p *program, l fakeroot.Listener) {
	p.mu.Lock()
	mounts := p.held["mnt"]
	p.mu.Unlock()
	go func() {
		if err := p.supervision.serve(ctx, l, mounts); err != nil {
			_ = m.setState(func(s *State) { s.Error = err.Error() })
		}
	}()
}
