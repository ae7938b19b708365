// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sbx/build"
	"sbx/container"
)

// builderGroup has the commands on what builds keep.
func builderGroup() command {
	return command{name: "builder", summary: "Manage builds", commands: []command{buildCommand(), builderPruneCommand()}}
}

func builderPruneCommand() command {
	return command{
		name: "prune", summary: "Remove build cache", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &builderPruneOptions{}
			return o.flags(), o.run
		},
	}
}

type builderPruneOptions struct {
	all, force bool
	keep       string
	filter     filters
	rung       string
}

func (o *builderPruneOptions) flags() []option {
	keep := textFlag(&o.keep, "keep-storage", "", "Amount of disk space to keep for cache")
	keep.alias, keep.kind = "reserved-space", "bytes"
	return []option{
		switchFlag(&o.all, "all", "a", "Remove all unused build cache, not just dangling ones"),
		pruneFilter(&o.filter),
		switchFlag(&o.force, "force", "f", "Do not prompt for confirmation"),
		keep,
		rungFlag(&o.rung),
	}
}

func (o *builderPruneOptions) run(ctx context.Context, c *client, _ []string) error {
	options := build.PruneOptions{}
	var err error
	if o.keep != "" {
		if options.Keep, err = parseSize(o.keep); err != nil {
			return fmt.Errorf("invalid keep-storage %q: %w", o.keep, err)
		}
	}
	for name, values := range o.filter {
		value := values[len(values)-1]
		if name != "until" && name != "unused-for" {
			return fmt.Errorf("invalid filter '%s'", name)
		}
		age, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("invalid filter 'until=%s': %w", value, err)
		}
		options.UnusedFor = age
	}
	if !o.force && isTerminal(c.in) {
		fmt.Fprint(c.err, "WARNING! This will remove all build cache. Are you sure you want to continue? [y/N] ")
		var answer string
		_, _ = fmt.Fscanln(c.in, &answer)
		if !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes") {
			return nil
		}
	}
	home, err := c.open(ctx, o.rung)
	if err != nil {
		return err
	}
	return interruptible(ctx, func(ctx context.Context) error { return pruneBuilds(ctx, c, home, options) })
}

func pruneBuilds(ctx context.Context, c *client, home *container.Home, o build.PruneOptions) error {
	keep, err := home.Roots()
	if err != nil {
		return err
	}
	pruned, err := build.Prune(ctx, home.Store, keep, o)
	if err != nil {
		return err
	}
	if len(pruned.Entries) > 0 {
		c.print("ID\t\t\t\t\t\tRECLAIMABLE\tSIZE\t\tLAST ACCESSED\n")
		for _, e := range pruned.Entries {
			c.print("%-40s\ttrue\t\t%s\t\t%s\n", e.ID, humanSize(e.Size), ago(e.Used, time.Now()))
		}
	}
	c.print("Total:\t%s\n", humanSize(pruned.Bytes))
	return nil
}
