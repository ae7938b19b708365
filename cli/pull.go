// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"sbx/bases"
	"sbx/fetch"
	"sbx/reference"
)

func pullCommand() command {
	return command{
		name: "pull", summary: "Download an image from a registry",
		usage: "[OPTIONS] NAME[:TAG|@DIGEST]", forms: []string{"sbx image pull", "sbx pull"},
		min: 1, max: 1,
		bind: func() ([]option, action) {
			o := &pullOptions{}
			return o.flags(), o.run
		},
	}
}

type pullOptions struct {
	image   imageFlags
	allTags bool
	ignored bool
}

func (o *pullOptions) flags() []option {
	trust := switchFlag(&o.ignored, "disable-content-trust", "", "")
	trust.hidden = true
	return []option{
		switchFlag(&o.allTags, "all-tags", "a", "Download all tagged images in the repository"), trust,
		textFlag(&o.image.platform, "platform", "", "Choose the image of this platform (os/architecture[/variant])"),
		switchFlag(&o.image.quiet, "quiet", "q", "Suppress verbose output"),
		rungFlag(&o.image.rung),
	}
}

func (o *pullOptions) run(ctx context.Context, c *client, operands []string) error {
	typed := operands[0]
	if err := o.pull(ctx, c, typed); err != nil {
		return inContext("pull", typed, err)
	}
	return nil
}

func (o *pullOptions) pull(ctx context.Context, c *client, typed string) error {
	if typed == bases.HostName {
		return &usageError{text: fmt.Sprintf("pull %s: this image is made of the machine's own programs", typed), hint: "there is nothing to pull: sbx run host sh"}
	}
	location, isLocation := fetch.Locate(typed)
	var ref reference.Ref
	if !isLocation {
		var err error
		if ref, err = c.reference(typed); err != nil {
			return err
		}
	}
	home, err := c.open(ctx, o.image.rung)
	if err != nil {
		return err
	}
	o.image.pull = pullAlways
	r, err := newResolver(c, home, o.image, c.out)
	if err != nil {
		return err
	}
	if o.allTags {
		return o.pullAll(ctx, c, r, typed, ref, isLocation)
	}
	if isLocation {
		r.progress = c.err // what Docker has no words for is not asked for
		img, err := r.located(ctx, location)
		if err == nil {
			c.print("%s\n", printable(img.Name))
		}
		return err
	}
	if !o.image.quiet && ref.Tag == "latest" && !strings.HasSuffix(typed, ":latest") {
		c.print("Using default tag: latest\n")
	}
	_, name, err := r.fetch(ctx, typed, ref)
	if err != nil {
		return err
	}
	c.print("%s\n", name)
	if _, err := home.Store.Image(ref.String()); err == nil && name != ref.String() {
		c.notice("%s is here, too, and is what %s means; this one is %s", ref, typed, name)
	}
	return nil
}

// pullAll pulls every tag of a repository. The first that fails ends it.
func (o *pullOptions) pullAll(ctx context.Context, c *client, r *resolver, typed string, ref reference.Ref, isLocation bool) error {
	if isLocation || strings.HasSuffix(typed, ":"+ref.Tag) || !ref.Digest.IsZero() {
		return &usageError{text: "tag can't be used with --all-tags/-a", path: "sbx pull"}
	}
	return interruptible(ctx, func(ctx context.Context) error {
		options, err := c.fetchOptions(r.platform)
		if err != nil {
			return err
		}
		repository, err := fetch.OpenRepository(ref, options)
		if err != nil {
			return err
		}
		defer repository.Close()
		tags, err := repository.Tags(ctx)
		if err != nil {
			return err
		}
		if len(tags) == 0 {
			return fmt.Errorf("%s has no tags", ref.FamiliarName())
		}
		anyFresh := false
		for _, tag := range tags {
			one, err := reference.Parse(ref.Name() + ":" + tag)
			if err != nil {
				return err
			}
			img, fresh, err := r.pullFrom(ctx, repository, one)
			if err == nil {
				err = r.checkPlatform(img)
			}
			if err != nil {
				return err
			}
			anyFresh = anyFresh || fresh
		}
		if !o.image.quiet {
			c.print("%s\n", pullStatus(anyFresh, ref.FamiliarName()))
		}
		c.print("%s\n", ref.Name())
		return nil
	})
}

// inContext puts "verb object" before an error that does not begin so already.
func inContext(verb, typed string, err error) error {
	var usage *usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), verb+" ") {
		return err
	}
	return named(verb+" "+typed, err)
}
