// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"

	"sbx/fakeroot"
)

// join gives out what a process needs to enter the container: its pid 1, which
// names the namespaces, and the user namespace that owns them. The program may
// be in another one below that.
//
// A program that is being started has not got all of its mounts: its execve, or
// its end, is waited for.
func (m *monitor) join(out *bundle) error {
	m.current().receiver.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running {
		return errNotRunning
	}
	if m.user == nil {
		f, err := os.Open("/proc/self/ns/user")
		if err != nil {
			return err
		}
		m.user = f
	}
	out.add(filePidfd, m.program.gate())
	out.add(fileUser, m.user)
	return nil
}

// adopt keeps the terminal of a process that a client has executed and left: it
// is read, so that the process can go on writing, and closed at its end.
func (m *monitor) adopt(given map[string]*os.File) error {
	f := given[fileTerminal]
	if f == nil {
		return errors.New("adopt terminal: there is none")
	}
	delete(given, fileTerminal)
	go func() {
		f := pollable(f)
		defer f.Close()
		_, _ = io.Copy(io.Discard, f)
	}()
	return nil
}

// watch writes down the end of a process that a client has executed and left. One
// that ends with the container has its end before the container's.
func (m *monitor) watch(r *request, given map[string]*os.File) error {
	f := given[fileStatus]
	if f == nil {
		return errors.New("watch process: there is no pipe")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running {
		return errNotRunning
	}
	delete(given, fileStatus)
	m.program.executed.Go(func() {
		f := pollable(f)
		defer f.Close()
		status := make([]byte, 1)
		// Who was to tell can have been killed.
		if n, err := f.Read(status); n == 1 && err == nil {
			m.record("exec_die", map[string]string{"execID": r.Name, "exitCode": strconv.Itoa(int(status[0]))})
		}
	})
	return nil
}

// takeListener serves the system calls of a process that a client has executed.
func (m *monitor) takeListener(ctx context.Context, r *request, given map[string]*os.File) error {
	f := given[doListener]
	if f == nil {
		return errors.New("take listener: there is none")
	}
	delete(given, doListener)
	l := fakeroot.Listener{File: f, User: m.Emulation.user(), Paths: r.Paths}
	if r.Identity != nil {
		l.User = credentials(*r.Identity)
	}
	m.supervise(ctx, m.current(), l)
	return nil
}
