// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"context"
	"sync/atomic"
	"time"
)

// Finish waits until the host has all that the container's programs had sent when
// they ended. Their kernel sends on after them, for as long as somebody takes it;
// whoever takes the engine away before that cuts their last words off. It gives up
// when nothing has moved for the time of silence, and with ctx.
func (n *Network) Finish(ctx context.Context, silence time.Duration) error {
	for _, l := range n.loops {
		done := make(chan struct{})
		if l.post(func() { l.finishing = done }) {
			if err := n.awaitFinish(ctx, silence, &l.moved, done); err != nil {
				return err
			}
		}
	}
	return n.awaitFinish(ctx, silence, &n.carried.moved, n.carried.silence())
}

// awaitFinish waits for done as long as moved changes.
func (n *Network) awaitFinish(ctx context.Context, silence time.Duration, moved *atomic.Uint64, done <-chan struct{}) error {
	patience := time.NewTimer(silence)
	defer patience.Stop()
	last := moved.Load()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-n.ctx.Done():
			return errClosed
		case <-patience.C:
			now := moved.Load()
			if now == last {
				return context.DeadlineExceeded
			}
			last = now
			patience.Reset(silence)
		}
	}
}

// finishes tells Finish, at the end of a turn in which the device had nothing, that
// every stream of the container has ended and is with the host's kernel.
func (l *loop) finishes() {
	for _, f := range l.flows {
		if t, ok := f.(*tcpFlow); ok && t.isSending() {
			return
		}
	}
	close(l.finishing)
	l.finishing = nil
}

// isSending reports whether the container's side of a connection is still to end.
func (f *tcpFlow) isSending() bool { return !f.shut && (f.state == open || f.state == answering) }
