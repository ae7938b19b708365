// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/build"
	"sbx/container"
	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

func importCommand() command {
	return command{
		name: "import", summary: "Import the contents from a tarball to create a filesystem image",
		usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", forms: []string{"sbx image import", "sbx import"},
		min: 1, max: 2,
		bind: func() ([]option, action) {
			o := &importOptions{}
			return o.flags(), o.run
		},
	}
}

type importOptions struct {
	changes []string
	message string
	image   imageFlags
}

func (o *importOptions) flags() []option {
	return []option{
		listFlag(&o.changes, "change", "c", "Apply Dockerfile instruction to the created image"),
		textFlag(&o.message, "message", "m", "Set commit message for imported image"),
		textFlag(&o.image.platform, "platform", "", "Say that the image is of this platform (os/architecture[/variant])"),
		rungFlag(&o.image.rung),
	}
}

func (o *importOptions) run(ctx context.Context, c *client, operands []string) error {
	var names []string
	if len(operands) > 1 {
		name, err := tagName(operands[1])
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	home, err := c.open(ctx, o.image.rung)
	if err != nil {
		return err
	}
	r, err := newResolver(c, home, o.image, c.err)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Created: &now, Platform: r.platform}}
	if err := build.Change(&config, o.changes); err != nil {
		return err
	}
	config.History = []ocispec.History{{Created: &now, Comment: or(o.message, "Imported from "+operands[0])}}
	var img store.Image
	err = interruptible(ctx, func(ctx context.Context) error {
		in, closeIn, err := r.openTarball(ctx, operands[0])
		if err != nil {
			return err
		}
		defer closeIn()
		img, err = importTar(ctx, home, in, config, names)
		return err
	})
	if err != nil {
		return inContext("import", operands[0], err)
	}
	c.print("%s\n", img.ID)
	return nil
}

// importTar makes an image of one layer.
func importTar(ctx context.Context, home *container.Home, in io.Reader, config dockerspec.DockerOCIImage, names []string) (store.Image, error) {
	d, err := home.Store.NewDraft(ctx)
	if err != nil {
		return store.Image{}, err
	}
	defer d.Close()
	layer, err := d.AddTar(ctx, in, []reference.Digest{}, store.PullOptions{})
	if err != nil {
		return store.Image{}, err
	}
	return d.Commit(ctx, store.NewImage{Layers: []store.Layer{layer}, Config: config, Names: names})
}

// openTarball opens a tar: standard input, a URL or a file, of any name.
func (r *resolver) openTarball(ctx context.Context, typed string) (io.Reader, func(), error) {
	if typed == "-" {
		if isTerminal(r.client.in) {
			return nil, nil, &statusError{status: statusFailed, err: errors.New("refusing to read a tarball from a terminal"), hint: "redirect it"}
		}
		return r.client.in, func() {}, nil
	}
	location, ok := fetch.Locate(typed)
	if !ok {
		var err error
		if location, err = filepath.Abs(typed); err != nil {
			return nil, nil, err
		}
	}
	options, err := r.client.fetchOptions(r.platform)
	if err != nil {
		return nil, nil, err
	}
	options.TempDir = filepath.Join(r.home.Store.Path(), "tmp")
	opened, err := fetch.Open(ctx, location, options)
	if err != nil {
		return nil, nil, err
	}
	if opened.Rootfs == nil {
		opened.Close()
		err := errors.New("it is an image, not a root filesystem")
		return nil, nil, &statusError{status: statusFailed, err: err, hint: fmt.Sprintf("sbx load -i %s loads it as it is", strings.TrimSpace(typed))}
	}
	return opened.Rootfs.Reader, func() { opened.Close() }, nil
}
