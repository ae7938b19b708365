// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sbx/container"
)

func psCommand() command {
	return command{
		name: "ps", summary: "List containers",
		usage: "[OPTIONS]", forms: []string{"sbx container ls", "sbx container list", "sbx container ps", "sbx ps"},
		bind: func() ([]option, action) {
			o := &psOptions{last: -1}
			return o.flags(), o.run
		},
	}
}

type psOptions struct {
	all, quiet, latest, noTrunc, size bool
	last                              int
	format                            string
	filter                            filters
}

func (o *psOptions) flags() []option {
	return []option{
		switchFlag(&o.all, "all", "a", "Show all containers (default shows just running)"),
		filterFlag(&o.filter),
		textFlag(&o.format, "format", "", formatUsage),
		numberFlag(&o.last, "last", "n", "Show n last created containers (includes all states) (default -1)"),
		switchFlag(&o.latest, "latest", "l", "Show the latest created container (includes all states)"),
		switchFlag(&o.noTrunc, "no-trunc", "", "Don't truncate output"),
		switchFlag(&o.quiet, "quiet", "q", "Only display container IDs"),
		switchFlag(&o.size, "size", "s", "Display total file sizes"),
	}
}

const psTable = `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`

func (o *psOptions) run(ctx context.Context, c *client, _ []string) error {
	if err := o.filter.check("ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since", "status", "volume"); err != nil {
		return err
	}
	format, table := o.format, psTable
	if o.quiet {
		format = "{{.ID}}"
	}
	if o.size {
		table += `\t{{.Size}}`
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	list, err := home.List()
	if err != nil {
		return err
	}
	if list, err = o.choose(list); err != nil {
		return err
	}
	now := time.Now()
	rows := make([]psRow, len(list))
	for i, ctr := range list {
		rows[i] = newPsRow(ctr, now, !o.noTrunc)
		if o.size || strings.Contains(format, ".Size") {
			if rows[i].Size, err = sizeText(ctx, ctr); err != nil {
				return err
			}
		}
	}
	text, err := formatRows(format, table, psHeader(), rows)
	c.document(text)
	return err
}

// sizeText is what a container has written, and that with what it stands on.
func sizeText(ctx context.Context, c *container.Container) (string, error) {
	written, err := c.Size(ctx)
	return fmt.Sprintf("%s (virtual %s)", humanSize(written), humanSize(written+c.ImageSize())), err
}

// choose leaves the containers that the flags ask for, in the order given: the
// newest first.
func (o *psOptions) choose(list []*container.Container) ([]*container.Container, error) {
	most := o.last
	if o.latest && most < 0 {
		most = 1
	}
	match, err := o.filter.containers()
	if err != nil {
		return nil, err
	}
	after, before, err := o.interval(list)
	if err != nil {
		return nil, err
	}
	// A condition on the state takes the place of the default one.
	all := o.all || most > 0 || len(o.filter["status"]) > 0 || len(o.filter["exited"]) > 0
	list = slices.DeleteFunc(slices.Clone(list), func(c *container.Container) bool {
		created := c.Config.Created
		return !all && !c.State.Status.IsAlive() ||
			!after.IsZero() && !created.After(after) || !before.IsZero() && !created.Before(before) || !match(c)
	})
	if most > 0 && len(list) > most {
		list = list[:most]
	}
	return list, nil
}

// interval is when the containers of --filter since= and before= were created.
func (o *psOptions) interval(list []*container.Container) (after, before time.Time, err error) {
	find := func(name string) (t time.Time, err error) {
		for _, value := range o.filter[name] {
			i := slices.IndexFunc(list, func(c *container.Container) bool {
				return c.Config.Name == value || strings.HasPrefix(c.ID(), value)
			})
			if i < 0 {
				return t, &container.NotFoundError{Name: value}
			}
			t = list[i].Config.Created
		}
		return t, nil
	}
	if after, err = find("since"); err == nil {
		before, err = find("before")
	}
	return after, before, err
}

// psRow is a container as templates see it. The fields are Docker's, in the
// order of their names, as its JSON has them.
type psRow struct {
	Command      string
	CreatedAt    string
	HealthStatus string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Platform     any
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string
	labels       map[string]string
}

// Label is the value of one label; in a heading, its name.
func (r psRow) Label(name string) string {
	if r.labels == nil && r.ID == "CONTAINER ID" {
		return strings.ToUpper(strings.NewReplacer("-", " ", "_", " ").Replace(name[strings.LastIndexByte(name, '.')+1:]))
	}
	return r.labels[name]
}

func psHeader() psRow {
	return psRow{
		Command: "COMMAND", CreatedAt: "CREATED AT", HealthStatus: "HEALTH STATUS", ID: "CONTAINER ID", Image: "IMAGE", Labels: "LABELS",
		LocalVolumes: "LOCAL VOLUMES", Mounts: "MOUNTS", Names: "NAMES", Networks: "NETWORKS", Platform: "PLATFORM", Ports: "PORTS",
		RunningFor: "CREATED", Size: "SIZE", State: "STATE", Status: "STATUS",
	}
}

func newPsRow(c *container.Container, now time.Time, trunc bool) psRow {
	cfg := &c.Config
	command := strings.Join(cfg.Command(), " ")
	r := psRow{
		CreatedAt: cfg.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), ID: c.ID(), Image: cfg.Image,
		Names: cfg.Name, Networks: strings.Join(networkNames(c), ","), RunningFor: ago(cfg.Created, now), Size: "0B", Ports: portsText(c),
		State: string(c.State.Status), Status: statusText(c.State, now), HealthStatus: healthOf(c), labels: cfg.Labels,
	}
	volumes := 0
	var mounts, labels []string
	for _, m := range cfg.Mounts {
		name := m.Source
		if m.Type == container.Volume {
			volumes++
			name = m.VolumeName()
		}
		if name == "" {
			continue
		}
		if trunc {
			name = ellipsis(name, 15)
		}
		mounts = append(mounts, name)
	}
	for name, value := range cfg.Labels {
		labels = append(labels, name+"="+value)
	}
	slices.Sort(labels)
	r.LocalVolumes, r.Mounts, r.Labels = strconv.Itoa(volumes), strings.Join(mounts, ","), strings.Join(labels, ",")
	if trunc {
		r.ID, command, r.Image = shortID(r.ID), ellipsis(command, 20), shortImage(cfg)
	}
	r.Command = strconv.Quote(command)
	return r
}

