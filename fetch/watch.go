// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// watchedBody ends a body that stalls and, unless left is negative, one that is longer
// than left. The alarm runs only while somebody waits for data, so that a slow reader
// is not taken for a slow server.
type watchedBody struct {
	body     io.ReadCloser
	ctx      context.Context
	cancel   context.CancelCauseFunc
	clock    clock
	alarm    timer
	deadline timer // of the whole exchange, nil for a blob
	left     int64
	err      error
}

// Read implements io.Reader.
func (w *watchedBody) Read(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.alarm == nil {
		w.alarm = w.clock.after(stallAfter, func() { w.cancel(errStalled) })
	} else {
		w.alarm.Reset(stallAfter)
	}
	n, err := w.body.Read(p)
	w.alarm.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = ringCause(w.ctx, err)
	}
	if w.left >= 0 {
		if int64(n) > w.left {
			n, err = int(w.left), &policyError{text: fmt.Sprintf("the answer is larger than %d MiB", maxControlBody>>20)}
		}
		w.left -= int64(n)
	}
	if w.err = err; err != nil {
		w.stop()
	}
	return n, err
}

// Close implements io.Closer.
func (w *watchedBody) Close() error {
	w.stop()
	if w.err == nil {
		w.err = http.ErrBodyReadAfterClose
	}
	err := w.body.Close()
	w.cancel(nil)
	return err
}

// stop silences what could still ring.
func (w *watchedBody) stop() {
	for _, t := range []timer{w.alarm, w.deadline} {
		if t != nil {
			t.Stop()
		}
	}
}

// ringCause replaces err, which then only says that the request was cancelled, by the
// alarm that cancelled it.
func ringCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) || errors.Is(cause, errEndless) {
		return cause
	}
	return err
}

// sentBody puts off the alarm for as long as the other side takes data.
type sentBody struct {
	io.ReadCloser
	alarm    timer
	answered atomic.Bool // the alarm is no longer set: some of the body may still go out
}

// Read implements io.Reader.
func (b *sentBody) Read(p []byte) (int, error) {
	if !b.answered.Load() {
		b.alarm.Reset(stallAfter)
	}
	return b.ReadCloser.Read(p)
}
