// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"strings"

	"sbx/container"
)

func rmCommand() command {
	return command{
		name: "rm", summary: "Remove one or more containers",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", forms: []string{"sbx container rm", "sbx container remove", "sbx rm"},
		min: 1, max: -1,
		bind: func() ([]option, action) {
			o := &rmOptions{}
			return o.flags(), o.run
		},
	}
}

type rmOptions struct {
	force, volumes bool
}

func (o *rmOptions) flags() []option {
	return []option{
		switchFlag(&o.force, "force", "f", "Force the removal of a running container (uses SIGKILL)"),
		switchFlag(&o.volumes, "volumes", "v", "Remove anonymous volumes associated with the container"),
	}
}

func (o *rmOptions) run(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	failed := false
	for _, name := range operands {
		err := o.remove(ctx, home, strings.Trim(name, "/"))
		var missing *container.NotFoundError
		switch {
		case err == nil:
			c.print("%s\n", name)
		case o.force && errors.As(err, &missing):
			c.report(err) // and as good as removed
		default:
			c.report(err)
			failed = true
		}
	}
	if failed {
		return exited(statusFailed)
	}
	return nil
}

func (o *rmOptions) remove(ctx context.Context, home *container.Home, name string) error {
	ctr, err := home.Find(name)
	if err != nil {
		return named("rm "+name, err)
	}
	if err := ctr.Remove(ctx, o.force); err != nil || !o.volumes {
		return err
	}
	return home.RemoveAnonymous(ctx, ctr.Config.Mounts)
}