// shortImage is the name of a container's image as tables show it: an ID
// shortened, a digest left out.
func shortImage(cfg *container.Config) string {
	if digits := strings.TrimPrefix(cfg.Image, "sha256:"); len(digits) == 64 && isHex(digits) {
		return shortID(digits)
	}
	name, _, hasDigest := strings.Cut(cfg.Image, "@")
	if hasDigest && name != "" {
		return name
	}
	return cfg.Image
}

// statusText is a container's state in words: Up 3 seconds, Exited (0) 2 minutes ago.
func statusText(s container.State, now time.Time) string {
	switch s.Status {
	case container.Running:
		return "Up " + humanDuration(now.Sub(s.StartedAt)) + healthText(s.Health)
	case container.Paused:
		return "Up " + humanDuration(now.Sub(s.StartedAt)) + " (Paused)"
	case container.Restarting:
		return fmt.Sprintf("Restarting (%d) %s", s.ExitCode, ago(s.FinishedAt, now))
	case container.Exited:
		return fmt.Sprintf("Exited (%d) %s", s.ExitCode, ago(s.FinishedAt, now))
	case container.Created:
		return "Created"
	}
	return string(s.Status)
}

// healthText is what ps says of a container's health.
func healthText(h *container.Health) string {
	switch {
	case h == nil:
		return ""
	case h.Status == container.HealthStarting:
		return " (health: starting)"
	}
	return " (" + h.Status + ")"
}
