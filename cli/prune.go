// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"sbx/build"
	"sbx/container"
)

func containerPruneCommand() command {
	return command{
		name: "prune", summary: "Remove all stopped containers", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &containerPruneOptions{}
			return o.flags(), o.run
		},
	}
}

type containerPruneOptions struct {
	force  bool
	filter filters
}

func pruneFilter(p *filters) option {
	f := filterFlag(p)
	f.short, f.usage = "", `Provide filter values (e.g. "until=<timestamp>")`
	return f
}

func (o *containerPruneOptions) flags() []option {
	return []option{pruneFilter(&o.filter), switchFlag(&o.force, "force", "f", "Do not prompt for confirmation")}
}

func (o *containerPruneOptions) run(ctx context.Context, c *client, _ []string) error {
	if err := o.filter.check("label", "label!", "until"); err != nil {
		return err
	}
	if !o.force && !c.agreed("WARNING! This will remove all stopped containers.") {
		return nil
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	p := &pruned{}
	err = p.containers(ctx, home, o.filter)
	c.write(p.text())
	return err
}

// containers removes the containers that do not run.
func (p *pruned) containers(ctx context.Context, home *container.Home, filter filters) error {
	until, err := filter.until(time.Now())
	if err != nil {
		return err
	}
	list, err := home.List()
	if err != nil {
		return err
	}
	var gone []string
	for _, ctr := range list {
		labels := ctr.Config.Labels
		if ctr.State.Status.IsAlive() || !filter.labels(labels) || filter.anyUnwanted(labels) ||
			!until.IsZero() && !ctr.Config.Created.Before(until) {
			continue
		}
		size, _ := ctr.Size(ctx)
		removeErr := ctr.Remove(ctx, false)
		var missing *container.NotFoundError
		var running *container.RunningError
		switch {
		case removeErr == nil:
			gone = append(gone, ctr.ID())
			p.reclaimed += size
		case !errors.As(removeErr, &missing) && !errors.As(removeErr, &running) && !errors.Is(removeErr, os.ErrNotExist):
			err = errors.Join(err, removeErr)
		}
	}
	p.add("Deleted Containers", gone)
	return err
}

func systemPruneCommand() command {
	return command{
		name: "prune", summary: "Remove unused data", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &systemPruneOptions{}
			return o.flags(), o.run
		},
	}
}

type systemPruneOptions struct {
	all, force, volumes bool
	filter              filters
}

func (o *systemPruneOptions) flags() []option {
	return []option{
		switchFlag(&o.all, "all", "a", "Remove all unused images not just dangling ones"),
		pruneFilter(&o.filter),
		switchFlag(&o.force, "force", "f", "Do not prompt for confirmation"),
		switchFlag(&o.volumes, "volumes", "", "Prune anonymous volumes"),
	}
}

func (o *systemPruneOptions) warning() string {
	lines := []string{"WARNING! This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"}
	if o.volumes {
		lines = append(lines, "  - all anonymous volumes not used by at least one container")
	}
	if o.all {
		lines = append(lines, "  - all images without at least one container associated to them", "  - all build cache")
	} else {
		lines = append(lines, "  - all dangling images", "  - unused build cache")
	}
	lines = append(lines, "  - unused downloads of bases")
	return strings.Join(lines, "\n") + "\n"
}

func (o *systemPruneOptions) run(ctx context.Context, c *client, _ []string) error {
	if err := o.filter.check("label", "label!", "until"); err != nil {
		return err
	}
	if o.volumes && len(o.filter["until"]) > 0 {
		return &usageError{text: `the "until" filter is not supported with "--volumes"`}
	}
	if !o.force && !c.agreed(o.warning()) {
		return nil
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	p := &pruned{}
	err = p.containers(ctx, home, o.filter)
	if err == nil {
		err = p.networks(home, o.filter)
	}
	if o.volumes && err == nil {
		err = p.volumes(ctx, home, false, o.filter)
	}
	if err == nil {
		err = p.images(ctx, home, o.all, o.filter)
	}
	if err == nil {
		err = interruptible(ctx, func(ctx context.Context) error { return p.builds(ctx, home, o.filter) })
	}
	if err == nil {
		err = p.downloads(home, o.filter)
	}
	c.write(p.text())
	return err
}

// networks removes the networks that no container has.
func (p *pruned) networks(home *container.Home, filter filters) error {
	until, err := filter.until(time.Now())
	if err != nil {
		return err
	}
	removed, err := home.PruneNetworks(func(n *container.UserNetwork) bool {
		return filter.labels(n.Labels) && !filter.anyUnwanted(n.Labels) && (until.IsZero() || n.Created.Before(until))
	})
	p.add("Deleted Networks", removed)
	return err
}

// builds removes what builds keep, and what killed processes have left of images.
func (p *pruned) builds(ctx context.Context, home *container.Home, filter filters) error {
	now := time.Now()
	until, err := filter.until(now)
	if err != nil {
		return err
	}
	if !filter.labels(nil) { // what builds keep has none
		return home.Collect(ctx)
	}
	keep, err := home.Roots()
	if err != nil {
		return err
	}
	options := build.PruneOptions{}
	if !until.IsZero() {
		options.UnusedFor = now.Sub(until)
	}
	removed, err := build.Prune(ctx, home.Store, keep, options)
	var ids []string
	for _, e := range removed.Entries {
		ids = append(ids, e.ID)
	}
	p.add("Deleted build cache objects", ids)
	p.reclaimed += removed.Bytes
	return err
}
