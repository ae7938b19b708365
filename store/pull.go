// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// PullOptions steer Pull and Import. The zero value is ready for use.
type PullOptions struct {
	Progress func(Event) // is called by one goroutine at a time; may be nil
	Origin   string      // kept with the image: what tells that a file has changed
	// Root is what the name stands for at its registry: the digest of the index which the
	// image was chosen in, or the image's own. It is zero for what comes from no registry.
	Root reference.Digest
}

// Pull brings the image that src has into the store under name, a canonical reference, an
// absolute path or a URL. When it returns without an error the image is complete, unpacked
// for this rung, and durable; with one, name means what it meant before. Blobs and layers
// that are there are not fetched or unpacked again, and each is by one process only; what
// a killed one had downloaded is continued.
func (s *Store) Pull(ctx context.Context, name string, src Source, o PullOptions) (Image, error) {
	var img Image
	err := errors.New("the image has no name")
	if name != "" {
		img, err = s.pull(ctx, canonical(name), src, o)
	}
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", name, spaceError(err, s.dir, 0))
	}
	return img, nil
}

// Load is Pull of an image that has several names, or none.
func (s *Store) Load(ctx context.Context, names []string, src Source, o PullOptions) (Image, error) {
	first := ""
	if len(names) > 0 {
		first = canonical(names[0])
	}
	img, err := s.pull(ctx, first, src, o)
	if err != nil {
		return Image{}, spaceError(err, s.dir, 0)
	}
	for _, name := range names[min(1, len(names)):] {
		if err := s.Tag(ctx, string(img.Manifest.Digest), name); err != nil {
			return Image{}, err
		}
	}
	return img, nil
}

func (s *Store) pull(ctx context.Context, name string, src Source, o PullOptions) (Image, error) {
	hold, err := s.newLease(ctx)
	if err != nil {
		return Image{}, err
	}
	defer hold.release()
	desc, data, err := src.Manifest(ctx)
	if err != nil {
		return Image{}, err
	}
	top, m, err := readManifest(desc, data)
	if err != nil {
		return Image{}, fmt.Errorf("read manifest: %w", err)
	}
	blobs := []reference.Digest{top.digest, m.config.digest}
	for _, l := range m.layers {
		blobs = append(blobs, l.digest)
	}
	if err := hold.hold(ctx, blobs...); err != nil {
		return Image{}, err
	}
	diffIDs, err := s.pullConfig(ctx, src, m)
	if err != nil {
		return Image{}, fmt.Errorf("read config %s: %w", m.config.digest, err)
	}
	if err := hold.hold(ctx, layerIDs(diffIDs)...); err != nil {
		return Image{}, err
	}
	size, err := s.pullLayers(ctx, src, m.layers, diffIDs, newProgress(o.Progress))
	if err != nil {
		return Image{}, err
	}
	e := entry{MediaType: top.MediaType, Digest: top.digest, Size: top.Size, Notes: notes{Name: name, ID: m.config.digest, Unpack: size, Origin: o.Origin, Root: o.Root}}
	return s.finish(ctx, e, data, blobs)
}

// readManifest checks that the document is what its descriptor says, and an image's.
func readManifest(desc ocispec.Descriptor, data []byte) (descriptor, manifest, error) {
	d, err := parseDescriptor(desc)
	switch {
	case err != nil:
		return descriptor{}, manifest{}, err
	case len(data) > maxManifest:
		return descriptor{}, manifest{}, errTooLarge
	case int64(len(data)) != d.Size:
		return descriptor{}, manifest{}, &SizeError{Want: d.Size, Got: int64(len(data))}
	}
	if err := checkDigest(data, d.digest); err != nil {
		return descriptor{}, manifest{}, err
	}
	m, err := parseManifest(data, d.MediaType)
	if d.MediaType == "" {
		d.MediaType = ocispec.MediaTypeImageManifest
	}
	return d, m, err
}

// pullConfig fetches the config and returns its diff IDs, one for each layer.
func (s *Store) pullConfig(ctx context.Context, src Source, m manifest) ([]reference.Digest, error) {
	data, err := s.fetchDocument(ctx, src, m.config)
	if err != nil {
		return nil, err
	}
	_, diffIDs, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	if len(diffIDs) != len(m.layers) {
		return nil, fmt.Errorf("it has %d diff IDs for %d layers", len(diffIDs), len(m.layers))
	}
	return diffIDs, nil
}

// finish stores the manifest and gives the image its name, everything else being there.
func (s *Store) finish(ctx context.Context, e entry, data []byte, blobs []reference.Digest) (Image, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	if err := s.putDocument(ctx, e.Digest, data); err != nil {
		return Image{}, fmt.Errorf("store manifest: %w", err)
	}
	if err := s.syncBlobs(blobs); err != nil {
		return Image{}, fmt.Errorf("sync blobs: %w", err)
	}
	e.Notes.Pulled = time.Now().UTC().Format(time.RFC3339)
	if err := s.record(ctx, e); err != nil {
		return Image{}, fmt.Errorf("write index: %w", err)
	}
	return s.load(e)
}
