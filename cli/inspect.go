// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sbx/container"
	"sbx/store"
)

// Values of --type.
const (
	typeContainer = "container"
	typeImage     = "image"
	typeVolume    = "volume"
	typeNetwork   = "network"
)

func inspectCommand() command {
	return command{
		name: "inspect", summary: "Return low-level information on containers, images and volumes",
		usage: "[OPTIONS] NAME|ID [NAME|ID...]",
		min:   1, max: -1,
		bind: func() ([]option, action) {
			o := &inspectOptions{}
			return append(o.flags(), textFlag(&o.kind, "type", "", `Only inspect objects of the given type ("container", "image", "volume")`)), o.run
		},
	}
}

// inspectTypeCommand is inspect in a group, of one type.
func inspectTypeCommand(kind, operand, plural string) command {
	return command{
		name: "inspect", summary: "Display detailed information on one or more " + plural,
		usage: fmt.Sprintf("[OPTIONS] %[1]s [%[1]s...]", operand),
		min:   1, max: -1,
		bind: func() ([]option, action) {
			o := &inspectOptions{kind: kind}
			return o.flags(), o.run
		},
	}
}

type inspectOptions struct {
	format, kind string
	size         bool
}

func (o *inspectOptions) flags() []option {
	size := switchFlag(&o.size, "size", "s", "Display total file sizes if the type is container")
	size.hidden = o.kind != "" && o.kind != typeContainer
	return []option{textFlag(&o.format, "format", "f", inspectFormatUsage), size}
}

func (o *inspectOptions) run(ctx context.Context, c *client, operands []string) error {
	if kinds := []string{"", typeContainer, typeImage, typeNetwork, typeVolume}; !slices.Contains(kinds, o.kind) {
		return &usageError{text: fmt.Sprintf("unknown type: %q: must be one of %q", o.kind, kinds[1:])}
	}
	if o.format != "" && o.format != "json" {
		if _, err := parseTemplate(o.format); err != nil {
			return err
		}
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	found := []any{}
	failed := false
	for _, name := range operands {
		v, err := o.find(ctx, home, name)
		if err != nil {
			c.report(err)
			failed = true
			continue
		}
		found = append(found, v)
	}
	text, err := o.render(found)
	c.document(text)
	if err == nil && failed {
		return exited(statusFailed)
	}
	return err
}

// find returns the record of a container, an image or a volume, in this order.
func (o *inspectOptions) find(ctx context.Context, home *container.Home, name string) (any, error) {
	switch o.kind {
	case typeVolume:
		return findVolume(home, name)
	case typeNetwork:
		return findNetwork(home, name)
	}
	if o.kind != typeImage {
		ctr, err := home.Find(strings.TrimPrefix(name, "/"))
		var missing *container.NotFoundError
		if err == nil {
			return o.container(ctx, ctr)
		}
		if o.kind == typeContainer || !errors.As(err, &missing) {
			return nil, err
		}
	}
	img, err := findImage(home.Store, name)
	if o.kind == "" && errors.Is(err, store.ErrNotFound) {
		if v, err := findVolume(home, name); err == nil {
			return v, nil
		}
		if n, err := findNetwork(home, name); err == nil {
			return n, nil
		}
		return nil, fmt.Errorf("no such object: %s", name)
	}
	if err != nil {
		return nil, err
	}
	return newImageRecord(home.Store, img)
}

func (o *inspectOptions) container(ctx context.Context, ctr *container.Container) (any, error) {
	r := newContainerRecord(ctr)
	if o.format == "" || strings.Contains(o.format, "json") || strings.Contains(o.format, "ExecIDs") {
		var err error
		if r.ExecIDs, err = ctr.Executed(); err != nil {
			return r, err
		}
	}
	if !o.size {
		return r, nil
	}
	written, err := ctr.Size(ctx)
	all := written + ctr.ImageSize()
	r.SizeRw, r.SizeRootFs = &written, &all
	return r, err
}

func findVolume(home *container.Home, name string) (any, error) {
	v, err := home.Volumes().Get(name)
	if err != nil {
		return nil, err
	}
	return newVolumeRecord(v), nil
}

// render writes a JSON array, or a line for each record by the template.
func (o *inspectOptions) render(found []any) (string, error) {
	if o.format == "" || o.format == "json" {
		text, err := formatJSON(found)
		if err != nil || o.format == "json" {
			return text + "\n", err
		}
		var b bytes.Buffer
		err = json.Indent(&b, []byte(text), "", "    ")
		return b.String() + "\n", err
	}
	var b strings.Builder
	for _, v := range found {
		line, err := formatRecord(o.format, v)
		if err != nil {
			return b.String(), err
		}
		b.WriteString(line)
	}
	return or(b.String(), "\n"), nil
}

// formatRecord renders a record by a template. One that does not fit our types is
// tried on what the JSON says, as Docker does: {{.id}} is no field, but
// {{.Config.Labels.app}} is a key there.
func formatRecord(format string, v any) (string, error) {
	text, err := formatOne(format, v)
	if err == nil {
		return text, nil
	}
	t, parseErr := parseTemplate(format)
	raw, jsonErr := formatJSON(v)
	if parseErr != nil || jsonErr != nil {
		return "", err
	}
	decoder := json.NewDecoder(strings.NewReader(raw))
	decoder.UseNumber()
	var loose any
	if decoder.Decode(&loose) != nil {
		return "", err
	}
	var b strings.Builder
	if t.Option("missingkey=error").Execute(&b, loose) != nil {
		return "", err
	}
	return b.String() + "\n", nil
}
