// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstPatience is the first timeout of a retransmission. The way to the
	// container takes microseconds; what is slow is a machine that is busy.
	firstPatience = int64(100 * time.Millisecond)
	maxPatience   = int64(60 * time.Second)
	synPatience   = int64(time.Second)
	synTries      = 6
	// resendTries end a connection whose container is silent, after some 4 minutes.
	resendTries = 11

	// An open connection is probed after two hours, as kernels do; one that is half
	// closed after a minute, because a kernel forgets those whose process has gone.
	keepAlive     = int64(2 * time.Hour)
	keepAliveHalf = int64(time.Minute)
	keepAliveStep = int64(20 * time.Second)
	keepAlives    = 5
)

var (
	errClosed     = errors.New("network closed")
	errGuestReset = errors.New("reset by the container")
	errSilent     = errors.New("the container does not answer")
)

// arm sets the timer to whatever comes first.
func (f *tcpFlow) arm(l *loop) {
	idle := keepAlive
	if f.ended || f.hostEnded {
		idle = keepAliveHalf
	}
	due := max(f.active+idle, f.probed+keepAliveStep)
	if f.state == connecting {
		due = 0 // the host's kernel has a timeout of its own
	}
	if f.resendAt != 0 && (due == 0 || f.resendAt < due) {
		due = f.resendAt
	}
	l.timers.set(&f.timer, due)
}

// expire is the timer's end.
func (f *tcpFlow) expire(l *loop) {
	switch {
	case f.resendAt != 0 && f.resendAt <= l.now:
		f.overdue(l)
	case f.state == open:
		f.probeIdle(l)
	}
	if f.state != dead {
		f.arm(l)
	}
}

// overdue sends again what was not answered: a SYN, the first segment, or a probe
// of a window that is shut.
func (f *tcpFlow) overdue(l *loop) {
	f.tries++
	if f.state != open {
		if f.tries > synTries {
			f.abort(l, unix.ETIMEDOUT)
			return
		}
		f.patience = min(f.patience*2, maxPatience)
		f.resendAt = l.now + f.patience
		f.emitSYN(l)
		return
	}
	if len(f.sent) == 0 {
		f.probeWindow(l)
		return
	}
	if f.tries > resendTries {
		f.abort(l, errSilent)
		return
	}
	f.patience = min(f.patience*2, maxPatience)
	f.recovery = f.sendNext + 1
	f.duplicates = 0
	f.resendFirst(l)
}

// resendFirst sends the first segment again that was not acknowledged.
func (f *tcpFlow) resendFirst(l *loop) {
	if len(f.sent) == 0 {
		return
	}
	l.n.retransmits.Add(1)
	f.transmit(l, &f.sent[0])
	f.resendAt = l.now + f.patience
	f.arm(l)
}

// transmit writes a segment of the list, first or again.
func (f *tcpFlow) transmit(l *loop, s *segment) {
	f.owes = false // it acknowledges; the loop passes over it
	if s.buffer == nil {
		f.emit(l, l.scratch[:], headroom, 0, s.seq, flagFIN|flagACK, nil)
		return
	}
	f.emit(l, s.buffer.data, s.at, s.n, s.seq, flagPSH|flagACK, nil)
}

// probeWindow asks for the window again, in case that its update was lost. The
// container's kernel answers for as long as its program does not read.
func (f *tcpFlow) probeWindow(l *loop) {
	f.patience = min(f.patience*2, maxPatience)
	f.resendAt = 0
	if f.readable && !f.hostEnded && f.window == 0 {
		f.resendAt = l.now + f.patience
		f.emit(l, l.scratch[:], headroom, 0, f.sendNext-1, flagACK, nil)
		if l.now-f.active > keepAliveHalf*5 {
			f.abort(l, errSilent)
		}
	}
}

// probeIdle asks whether the container still knows the connection.
func (f *tcpFlow) probeIdle(l *loop) {
	idle := keepAlive
	if f.ended || f.hostEnded {
		idle = keepAliveHalf
	}
	quiet := l.now - f.active
	if quiet < idle {
		return
	}
	if quiet > idle+keepAlives*keepAliveStep {
		f.abort(l, errSilent)
		return
	}
	f.probed = l.now
	f.emit(l, l.scratch[:], headroom, 0, f.sendNext-1, flagACK, nil)
}
