// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

func imagesCommand() command {
	return command{
		name: "images", summary: "List images",
		usage: "[OPTIONS] [REPOSITORY[:TAG]]", forms: []string{"sbx image ls", "sbx image list", "sbx images"},
		max: 1,
		bind: func() ([]option, action) {
			o := &imagesOptions{}
			return o.flags(), o.run
		},
	}
}

type imagesOptions struct {
	all, quiet, digests, noTrunc bool
	format                       string
	filter                       filters
}

func (o *imagesOptions) flags() []option {
	return []option{
		switchFlag(&o.all, "all", "a", "Show all images (default hides dangling images)"),
		switchFlag(&o.digests, "digests", "", "Show digests"),
		filterFlag(&o.filter),
		textFlag(&o.format, "format", "", formatUsage),
		switchFlag(&o.noTrunc, "no-trunc", "", "Don't truncate output"),
		switchFlag(&o.quiet, "quiet", "q", "Only show image IDs"),
	}
}

const (
	imagesTable       = `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
	imagesDigestTable = `{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`
)

func (o *imagesOptions) run(ctx context.Context, c *client, operands []string) error {
	if err := o.filter.check("before", "dangling", "label", "reference", "since"); err != nil {
		return err
	}
	if len(operands) > 0 {
		if o.filter == nil {
			o.filter = filters{}
		}
		o.filter["reference"] = append(o.filter["reference"], operands[0])
	}
	table, format := imagesTable, o.format
	if o.digests {
		table = imagesDigestTable
	}
	if o.quiet {
		format = "{{.ID}}"
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	list, err := home.Store.Images()
	if err != nil {
		return err
	}
	if list, err = o.choose(home.Store, list); err != nil {
		return err
	}
	now := time.Now()
	rows := make([]imageRow, len(list))
	for i, img := range list {
		rows[i] = newImageRow(img, now, !o.noTrunc)
	}
	if o.quiet { // an image of several names has one ID
		rows = slices.CompactFunc(rows, func(a, b imageRow) bool { return a.ID == b.ID })
	}
	text, err := formatRows(format, table, imageHeader(), rows)
	c.document(text)
	return err
}

// choose leaves the images that the flags ask for, the newest first.
func (o *imagesOptions) choose(st *store.Store, list []store.Image) ([]store.Image, error) {
	var since, before time.Time
	for _, bound := range []struct {
		filter string
		t      *time.Time
	}{{"since", &since}, {"before", &before}} {
		for _, name := range o.filter[bound.filter] {
			img, err := findImage(st, name)
			if err != nil {
				return nil, err
			}
			*bound.t = created(img)
		}
	}
	dangling, given, err := o.filter.wantsTrue("dangling")
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(slices.Clone(list), func(img store.Image) bool {
		unnamed := img.Name == ""
		return given && unnamed != dangling || !given && unnamed && !o.all ||
			!since.IsZero() && !created(img).After(since) || !before.IsZero() && !created(img).Before(before) ||
			!o.filter.labels(img.Config.Config.Labels) ||
			!o.filter.any("reference", func(pattern string) bool { return matchesReference(img.Name, pattern) })
	})
	slices.SortStableFunc(list, func(a, b store.Image) int {
		if n := created(b).Compare(created(a)); n != 0 {
			return n
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	return list, nil
}

func created(img store.Image) time.Time {
	if img.Config.Created == nil {
		return time.Time{}
	}
	return *img.Config.Created
}

// matchesReference holds a pattern (alpine, alpine:3.*, */app) against an image's
// name, as Docker does: against the short and the full one, with the tag or not.
func matchesReference(name, pattern string) bool {
	if location, ok := fetch.Locate(pattern); ok {
		return name == locationName(location)
	}
	ref, err := reference.Parse(name)
	if err != nil {
		return false
	}
	for _, candidate := range []string{familiar(name), shortRepository(ref), ref.String(), ref.Name()} {
		if ok, err := path.Match(pattern, candidate); ok && err == nil {
			return true
		}
	}
	return false
}

// imageRow is an image as templates see it. The fields are Docker's, in the order
// of their names, as its JSON has them.
type imageRow struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
}

func imageHeader() imageRow {
	return imageRow{
		Containers: "CONTAINERS", CreatedAt: "CREATED AT", CreatedSince: "CREATED", Digest: "DIGEST", ID: "IMAGE ID", Repository: "REPOSITORY",
		SharedSize: "SHARED SIZE", Size: "SIZE", Tag: "TAG", UniqueSize: "UNIQUE SIZE",
	}
}

const none = "<none>"

func newImageRow(img store.Image, now time.Time, trunc bool) imageRow {
	r := imageRow{
		Containers: "N/A", CreatedAt: "N/A", CreatedSince: ago(created(img), now), Digest: or(img.RegistryDigest(), none), ID: img.ID.String(),
		SharedSize: "N/A", Size: humanSize(img.Size), UniqueSize: "N/A",
	}
	r.Repository, r.Tag = repositoryAndTag(img.Name)
	if t := created(img); !t.IsZero() {
		r.CreatedAt = t.Local().Format("2006-01-02 15:04:05 -0700 MST")
	}
	if trunc {
		r.ID = shortID(r.ID)
	}
	return r
}

// repositoryAndTag are the two columns of a name. A file or a URL is its own
// repository.
func repositoryAndTag(name string) (repository, tag string) {
	if name == "" {
		return none, none
	}
	ref, err := reference.Parse(name)
	if _, isLocation := fetch.Locate(name); isLocation || err != nil {
		return printable(name), none
	}
	return shortRepository(ref), or(ref.Tag, none)
}
