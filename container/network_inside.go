// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// inside runs calls in a container's network namespace, on a thread of its own
// that never leaves it: going back to the host's would take a privilege there.
//
// Runs in: the monitor, which is root in the user namespace that owns the
// container's network namespace.
type inside struct {
	calls  chan func()
	failed chan struct{} // closed when the namespace could not be entered
	err    error         // why
}

// enter starts the thread, which ends with ctx. It takes ns over.
func enter(ctx context.Context, ns *os.File) *inside {
	in := &inside{calls: make(chan func()), failed: make(chan struct{})}
	go func() {
		defer ns.Close()
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			in.err = fmt.Errorf("enter network namespace: %w", err)
			close(in.failed)
			return
		}
		for {
			select {
			case call := <-in.calls:
				call()
			case <-ctx.Done():
				return
			}
		}
	}()
	return in
}

// do runs f on the thread and waits for it.
func (in *inside) do(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case in.calls <- func() { done <- f() }:
		return <-done
	case <-in.failed:
		return in.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dial connects to a port of the container's own loopback; a server there may
// listen on either address. See slirp.Config.DialGuest.
func (in *inside) dial(ctx context.Context, network string, port uint16) (*os.File, error) {
	loopback4 := &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}
	loopback6 := &unix.SockaddrInet6{Port: int(port), Addr: [16]byte{15: 1}}
	tries := []unix.Sockaddr{loopback4, loopback6}
	if network == "tcp6" {
		tries = []unix.Sockaddr{loopback6, loopback4}
	}
	var err error
	for _, to := range tries {
		var f *os.File
		if f, err = in.connect(ctx, to); err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			break
		}
	}
	return nil, fmt.Errorf("connect to port %d of the container's loopback: %w", port, err)
}

// connect makes a socket inside; it can then be used from anywhere.
func (in *inside) connect(ctx context.Context, to unix.Sockaddr) (*os.File, error) {
	kind := unix.AF_INET
	if _, is6 := to.(*unix.SockaddrInet6); is6 {
		kind = unix.AF_INET6
	}
	fd := -1
	err := in.do(ctx, func() (err error) {
		fd, err = unix.Socket(kind, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, to)
	f := os.NewFile(uintptr(fd), "connection")
	if errors.Is(err, unix.EINPROGRESS) {
		err = connected(ctx, f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// connected waits until a socket has connected.
func connected(ctx context.Context, f *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if result = err; err != nil || code != 0 {
			if err == nil {
				result = unix.Errno(code)
			}
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	return errors.Join(err, result)
}

// netlinkCall sends requests to the kernel of the namespace that it is called in.
// Each that has a place for it gets the index of the device.
func netlinkCall(device string, messages ...*netlinkMessage) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	index, err := deviceIndex(device)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if err := m.send(fd, index); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// deviceIndex finds a device of the namespace that it is called in.
func deviceIndex(device string) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(device)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	}
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", device, err)
	}
	return request.Uint32(), nil
}
