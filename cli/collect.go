// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/bases"
	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

func collectCommand() command {
	return command{
		name: "collect", summary: "Make an image of programs of this machine and their libraries",
		usage: "[OPTIONS] PROGRAM...", min: 0, max: -1,
		bind: func() ([]option, action) {
			o := &collectOptions{}
			return o.flags(), o.run
		},
	}
}

type collectOptions struct {
	name  string
	files []string
	quiet bool
	rung  string
}

func (o *collectOptions) flags() []option {
	return []option{
		listFlag(&o.files, "file", "", "Take this file or directory too"),
		switchFlag(&o.quiet, "quiet", "q", "Only print the image ID"),
		rungFlag(&o.rung),
		textFlag(&o.name, "tag", "t", `Name of the image (default "collected")`),
	}
}

func (o *collectOptions) run(ctx context.Context, c *client, operands []string) error {
	if len(operands)+len(o.files) == 0 {
		return &usageError{text: `"sbx collect" requires at least 1 argument`, path: "sbx collect"}
	}
	ref, err := reference.Parse(or(o.name, "collected"))
	if err != nil {
		return err
	}
	latest, err := c.sourceDate()
	if err != nil {
		return err
	}
	home, err := c.open(ctx, o.rung)
	if err != nil {
		return err
	}
	return interruptible(ctx, func(ctx context.Context) error {
		collection, err := bases.Collect(ctx, bases.Request{Programs: operands, Files: o.files, Path: c.variable("PATH")})
		if err != nil {
			return err
		}
		img, err := importCollection(ctx, home.Store, ref, collection, latest)
		if err != nil {
			return err
		}
		if o.quiet {
			c.print("%s\n", img.ID)
			return nil
		}
		c.document(tookTable(collection.Taken))
		c.print("%s %s\n", ref.Familiar(), img.ID)
		return nil
	})
}

// importCollection makes the image. Its command is the collection's shell, or
// else its first program.
func importCollection(ctx context.Context, st *store.Store, ref reference.Ref, collection *bases.Collection, latest time.Time) (store.Image, error) {
	date := collection.Date(latest)
	config := ocispec.Image{Created: &date, Platform: fetch.DefaultPlatform(), Config: ocispec.ImageConfig{Cmd: collection.Command}}
	r, w := io.Pipe()
	defer r.Close()
	go func() { w.CloseWithError(collection.WriteTar(w, latest)) }()
	return st.Import(ctx, ref.String(), store.Rootfs{Reader: r, Config: config}, store.PullOptions{})
}

func tookTable(taken []bases.Taken) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "FILE\tBECAUSE")
	for _, t := range taken {
		fmt.Fprintf(w, "%s\t%s\n", printable(t.Path), printable(t.Why))
	}
	w.Flush()
	return text.String()
}

// sourceDate is the moment of SOURCE_DATE_EPOCH, after which nothing in an image
// is dated; zero when it is not set (https://reproducible-builds.org/specs/source-date-epoch/).
func (c *client) sourceDate() (time.Time, error) {
	text := c.variable("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, fmt.Errorf("read SOURCE_DATE_EPOCH: %w", errors.New(strconv.Quote(text)+" is no number of seconds"))
	}
	return time.Unix(n, 0).UTC(), nil
}
