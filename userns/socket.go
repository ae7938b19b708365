// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"context"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// backlog is how many clients may wait for a Listener that is busy.
const backlog = 128

// Listener takes the connections of other processes at a name in a directory.
type Listener struct {
	f   *os.File
	raw syscall.RawConn
}

// Listen makes a SOCK_SEQPACKET socket with a name in dir, in place of one that a
// process of the past has left. The path may be longer than the 108 bytes that an
// address holds (unix(7)): it is reached through the directory's descriptor.
func Listen(dir, name string) (*Listener, error) {
	fd, err := socket()
	if err != nil {
		return nil, err
	}
	err = withAddress(dir, name, func(a *unix.SockaddrUnix) error {
		err := unix.Bind(fd, a)
		if errors.Is(err, unix.EADDRINUSE) {
			if err := unix.Unlink(a.Name); err != nil && !errors.Is(err, unix.ENOENT) {
				return os.NewSyscallError("unlink", err)
			}
			err = unix.Bind(fd, a)
		}
		return os.NewSyscallError("bind", err)
	})
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err == nil {
		err = os.NewSyscallError("set socket nonblocking", unix.SetNonblock(fd, true))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Listener{f: f, raw: raw}, nil
}

// Accept waits for a connection of the user uid, as this process's user
// namespace counts. Those of other users are closed (SO_PEERCRED, unix(7)).
func (l *Listener) Accept(ctx context.Context, uid uint32) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() { l.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		var fd int
		var acceptErr error
		err := l.raw.Read(func(s uintptr) bool {
			fd, _, acceptErr = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(acceptErr, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, err
		case errors.Is(acceptErr, unix.EINTR), errors.Is(acceptErr, unix.ECONNABORTED):
			continue
		case acceptErr != nil:
			return nil, os.NewSyscallError("accept", acceptErr)
		}
		peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || peer.Uid != uid {
			unix.Close(fd)
			continue
		}
		return newConn(fd)
	}
}

// Close ends the listening. The name stays in the directory.
func (l *Listener) Close() error { return l.f.Close() }

// Dial connects to the Listener of a name in dir. When there is none, or its
// process has ended, the error is fs.ErrNotExist or ECONNREFUSED.
func Dial(dir, name string) (*Conn, error) {
	fd, err := socket()
	if err != nil {
		return nil, err
	}
	err = withAddress(dir, name, func(a *unix.SockaddrUnix) error {
		for {
			// A full backlog is EAGAIN on a socket that does not block; this one does.
			if err := unix.Connect(fd, a); !errors.Is(err, unix.EINTR) {
				return os.NewSyscallError("connect", err)
			}
		}
	})
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newConn(fd)
}

func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	return fd, os.NewSyscallError("socket", err)
}

// withAddress calls f with an address that names a file in dir, however long the
// directory's path is.
func withAddress(dir, name string, f func(*unix.SockaddrUnix) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return f(&unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name})
}
