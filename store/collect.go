// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"sbx/reference"
)

// Roots are what containers need of the store, whatever the index says.
type Roots struct {
	Images []reference.Digest // IDs
	Layers []reference.Digest // diff IDs
}

// Collect removes blobs and layers that no image, no container and no running pull needs,
// and everything that dead processes left in tmp, partial downloads included.
func (s *Store) Collect(ctx context.Context, keep Roots) error {
	if err := s.collect(ctx, keep); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}

func (s *Store) collect(ctx context.Context, keep Roots) error {
	trash, err := s.sweep(ctx, keep)
	for _, st := range trash {
		err = errors.Join(err, st.discard(ctx, s))
	}
	return errors.Join(err, s.heal(ctx, true))
}

// sweep removes blobs, and moves layers out of the way for the caller to discard.
func (s *Store) sweep(ctx context.Context, keep Roots) ([]*stage, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := s.entries()
	if err != nil {
		return nil, err
	}
	needed, complete, err := s.mark(entries, keep)
	if err != nil {
		return nil, err
	}
	var errs []error
	// An image that cannot be read may need any blob: it might be pulled again for the
	// price of one of them.
	if complete {
		errs = append(errs, s.sweepBlobs(needed))
	}
	trash, err := s.sweepLayers(ctx, needed)
	return trash, errors.Join(append(errs, err)...)
}

// mark returns the digests of all blobs and layers that somebody needs. It is complete
// unless an image could not be read. The caller holds the lock of the index.
func (s *Store) mark(entries []entry, keep Roots) (needed map[reference.Digest]bool, complete bool, err error) {
	needed, complete = make(map[reference.Digest]bool), true
	for _, d := range keep.Layers {
		needed[d] = true
	}
	for _, e := range entries {
		if !s.markImage(needed, e) {
			complete = false
		}
	}
	if err := s.markSteps(needed); err != nil {
		return nil, false, err
	}
	return needed, complete, s.leased(needed)
}

// markImage marks what an image needs. It returns false when that is not all known.
func (s *Store) markImage(needed map[reference.Digest]bool, e entry) bool {
	needed[e.Digest] = true
	if !e.isImage() {
		return false // what another program put here may refer to anything
	}
	needed[e.Notes.ID] = true
	m, manifestErr := s.manifest(e.Digest, e.MediaType)
	for _, l := range m.layers {
		needed[l.digest] = true
	}
	img, configErr := s.load(e)
	for _, id := range layerIDs(img.Layers) {
		needed[id] = true
	}
	return manifestErr == nil && configErr == nil
}

func (s *Store) sweepBlobs(needed map[reference.Digest]bool) error {
	var errs []error
	for _, algorithm := range []string{"sha256", "sha512"} {
		names, err := os.ReadDir(s.path(blobsDir, algorithm))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, n := range names {
			d, err := reference.ParseDigest(algorithm + ":" + n.Name())
			if err == nil && !needed[d] {
				errs = append(errs, removeFile(s.blobPath(d)))
			}
		}
	}
	return errors.Join(errs...)
}

// sweepLayers moves unneeded layers of this rung to tmp.
func (s *Store) sweepLayers(ctx context.Context, needed map[reference.Digest]bool) ([]*stage, error) {
	names, err := os.ReadDir(s.path(layersDir, s.key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var trash []*stage
	var errs []error
	for _, n := range names {
		id, ok := layerID(n.Name())
		if !ok || needed[id] {
			continue
		}
		st, err := s.trashLayer(ctx, s.layerDir(id))
		if st != nil {
			trash = append(trash, st)
		}
		errs = append(errs, err)
	}
	return trash, errors.Join(errs...)
}
