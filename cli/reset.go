// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"sbx/container"
)

func resetCommand() command {
	return command{
		name: "reset", summary: "Remove all images, containers and volumes", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &resetOptions{}
			return o.flags(), o.run
		},
	}
}

type resetOptions struct {
	force bool
}

func (o *resetOptions) flags() []option {
	return []option{switchFlag(&o.force, "force", "f", "Do not prompt for confirmation")}
}

// storeEntries are what reset removes. It leaves what it does not know alone:
// SBX_HOME may be a directory with other things in it. The version goes last:
// with it the store is one, and reset can be called again.
var storeEntries = []string{
	"containers", "volumes", "cache", "run", "index.json", "oci-layout", "layers", "blobs", "tmp", "lock", "version",
}

func (o *resetOptions) run(ctx context.Context, c *client, _ []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	list, err := home.List()
	if err != nil {
		return err
	}
	dir := home.Store.Path()
	if !o.force {
		fmt.Fprintf(c.err, "This removes all images, volumes and %d containers in %s, for good.\nGo on? [y/N] ", len(list), printable(dir))
		if !confirmed(c.in) {
			return exited(statusFailed)
		}
	}
	for _, ctr := range list {
		var missing *container.NotFoundError
		if err := ctr.Remove(ctx, true); err != nil && !errors.As(err, &missing) && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := home.RemoveNetworks(); err != nil {
		return err
	}
	if scratch := home.Features.Scratch; scratch != "" {
		if err := home.Store.RemoveTree(ctx, scratch); err != nil {
			return err
		}
	}
	for _, name := range storeEntries {
		if err := home.Store.RemoveTree(ctx, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	_ = os.Remove(dir) // it stays if there is anything else in it
	return nil
}

// confirmed reads an answer. Only a clear yes is one.
func confirmed(r io.Reader) bool {
	line, _ := bufio.NewReader(r).ReadString('\n')
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes"
}
