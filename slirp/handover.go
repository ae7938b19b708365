// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// File returns a duplicate of the listener's descriptor, for another process that
// connects it with a container (see Inherit). The listener stays open.
func (l *Listener) File() (*os.File, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.closed {
		return nil, fmt.Errorf("hand over %s: %w", l.addr, os.ErrClosed)
	}
	fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("hand over %s: %w", l.addr, err)
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

// Inherit makes a listener of a duplicate of f, which another process has bound
// for port (see File). f stays the caller's: a program that is restarted gets a
// new engine, and that a new listener.
func Inherit(port Port, f *os.File) (*Listener, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("take over listener: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("take over listener: %w", err)
	}
	return &Listener{port: port, addr: fromSockaddr(name), fd: fd}, nil
}
