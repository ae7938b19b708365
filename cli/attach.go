// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sbx/container"
)

func attachCommand() command {
	return command{
		name: "attach", summary: "Attach local standard streams to a running container",
		usage: "[OPTIONS] CONTAINER", forms: []string{"sbx container attach", "sbx attach"},
		min: 1, max: 1,
		bind: func() ([]option, action) {
			o := &attachOptions{}
			return o.flags(), o.run
		},
	}
}

type attachOptions struct {
	attach  attachFlags
	noStdin bool
}

func (o *attachOptions) flags() []option {
	return append(o.attach.options(), switchFlag(&o.noStdin, "no-stdin", "", "Do not attach STDIN"))
}

func (o *attachOptions) run(ctx context.Context, c *client, operands []string) error {
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
	if ctr.State.Status == container.Paused {
		return errors.New("you cannot attach to a paused container, unpause it first")
	}
	a.Input, a.Output, a.Errors = !o.noStdin && ctr.Config.OpenStdin, true, true
	if a.Input && ctr.Config.TTY && !isTerminal(c.in) {
		return errNoTerminal
	}
	return c.ended(ctr.Attach(ctx, a))
}

// ended is what becomes of a command that was attached to a program.
func (c *client) ended(status int, err error) error {
	if errors.Is(err, container.ErrDetached) {
		c.say(err)
		return nil
	}
	if err != nil {
		return err
	}
	return exited(status)
}

// say tells a user who has asked for it that it was done, in Docker's words.
func (c *client) say(err error) { fmt.Fprintln(c.err, err) }

// find finds a container as the user names it.
func find(home *container.Home, name string) (*container.Container, error) {
	return home.Find(strings.Trim(name, "/"))
}

// attachFlags are those of every command that joins a program's streams.
type attachFlags struct {
	detachKeys string
	sigProxy   bool
}

func (f *attachFlags) options() []option {
	f.sigProxy = true
	return []option{
		textFlag(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container"),
		switchFlag(&f.sigProxy, "sig-proxy", "", "Proxy received signals to the process"),
	}
}

func (f *attachFlags) attach(c *client) (container.Attach, error) {
	a := container.Attach{Stdio: container.Stdio{In: c.in, Out: c.out, Err: c.err}, Deaf: !f.sigProxy}
	var err error
	a.DetachKeys, err = c.detachKeys(f.detachKeys)
	return a, err
}

// detachKeys reads --detach-keys, or else what config.toml says. Nobody types
// them where there is no terminal.
func (c *client) detachKeys(typed string) ([]byte, error) {
	if typed == "" && isTerminal(c.in) {
		settings, err := c.config()
		if err != nil {
			return nil, err
		}
		typed = settings.DetachKeys
	}
	return container.ParseDetachKeys(typed)
}

// attached are the streams that -a names, or else all: the input with -i only.
func (f *containerFlags) attached() (in, out, errs bool, err error) {
	if len(f.attach) == 0 {
		return f.stdin, true, true, nil
	}
	for _, name := range f.attach {
		switch strings.ToLower(name) {
		case "stdin":
			in = true
		case "stdout":
			out = true
		case "stderr":
			errs = true
		default:
			return in, out, errs, fmt.Errorf("invalid argument %q for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR", name)
		}
	}
	return in, out, errs, nil
}

var errNoTerminal = &statusError{status: statusFailed, err: errors.New("the input device is not a TTY"), hint: "leave out -t, or run it in a terminal"}
