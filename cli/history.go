// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/store"
)

func historyCommand() command {
	return command{
		name: "history", summary: "Show the history of an image",
		usage: "[OPTIONS] IMAGE", forms: []string{"sbx image history", "sbx history"},
		min: 1, max: 1,
		bind: func() ([]option, action) {
			o := &historyOptions{human: true}
			return o.flags(), o.run
		},
	}
}

type historyOptions struct {
	human, noTrunc, quiet bool
	format                string
}

func (o *historyOptions) flags() []option {
	return []option{
		textFlag(&o.format, "format", "", formatUsage),
		switchFlag(&o.human, "human", "H", "Print sizes and dates in human readable format (default true)"),
		switchFlag(&o.noTrunc, "no-trunc", "", "Don't truncate output"),
		switchFlag(&o.quiet, "quiet", "q", "Only show image IDs"),
	}
}

// historyRow is a line of an image's history as templates see it.
type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

const (
	historyTable = `{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`
	// historyStampTable has dates in the place of ages.
	historyStampTable = `{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`
	// missing is the ID of what was an image once, and is a line of this one now.
	missing = "<missing>"
)

func (o *historyOptions) run(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	img, err := findImage(home.Store, operands[0])
	if err != nil {
		return err
	}
	header := historyRow{Comment: "COMMENT", CreatedAt: "CREATED AT", CreatedBy: "CREATED BY", CreatedSince: "CREATED", ID: "IMAGE", Size: "SIZE"}
	table, format := historyTable, o.format
	if !o.human {
		table = historyStampTable
	}
	if o.quiet {
		format = "{{.ID}}"
	}
	text, err := formatRows(format, table, header, o.rows(img, home.Store.LayerBytes(img), time.Now()))
	c.document(text)
	return err
}

// rows are the lines of the history, the youngest first. A layer that no line
// speaks of has its own.
func (o *historyOptions) rows(img store.Image, sizes []int64, now time.Time) []historyRow {
	list := slices.Clone(img.Config.History)
	layers := 0
	for _, h := range list {
		if !h.EmptyLayer {
			layers++
		}
	}
	for ; layers < len(sizes); layers++ {
		list = append(list, ocispec.History{})
	}
	var rows []historyRow
	next := 0
	for _, h := range list {
		size := int64(0)
		if !h.EmptyLayer && next < len(sizes) {
			size = sizes[next]
			next++
		}
		rows = append(rows, o.row(h, size, now))
	}
	slices.Reverse(rows)
	if len(rows) > 0 {
		rows[0].ID = img.ID.String()
		if !o.noTrunc {
			rows[0].ID = shortID(rows[0].ID)
		}
	}
	return rows
}

func (o *historyOptions) row(h ocispec.History, size int64, now time.Time) historyRow {
	r := historyRow{ID: missing, Comment: h.Comment, Size: strconv.FormatInt(size, 10), CreatedSince: "N/A", CreatedAt: "N/A"}
	if o.human {
		r.Size = humanSize(size)
	}
	r.CreatedBy = strings.ReplaceAll(h.CreatedBy, "\t", " ")
	if !o.noTrunc {
		r.CreatedBy = ellipsis(r.CreatedBy, 45)
	}
	if h.Created != nil && !h.Created.IsZero() {
		r.CreatedAt, r.CreatedSince = h.Created.Local().Format(time.RFC3339), ago(*h.Created, now)
	}
	return r
}
