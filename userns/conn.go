// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of one message. A socket takes about 200 KiB at once (wmem_default);
// SCM_MAX_FD is 253, and nothing of ours sends more than a handful.
const (
	maxMessage = 160 << 10
	maxFiles   = 16
)

// Conn is a connection between two processes of ours: a SOCK_SEQPACKET socket
// that carries JSON messages and open files. Several goroutines may use one.
type Conn struct {
	f   *os.File
	raw syscall.RawConn
}

// Pair makes a connection: one end to keep, and one to give to a child.
func Pair() (ours *Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, err = newConn(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return ours, os.NewFile(uintptr(fds[1]), "socket"), nil
}

// Inherited takes over a connection that the starter of this process left at a
// descriptor.
func Inherited(fd int) (*Conn, error) {
	unix.CloseOnExec(fd)
	return newConn(fd)
}

// File is the connection's descriptor, for a child to inherit.
func (c *Conn) File() *os.File { return c.f }

// newConn takes over the descriptor of a connected socket.
func newConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("set socket nonblocking", err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Conn{f: f, raw: raw}, nil
}

// Close ends the connection; the other side reads io.EOF.
func (c *Conn) Close() error { return c.f.Close() }

// Send sends v as JSON, with files. It waits while the other side is behind.
func (c *Conn) Send(v any, files ...*os.File) error { return c.send(v, true, files) }

// TrySend sends v if the other side has room for it, and is EAGAIN if not.
func (c *Conn) TrySend(v any) error { return c.send(v, false, nil) }

func (c *Conn) send(v any, wait bool, files []*os.File) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	if len(data) > maxMessage || len(files) > maxFiles {
		return fmt.Errorf("send message: %d bytes and %d files are too many", len(data), len(files))
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	var sendErr error
	err = c.raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), data, rights, nil, unix.MSG_NOSIGNAL)
		return !(wait && errors.Is(sendErr, unix.EAGAIN)) && !errors.Is(sendErr, unix.EINTR)
	})
	if err = errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// Receive waits for a message, decodes it into v and returns its files, which
// are the caller's to close. When the other side has gone it returns io.EOF.
func (c *Conn) Receive(ctx context.Context, v any) ([]*os.File, error) {
	stop := context.AfterFunc(ctx, func() { c.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var data []byte
	control := make([]byte, unix.CmsgSpace(4*maxFiles))
	var n, controlLen, flags int
	var recvErr error
	err := c.raw.Read(func(fd uintptr) bool {
		// Room for what comes and not for what could: a monitor receives for days.
		if n, _, _, _, recvErr = unix.RecvmsgBuffers(int(fd), nil, nil, unix.MSG_PEEK|unix.MSG_TRUNC); recvErr == nil {
			data = make([]byte, min(n, maxMessage))
			n, controlLen, flags, _, recvErr = unix.Recvmsg(int(fd), data, control, unix.MSG_CMSG_CLOEXEC)
		}
		return !errors.Is(recvErr, unix.EAGAIN) && !errors.Is(recvErr, unix.EINTR)
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(recvErr, unix.ECONNRESET) || (err == nil && recvErr == nil && n == 0 && controlLen == 0) {
		return nil, io.EOF
	}
	if err = errors.Join(err, recvErr); err != nil {
		return nil, fmt.Errorf("receive message: %w", err)
	}
	files, err := parseFiles(control[:controlLen])
	if err != nil {
		return nil, fmt.Errorf("receive message: %w", err)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(files)
		return nil, errors.New("receive message: it was cut short")
	}
	if err := json.Unmarshal(data[:n], v); err != nil {
		closeAll(files)
		return nil, fmt.Errorf("receive message: %w", err)
	}
	return files, nil
}

func parseFiles(control []byte) ([]*os.File, error) {
	if len(control) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials or others we did not ask for carry no files
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received file"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
