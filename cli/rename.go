// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"
)

func renameCommand() command {
	return command{
		name: "rename", summary: "Rename a container", usage: "CONTAINER NEW_NAME", forms: []string{"sbx container rename", "sbx rename"}, min: 2, max: 2,
		bind: func() ([]option, action) { return nil, runRename },
	}
}

func runRename(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := find(home, operands[0])
	if err != nil {
		return err
	}
	return ctr.Rename(ctx, strings.TrimPrefix(operands[1], "/"))
}
