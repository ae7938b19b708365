// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"sbx/container"
)

func cpCommand() command {
	return command{
		name: "cp", summary: "Copy files/folders between a container and the local filesystem",
		usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		forms: []string{"sbx container cp", "sbx cp"}, min: 2, max: 2,
		bind: func() ([]option, action) {
			o := &cpOptions{}
			return o.flags(), o.run
		},
	}
}

type cpOptions struct {
	copy  container.CopyOptions
	quiet bool
}

func (o *cpOptions) flags() []option {
	return []option{
		switchFlag(&o.copy.Archive, "archive", "a", "Archive mode (copy all uid/gid information)"),
		switchFlag(&o.copy.Follow, "follow-link", "L", "Always follow symbol link in SRC_PATH"),
		switchFlag(&o.quiet, "quiet", "q", "Suppress progress output during copy"),
	}
}

func (o *cpOptions) run(ctx context.Context, c *client, operands []string) error {
	fromContainer, from := splitCopied(operands[0])
	toContainer, to := splitCopied(operands[1])
	switch {
	case operands[0] == "" || fromContainer != "" && from == "":
		return &usageError{text: "source can not be empty"}
	case operands[1] == "" || toContainer != "" && to == "":
		return &usageError{text: "destination can not be empty"}
	case fromContainer != "" && toContainer != "":
		return errors.New("copying between containers is not supported")
	case fromContainer == "" && toContainer == "":
		return errors.New("must specify at least one container source")
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := home.Find(strings.TrimPrefix(fromContainer+toContainer, "/"))
	if err != nil {
		return err
	}
	var done container.Copied
	switch {
	case to == "-" && fromContainer != "":
		_, err := ctr.CopyOutTar(ctx, from, c.out, o.copy)
		return err
	case fromContainer != "":
		done, err = ctr.CopyOut(ctx, from, to, o.copy)
	case from == "-":
		done, err = ctr.CopyInTar(ctx, c.in, to)
	default:
		done, err = ctr.CopyIn(ctx, from, to, o.copy)
	}
	if err != nil {
		return err
	}
	if done.Left > 0 {
		c.notice("%d device files were left out: nobody but root can make them", done.Left)
	}
	if !o.quiet {
		fmt.Fprintf(c.err, "Successfully copied %s to %s\n", humanSize(done.Bytes), printable(operands[1]))
	}
	return nil
}

// splitCopied splits CONTAINER:PATH. What begins with "/" or "." is a path of
// this machine, whatever it holds.
func splitCopied(operand string) (ctr, path string) {
	ctr, path, ok := strings.Cut(operand, ":")
	if !ok || filepath.IsAbs(operand) || strings.HasPrefix(ctr, ".") {
		return "", operand
	}
	return ctr, path
}
