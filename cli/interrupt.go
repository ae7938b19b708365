// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// interruptible runs f, which cleans up behind itself, with a context that ends
// with the first interrupt. A second one ends this process at once. While a
// program runs, signals are its own: container forwards them.
func interruptible(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as under nohup
			signal.Notify(signals, s)
		}
	}
	defer signal.Stop(signals)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			n, _ := s.(syscall.Signal)
			cancel(interrupted(n))
		case <-ctx.Done():
		}
	}()
	err := f(ctx)
	var end *statusError
	if err != nil && errors.As(context.Cause(ctx), &end) {
		return end
	}
	return err
}

// typed is a file whose reader does not outstay its context: a terminal on which
// nobody types would keep an interrupted command for ever.
type typed struct {
	ctx  context.Context
	from *os.File
}

func (t *typed) Read(p []byte) (int, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	buf := make([]byte, len(p)) // of a read that outlives this call
	go func() {
		n, err := t.from.Read(buf)
		done <- result{buf[:n], err}
	}()
	select {
	case r := <-done:
		return copy(p, r.data), r.err
	case <-t.ctx.Done():
		return 0, context.Cause(t.ctx)
	}
}

// input is the standard input, for who can be interrupted as it waits.
func (c *client) input(ctx context.Context) io.Reader { return &typed{ctx, c.in} }
