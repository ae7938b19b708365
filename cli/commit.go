// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"sbx/build"
	"sbx/container"
	"sbx/store"
)

func commitCommand() command {
	return command{
		name: "commit", summary: "Create a new image from a container's changes",
		usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", forms: []string{"sbx container commit", "sbx commit"},
		min: 1, max: 2,
		bind: func() ([]option, action) {
			o := &commitOptions{pause: true}
			return o.flags(), o.run
		},
	}
}

type commitOptions struct {
	author, message string
	changes         []string
	pause           bool
}

func (o *commitOptions) flags() []option {
	return []option{
		textFlag(&o.author, "author", "a", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`),
		listFlag(&o.changes, "change", "c", "Apply Dockerfile instruction to the created image"),
		textFlag(&o.message, "message", "m", "Commit message"),
		switchFlag(&o.pause, "pause", "p", "Pause container during commit (default true)"),
	}
}

func (o *commitOptions) run(ctx context.Context, c *client, operands []string) error {
	var names []string
	if len(operands) > 1 {
		name, err := tagName(operands[1])
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := home.Find(operands[0])
	if err != nil {
		return err
	}
	var img store.Image
	err = interruptible(ctx, func(ctx context.Context) error {
		var err error
		img, err = ctr.Commit(ctx, container.Commit{
			Author: o.author, Message: o.message, Names: names, Pause: o.pause,
			Change: func(image *dockerspec.DockerOCIImage) error { return build.Change(image, o.changes) },
		})
		return err
	})
	if err != nil {
		return inContext("commit", operands[0], err)
	}
	c.print("%s\n", img.ID)
	return nil
}
