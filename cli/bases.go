// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/bases"
	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

// Where a name that could be either is looked for (bases.order in config.toml).
const (
	fromCatalog  = "catalog"
	fromRegistry = "registry"
)

// catalogName is a name of the catalog of bases, and the tag.
type catalogName struct {
	bases.Distribution
	tag string
}

// String is the name that its image is kept under.
func (n catalogName) String() string { return bases.CatalogDomain + "/" + n.Name + ":" + n.tag }

// parseCatalogName reads a name of the catalog as the user typed it: a word without
// a registry, a path and a digest, or one with the catalog's own domain.
func parseCatalogName(typed string) (catalogName, bool) {
	word, own := strings.CutPrefix(typed, bases.CatalogDomain+"/")
	if strings.ContainsAny(word, "/@") {
		return catalogName{}, false
	}
	if _, err := reference.Parse(word); err != nil {
		return catalogName{}, false
	}
	name, tag, _ := strings.Cut(word, ":")
	d, ok := bases.Find(name)
	if !ok && own {
		d, ok = bases.Distribution{Name: name}, true // whose images were here once
	}
	return catalogName{d, or(tag, "latest")}, ok
}

// sources are where a name is looked for, in order.
func (c *client) sources(typed string) (name catalogName, sources []string, err error) {
	name, ok := parseCatalogName(typed)
	if !ok {
		return name, []string{fromRegistry}, nil
	}
	if strings.HasPrefix(typed, bases.CatalogDomain+"/") {
		return name, []string{fromCatalog}, nil
	}
	f, err := c.config()
	if err != nil {
		return name, nil, err
	}
	word, _, _ := strings.Cut(typed, ":")
	if f.ShortNames.Aliases[word] != "" || f.ShortNames.Default != "" {
		return name, []string{fromRegistry}, nil // it has been said which
	}
	if len(f.Bases.Order) > 0 {
		return name, f.Bases.Order, nil
	}
	return name, []string{fromCatalog, fromRegistry}, nil
}

// fetch brings the image that typed names from the first source that has it. The
// name is the one that it is kept under.
func (r *resolver) fetch(ctx context.Context, typed string, ref reference.Ref) (img store.Image, name string, err error) {
	base, sources, err := r.client.sources(typed)
	if err != nil {
		return img, "", err
	}
	for i, source := range sources {
		if source == fromCatalog {
			name = base.String()
			img, err = r.pullBase(ctx, base)
		} else {
			name = ref.String()
			img, err = r.pull(ctx, ref)
		}
		if err == nil || i == len(sources)-1 || !mayBeElsewhere(err) {
			return img, name, err
		}
		if !r.flags.quiet {
			r.client.notice("%v; asking the %s", err, sources[i+1])
		}
	}
	return img, name, err
}

// mayBeElsewhere reports whether a source has not answered, or has not what was
// asked for. One that answers something wrong is an error.
func mayBeElsewhere(err error) bool {
	var elsewhere *bases.ElsewhereError
	var net *fetch.Error
	if errors.As(err, &elsewhere) {
		return true
	}
	return errors.As(err, &net) && net.IsUnanswered()
}

// pullBase brings a distribution's own root filesystem, and says what a pull says.
func (r *resolver) pullBase(ctx context.Context, n catalogName) (img store.Image, err error) {
	options, err := r.client.fetchOptions(r.platform)
	if err != nil {
		return img, err
	}
	f, err := r.client.config()
	if err != nil {
		return img, err
	}
	epoch, err := r.client.sourceDate()
	if err != nil {
		return img, err
	}
	if n.URL == "" {
		return img, &noImageError{n.String()}
	}
	p := newProgress(r.progress, r.flags.quiet)
	pull := bases.Pull{
		Distribution: n.Distribution, Tag: n.tag, Platform: r.platform, Mirrors: f.baseMirrors(n.Distribution), Keyring: f.Bases.Keys[n.Name],
		Epoch: epoch, Fetch: options, Progress: func(text string) { p.line("%s", text) }, Event: p.event,
	}
	if r.platform.Architecture == "" {
		pull.Platform = basePlatform()
	}
	err = interruptible(ctx, func(ctx context.Context) error {
		var fresh bool
		img, fresh, err = pull.Make(ctx, r.home, n.String())
		p.end()
		if err != nil {
			r.client.printScript(err)
			return err
		}
		p.line("%s", pullStatus(fresh, familiar(n.String())))
		return r.checkPlatform(img)
	})
	return img, err
}

// basePlatform is this machine's, as images have it.
func basePlatform() ocispec.Platform {
	p := fetch.DefaultPlatform()
	if p.Architecture == "arm64" {
		p.Variant = ""
	}
	return p
}

// baseMirrors are the mirrors of a distribution; those of Linux Containers hold
// for all that it builds.
func (f *config) baseMirrors(d bases.Distribution) []string {
	list := f.Bases.Mirrors[d.Name]
	if len(list) == 0 && d.IsStream() {
		list = f.Bases.Mirrors[bases.StreamMirrors]
	}
	return slices.Clone(list)
}

// printScript shows what a package's script said before it failed.
func (c *client) printScript(err error) {
	for _, line := range bases.ScriptOutput(err) {
		fmt.Fprintf(c.err, "%s\n", printable(line))
	}
}

// namesOf are the full names that a typed one may be short for: the registry's,
// which it is on Docker, and the catalog's.
func namesOf(typed string) ([]string, error) {
	ref, err := reference.Parse(typed)
	if err != nil {
		return nil, err
	}
	names := []string{ref.String()}
	if n, ok := parseCatalogName(typed); ok && n.String() != names[0] {
		names = append(names, n.String())
	}
	return names, nil
}

// shortRepository is a name without its tag, as listings have it.
func shortRepository(ref reference.Ref) string {
	if ref.Domain == bases.CatalogDomain {
		return ref.Path
	}
	return ref.FamiliarName()
}

// baseRow is a distribution as templates see it.
type baseRow struct {
	Aliases     string
	Description string
	Name        string
	Source      string
	Tags        string
	Verified    string
}

const basesTable = `{{.Name}}\t{{.Description}}\t{{.Tags}}\t{{.Source}}`

// listBases lists the catalog, of which nothing is asked.
func (o *searchOptions) listBases(c *client, operands []string) error {
	f, err := c.config()
	if err != nil {
		return err
	}
	var rows []baseRow
	for _, d := range bases.Catalog() {
		if len(operands) > 0 && !strings.Contains(d.Name+" "+strings.Join(d.Aliases, " ")+" "+strings.ToLower(d.Title), strings.ToLower(operands[0])) {
			continue
		}
		sources := append(f.baseMirrors(d), d.URL)
		rows = append(rows, baseRow{strings.Join(d.Aliases, " "), d.Title, d.Name, strings.Join(sources, " "), d.Tags, d.Proof})
	}
	header := baseRow{Aliases: "ALIASES", Description: "DESCRIPTION", Name: "NAME", Source: "SOURCE", Tags: "TAGS", Verified: "VERIFIED"}
	text, err := formatRows(o.format, basesTable, header, rows)
	c.document(text)
	return err
}
