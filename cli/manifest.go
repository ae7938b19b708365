// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

// manifestGroup has the commands on manifests and manifest lists.
func manifestGroup() command {
	return command{name: "manifest", summary: "Manage image manifests and manifest lists", commands: []command{
		{name: "annotate", summary: "Add additional information to a local image manifest", usage: "[OPTIONS] MANIFEST_LIST MANIFEST", min: 2, max: 2, bind: bindAnnotate},
		{name: "create", summary: "Create a local manifest list for annotating and pushing to a registry", usage: "[OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]", min: 2, max: -1, bind: bindCreateList},
		{name: "inspect", summary: "Display an image manifest, or manifest list", usage: "[OPTIONS] [MANIFEST_LIST] MANIFEST", min: 1, max: 2, bind: bindInspectManifest},
		{name: "push", summary: "Push a manifest list to a repository", usage: "[OPTIONS] MANIFEST_LIST", min: 1, max: 1, bind: bindPushList},
		{name: "rm", summary: "Delete one or more manifest lists from local storage", usage: "MANIFEST_LIST [MANIFEST_LIST...]", min: 1, max: -1, bind: func() ([]option, action) { return nil, removeLists }},
	}}
}

// savedEntry is an image of a manifest list that is being put together.
type savedEntry struct {
	Ref        string
	Descriptor ocispec.Descriptor
	Body       []byte // its digest is the descriptor's
}

func readList(st *store.Store, name string) ([]fetch.ListEntry, error) {
	data, err := st.List(name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("no such manifest: %s", familiar(name))
	}
	if err != nil {
		return nil, err
	}
	var saved []savedEntry
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, fmt.Errorf("read manifest list %s: %w", name, err)
	}
	var entries []fetch.ListEntry
	for _, s := range saved {
		ref, err := reference.Parse(s.Ref)
		if err != nil {
			return nil, fmt.Errorf("read manifest list %s: %w", name, err)
		}
		entries = append(entries, fetch.ListEntry{Ref: ref, Descriptor: s.Descriptor, Body: s.Body})
	}
	return entries, nil
}

func saveList(ctx context.Context, st *store.Store, name string, entries []fetch.ListEntry) error {
	var saved []savedEntry
	for _, e := range entries {
		saved = append(saved, savedEntry{e.Ref.String(), e.Descriptor, e.Body})
	}
	data, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	return st.SaveList(ctx, name, data)
}

// withRepository opens the repository of a reference for f. insecure lets its registry
// speak plain http.
func (c *client) withRepository(ctx context.Context, ref reference.Ref, insecure bool, f func(context.Context, *fetch.Repository) error) error {
	return interruptible(ctx, func(ctx context.Context) error {
		options, err := c.fetchOptions(ocispec.Platform{})
		if err != nil {
			return err
		}
		if insecure {
			reach := options.Registries[ref.Domain]
			reach.Insecure = true
			options.Registries[ref.Domain] = reach
		}
		repository, err := fetch.OpenRepository(ref, options)
		if err != nil {
			return err
		}
		defer repository.Close()
		return f(ctx, repository)
	})
}

func insecureFlag(p *bool) option {
	return switchFlag(p, "insecure", "", "Allow communication with an insecure registry")
}

func bindCreateList() ([]option, action) {
	var amend, insecure bool
	options := []option{switchFlag(&amend, "amend", "a", "Amend an existing manifest list"), insecureFlag(&insecure)}
	return options, func(ctx context.Context, c *client, operands []string) error {
		return createList(ctx, c, operands[0], operands[1:], amend, insecure)
	}
}

func createList(ctx context.Context, c *client, typed string, images []string, amend, insecure bool) error {
	list, err := c.reference(typed)
	if err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	entries, err := readList(home.Store, list.String())
	if err == nil && !amend {
		return &usageError{text: "refusing to amend an existing manifest list with no --amend flag", path: "sbx manifest create"}
	}
	if err != nil {
		entries = nil
	}
	for _, image := range images {
		ref, err := c.reference(image)
		if err != nil {
			return err
		}
		var e fetch.ListEntry
		err = c.withRepository(ctx, ref, insecure, func(ctx context.Context, r *fetch.Repository) error {
			e, err = r.Entry(ctx, ref)
			return err
		})
		if err != nil {
			return err
		}
		entries = slices.DeleteFunc(entries, func(o fetch.ListEntry) bool { return o.Ref == ref })
		entries = append(entries, e)
	}
	if err := saveList(ctx, home.Store, list.String(), entries); err != nil {
		return err
	}
	c.print("Created manifest list %s\n", list)
	return nil
}

func bindAnnotate() ([]option, action) {
	var p ocispec.Platform
	options := []option{
		textFlag(&p.Architecture, "arch", "", "Set architecture"),
		textFlag(&p.OS, "os", "", "Set operating system"),
		listFlag(&p.OSFeatures, "os-features", "", "Set operating system feature"),
		textFlag(&p.OSVersion, "os-version", "", "Set operating system version"),
		textFlag(&p.Variant, "variant", "", "Set architecture variant"),
	}
	return options, func(ctx context.Context, c *client, operands []string) error {
		return annotate(ctx, c, operands[0], operands[1], p)
	}
}

