// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/container"
	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

func pushCommand() command {
	return command{
		name: "push", summary: "Upload an image to a registry",
		usage: "[OPTIONS] NAME[:TAG]", forms: []string{"sbx image push", "sbx push"},
		min: 1, max: 1,
		bind: func() ([]option, action) {
			o := &pushOptions{}
			return o.flags(), o.run
		},
	}
}

type pushOptions struct {
	allTags, quiet, ignored bool
	platform                string
}

func (o *pushOptions) flags() []option {
	trust := switchFlag(&o.ignored, "disable-content-trust", "", "")
	trust.hidden = true
	return []option{
		switchFlag(&o.allTags, "all-tags", "a", "Push all tags of an image to the repository"), trust,
		textFlag(&o.platform, "platform", "", "Push the image only if it is of this platform (os/architecture[/variant])"),
		switchFlag(&o.quiet, "quiet", "q", "Suppress verbose output"),
	}
}

func (o *pushOptions) run(ctx context.Context, c *client, operands []string) error {
	typed := operands[0]
	if err := o.push(ctx, c, typed); err != nil {
		return inContext("push", typed, err)
	}
	return nil
}

func (o *pushOptions) push(ctx context.Context, c *client, typed string) error {
	ref, err := c.reference(typed)
	if err != nil {
		return err
	}
	hasTag := strings.HasSuffix(typed, ":"+ref.Tag)
	switch {
	case !ref.Digest.IsZero():
		return &usageError{text: "cannot push a digest reference", hint: "name a tag", path: "sbx push"}
	case o.allTags && hasTag:
		return &usageError{text: "tag can't be used with --all-tags/-a", path: "sbx push"}
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	images, err := o.images(home, ref)
	if err != nil {
		return err
	}
	platform := ocispec.Platform{}
	if o.platform != "" {
		if platform, err = fetch.ParsePlatform(o.platform); err != nil {
			return err
		}
	}
	repository, holders, err := c.destination(home, ref, platform)
	if err != nil {
		return err
	}
	defer repository.Close()
	if !o.quiet {
		c.print("The push refers to repository [%s]\n", ref.Name())
		if !hasTag && !o.allTags {
			c.print("Using default tag: latest\n")
		}
	}
	for _, img := range images {
		if err := o.checkPlatform(img, platform); err != nil {
			return err
		}
		to, err := reference.Parse(img.Name)
		if err != nil {
			return err
		}
		if err := o.pushOne(ctx, c, home, repository, to, img, holders); err != nil {
			return err
		}
	}
	return nil
}

// destination is where an image is pushed to, and which other repositories there may hold
// blobs of it.
func (c *client) destination(home *container.Home, ref reference.Ref, platform ocispec.Platform) (*fetch.Repository, map[reference.Digest][]string, error) {
	options, err := c.fetchOptions(platform)
	if err != nil {
		return nil, nil, err
	}
	holders, err := home.Store.Holders(ref.Domain)
	if err != nil {
		return nil, nil, err
	}
	repository, err := fetch.OpenRepository(ref, options)
	return repository, holders, err
}

// images are those to push: the one of the tag, or all of the repository.
func (o *pushOptions) images(home *container.Home, ref reference.Ref) ([]store.Image, error) {
	if !o.allTags {
		img, err := home.Store.Image(ref.String())
		if errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("an image does not exist locally with the tag: %s", ref.FamiliarName())
		}
		return []store.Image{img}, err
	}
	all, err := home.Store.Images()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(img store.Image) bool {
		other, err := reference.Parse(img.Name)
		return err != nil || other.Name() != ref.Name() || other.Tag == ""
	})
	if len(all) == 0 {
		return nil, fmt.Errorf("an image does not exist locally with the tag: %s", ref.FamiliarName())
	}
	slices.SortFunc(all, func(a, b store.Image) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (o *pushOptions) checkPlatform(img store.Image, want ocispec.Platform) error {
	r := &resolver{flags: imageFlags{platform: o.platform}, platform: want}
	return r.checkPlatform(img)
}

// pushOne pushes an image and prints what Docker does.
func (o *pushOptions) pushOne(ctx context.Context, c *client, home *container.Home, to *fetch.Repository, ref reference.Ref, img store.Image, holders map[reference.Digest][]string) error {
	root, err := reference.ParseDigest(string(img.Manifest.Digest))
	if err != nil {
		return err
	}
	blobs, err := home.Store.LayerBlobs(img)
	if err != nil {
		return err
	}
	shown := map[reference.Digest]reference.Digest{} // Docker calls layers by their diff IDs
	for i, b := range blobs {
		if i < len(img.Layers) {
			shown[b] = img.Layers[i]
		}
	}
	return interruptible(ctx, func(ctx context.Context) error {
		p := newProgress(c.out, o.quiet)
		defer p.end()
		d, err := to.Push(ctx, ref, root, home.Store, fetch.PushOptions{Holders: holders, Progress: func(e fetch.PushEvent) {
			p.event(store.Event{Digest: shown[e.Digest], Status: e.Status, Current: e.Current, Total: e.Total})
		}})
		if err != nil {
			return err
		}
		p.end()
		if o.quiet {
			c.print("%s\n", ref)
			return nil
		}
		c.print("%s: digest: %s size: %d\n", ref.Tag, d.Digest, d.Size)
		return nil
	})
}
