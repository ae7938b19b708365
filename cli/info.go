// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sbx/container"
)

func infoCommand() command {
	return command{
		name: "info", summary: "Display system-wide information",
		usage: "[OPTIONS]", forms: []string{"sbx system info", "sbx info"},
		bind: func() ([]option, action) {
			o := &infoOptions{}
			return o.flags(), o.run
		},
	}
}

type infoOptions struct {
	format, rung string
}

func (o *infoOptions) flags() []option {
	return []option{
		textFlag(&o.format, "format", "f", inspectFormatUsage),
		rungFlag(&o.rung),
	}
}

// infoReport is what info prints. The fields that Docker has are named as there.
type infoReport struct {
	Containers        int
	ContainersRunning int
	ContainersPaused  int
	ContainersStopped int
	Images            int
	Driver            string // of root filesystems: overlay or copy
	DriverReason      string `json:",omitempty"`
	KernelVersion     string
	OperatingSystem   string
	OSType            string
	Architecture      string
	NCPU              int
	MemTotal          int64
	DockerRootDir     string // where images and containers are
	Scratch           string `json:",omitempty"` // where containers write, if elsewhere
	ServerVersion     string
	SecurityOptions   []string
	Rung              string
	RungReason        string `json:",omitempty"` // why not a higher one
	RungHint          string `json:",omitempty"`
	IDs               string `json:",omitempty"`
	RootEmulation     string
	RootReason        string `json:",omitempty"` // why not notify
	OwnFileReason     string `json:",omitempty"` // why containers can set the mode of sbx's own file, if they can
	Limits            []container.LimitSupport
	Gates             []gate
	ForeignProgram    string   `json:",omitempty"` // another sbx that comes first on PATH
	Errors            []string `json:",omitempty"`
}

// run prints what it finds even where nothing works: this is the command to ask
// then.
func (o *infoOptions) run(ctx context.Context, c *client, _ []string) error {
	r, failure := c.examine(ctx, o.rung)
	if failure != nil {
		text, _ := describe(failure)
		r.Errors = append(r.Errors, text)
	}
	if o.format != "" {
		text, err := formatOne(o.format, r)
		c.document(text)
		return errors.Join(err, failure)
	}
	c.document(r.text())
	c.warnForeign()
	return failure
}

// examine collects everything, and the error that keeps containers from running.
func (c *client) examine(ctx context.Context, rung string) (*infoReport, error) {
	r := &infoReport{ServerVersion: release(), ForeignProgram: c.foreignProgram(), Rung: "none"}
	r.machine()
	dir, err := c.homeDir()
	if err != nil {
		return r, err
	}
	r.DockerRootDir = dir
	home, err := c.open(ctx, rung)
	if err != nil {
		return r, err
	}
	r.features(home.Features)
	images, err := home.Store.Images()
	if err != nil {
		return r, err
	}
	ids := map[string]bool{}
	for _, img := range images {
		ids[img.ID.String()] = true
	}
	r.Images = len(ids)
	list, err := home.List()
	if err != nil {
		return r, err
	}
	for _, ctr := range list {
		r.Containers++
		if ctr.State.Status == container.Running {
			r.ContainersRunning++
		} else {
			r.ContainersStopped++
		}
	}
	return r, nil
}

func (r *infoReport) features(f container.Features) {
	r.Rung, r.RungReason, r.RungHint, r.Scratch = f.Rung.Name, f.RungReason, f.RungHint, f.Scratch
	r.Driver, r.DriverReason = "overlay", f.OverlayReason
	if !f.Overlay {
		r.Driver = "copy"
	}
	r.SecurityOptions = []string{"name=seccomp,profile=builtin", "name=rootless", "name=no-new-privileges"}
	ids := []string{fmt.Sprintf("0 is %d", f.Rung.UID)}
	inside := 1
	for _, u := range f.Rung.UIDs {
		ids = append(ids, fmt.Sprintf("%d to %d are %d to %d", inside, inside+u.Count-1, u.First, u.First+u.Count-1))
		inside += u.Count
	}
	r.IDs = strings.Join(ids, ", ")
	r.RootEmulation, r.RootReason = f.RootEmulation()
	r.OwnFileReason = f.OwnFileReason
	r.Limits = container.LimitsSupported()
}

func (r *infoReport) text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%s: %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	line("Version", "%s", r.ServerVersion)
	line("Containers", "%d", r.Containers)
	line(" Running", "%d", r.ContainersRunning)
	line(" Stopped", "%d", r.ContainersStopped)
	line("Images", "%d", r.Images)
	line("Store", "%s", or(r.DockerRootDir, "none"))
	if r.Scratch != "" {
		line(" Scratch", "%s (the store's filesystem cannot hold what containers write)", r.Scratch)
	}
	line("Rung", "%s", r.Rung)
	if r.IDs != "" {
		line(" User IDs", "%s", r.IDs)
	}
	if r.RootEmulation != "" {
		line(" Root emulation", "%s", r.RootEmulation)
	}
	if r.RootReason != "" {
		line(" Why not notify", "%s", r.RootReason)
	}
	if r.OwnFileReason != "" {
		line(" Reachable", "the mode of sbx's own file, see docs/security.md (%s)", r.OwnFileReason)
	}
	if r.RungReason != "" {
		line(" Why not mapped", "%s", r.RungReason)
	}
	if r.RungHint != "" {
		line(" To change that", "%s", r.RungHint)
	}
	if r.Driver != "" {
		line("Root filesystems", "%s", r.Driver)
		if r.DriverReason != "" {
			line(" Why", "%s", r.DriverReason)
		}
	}
	line("Operating System", "%s", r.OperatingSystem)
	line("Kernel Version", "%s", r.KernelVersion)
	line("Architecture", "%s", r.Architecture)
	line("CPUs", "%d", r.NCPU)
	line("Total Memory", "%s", binarySize(r.MemTotal))
	if len(r.Limits) > 0 {
		b.WriteString("Limits:\n")
	}
	for _, l := range r.Limits {
		line(" "+l.Name, "%s (%s)", l.How, l.By)
	}
	b.WriteString("Gates:\n")
	for _, g := range r.Gates {
		line(" "+g.Name, "%s", g.State)
	}
	return b.String()
}
