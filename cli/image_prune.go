// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"sbx/container"
	"sbx/reference"
	"sbx/store"
)

func imagePruneCommand() command {
	return command{
		name: "prune", summary: "Remove unused images", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &imagePruneOptions{}
			return o.flags(), o.run
		},
	}
}

type imagePruneOptions struct {
	all, force bool
	filter     filters
}

func (o *imagePruneOptions) flags() []option {
	filter := filterFlag(&o.filter)
	filter.short, filter.usage = "", `Provide filter values (e.g. "until=<timestamp>")`
	return []option{
		switchFlag(&o.all, "all", "a", "Remove all unused images, not just dangling ones"),
		filter,
		switchFlag(&o.force, "force", "f", "Do not prompt for confirmation"),
	}
}

func (o *imagePruneOptions) run(ctx context.Context, c *client, _ []string) error {
	if err := o.filter.check("dangling", "label", "label!", "until"); err != nil {
		return err
	}
	dangling, given, err := o.filter.wantsTrue("dangling")
	if err != nil {
		return err
	}
	all := o.all || given && !dangling
	warning := "WARNING! This will remove all dangling images."
	if all {
		warning = "WARNING! This will remove all images without at least one container associated to them."
	}
	if !o.force && !c.agreed(warning) {
		return nil
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	p := &pruned{}
	err = p.images(ctx, home, all, o.filter)
	c.write(p.text())
	return err
}

// images removes the images that no container uses and that have no name; with
// all, whatever their names.
func (p *pruned) images(ctx context.Context, home *container.Home, all bool, filter filters) error {
	until, err := filter.until(time.Now())
	if err != nil {
		return err
	}
	keep, err := home.Roots()
	if err != nil {
		return err
	}
	list, err := home.Store.Images()
	if err != nil {
		return err
	}
	var lines []string
	done := map[reference.Digest]bool{}
	for _, img := range list {
		labels := img.Config.Config.Labels
		if done[img.ID] || !all && img.Name != "" || slices.Contains(keep.Images, img.ID) ||
			!filter.labels(labels) || filter.anyUnwanted(labels) || !until.IsZero() && !created(img).Before(until) {
			continue
		}
		done[img.ID] = true
		sizes := chainSizes(home.Store, img)
		removed, removeErr := removeImage(ctx, home, img)
		for _, r := range removed {
			if r.Untagged != "" {
				lines = append(lines, "untagged: "+printable(familiar(r.Untagged)))
				continue
			}
			lines = append(lines, "deleted: "+r.Deleted.String())
			p.reclaimed += sizes[r.Deleted]
		}
		if !errors.Is(removeErr, store.ErrNotFound) { // somebody was faster
			err = errors.Join(err, removeErr)
		}
	}
	p.add("Deleted Images", lines)
	return err
}

// chainSizes are the sizes of an image's layers by what a removal calls them.
func chainSizes(st *store.Store, img store.Image) map[reference.Digest]int64 {
	sizes := map[reference.Digest]int64{}
	bytes := st.LayerBytes(img)
	for i, id := range store.ChainIDs(img.Layers) {
		sizes[id] = bytes[i]
	}
	return sizes
}
