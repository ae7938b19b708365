// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"sbx/container"
)

func statsCommand() command {
	return command{
		name: "stats", summary: "Display a live stream of container(s) resource usage statistics",
		usage: "[OPTIONS] [CONTAINER...]", forms: []string{"sbx container stats", "sbx stats"}, max: -1,
		bind: func() ([]option, action) {
			o := &statsOptions{}
			return o.flags(), o.run
		},
	}
}

type statsOptions struct {
	all, once, noTrunc bool
	format             string
}

func (o *statsOptions) flags() []option {
	return []option{
		switchFlag(&o.all, "all", "a", "Show all containers (default shows just running)"),
		textFlag(&o.format, "format", "", formatUsage),
		switchFlag(&o.once, "no-stream", "", "Disable streaming stats and only pull the first result"),
		switchFlag(&o.noTrunc, "no-trunc", "", "Do not truncate output"),
	}
}

// statsRow is a container's use as templates see it, with Docker's fields.
type statsRow struct {
	BlockIO   string
	CPUPerc   string
	Container string
	ID        string
	MemPerc   string
	MemUsage  string
	Name      string
	NetIO     string
	PIDs      string
}

const statsTable = `{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}`

// statsInterval is what the share of the processors is measured over, as on Docker.
const statsInterval = time.Second

func (o *statsOptions) run(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	for _, name := range operands {
		if _, err := home.Find(name); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	last := map[string]container.Usage{}
	live := isTerminal(c.out) && !o.once
	for round := 0; ; round++ {
		text, busy, err := o.measure(home, operands, last)
		if err != nil {
			return err
		}
		// The first round has nothing to compare with.
		if round > 0 || !busy {
			if live {
				text = "\x1b[H\x1b[J" + text
			}
			c.write(text)
		}
		if c.broken != nil || o.once && (round > 0 || !busy) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// measure renders what the containers use now, with the share of the processors
// since last, which it brings up to date. busy says that one of them runs.
func (o *statsOptions) measure(home *container.Home, operands []string, last map[string]container.Usage) (text string, busy bool, err error) {
	list, err := o.choose(home, operands)
	if err != nil {
		return "", false, err
	}
	total := memory()
	rows := make([]statsRow, 0, len(list))
	for _, ctr := range list {
		u, err := ctr.Usage()
		if err != nil {
			continue // it has just ended
		}
		busy = busy || u.Processes > 0
		rows = append(rows, newStatsRow(ctr, u, last[ctr.ID()], total, !o.noTrunc))
		last[ctr.ID()] = u
	}
	header := statsRow{
		BlockIO: "BLOCK I/O", CPUPerc: "CPU %", Container: "CONTAINER", ID: "CONTAINER ID", MemPerc: "MEM %", MemUsage: "MEM USAGE / LIMIT",
		Name: "NAME", NetIO: "NET I/O", PIDs: "PIDS",
	}
	text, err = formatRows(o.format, statsTable, header, rows)
	return text, busy, err
}

func (o *statsOptions) choose(home *container.Home, operands []string) ([]*container.Container, error) {
	var list []*container.Container
	if len(operands) == 0 {
		all, err := home.List()
		if err != nil {
			return nil, err
		}
		for _, ctr := range all {
			if o.all || ctr.State.PID != 0 {
				list = append(list, ctr)
			}
		}
		return list, nil
	}
	for _, name := range operands {
		ctr, err := home.Find(name)
		var missing *container.NotFoundError
		if errors.As(err, &missing) {
			continue // it was there when the command began
		}
		if err != nil {
			return nil, err
		}
		list = append(list, ctr)
	}
	return list, nil
}

func newStatsRow(ctr *container.Container, u, last container.Usage, total int64, trunc bool) statsRow {
	limit := total
	if m := ctr.Config.Limits.Memory; m > 0 && m < limit {
		limit = m
	}
	id := ctr.ID()
	if trunc {
		id = shortID(id)
	}
	cpu := 0.0
	if wall := u.At.Sub(last.At); !last.At.IsZero() && wall > 0 {
		cpu = 100 * float64(max(u.CPU-last.CPU, 0)) / float64(wall)
	}
	return statsRow{
		BlockIO: humanSize(u.Read) + " / " + humanSize(u.Written), CPUPerc: fmt.Sprintf("%.2f%%", cpu), Container: id, ID: id,
		MemPerc: fmt.Sprintf("%.2f%%", 100*float64(u.Memory)/float64(max(limit, 1))), MemUsage: binarySize(u.Memory) + " / " + binarySize(limit),
		Name: strings.TrimPrefix(ctr.Config.Name, "/"), NetIO: humanSize(u.NetIn) + " / " + humanSize(u.NetOut), PIDs: fmt.Sprint(u.Processes),
	}
}
