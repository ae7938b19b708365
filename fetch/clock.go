// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"time"
)

// clock is time as this package uses it, so that tests need not wait.
type clock interface {
	now() time.Time
	// sleep returns early, with the cause, when ctx ends.
	sleep(ctx context.Context, d time.Duration) error
	// after calls f in its own goroutine when d has passed; reset and stop are time.Timer's.
	after(d time.Duration, f func()) timer
}

type timer interface {
	Reset(d time.Duration) bool
	Stop() bool
}

type realClock struct{}

func (realClock) now() time.Time { return time.Now() }

func (realClock) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (realClock) after(d time.Duration, f func()) timer { return time.AfterFunc(d, f) }
