// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/build"
	"sbx/container"
	"sbx/fetch"
	"sbx/reference"
)

// buildCache is a place where steps of builds come from or go to: a directory or a
// registry.
type buildCache struct {
	dir      string
	ref      reference.Ref
	isDir    bool
	max      bool // every step, and not only those of the image
	lenient  bool // a failure to write is no error
	asGiven  string
	describe string
}

type buildCaches struct{ from, to []buildCache }

// parseCaches reads --cache-from and --cache-to. What is kept in the image itself by
// others ("inline") has no effect here, which costs nothing but time.
func (o *buildOptions) parseCaches() (buildCaches, error) {
	var all buildCaches
	var err error
	if all.from, err = o.parseList("--cache-from", o.cacheFrom); err == nil {
		all.to, err = o.parseList("--cache-to", o.cacheTo)
	}
	return all, err
}

func (o *buildOptions) parseList(flag string, specs []string) ([]buildCache, error) {
	var list []buildCache
	for _, spec := range specs {
		cache, inline, err := parseCache(spec)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s %s: %w", flag, spec, err)
		case inline:
			o.unmet.add(flag + " " + spec)
		default:
			list = append(list, cache)
		}
	}
	return list, nil
}

func parseCache(spec string) (c buildCache, inline bool, err error) {
	c.asGiven = spec
	kind, ref := "registry", ""
	if !strings.Contains(spec, "=") {
		ref = spec // of the oldest form
	} else {
		for field := range strings.SplitSeq(spec, ",") {
			name, value, _ := strings.Cut(field, "=")
			switch strings.ToLower(name) {
			case "type":
				kind = value
			case "ref":
				ref = value
			case "src", "dest":
				c.dir = value
			case "mode":
				if value != "min" && value != "max" {
					return c, false, fmt.Errorf("invalid mode %q: want min or max", value)
				}
				c.max = value == "max"
			case "ignore-error":
				c.lenient = value == "true"
			}
		}
	}
	switch kind {
	case "inline":
		return c, true, nil
	case "local":
		if c.isDir, c.describe = true, c.dir; c.dir == "" {
			return c, false, errors.New("it names no directory: src=DIR or dest=DIR")
		}
		return c, false, nil
	case "registry":
		if ref == "" {
			return c, false, errors.New("it names no image: ref=NAME")
		}
		c.ref, err = reference.Parse(ref)
		c.describe = c.ref.String()
		return c, false, err
	}
	return c, false, &statusError{status: statusFailed, err: fmt.Errorf("type %q is not supported", kind), hint: "there are local, registry and inline; without any, the store keeps all steps: share SBX_HOME"}
}

// open reads what steps there are. A cache that is not there makes a build slower,
// and nothing else. What it returns closes them.
func (all *buildCaches) open(ctx context.Context, c *client, b *build.Options) (closing func()) {
	var opened []interface{ Close() error }
	for _, from := range all.from {
		img, err := from.image(ctx, c)
		if err == nil {
			opened = append(opened, img)
			var cache build.Cache
			if cache, err = build.ReadCache(ctx, img); err == nil {
				b.CacheFrom = append(b.CacheFrom, cache)
			}
		}
		if err != nil && ctx.Err() == nil {
			c.notice("--cache-from %s: %v", from.asGiven, err)
		}
	}
	return func() {
		for _, o := range opened {
			o.Close()
		}
	}
}

func (b *buildCache) image(ctx context.Context, c *client) (*fetch.Image, error) {
	options, err := c.fetchOptions(ocispec.Platform{})
	if err != nil {
		return nil, err
	}
	if !b.isDir {
		return fetch.Registry(ctx, b.ref, options)
	}
	abs, err := filepath.Abs(b.dir)
	if err != nil {
		return nil, err
	}
	opened, err := fetch.Open(ctx, abs, options)
	if err != nil {
		return nil, err
	}
	if opened.Image == nil {
		opened.Close()
		return nil, errors.New("it is no OCI layout")
	}
	return opened.Image, nil
}

// write exports the steps of builds.
func (all *buildCaches) write(ctx context.Context, c *client, home *container.Home, results []build.Result, p *buildPrinter) error {
	for _, to := range all.to {
		var steps []build.CachedStep
		for _, r := range results {
			if to.max {
				steps = append(steps, r.Steps...)
			} else {
				steps = append(steps, r.InImage()...)
			}
		}
		err := to.write(ctx, c, home, steps)
		switch {
		case err != nil && to.lenient:
			c.notice("--cache-to %s: %v", to.asGiven, err)
		case err != nil:
			return fmt.Errorf("export cache: %w", err)
		default:
			p.line("exported cache to %s", to.describe)
		}
	}
	return nil
}

func (b *buildCache) write(ctx context.Context, c *client, home *container.Home, steps []build.CachedStep) error {
	if b.isDir {
		_, err := build.WriteCache(ctx, home.Store, b.dir, steps)
		return err
	}
	documents, err := os.MkdirTemp("", "sbx-cache-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(documents)
	root, err := build.WriteCache(ctx, nil, documents, steps)
	if err != nil {
		return err
	}
	options, err := c.fetchOptions(ocispec.Platform{})
	if err != nil {
		return err
	}
	repository, err := fetch.OpenRepository(b.ref, options)
	if err != nil {
		return err
	}
	defer repository.Close()
	_, err = repository.Push(ctx, b.ref, root, build.LayoutBlobs{Dir: documents, Store: home.Store}, fetch.PushOptions{})
	return err
}
