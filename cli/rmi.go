// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sbx/container"
	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

func rmiCommand() command {
	return command{
		name: "rmi", summary: "Remove one or more images",
		usage: "[OPTIONS] IMAGE [IMAGE...]", forms: []string{"sbx image rm", "sbx image remove", "sbx rmi"},
		min: 1, max: -1,
		bind: func() ([]option, action) {
			o := &rmiOptions{}
			return o.flags(), o.run
		},
	}
}

type rmiOptions struct {
	force, noPrune bool
}

func (o *rmiOptions) flags() []option {
	return []option{
		switchFlag(&o.force, "force", "f", "Force removal of the image"),
		switchFlag(&o.noPrune, "no-prune", "", "Do not delete untagged parents"),
	}
}

func (o *rmiOptions) run(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	failed := false
	for _, name := range operands {
		err := o.remove(ctx, c, home, name)
		if err != nil {
			c.report(named("rmi "+name, err))
		}
		// What is not there is as good as removed to somebody who forces it.
		failed = failed || err != nil && !(o.force && errors.Is(err, store.ErrNotFound))
	}
	if failed {
		return exited(statusFailed)
	}
	return nil
}

// remove removes one image. A name of several is only taken away, as on Docker;
// the last takes the image with it.
func (o *rmiOptions) remove(ctx context.Context, c *client, home *container.Home, typed string) error {
	img, err := findImage(home.Store, typed)
	if err != nil {
		return err
	}
	names, err := home.Store.Names(img.ID)
	if err != nil {
		return err
	}
	byName := isNameOf(img, typed)
	var removed []store.Removed
	if byName && len(names) > 1 {
		removed, err = home.Store.Untag(ctx, img.Name)
	} else if err = o.checkUse(home, img, names, byName, typed); err == nil {
		removed, err = removeImage(ctx, home, img)
	}
	for _, r := range removed {
		if r.Untagged != "" {
			c.print("Untagged: %s\n", printable(familiar(r.Untagged)))
		} else {
			c.print("Deleted: %s\n", r.Deleted)
		}
	}
	return err
}

func removeImage(ctx context.Context, home *container.Home, img store.Image) ([]store.Removed, error) {
	keep, err := home.Roots()
	if err != nil {
		return nil, err
	}
	return home.Store.Remove(ctx, img.ID, keep)
}

// isNameOf reports whether typed is the image's name, and not its ID or digest.
func isNameOf(img store.Image, typed string) bool {
	if location, ok := fetch.Locate(typed); ok {
		return locationName(location) == img.Name
	}
	names, err := namesOf(typed)
	return err == nil && slices.Contains(names, img.Name)
}

// familiar is a name as the user knows it.
func familiar(name string) string {
	if _, ok := fetch.Locate(name); ok {
		return name
	}
	ref, err := reference.Parse(name)
	if err != nil {
		return name
	}
	return shortRepository(ref) + strings.TrimPrefix(ref.Familiar(), ref.FamiliarName())
}

// checkUse refuses to remove an image that a container was made of, or that has
// names in several repositories, unless forced. One that runs cannot be forced.
func (o *rmiOptions) checkUse(home *container.Home, img store.Image, names []string, byName bool, typed string) error {
	what := "unable to delete " + shortID(img.ID.String())
	if byName {
		what = fmt.Sprintf("unable to remove repository reference %q", typed)
	}
	repositories := map[string]bool{}
	for _, name := range names {
		repository, _ := repositoryAndTag(name)
		repositories[repository] = true
	}
	if !byName && len(repositories) > 1 && !o.force {
		return &conflictError{what + " (must be forced) - image is referenced in multiple repositories", "name the one to take away, or use -f"}
	}
	list, err := home.List()
	if err != nil {
		return err
	}
	for _, ctr := range list {
		switch {
		case ctr.Config.ImageID != img.ID.String():
		case ctr.State.Status == container.Running:
			return &conflictError{fmt.Sprintf("%s (cannot be forced) - image is being used by running container %s", what, ctr.ShortID()), "sbx rm -f " + ctr.Config.Name + " ends and removes it"}
		case !o.force:
			return &conflictError{fmt.Sprintf("%s (must force) - container %s is using its referenced image %s", what, ctr.ShortID(), shortID(img.ID.String())), "remove the container (sbx rm " + ctr.Config.Name + "), or use -f"}
		}
	}
	return nil
}

// conflictError says why an image cannot be removed, in Docker's words.
type conflictError struct{ text, hint string }

func (e *conflictError) Error() string { return "conflict: " + e.text }

// Hint says what to do about it.
func (e *conflictError) Hint() string { return e.hint }
