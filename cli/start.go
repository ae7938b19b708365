// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"

	"sbx/container"
)

func startCommand() command {
	return command{
		name: "start", summary: "Start one or more stopped containers",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", forms: []string{"sbx container start", "sbx start"}, min: 1, max: -1,
		bind: func() ([]option, action) {
			o := &startOptions{}
			return o.flags(), o.run
		},
	}
}

type startOptions struct {
	attach         attachFlags
	attached, keep bool
}

func (o *startOptions) flags() []option {
	shown := o.attach.options()[:1] // signals are always passed on
	return append(shown,
		switchFlag(&o.attached, "attach", "a", "Attach STDOUT/STDERR and forward signals"),
		switchFlag(&o.keep, "interactive", "i", "Attach container's STDIN"))
}

func (o *startOptions) run(ctx context.Context, c *client, operands []string) error {
	if !o.attached && !o.keep {
		return c.containers(ctx, operands, func(ctx context.Context, ctr *container.Container) error {
			err := ctr.Start(ctx)
			var running *container.RunningError
			if errors.As(err, &running) {
				return nil // it is as it should be
			}
			return err
		})
	}
	if len(operands) > 1 {
		return errors.New("you cannot start and attach multiple containers at once")
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := find(home, operands[0])
	if err != nil {
		return err
	}
	a, err := o.attach.attach(c)
	if err != nil {
		return err
	}
	a.Input, a.Output, a.Errors = o.keep && ctr.Config.OpenStdin, true, true
	if a.Input && ctr.Config.TTY && !isTerminal(c.in) {
		return errNoTerminal
	}
	status, err := ctr.Run(ctx, a)
	var running *container.RunningError
	if errors.As(err, &running) {
		status, err = ctr.Attach(ctx, a)
	}
	return c.ended(status, err)
}

func createCommand() command {
	return command{
		name: "create", summary: "Create a new container",
		usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]", forms: []string{"sbx container create", "sbx create"},
		max: -1, trailing: true, failure: statusFailed,
		bind: func() ([]option, action) {
			o := &createOptions{}
			return o.flags(), o.run
		},
	}
}

type createOptions struct {
	container containerFlags
}

func (o *createOptions) flags() []option {
	return append(o.container.options(), listFlag(&o.container.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR"))
}

func (o *createOptions) run(ctx context.Context, c *client, operands []string) error {
	typed, options, err := o.container.read(c, "create", operands)
	if err != nil {
		return err
	}
	if options.StdinOnce, _, _, err = o.container.attached(); err != nil {
		return err
	}
	o.container.unmet.tell(c)
	ctr, _, err := o.container.create(ctx, c, typed, options)
	if err == nil {
		err = ctr.Sync()
	}
	if err != nil {
		return named("create "+typed, err)
	}
	c.print("%s\n", ctr.ID())
	return nil
}
