// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strconv"
	"time"

	"sbx/container"
)

func logsCommand() command {
	return command{
		name: "logs", summary: "Fetch the logs of a container",
		usage: "[OPTIONS] CONTAINER", forms: []string{"sbx container logs", "sbx logs"}, min: 1, max: 1,
		bind: func() ([]option, action) {
			o := &logsOptions{}
			return o.flags(), o.run
		},
	}
}

type logsOptions struct {
	details, follow, timestamps bool
	since, until, tail          string
}

func (o *logsOptions) flags() []option {
	return []option{
		switchFlag(&o.details, "details", "", "Show extra details provided to logs"),
		switchFlag(&o.follow, "follow", "f", "Follow log output"),
		textFlag(&o.since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`),
		textFlag(&o.tail, "tail", "n", `Number of lines to show from the end of the logs (default "all")`),
		switchFlag(&o.timestamps, "timestamps", "t", "Show timestamps"),
		textFlag(&o.until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`),
	}
}

func (o *logsOptions) run(ctx context.Context, c *client, operands []string) error {
	now := time.Now()
	wanted := container.LogOptions{Follow: o.follow, Tail: -1}
	var err error
	if wanted.Since, err = parseWhen("since", o.since, now); err != nil {
		return err
	}
	if wanted.Until, err = parseWhen("until", o.until, now); err != nil {
		return err
	}
	// As on Docker, what is no number means all.
	if n, err := strconv.Atoi(o.tail); err == nil {
		wanted.Tail = n
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctr, err := find(home, operands[0])
	if err != nil {
		return err
	}
	wanted.Mark = o.mark(ctr)
	return ctr.Logs(ctx, wanted, c.out, c.err)
}

// mark is what stands before each line.
func (o *logsOptions) mark(ctr *container.Container) func(time.Time) string {
	if !o.timestamps && !o.details {
		return nil
	}
	details := ""
	if o.details {
		details = logDetails(&ctr.Config) + " "
	}
	return func(t time.Time) string {
		if o.timestamps {
			return t.UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + " " + details
		}
		return details
	}
}
