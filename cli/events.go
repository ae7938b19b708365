// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"

	"sbx/container"
)

func eventsCommand() command {
	return command{
		name: "events", summary: "Get events of containers, images and volumes, as they happen",
		usage: "[OPTIONS]", forms: []string{"sbx system events", "sbx events"},
		bind: func() ([]option, action) {
			o := &eventsOptions{}
			return o.flags(), o.run
		},
	}
}

type eventsOptions struct {
	since, until, format string
	filter               filters
}

func (o *eventsOptions) flags() []option {
	return []option{
		filterFlag(&o.filter),
		textFlag(&o.format, "format", "", `Format output using a custom template: 'json', or a Go template`),
		textFlag(&o.since, "since", "", "Show all events created since timestamp"),
		textFlag(&o.until, "until", "", "Stream events until this timestamp"),
	}
}

// eventRecord is an event in the fields of Docker's API.
type eventRecord struct {
	Status   string `json:"status,omitempty"`
	ID       string `json:"id,omitempty"`
	From     string `json:"from,omitempty"`
	Type     string
	Action   string
	Actor    eventActor
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}

type eventActor struct {
	ID         string
	Attributes map[string]string
}

func newEventRecord(e container.Event) eventRecord {
	r := eventRecord{
		Type: e.Type, Action: e.Action, Actor: eventActor{e.ID, e.Attributes}, Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(),
	}
	if r.Actor.Attributes == nil {
		r.Actor.Attributes = map[string]string{}
	}
	if e.Type != "volume" {
		r.Status, r.ID, r.From = e.Action, e.ID, e.Attributes["image"]
	}
	return r
}

func (o *eventsOptions) run(ctx context.Context, c *client, _ []string) error {
	if err := o.filter.check("container", "event", "image", "label", "scope", "type", "volume"); err != nil {
		return err
	}
	now := time.Now()
	since := now
	var until time.Time
	var err error
	if o.since != "" {
		if since, err = parseWhen("since", o.since, now); err != nil {
			return err
		}
	}
	if until, err = parseWhen("until", o.until, now); err != nil {
		return err
	}
	var form *template.Template
	if o.format != "" && o.format != "json" {
		if form, err = parseTemplate(o.format); err != nil {
			return err
		}
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	follow := until.IsZero() || until.After(now)
	if follow && !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	return home.Events(ctx, follow, func(e container.Event) error {
		if e.Time.Before(since) || !o.matches(e) {
			return nil
		}
		if !until.IsZero() && e.Time.After(until) {
			return io.EOF
		}
		text, err := o.line(e, form)
		if err != nil {
			return err
		}
		c.document(text + "\n")
		if c.broken != nil {
			return io.EOF
		}
		return nil
	})
}

func (o *eventsOptions) line(e container.Event, form *template.Template) (string, error) {
	switch {
	case o.format == "json":
		return formatJSON(newEventRecord(e))
	case form != nil:
		var b strings.Builder
		if err := form.Execute(&b, newEventRecord(e)); err != nil {
			return "", templateError(err)
		}
		return b.String(), nil
	}
	var attributes []string
	for k, v := range e.Attributes {
		attributes = append(attributes, k+"="+v)
	}
	slices.Sort(attributes)
	text := fmt.Sprintf("%s %s %s %s", e.Time.Local().Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, e.Action, e.ID)
	if len(attributes) > 0 {
		text += " (" + strings.Join(attributes, ", ") + ")"
	}
	return text, nil
}

func (o *eventsOptions) matches(e container.Event) bool {
	f := o.filter
	is := func(kind string) func(string) bool {
		return func(v string) bool {
			return e.Type == kind && (strings.HasPrefix(e.ID, v) || strings.TrimPrefix(v, "/") == e.Attributes["name"])
		}
	}
	return f.labels(e.Attributes) &&
		f.any("type", func(v string) bool { return e.Type == v }) &&
		f.any("scope", func(v string) bool { return v == "local" }) &&
		f.any("event", func(v string) bool { return e.Action == v || strings.HasPrefix(e.Action, v+":") }) &&
		f.any("container", is("container")) && f.any("volume", is("volume")) &&
		f.any("image", func(v string) bool {
			image := e.Attributes["image"]
			if e.Type == "image" {
				image = or(e.Attributes["name"], e.ID)
			}
			return e.ID == v || image == v || strings.HasPrefix(image, v+":")
		})
}
