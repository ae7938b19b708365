// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	if wanted.Since, err = parseTime("since", o.since, now); err != nil {
		return err
	}
	if wanted.Until, err = parseTime("until", o.until, now); err != nil {
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
		details = logDetails(ctr) + " "
	}
	return func(t time.Time) string {
		if o.timestamps {
			return t.UTC().Format("2006-01-02T15:04:05.000000000Z07:00") + " " + details
		}
		return details
	}
}

// logDetails are the labels and variables that --log-opt labels and env name.
func logDetails(ctr *container.Container) string {
	var pairs []string
	options := ctr.Config.Log.Options
	for name := range strings.SplitSeq(options["labels"], ",") {
		if value, ok := ctr.Config.Labels[name]; ok {
			pairs = append(pairs, name+"="+value)
		}
	}
	for name := range strings.SplitSeq(options["env"], ",") {
		for _, e := range ctr.Config.Env {
			if name != "" && strings.HasPrefix(e, name+"=") {
				pairs = append(pairs, e)
			}
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// timeLayouts are Docker's, from the most exact on. What has no zone is local.
var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02T15Z07:00", "2006-01-02T15",
	"2006-01-02Z07:00", "2006-01-02",
}

// parseTime reads a moment: seconds since 1970 with a fraction, a date, or how
// long before now.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	seconds, fraction, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(seconds, 10, 64)
	nanos, fractionErr := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err == nil && fractionErr == nil && len(fraction) <= 9 {
		return time.Unix(n, nanos), nil
	}
	return time.Time{}, &usageError{text: fmt.Sprintf("invalid value for %q: failed to parse value as time or duration: %q", flag, s)}
}

// logConfig reads --log-driver and --log-opt.
func (f *containerFlags) logConfig() (container.LogConfig, error) {
	l := container.LogConfig{Driver: f.logDriver}
	switch f.logDriver {
	case "", container.LogJSON, container.LogNone:
	case container.LogLocal:
		l.MaxSize, l.MaxFiles = 20<<20, 5 // its defaults
	default:
		return l, &statusError{status: statusSbx, err: fmt.Errorf("logger: no log driver named '%s' is registered", f.logDriver), hint: "there are json-file, local and none"}
	}
	for _, opt := range f.logOpts {
		name, value, ok := strings.Cut(opt, "=")
		if !ok {
			return l, fmt.Errorf("invalid logging opt: %s", opt)
		}
		if l.Driver == container.LogNone {
			return l, fmt.Errorf("unknown log opt '%s' for none log driver", name)
		}
		if err := setLogOption(&l, name, value); err != nil {
			return l, err
		}
		if l.Options == nil {
			l.Options = map[string]string{}
		}
		l.Options[name] = value
	}
	if l.MaxFiles > 1 && l.MaxSize == 0 {
		return l, errors.New("max-file cannot be set without max-size")
	}
	return l, nil
}

func setLogOption(l *container.LogConfig, name, value string) error {
	switch name {
	case "max-size":
		n, err := parseSize(value)
		if err != nil || n < 1 {
			return fmt.Errorf("invalid max-size %q: it must be a positive number of bytes, like 10m", value)
		}
		l.MaxSize = n
	case "max-file":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return fmt.Errorf("invalid max-file %q: it must be 1 or more", value)
		}
		l.MaxFiles = n
	case "labels", "env", "labels-regex", "env-regex", "tag", "compress", "mode", "max-buffer-size":
	default:
		return fmt.Errorf("unknown log opt '%s' for %s log driver", name, or(l.Driver, container.LogJSON))
	}
	return nil
}
