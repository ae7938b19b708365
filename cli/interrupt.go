// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
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
