// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sbx/container"
	"sbx/store"
)

// volumeGroup has the commands on volumes.
func volumeGroup() command {
	return command{name: "volume", summary: "Manage volumes", commands: []command{
		volumeCreateCommand(), inspectTypeCommand(typeVolume, "VOLUME", "volumes"), volumeListCommand(), volumePruneCommand(), volumeRemoveCommand(),
	}}
}

// errVolumeOptions refuses what would be mount options of another filesystem.
var errVolumeOptions = &usageError{
	text: "volume options are not supported: mounting another filesystem takes root",
	hint: "bind a directory (-v /path:/target), or use --tmpfs",
}

func checkVolumeDriver(name string) error {
	if name != "" && name != "local" {
		return &usageError{text: fmt.Sprintf("there is no volume driver %q", name), hint: "there is local"}
	}
	return nil
}

func volumeCreateCommand() command {
	return command{
		name: "create", summary: "Create a volume", usage: "[OPTIONS] [VOLUME]", max: 1,
		bind: func() ([]option, action) {
			o := &volumeCreateOptions{}
			return o.flags(), o.run
		},
	}
}

type volumeCreateOptions struct {
	driver, name    string
	labels, options []string
}

func (o *volumeCreateOptions) flags() []option {
	name := textFlag(&o.name, "name", "", "Specify volume name")
	name.hidden = true
	return []option{
		textFlag(&o.driver, "driver", "d", `Specify volume driver name (default "local")`),
		listFlag(&o.labels, "label", "", "Set metadata for a volume"),
		name,
		listFlag(&o.options, "opt", "o", "Set driver specific options"),
	}
}

func (o *volumeCreateOptions) run(ctx context.Context, c *client, operands []string) error {
	name := o.name
	if len(operands) > 0 {
		if name != "" && name != operands[0] {
			return &usageError{text: "conflicting options: either specify --name or provide positional arg, not both"}
		}
		name = operands[0]
	}
	if err := checkVolumeDriver(o.driver); err != nil {
		return err
	}
	if len(o.options) > 0 {
		return errVolumeOptions
	}
	set, err := labels(nil, o.labels)
	if err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	vol, err := home.CreateVolume(ctx, name, set)
	if err == nil {
		c.print("%s\n", vol.Name)
	}
	return err
}

func volumeListCommand() command {
	return command{
		name: "ls", aliases: []string{"list"}, summary: "List volumes",
		usage: "[OPTIONS]", forms: []string{"sbx volume ls", "sbx volume list"},
		bind: func() ([]option, action) {
			o := &volumeListOptions{}
			return o.flags(), o.run
		},
	}
}

type volumeListOptions struct {
	quiet  bool
	format string
	filter filters
}

func (o *volumeListOptions) flags() []option {
	return []option{
		filterFlag(&o.filter),
		textFlag(&o.format, "format", "", formatUsage),
		switchFlag(&o.quiet, "quiet", "q", "Only display volume names"),
	}
}

// volumeRow is a volume as templates see it, with Docker's fields.
type volumeRow struct {
	Availability string
	Driver       string
	Group        string
	Labels       string
	Links        string
	Mountpoint   string
	Name         string
	Scope        string
	Size         string
	Status       string
	labels       map[string]string
}

// Label is the value of one label.
func (r volumeRow) Label(name string) string { return r.labels[name] }

func newVolumeRow(v store.Volume) volumeRow {
	return volumeRow{
		Availability: "N/A", Driver: "local", Group: "N/A", Labels: labelText(volumeLabels(v)), Links: "N/A", Mountpoint: v.Dir, Name: v.Name, Scope: "local",
		Size: "N/A", Status: "N/A", labels: volumeLabels(v),
	}
}

