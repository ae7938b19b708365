// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// forwarded are the signals that a client passes on to its container. The rest
// are the terminal's and the shell's business with the client itself.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
}

// patience is how many interrupts a program may ignore before it is killed: pid
// 1 has no default action for them, so that `run alpine sleep 1000` would
// otherwise not end by ctrl-c.
const patience = 3

// catchSignals begins to hold the client's signals. They stay held after the
// container's end: one that comes late must not change the client's status.
func (s *streams) catchSignals() {
	s.signals = make(chan os.Signal, 32)
	for _, sig := range forwarded {
		// Who ignores a signal at our start (nohup) goes on ignoring it.
		if !signal.Ignored(sig) {
			signal.Notify(s.signals, sig)
		}
	}
	if s.tty {
		signal.Notify(s.signals, unix.SIGWINCH)
	}
}

// forwardSignals passes the client's signals and the size of its terminal on to
// the monitor until ctx ends. After SIGHUP the terminal is gone, and the client
// leaves.
func forwardSignals(ctx context.Context, signals <-chan os.Signal, conn *userns.Conn, s *streams, leave func()) {
	interrupts := 0
	if s.tty {
		sendSize(conn, s) // it may have changed since the start
	}
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			n, ok := sig.(unix.Signal)
			if !ok {
				continue
			}
			switch n {
			case unix.SIGWINCH:
				sendSize(conn, s)
				continue
			case unix.SIGINT, unix.SIGTERM:
				if interrupts++; interrupts >= patience {
					n = unix.SIGKILL
				}
			}
			_ = conn.Send(request{Signal: int(n)})
			if n == unix.SIGHUP {
				leave()
				return
			}
		}
	}
}

func sendSize(conn *userns.Conn, s *streams) {
	size, err := unix.IoctlGetWinsize(int(s.client.Out.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 {
		return
	}
	_ = conn.Send(request{Rows: size.Row, Cols: size.Col})
}
