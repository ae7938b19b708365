// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sbx/reference"
)

// Removed is one line of what a removal did; one of its fields is set.
type Removed struct {
	Untagged string           // a name, or a repository with the digest it had
	Deleted  reference.Digest // an image's ID, or a layer's chain ID
}

// Untag takes a name away. An image that loses its last name is still listed and can be
// found by its ID. The error is ErrNotFound if nothing has the name.
func (s *Store) Untag(ctx context.Context, name string) ([]Removed, error) {
	name = canonical(name)
	var removed []Removed
	err := s.change(ctx, func(entries []entry) []entry {
		var gone, kept []entry
		for _, e := range entries {
			if e.Notes.Name == name {
				gone = append(gone, e)
				if !e.isImage() {
					continue
				}
				e.Notes.Name, e.Notes.Origin = "", ""
			}
			kept = append(kept, e)
		}
		removed = untaggedLines(gone, kept)
		return dropNameless(kept)
	}, nil)
	if err == nil && len(removed) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("untag %s: %w", name, err)
	}
	return removed, nil
}

// Remove takes all names of an image away and deletes it, with the blobs and layers that
// nobody else needs. An image that keep names stays, without a name. It returns what it
// did in Docker's order: names, the image, its own layers from the top. The error is
// ErrNotFound if there is no such image. It works on a full disk.
func (s *Store) Remove(ctx context.Context, id reference.Digest, keep Roots) ([]Removed, error) {
	removed, err := s.remove(ctx, id, keep)
	if err != nil {
		return removed, fmt.Errorf("remove image %s: %w", id, err)
	}
	return removed, nil
}

func (s *Store) remove(ctx context.Context, id reference.Digest, keep Roots) ([]Removed, error) {
	var gone, rest []entry
	makeRoom := func(after []entry) { s.makeRoom(ctx, after, keep) }
	err := s.change(ctx, func(entries []entry) []entry {
		gone, rest = nil, nil
		for _, e := range entries {
			if e.isImage() && e.Notes.ID == id {
				gone = append(gone, e)
				if !slices.Contains(keep.Images, id) {
					continue
				}
				e.Notes.Name, e.Notes.Origin = "", ""
			}
			rest = append(rest, e)
		}
		rest = dropNameless(rest)
		return rest
	}, makeRoom)
	if err != nil {
		return nil, err
	}
	if len(gone) == 0 {
		return nil, ErrNotFound
	}
	removed := untaggedLines(gone, nil)
	if slices.Contains(keep.Images, id) {
		return removed, nil
	}
	removed = append(removed, Removed{Deleted: id})
	removed = append(removed, s.ownChain(gone[0], rest)...)
	trash, err := s.sweep(ctx, keep)
	for _, st := range trash {
		if derr := st.discard(ctx, s); err == nil {
			err = derr
		}
	}
	return removed, err
}

// change updates the index under its lock.
func (s *Store) change(ctx context.Context, f func([]entry) []entry, makeRoom func([]entry)) error {
	if err := s.heal(ctx, false); err != nil {
		return err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.updateIndex(f, makeRoom)
}

// makeRoom removes layers that the entries do not need, so that a full disk can hold the
// index that says so. Should this process die before, they are unpacked again.
func (s *Store) makeRoom(ctx context.Context, entries []entry, keep Roots) {
	needed, _, err := s.mark(entries, keep)
	if err != nil {
		return
	}
	trash, _ := s.sweepLayers(ctx, needed)
	for _, st := range trash {
		_ = st.discard(ctx, s)
	}
	_ = s.heal(ctx, true)
}

// untaggedLines are the names that have gone, each followed by its repository with the
// digest when no other entry of that repository has it.
func untaggedLines(gone, kept []entry) []Removed {
	var lines []Removed
	for i, e := range gone {
		if e.Notes.Name == "" {
			continue
		}
		lines = append(lines, Removed{Untagged: e.Notes.Name})
		by := byDigest(e)
		same := func(o entry) bool { return byDigest(o) == by }
		last := !slices.ContainsFunc(gone[i+1:], same) && !slices.ContainsFunc(kept, same)
		if by != "" && by != e.Notes.Name && last {
			lines = append(lines, Removed{Untagged: by})
		}
	}
	return lines
}

// reservedDomain is of images that come from no registry: nobody can ask one for them by
// digest (DESIGN §9).
const reservedDomain = "base.sbx"

// byDigest is the name of a pulled image by its manifest's digest, or "".
func byDigest(e entry) string {
	ref, err := reference.Parse(e.Notes.Name)
	if err != nil || ref.Domain == reservedDomain || e.Notes.Origin != "" {
		return ""
	}
	if !e.Notes.Root.IsZero() {
		return ref.Name() + "@" + e.Notes.Root.String()
	}
	return ref.Name() + "@" + e.Digest.String()
}

// ownChain lists the layers of e that no other image has, as Docker does: chain IDs, from
// the top.
func (s *Store) ownChain(e entry, others []entry) []Removed {
	img, err := s.load(e)
	if err != nil {
		return nil
	}
	shared := make(map[reference.Digest]bool)
	for _, o := range others {
		if other, err := s.load(o); o.isImage() && err == nil {
			for _, id := range chainIDs(other.Layers) {
				shared[id] = true
			}
		}
	}
	var lines []Removed
	for _, id := range slices.Backward(chainIDs(img.Layers)) {
		if !shared[id] {
			lines = append(lines, Removed{Deleted: id})
		}
	}
	return lines
}

// Tag gives an image another name, or gives the name that another image has to it. from is
// a canonical name, an ID or a manifest's digest. The error is ErrNotFound if there is no
// such image.
func (s *Store) Tag(ctx context.Context, from, name string) error {
	err := s.tag(ctx, canonical(from), canonical(name))
	if err != nil {
		return fmt.Errorf("tag %s as %s: %w", from, name, err)
	}
	return nil
}

func (s *Store) tag(ctx context.Context, from, name string) error {
	if name == "" {
		return errors.New("the image has no name")
	}
	var found entry
	var err error
	changeErr := s.change(ctx, func(entries []entry) []entry {
		// Under the lock: what is in the index now cannot be collected meanwhile.
		if found, err = s.findName(from); err != nil {
			return entries
		}
		found.Notes.Name, found.Notes.Origin = name, ""
		found.Notes.Pulled = time.Now().UTC().Format(time.RFC3339)
		return named(entries, found)
	}, nil)
	return errors.Join(err, changeErr)
}
