// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"sbx/container"
)

func execCommand() command {
	return command{
		name: "exec", summary: "Execute a command in a running container",
		usage: "[OPTIONS] CONTAINER COMMAND [ARG...]", forms: []string{"sbx container exec", "sbx exec"},
		min: 2, max: -1, trailing: true,
		bind: func() ([]option, action) {
			o := &execOptions{}
			return o.flags(), o.run
		},
	}
}

type execOptions struct {
	detachKeys, user, workdir      string
	detach, stdin, tty, privileged bool
	env, envFiles                  []string
}

func (o *execOptions) flags() []option {
	return []option{
		switchFlag(&o.detach, "detach", "d", "Detached mode: run command in the background"),
		textFlag(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container"),
		listFlag(&o.env, "env", "e", "Set environment variables"),
		listFlag(&o.envFiles, "env-file", "", "Read in a file of environment variables"),
		switchFlag(&o.stdin, "interactive", "i", "Keep STDIN open even if not attached"),
		switchFlag(&o.privileged, "privileged", "", "Give extended privileges to the command"),
		switchFlag(&o.tty, "tty", "t", "Allocate a pseudo-TTY"),
		textFlag(&o.user, "user", "u", "Username or UID (format: <name|uid>[:<group|gid>])"),
		textFlag(&o.workdir, "workdir", "w", "Working directory inside the container"),
	}
}

func (o *execOptions) run(ctx context.Context, c *client, operands []string) error {
	if err := o.execute(ctx, c, operands); err != nil {
		return named("exec "+operands[0], err)
	}
	return nil
}

func (o *execOptions) execute(ctx context.Context, c *client, operands []string) error {
	e := container.Exec{Args: operands[1:], WorkingDir: o.workdir, User: o.user, TTY: o.tty, Privileged: o.privileged}
	var err error
	if e.Env, err = environment(o.envFiles, o.env, c.lookup); err != nil {
		return err
	}
	keys, err := c.detachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	if o.tty && o.stdin && !o.detach && !isTerminal(c.in) {
		return errNoTerminal
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := find(home, operands[0])
	if err != nil {
		return err
	}
	if o.detach {
		return ctr.ExecDetached(ctx, e)
	}
	return c.ended(ctr.Exec(ctx, e, container.Attach{
		Stdio: container.Stdio{In: c.in, Out: c.out, Err: c.err},
		Input: o.stdin, Output: true, Errors: true, DetachKeys: keys,
	}))
}
