// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

func saveCommand() command {
	return command{
		name: "save", summary: "Save one or more images to a tar archive (STDOUT by default)",
		usage: "[OPTIONS] IMAGE [IMAGE...]", forms: []string{"sbx image save", "sbx save"},
		min: 1, max: -1,
		bind: func() ([]option, action) {
			o := &saveOptions{}
			return o.flags(), o.run
		},
	}
}

type saveOptions struct{ output, platform string }

func (o *saveOptions) flags() []option {
	return []option{
		textFlag(&o.output, "output", "o", "Write to a file, instead of STDOUT"),
		textFlag(&o.platform, "platform", "", "Save only images of this platform (os/architecture[/variant])"),
	}
}

func (o *saveOptions) run(ctx context.Context, c *client, operands []string) error {
	if o.output == "" && isTerminal(c.out) {
		return errToTerminal
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	r := &resolver{flags: imageFlags{platform: o.platform}}
	if o.platform != "" {
		if r.platform, err = fetch.ParsePlatform(o.platform); err != nil {
			return err
		}
	}
	var images []fetch.SaveImage
	for _, typed := range operands {
		found, err := imagesToSave(home.Store, typed)
		if err != nil {
			return named("save "+typed, err)
		}
		for _, img := range found {
			if err := r.checkPlatform(img); err != nil {
				return named("save "+typed, err)
			}
			images = addToSave(images, img)
		}
	}
	return c.archive(ctx, o.output, func(ctx context.Context, w io.Writer) error {
		return fetch.SaveArchive(ctx, w, images, home.Store)
	})
}

// imagesToSave finds the image that typed names. A repository without a tag means
// all its tags, as on Docker.
func imagesToSave(st *store.Store, typed string) ([]store.Image, error) {
	img, err := findImage(st, typed)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err == nil && !isNameOf(img, typed) {
		img.Name = "" // an ID takes the image without its names
		return []store.Image{img}, nil
	}
	ref, refErr := reference.Parse(typed)
	_, isLocation := fetch.Locate(typed)
	if isLocation || refErr != nil || !ref.Digest.IsZero() || typed != ref.Name() && typed != ref.FamiliarName() {
		return []store.Image{img}, err
	}
	all, listErr := st.Images()
	if listErr != nil {
		return nil, listErr
	}
	var tags []store.Image
	for _, other := range all {
		if named, err := reference.Parse(other.Name); err == nil && named.Name() == ref.Name() && named.Tag != "" {
			tags = append(tags, other)
		}
	}
	if len(tags) == 0 {
		return []store.Image{img}, err
	}
	slices.SortFunc(tags, func(a, b store.Image) int { return strings.Compare(a.Name, b.Name) })
	return tags, nil
}

// addToSave adds an image, or a name to one that is among them.
func addToSave(images []fetch.SaveImage, img store.Image) []fetch.SaveImage {
	i := slices.IndexFunc(images, func(o fetch.SaveImage) bool { return o.Manifest.Digest == img.Manifest.Digest })
	if i < 0 {
		i = len(images)
		images = append(images, fetch.SaveImage{Manifest: img.Manifest, Created: created(img)})
	}
	ref, err := reference.Parse(img.Name)
	if _, isLocation := fetch.Locate(img.Name); err != nil || isLocation || ref.Tag == "" {
		return images // a file's or a digest's: nobody could load it as that
	}
	if !slices.Contains(images[i].Names, img.Name) {
		images[i].Names = append(images[i].Names, img.Name)
	}
	return images
}
