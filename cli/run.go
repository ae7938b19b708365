// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"sbx/container"
	"sbx/fetch"
)

func runCommand() command {
	return command{
		name: "run", summary: "Create and run a new container from an image",
		usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]", forms: []string{"sbx container run", "sbx run"},
		max: -1, trailing: true, failure: statusSbx,
		bind: func() ([]option, action) {
			o := &runOptions{}
			return o.flags(), o.run
		},
	}
}

type runOptions struct {
	container containerFlags
	attach    attachFlags
	detach    bool
}

func (o *runOptions) flags() []option {
	return append(append(o.container.options(), o.attach.options()...),
		listFlag(&o.container.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR"),
		switchFlag(&o.detach, "detach", "d", "Run container in background and print container ID"))
}

func (o *runOptions) run(ctx context.Context, c *client, operands []string) error {
	f := &o.container
	typed, options, err := f.read(c, "run", operands)
	if err != nil {
		return err
	}
	attach, err := o.streams(c, &options)
	if err != nil {
		return err
	}
	f.unmet.tell(c)
	if err := o.start(ctx, c, typed, options, attach); err != nil {
		return named("run "+typed, err)
	}
	return nil
}

// read reads the flags and operands of run and create, as far as they need no
// image. typed is what the user calls the image.
func (f *containerFlags) read(c *client, name string, operands []string) (typed string, options container.Options, err error) {
	typed = f.image.rootfs
	if f.image.overlay && typed == "" {
		return "", options, &usageError{text: "--overlay goes with --rootfs", hint: "an image is never changed by its containers", path: "sbx " + name}
	}
	if typed == "" {
		if len(operands) == 0 {
			return "", options, &usageError{text: fmt.Sprintf(`"sbx %s" requires at least 1 argument`, name), path: "sbx " + name}
		}
		typed, operands = operands[0], operands[1:]
	}
	options, err = f.container(c, operands)
	return typed, options, err
}

// streams settles which streams the client joins: all but the input, and that
// with -i; those of -a; none with -d.
func (o *runOptions) streams(c *client, options *container.Options) (container.Attach, error) {
	if o.detach {
		if len(o.container.attach) > 0 {
			return container.Attach{}, errors.New("conflicting options: cannot specify both --attach and --detach")
		}
		return container.Attach{}, nil
	}
	a, err := o.attach.attach(c)
	if err != nil {
		return a, err
	}
	if a.Input, a.Output, a.Errors, err = o.container.attached(); err != nil {
		return a, err
	}
	options.StdinOnce = a.Input
	return a, o.container.checkTerminal(c, a)
}

// start makes a container of the image and runs it. The error settles the exit
// status of a program that ran, too.
func (o *runOptions) start(ctx context.Context, c *client, typed string, options container.Options, attach container.Attach) error {
	f := &o.container
	ctr, base, err := f.create(ctx, c, typed, options)
	if err != nil {
		return err
	}
	var status int
	if o.detach {
		if err = ctr.Sync(); err == nil {
			err = ctr.Start(ctx)
		}
		status = statusSbx
	} else {
		status, err = ctr.Run(ctx, attach)
	}
	switch {
	case errors.Is(err, container.ErrDetached):
		c.say(err)
		return nil
	case err != nil:
		return runFailure(err, status, base)
	case o.detach:
		c.print("%s\n", ctr.ID())
		return nil
	}
	return exited(status)
}

// create makes a container of the image that the user typed.
func (f *containerFlags) create(ctx context.Context, c *client, typed string, options container.Options) (*container.Container, container.Base, error) {
	home, err := c.open(ctx, f.image.rung)
	if err != nil {
		return nil, container.Base{}, err
	}
	idFile, err := newIDFile(f.cidFile)
	if err != nil {
		return nil, container.Base{}, err
	}
	defer idFile.close()
	images, err := newResolver(c, home, f.image, c.err)
	if err != nil {
		return nil, container.Base{}, err
	}
	base, err := images.base(ctx, typed)
	if err != nil {
		return nil, base, err
	}
	ctr, err := home.Create(ctx, base, options)
	if err != nil {
		return nil, base, err
	}
	if err := idFile.write(ctr.ID()); err != nil {
		_ = ctr.Remove(ctx, false)
		return nil, base, err
	}
	if warning := ctr.Warning(); warning != "" && !f.image.quiet {
		c.notice("%s", warning)
	}
	return ctr, base, nil
}

// runFailure adds the exit status to an error, and what only the image can tell.
func runFailure(err error, code int, base container.Base) error {
	var start *container.StartError
	if !errors.As(err, &start) {
		return &statusError{status: code, err: err}
	}
	if start.Err == nil {
		return &statusError{status: start.Status(), hint: start.Hint()}
	}
	if p := base.Image.Config.Platform; start.Status() == 126 && foreign(p) {
		return &statusError{status: start.Status(), err: err, hint: fmt.Sprintf("the image is for %s, and this machine runs %s; ask for another with --platform",
			platformName(p), platformName(fetch.DefaultPlatform()))}
	}
	return err
}

// named puts what was tried before an error, unless that says nothing itself.
func named(what string, err error) error {
	var settled *statusError
	if errors.As(err, &settled) && settled.err == nil {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// idFile is the file of --cidfile. It is made before anything else, so that two
// commands cannot have the same, and is gone again if there comes no container.
type idFile struct {
	path string
	file *os.File
}

func newIDFile(path string) (*idFile, error) {
	if path == "" {
		return &idFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, &idFileError{path}
	}
	if err != nil {
		return nil, fmt.Errorf("create container ID file: %w", err)
	}
	return &idFile{path: path, file: f}, nil
}

// write writes the ID. The file stays from then on.
func (f *idFile) write(id string) error {
	if f.file == nil {
		return nil
	}
	_, err := f.file.WriteString(id)
	if err = errors.Join(err, f.file.Close()); err != nil {
		return fmt.Errorf("write container ID file: %w", err)
	}
	f.file, f.path = nil, ""
	return nil
}

func (f *idFile) close() {
	if f.file != nil {
		f.file.Close()
		_ = os.Remove(f.path)
	}
}

// idFileError says that the file of --cidfile is there already.
type idFileError struct{ path string }

func (e *idFileError) Error() string {
	return "container ID file found, make sure the other container isn't running or delete " + e.path
}