func annotate(ctx context.Context, c *client, typed, image string, with ocispec.Platform) error {
	list, err := c.reference(typed)
	if err != nil {
		return err
	}
	ref, err := c.reference(image)
	if err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	entries, err := readList(home.Store, list.String())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(entries, func(e fetch.ListEntry) bool { return e.Ref == ref })
	if i < 0 {
		return fmt.Errorf("manifest for image %s does not exist in %s", image, typed)
	}
	p := entries[i].Descriptor.Platform
	if p == nil {
		p = &ocispec.Platform{}
		entries[i].Descriptor.Platform = p
	}
	p.Architecture, p.OS = or(with.Architecture, p.Architecture), or(with.OS, p.OS)
	p.Variant, p.OSVersion = or(with.Variant, p.Variant), or(with.OSVersion, p.OSVersion)
	p.OSFeatures = append(p.OSFeatures, with.OSFeatures...)
	if _, err := fetch.ParsePlatform(p.OS + "/" + p.Architecture); err != nil {
		return err
	}
	return saveList(ctx, home.Store, list.String(), entries)
}

func bindPushList() ([]option, action) {
	var purge, insecure bool
	options := []option{insecureFlag(&insecure), switchFlag(&purge, "purge", "p", "Remove the local manifest list after push")}
	return options, func(ctx context.Context, c *client, operands []string) error {
		return pushList(ctx, c, operands[0], purge, insecure)
	}
}

func pushList(ctx context.Context, c *client, typed string, purge, insecure bool) error {
	list, err := c.reference(typed)
	if err != nil {
		return err
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	entries, err := readList(home.Store, list.String())
	if err != nil {
		return err
	}
	err = c.withRepository(ctx, list, insecure, func(ctx context.Context, r *fetch.Repository) error {
		d, err := r.PushList(ctx, list, entries, func(ref, digest string) {
			c.print("Pushed ref %s with digest: %s\n", ref, digest)
		})
		if err == nil {
			c.print("%s\n", d.Digest)
		}
		return err
	})
	if err == nil && purge {
		err = home.Store.RemoveList(list.String())
	}
	return err
}

func removeLists(ctx context.Context, c *client, operands []string) error {
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, typed := range operands {
		list, err := c.reference(typed)
		if err == nil {
			err = home.Store.RemoveList(list.String())
		}
		if errors.Is(err, store.ErrNotFound) {
			err = fmt.Errorf("no such manifest: %s", typed)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func bindInspectManifest() ([]option, action) {
	var verbose, insecure bool
	options := []option{insecureFlag(&insecure), switchFlag(&verbose, "verbose", "v", "Output additional info including layers and platform")}
	return options, func(ctx context.Context, c *client, operands []string) error {
		return inspectManifest(ctx, c, operands, verbose, insecure)
	}
}

// inspectManifest shows a manifest of a registry; with two operands, one of a list that is
// being put together; with the name of such a list, the list.
func inspectManifest(ctx context.Context, c *client, operands []string, verbose, insecure bool) error {
	ref, err := c.reference(operands[len(operands)-1])
	if err != nil {
		return err
	}
	list := ref
	if len(operands) == 2 {
		if list, err = c.reference(operands[0]); err != nil {
			return err
		}
	}
	home, err := c.open(ctx, "")
	if err != nil {
		return err
	}
	entries, err := readList(home.Store, list.String())
	switch {
	case err == nil && len(operands) == 2:
		i := slices.IndexFunc(entries, func(e fetch.ListEntry) bool { return e.Ref == ref })
		if i < 0 {
			return fmt.Errorf("no such manifest: %s in %s", operands[1], operands[0])
		}
		return c.showManifest(entries[i:i+1], entries[i].Body, verbose)
	case err == nil:
		body, err := fetch.FormatList(entries)
		if err != nil {
			return err
		}
		return c.showManifest(entries, body, verbose)
	case len(operands) == 2:
		return err
	}
	return c.withRepository(ctx, ref, insecure, func(ctx context.Context, r *fetch.Repository) error {
		if verbose {
			entries, err := r.Images(ctx, ref)
			if err != nil {
				return err
			}
			return c.showManifest(entries, nil, true)
		}
		_, body, err := r.Manifest(ctx, ref)
		if err != nil {
			return err
		}
		return c.showManifest(nil, body, false)
	})
}

// verboseManifest is what --verbose shows, in Docker's words.
type verboseManifest struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

func (c *client) showManifest(entries []fetch.ListEntry, body []byte, verbose bool) error {
	if verbose {
		var all []verboseManifest
		for _, e := range entries {
			v := verboseManifest{Ref: e.Ref.String(), Descriptor: e.Descriptor}
			if e.Descriptor.MediaType == ocispec.MediaTypeImageManifest {
				v.OCIManifest = e.Body
			} else {
				v.SchemaV2Manifest = e.Body
			}
			all = append(all, v)
		}
		var shown any = all
		if len(all) == 1 {
			shown = all[0]
		}
		var err error
		if body, err = json.Marshal(shown); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", "\t"); err != nil {
		return err
	}
	c.document(b.String() + "\n")
	return nil
}
