// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/build"
	"sbx/container"
	"sbx/fetch"
	"sbx/reference"
)

// readPlatforms reads --platform: lists by commas, as often as there are flags. Without
// any it is the zero Platform, which is this machine's.
func (o *buildOptions) readPlatforms(c *client) ([]ocispec.Platform, error) {
	names := split(o.platforms)
	if standard := c.variable("DOCKER_DEFAULT_PLATFORM"); len(names) == 0 && standard != "" {
		names = []string{standard}
	}
	var platforms []ocispec.Platform
	for _, name := range names {
		p, err := fetch.ParsePlatform(name)
		if err != nil {
			return nil, err
		}
		if p.Architecture == "arm64" && p.Variant == "v8" {
			p.Variant = "" // TARGETPLATFORM is linux/arm64, which Dockerfiles compare with
		}
		if !slices.ContainsFunc(platforms, func(q ocispec.Platform) bool { return platformName(p) == platformName(q) }) {
			platforms = append(platforms, p)
		}
	}
	if len(platforms) == 0 {
		platforms = []ocispec.Platform{{}}
	}
	return platforms, nil
}

// checkSeveral refuses outputs that cannot hold images for several platforms, before
// they are built.
func checkSeveral(outputs []buildOutput) error {
	if len(outputs) == 0 {
		outputs = []buildOutput{{kind: "docker"}}
	}
	for _, out := range outputs {
		switch out.kind {
		case "local", "oci", "registry", "cacheonly":
		default:
			return &statusError{
				status: statusFailed, err: fmt.Errorf("%s exporter does not currently support exporting manifest lists", out.kind),
				hint: "add --push or --output type=oci,dest=FILE, or build for one platform at a time",
			}
		}
	}
	return nil
}

// buildEach builds for one platform after the other. Of several images, none gets a
// name here: a name stands for one.
func buildEach(ctx context.Context, home *container.Home, b build.Options, platforms []ocispec.Platform, printer *buildPrinter) ([]build.Result, error) {
	var results []build.Result
	for _, p := range platforms {
		b.Platform = p
		if len(platforms) > 1 {
			b.Names = nil
			printer.begin(platformName(p))
		}
		r, err := build.Build(ctx, home, b)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}

// localDest is the directory for a platform's files, as BuildKit names it.
func localDest(dest string, r build.Result, several bool) string {
	if !several {
		return dest
	}
	return filepath.Join(dest, strings.ReplaceAll(platformName(r.Image.Config.Platform), "/", "_"))
}

// pushIndex pushes the images and an index of them, which gets the tag.
func pushIndex(ctx context.Context, c *client, home *container.Home, results []build.Result, tag string) error {
	ref, err := c.reference(tag)
	if err != nil {
		return err
	}
	d, index, err := build.Index(results)
	if err != nil {
		return err
	}
	root, err := reference.ParseDigest(d.Digest.String())
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sbx-index-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	blobs := filepath.Join(dir, "blobs", d.Digest.Algorithm().String())
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(blobs, d.Digest.Encoded()), index, 0o600); err != nil {
		return err
	}
	repository, holders, err := c.destination(home, ref, ocispec.Platform{})
	if err != nil {
		return err
	}
	defer repository.Close()
	_, err = repository.Push(ctx, ref, root, build.LayoutBlobs{Dir: dir, Store: home.Store}, fetch.PushOptions{Holders: holders})
	return err
}
