// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"path/filepath"

	"sbx/container"
	"sbx/fetch"
	"sbx/store"
)

func loadCommand() command {
	return command{
		name: "load", summary: "Load an image from a tar archive or STDIN",
		usage: "[OPTIONS]", forms: []string{"sbx image load", "sbx load"},
		bind: func() ([]option, action) {
			o := &loadOptions{}
			return o.flags(), o.run
		},
	}
}

type loadOptions struct {
	input string
	image imageFlags
}

func (o *loadOptions) flags() []option {
	return []option{
		textFlag(&o.input, "input", "i", "Read from tar archive file, instead of STDIN"),
		textFlag(&o.image.platform, "platform", "", "Choose the image of this platform (os/architecture[/variant])"),
		switchFlag(&o.image.quiet, "quiet", "q", "Suppress the load output"),
		rungFlag(&o.image.rung),
	}
}

func (o *loadOptions) run(ctx context.Context, c *client, _ []string) error {
	if o.input == "" && isTerminal(c.in) {
		return &statusError{status: statusFailed, err: errors.New("requested load from stdin, but stdin is empty"), hint: "use -i FILE or redirect"}
	}
	home, err := c.open(ctx, o.image.rung)
	if err != nil {
		return err
	}
	r, err := newResolver(c, home, o.image, c.err)
	if err != nil {
		return err
	}
	err = interruptible(ctx, func(ctx context.Context) error { return o.load(ctx, c, home, r) })
	if err != nil {
		return inContext("load", or(o.input, "standard input"), err)
	}
	return nil
}

func (o *loadOptions) load(ctx context.Context, c *client, home *container.Home, r *resolver) error {
	options, err := c.fetchOptions(r.platform)
	if err != nil {
		return err
	}
	options.TempDir = filepath.Join(home.Store.Path(), "tmp")
	path, in := "standard input", c.in
	if o.input != "" {
		path, in = o.input, nil
	}
	a, err := fetch.OpenArchive(ctx, path, in, options)
	if err != nil {
		return err
	}
	defer a.Close()
	for _, archived := range a.Images {
		if err := o.loadOne(ctx, c, home, archived); err != nil {
			return err
		}
	}
	return nil
}

// loadOne loads one image and says what Docker says.
func (o *loadOptions) loadOne(ctx context.Context, c *client, home *container.Home, archived fetch.Archived) error {
	before := map[string]store.Image{}
	for _, name := range archived.Names {
		if img, err := home.Store.Image(name); err == nil {
			before[name] = img
		}
	}
	p := newProgress(c.err, o.image.quiet || !isTerminal(c.err))
	img, err := home.Store.Load(ctx, archived.Names, archived.Image, store.PullOptions{Progress: p.event})
	p.end()
	if err != nil {
		return err
	}
	if len(archived.Names) == 0 {
		c.print("Loaded image ID: %s\n", img.ID)
	}
	for _, name := range archived.Names {
		if old, ok := before[name]; ok && old.ID != img.ID {
			c.print("The image %s already exists, renaming the old one with ID %s to empty string\n", printable(familiar(name)), old.ID)
		}
		c.print("Loaded image: %s\n", printable(familiar(name)))
	}
	return nil
}