// labelText writes labels as tables have them.
func labelText(labels map[string]string) string {
	var list []string
	for name, value := range labels {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// volumeLabels are a volume's labels, with the one by which Docker marks those
// that nobody has named.
func volumeLabels(v store.Volume) map[string]string {
	if !v.Anonymous {
		return v.Labels
	}
	all := map[string]string{"com.docker.volume.anonymous": ""}
	for name, value := range v.Labels {
		all[name] = value
	}
	return all
}

const volumeTable = `{{.Driver}}\t{{.Name}}`

func (o *volumeListOptions) run(ctx context.Context, c *client, _ []string) error {
	if err := o.filter.check("dangling", "driver", "label", "name"); err != nil {
		return err
	}
	dangling, given, err := o.filter.wantsTrue("dangling")
	if err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	list, err := home.Volumes().List()
	if err != nil {
		return err
	}
	users := map[string][]string{}
	if given {
		if users, err = home.VolumeUsers(); err != nil {
			return err
		}
	}
	var rows []volumeRow
	for _, v := range list {
		if given && dangling != (len(users[v.Name]) == 0) || !o.filter.labels(volumeLabels(v)) ||
			!o.filter.any("driver", func(d string) bool { return d == "local" }) ||
			!o.filter.any("name", func(n string) bool { return strings.Contains(v.Name, n) }) {
			continue
		}
		rows = append(rows, newVolumeRow(v))
	}
	format := o.format
	if o.quiet {
		format = "{{.Name}}"
	}
	header := volumeRow{
		Availability: "AVAILABILITY", Driver: "DRIVER", Group: "GROUP", Labels: "LABELS", Links: "LINKS", Mountpoint: "MOUNTPOINT", Name: "VOLUME NAME",
		Scope: "SCOPE", Size: "SIZE", Status: "STATUS",
	}
	text, err := formatRows(format, volumeTable, header, rows)
	c.document(text)
	return err
}

func volumeRemoveCommand() command {
	return command{
		name: "rm", aliases: []string{"remove"}, summary: "Remove one or more volumes",
		usage: "[OPTIONS] VOLUME [VOLUME...]", forms: []string{"sbx volume rm", "sbx volume remove"}, min: 1, max: -1,
		bind: func() ([]option, action) {
			o := &volumeRemoveOptions{}
			return o.flags(), o.run
		},
	}
}

type volumeRemoveOptions struct{ force bool }

func (o *volumeRemoveOptions) flags() []option {
	return []option{switchFlag(&o.force, "force", "f", "Force the removal of one or more volumes")}
}

func (o *volumeRemoveOptions) run(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	return c.each(operands, func(name string) error {
		err := home.RemoveVolume(ctx, name)
		var missing *store.VolumeNotFoundError
		if o.force && errors.As(err, &missing) {
			err = nil
		}
		if err == nil {
			c.print("%s\n", name)
		}
		return err
	})
}

// each calls f for each operand and reports its errors. One is enough for the
// command to fail, and keeps none of the others from being done.
func (c *client) each(operands []string, f func(name string) error) error {
	failed := false
	for _, name := range operands {
		if err := f(name); err != nil {
			c.report(err)
			failed = true
		}
	}
	if failed {
		return exited(statusFailed)
	}
	return nil
}

func volumePruneCommand() command {
	return command{
		name: "prune", summary: "Remove unused local volumes", usage: "[OPTIONS]",
		bind: func() ([]option, action) {
			o := &volumePruneOptions{}
			return o.flags(), o.run
		},
	}
}

type volumePruneOptions struct {
	all, force bool
	filter     filters
}

func (o *volumePruneOptions) flags() []option {
	filter := filterFlag(&o.filter)
	filter.short, filter.usage = "", `Provide filter values (e.g. "label=<label>")`
	return []option{
		switchFlag(&o.all, "all", "a", "Remove all unused volumes, not just anonymous ones"),
		filter,
		switchFlag(&o.force, "force", "f", "Do not prompt for confirmation"),
	}
}

func (o *volumePruneOptions) run(ctx context.Context, c *client, _ []string) error {
	if err := o.filter.check("all", "label", "label!"); err != nil {
		return err
	}
	all, given, err := o.filter.wantsTrue("all")
	if err != nil {
		return err
	}
	if given {
		o.all = all
	}
	which := "anonymous local volumes"
	if o.all {
		which = "all local volumes"
	}
	if !o.force && !c.agreed("WARNING! This will remove "+which+" not used by at least one container.") {
		return nil
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	p := &pruned{}
	err = p.volumes(ctx, home, o.all, o.filter)
	c.write(p.text())
	return err
}

// agreed asks whether to go on after a warning.
func (c *client) agreed(warning string) bool {
	fmt.Fprintf(c.err, "%s\nAre you sure you want to continue? [y/N] ", warning)
	return confirmed(c.in)
}

// pruned collects what a pruning has removed, section by section.
type pruned struct {
	sections  []string
	reclaimed int64
}

func (p *pruned) add(title string, lines []string) {
	if len(lines) > 0 {
		p.sections = append(p.sections, title+":\n"+strings.Join(lines, "\n")+"\n\n")
	}
}

func (p *pruned) text() string {
	return strings.Join(p.sections, "") + "Total reclaimed space: " + humanSize(p.reclaimed) + "\n"
}

// volumes removes the volumes that no container uses, with all those that have
// a name as well.
func (p *pruned) volumes(ctx context.Context, home *container.Home, all bool, filter filters) error {
	list, err := home.Volumes().List()
	if err != nil {
		return err
	}
	var gone []string
	for _, v := range list {
		labels := volumeLabels(v)
		if !all && !v.Anonymous || !filter.labels(labels) || filter.anyUnwanted(labels) {
			continue
		}
		size, _ := home.Store.TreeSize(ctx, v.Dir)
		removeErr := home.RemoveVolume(ctx, v.Name)
		var used *container.VolumeInUseError
		var missing *store.VolumeNotFoundError
		switch {
		case removeErr == nil:
			gone = append(gone, v.Name)
			p.reclaimed += size
		case !errors.As(removeErr, &used) && !errors.As(removeErr, &missing):
			err = errors.Join(err, removeErr)
		}
	}
	p.add("Deleted Volumes", gone)
	return err
}
