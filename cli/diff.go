// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"
)

func diffCommand() command {
	return command{
		name: "diff", summary: "Inspect changes to files on a container's filesystem",
		usage: "CONTAINER", forms: []string{"sbx container diff", "sbx diff"},
		min: 1, max: 1,
		bind: func() ([]option, action) { return nil, diff },
	}
}

func diff(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := home.Find(operands[0])
	if err != nil {
		return err
	}
	list, err := ctr.Diff(ctx)
	if err != nil {
		return inContext("diff", operands[0], err)
	}
	var b strings.Builder
	for _, change := range list {
		fmt.Fprintf(&b, "%c %s\n", change.Kind, change.Path)
	}
	c.document(b.String())
	return nil
}
