// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"sbx/container"
)

// containers does something to every container that the operands name, and
// prints each name that it was done to.
func (c *client) containers(ctx context.Context, operands []string, do func(context.Context, *container.Container) error) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	return c.each(operands, func(name string) error {
		ctr, err := find(home, name)
		if err == nil {
			err = do(ctx, ctr)
		}
		if err == nil {
			c.print("%s\n", name)
		}
		return err
	})
}

// eachCommand is a command without options that does one thing to each operand.
func eachCommand(name, summary string, do func(context.Context, *container.Container) error) command {
	return command{
		name: name, summary: summary, usage: "CONTAINER [CONTAINER...]", forms: []string{"sbx container " + name, "sbx " + name},
		min: 1, max: -1,
		bind: func() ([]option, action) {
			return nil, func(ctx context.Context, c *client, operands []string) error { return c.containers(ctx, operands, do) }
		},
	}
}

func pauseCommand() command {
	return eachCommand("pause", "Pause all processes within one or more containers", func(ctx context.Context, ctr *container.Container) error {
		return ctr.Pause(ctx)
	})
}

func unpauseCommand() command {
	return eachCommand("unpause", "Unpause all processes within one or more containers", func(ctx context.Context, ctr *container.Container) error {
		return ctr.Unpause(ctx)
	})
}

func waitCommand() command {
	return command{
		name: "wait", summary: "Block until containers stop, then print their exit codes",
		usage: "CONTAINER [CONTAINER...]", forms: []string{"sbx container wait", "sbx wait"}, min: 1, max: -1,
		bind: func() ([]option, action) { return nil, wait },
	}
}

func wait(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	return c.each(operands, func(name string) error {
		ctr, err := find(home, name)
		if err != nil {
			return err
		}
		status, err := ctr.Wait(ctx)
		if err == nil {
			c.print("%d\n", status)
		}
		return err
	})
}

func killCommand() command {
	return command{
		name: "kill", summary: "Kill one or more running containers",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", forms: []string{"sbx container kill", "sbx kill"}, min: 1, max: -1,
		bind: func() ([]option, action) {
			name := "KILL"
			return []option{textFlag(&name, "signal", "s", "Signal to send to the container")},
				func(ctx context.Context, c *client, operands []string) error {
					signal, err := container.ParseSignal(name)
					if err != nil {
						return err
					}
					return c.containers(ctx, operands, func(ctx context.Context, ctr *container.Container) error { return ctr.Kill(ctx, signal) })
				}
		},
	}
}

// stopFlags are those of stop and restart.
type stopFlags struct {
	signal  string
	timeout given
	seconds *int
	number  unix.Signal
}

func (f *stopFlags) options() []option {
	return []option{
		textFlag(&f.signal, "signal", "s", "Signal to send to the container"),
		{name: "timeout", short: "t", alias: "time", kind: "int", usage: "Seconds to wait before killing the container", value: &f.timeout},
	}
}

func (f *stopFlags) read() error {
	if f.timeout.ok {
		var n int
		if _, err := fmt.Sscanf(f.timeout.text+"\n", "%d\n", &n); err != nil {
			return &usageError{text: fmt.Sprintf("invalid argument %q for \"-t, --timeout\" flag: want a number", f.timeout.text)}
		}
		f.seconds = &n
	}
	if f.signal == "" {
		return nil
	}
	var err error
	f.number, err = container.ParseSignal(f.signal)
	return err
}

func stopCommand() command {
	return command{
		name: "stop", summary: "Stop one or more running containers",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", forms: []string{"sbx container stop", "sbx stop"}, min: 1, max: -1,
		bind: func() ([]option, action) {
			f := &stopFlags{}
			return f.options(), func(ctx context.Context, c *client, operands []string) error { return f.stop(ctx, c, operands) }
		},
	}
}

// stop stops the containers all at once, so that it takes no longer than for the
// slowest of them, and prints the names in the order they were given.
func (f *stopFlags) stop(ctx context.Context, c *client, operands []string) error {
	if err := f.read(); err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	errs := make([]error, len(operands))
	var group sync.WaitGroup
	for i, name := range operands {
		group.Go(func() {
			ctr, err := find(home, name)
			if err == nil {
				err = ctr.Stop(ctx, f.number, f.seconds)
			}
			errs[i] = err
		})
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			c.report(err)
			continue
		}
		c.print("%s\n", operands[i])
	}
	if errors.Join(errs...) != nil {
		return exited(statusFailed)
	}
	return nil
}

func restartCommand() command {
	return command{
		name: "restart", summary: "Restart one or more containers",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", forms: []string{"sbx container restart", "sbx restart"}, min: 1, max: -1,
		bind: func() ([]option, action) {
			f := &stopFlags{}
			return f.options(), func(ctx context.Context, c *client, operands []string) error {
				if err := f.read(); err != nil {
					return err
				}
				return c.containers(ctx, operands, func(ctx context.Context, ctr *container.Container) error {
					return ctr.Restart(ctx, f.number, f.seconds)
				})
			}
		},
	}
}
