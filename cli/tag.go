// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"sbx/bases"
	"sbx/fetch"
	"sbx/reference"
)

func tagCommand() command {
	return command{
		name: "tag", summary: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", forms: []string{"sbx image tag", "sbx tag"},
		min: 2, max: 2,
		bind: func() ([]option, action) { return nil, tag },
	}
}

func tag(ctx context.Context, c *client, operands []string) error {
	name, err := tagName(operands[1])
	if err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	img, err := findImage(home.Store, operands[0])
	if err != nil {
		return named("tag "+operands[0], err)
	}
	from := img.Name
	if from == "" {
		from = string(img.Manifest.Digest)
	}
	return home.Store.Tag(ctx, from, name)
}

// tagName reads the name that an image is to have: one with a tag, and no digest.
func tagName(typed string) (string, error) {
	if _, ok := fetch.Locate(typed); ok || typed == bases.HostName {
		return "", fmt.Errorf("invalid reference format: %q is no name for an image", typed)
	}
	ref, err := reference.Parse(typed)
	if err != nil {
		return "", err
	}
	if !ref.Digest.IsZero() {
		return "", fmt.Errorf("refusing to create a tag with a digest reference: %s", typed)
	}
	return ref.String(), nil
}
