// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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
func (s *attachment) catchSignals() {
	s.signals = make(chan os.Signal, 32)
	for _, sig := range forwarded {
		// Who ignores a signal at our start (nohup) goes on ignoring it.
		if !signal.Ignored(sig) {
			signal.Notify(s.signals, sig)
		}
	}
	// Caught, it lets a write to a reader that has left fail, and not end us.
	signal.Notify(s.signals, unix.SIGPIPE)
	if s.tty {
		signal.Notify(s.signals, unix.SIGWINCH)
	}
}

// leftError is why a client leaves a container that goes on: a signal.
type leftError struct {
	signal unix.Signal
	detach bool // even if the container was to end with it
}

func (e *leftError) Error() string { return e.signal.String() }

// controls are how a client reaches a program from outside.
type controls struct {
	signal func(unix.Signal)
	resize func(*unix.Winsize)
}

// forwardSignals passes the client's signals and the size of its terminal on
// until ctx ends. At SIGHUP the terminal is gone, and the client leaves; who
// attends passes that on as it goes, so that the program's answer to it is not
// taken for the end. A deaf client leaves at the first that would end it.
func (s *attachment) forwardSignals(ctx context.Context, to controls, leave func(error)) {
	interrupts := 0
	resize := func() {
		if size := s.size(); size != nil {
			to.resize(size)
		}
	}
	resize() // it may have changed since the start
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-s.signals:
			n, ok := sig.(unix.Signal)
			if !ok {
				continue
			}
			switch n {
			case unix.SIGPIPE:
				continue
			case unix.SIGWINCH:
				resize()
				continue
			case unix.SIGINT, unix.SIGTERM:
				if interrupts++; s.patient && interrupts >= patience {
					n = unix.SIGKILL
				}
			}
			if s.Deaf || n == unix.SIGHUP {
				leave(&leftError{signal: n, detach: s.Deaf})
				return
			}
			to.signal(n)
		}
	}
}

// ParseSignal reads a signal as kill(1) and Docker do: 15, TERM, SIGTERM,
// RTMIN+1, in either case.
func ParseSignal(s string) (unix.Signal, error) {
	const rtMin, rtMax = 34, 64
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= rtMax {
		return unix.Signal(n), nil
	}
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return n, nil
	}
	for prefix, base := range map[string]int{"RTMIN": rtMin, "RTMAX": rtMax} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		offset, err := strconv.Atoi(rest)
		if rest == "" {
			offset, err = 0, nil
		}
		if n := base + offset; err == nil && n >= rtMin && n <= rtMax {
			return unix.Signal(n), nil
		}
	}
	return 0, fmt.Errorf("invalid signal: %s", s)
}
