// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	godigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
	"sbx/store"
)

// The steps of a build can be carried to another machine as an OCI image: its layers
// are those of the steps, and its config says, beside what every config does, which
// key has which layer. Registries and other tools take it for an image like any
// other.

// cacheConfig is the config of such an image.
type cacheConfig struct {
	ocispec.Platform
	RootFS ocispec.RootFS `json:"rootfs"`
	Cache  []CachedStep   `json:"io.sbx.build.cache.v1"`
}

// CachedStep is a step of a build with the layer that it made.
type CachedStep struct {
	Key reference.Digest `json:"key"`
	store.StepLayer
}

// maxCacheDocument is what is read of a cache's config.
const maxCacheDocument = 4 << 20

// use notes that a step was part of this build.
func (b *builder) use(key reference.Digest, l store.StepLayer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.ContainsFunc(b.used, func(s CachedStep) bool { return s.Key == key }) {
		b.used = append(b.used, CachedStep{key, l})
	}
}

// InImage are the steps whose layers the image of the result has, or that have none.
func (r *Result) InImage() []CachedStep {
	return slices.DeleteFunc(slices.Clone(r.Steps), func(s CachedStep) bool {
		return s.Layer.Entries > 0 && !slices.Contains(r.Image.Layers, s.Layer.DiffID)
	})
}

// WriteCache writes steps as an OCI layout with one image, and returns the digest of
// its manifest. What else is in the directory stays. Without a store the layout has no
// layers, for who has them already.
func WriteCache(ctx context.Context, st *store.Store, dir string, steps []CachedStep) (reference.Digest, error) {
	config := cacheConfig{Platform: machine(), RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []godigest.Digest{}}, Cache: steps}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return reference.Digest{}, err
	}
	for _, s := range steps {
		known := func(d ocispec.Descriptor) bool { return d.Digest == s.Layer.Blob.Digest }
		if s.Layer.Entries == 0 || slices.ContainsFunc(m.Layers, known) {
			continue
		}
		if st != nil {
			if err := copyBlob(ctx, st, blobs, s.Layer.Blob.Digest); err != nil {
				return reference.Digest{}, err
			}
		}
		m.Layers = append(m.Layers, s.Layer.Blob)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, godigest.Digest(s.Layer.DiffID.String()))
	}
	var err error
	if m.Config, err = writeDocument(blobs, ocispec.MediaTypeImageConfig, config); err != nil {
		return reference.Digest{}, err
	}
	top, err := writeDocument(blobs, m.MediaType, m)
	if err != nil {
		return reference.Digest{}, err
	}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{top}})
	if err == nil {
		err = replaceFile(filepath.Join(dir, ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	}
	if err == nil {
		err = replaceFile(filepath.Join(dir, ocispec.ImageIndexFile), index)
	}
	if err != nil {
		return reference.Digest{}, err
	}
	return reference.ParseDigest(string(top.Digest))
}

func copyBlob(ctx context.Context, st *store.Store, dir string, name godigest.Digest) error {
	digest, err := reference.ParseDigest(string(name))
	if err != nil {
		return err
	}
	to := filepath.Join(dir, digest.Hex())
	if _, err := os.Lstat(to); err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	from, err := st.Blob(digest)
	if err != nil {
		return err
	}
	defer from.Close()
	return replaceWith(to, from)
}

func writeDocument(dir, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: godigest.FromBytes(data), Size: int64(len(data))}
	return d, replaceFile(filepath.Join(dir, d.Digest.Encoded()), data)
}

func replaceFile(name string, data []byte) error { return replaceWith(name, bytes.NewReader(data)) }

// replaceWith writes a file that is never seen half-written.
func replaceWith(name string, content io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// LayoutBlobs are the blobs of a layout that has some documents, and what they name in
// the store.
type LayoutBlobs struct {
	Dir   string
	Store *store.Store
}

// Blob opens one.
func (c LayoutBlobs) Blob(d reference.Digest) (*os.File, error) {
	f, err := os.Open(filepath.Join(c.Dir, "blobs", strings.ReplaceAll(d.String(), ":", "/")))
	if errors.Is(err, os.ErrNotExist) {
		return c.Store.Blob(d)
	}
	return f, err
}

// Cache is what another machine's builds have left.
type Cache struct {
	source store.Source
	steps  map[reference.Digest]store.StepLayer
}

// errNoCache says that an image is not the cache of builds.
var errNoCache = errors.New("it holds no cache of builds")

// ReadCache reads which steps a cache has. Their layers come when they are needed, so
// that src must stay open for the build.
func ReadCache(ctx context.Context, src store.Source) (Cache, error) {
	_, data, err := src.Manifest(ctx)
	if err != nil {
		return Cache{}, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Cache{}, err
	}
	if m.Config.Size > maxCacheDocument {
		return Cache{}, fmt.Errorf("its config has more than %d bytes", maxCacheDocument)
	}
	r, err := src.Blob(ctx, m.Config, 0)
	if err != nil {
		return Cache{}, err
	}
	defer r.Close()
	if data, err = io.ReadAll(io.LimitReader(r, maxCacheDocument)); err != nil {
		return Cache{}, err
	}
	if got := godigest.Digest(reference.SHA256(sha256.Sum256(data)).String()); got != m.Config.Digest {
		return Cache{}, fmt.Errorf("its config has the digest %s, want %s", got, m.Config.Digest)
	}
	var config cacheConfig
	if err := json.Unmarshal(data, &config); err != nil || len(config.Cache) == 0 {
		return Cache{}, errNoCache
	}
	c := Cache{source: src, steps: map[reference.Digest]store.StepLayer{}}
	for _, s := range config.Cache {
		c.steps[s.Key] = s.StepLayer
	}
	return c, nil
}

// imported looks a key up in the caches of --cache-from. A layer is unpacked and kept
// like one that was made here.
func (b *builder) imported(ctx context.Context, below snapshot, key reference.Digest) (store.StepLayer, bool) {
	for _, c := range b.CacheFrom {
		l, ok := c.steps[key]
		if !ok {
			continue
		}
		if l.Layer.Entries > 0 {
			if err := b.takeLayer(ctx, below, c, l.Layer); err != nil {
				continue // the step is made here, then
			}
		}
		if b.home.Store.CacheLayer(key, l) == nil {
			return l, true
		}
	}
	return store.StepLayer{}, false
}

func (b *builder) takeLayer(ctx context.Context, below snapshot, c Cache, l store.Layer) error {
	if whole, err := b.draft.Keep(ctx, l); whole || err != nil {
		return err // it is unpacked when it is first looked at
	}
	r, err := c.source.Blob(ctx, l.Blob, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := b.draft.AddTar(ctx, r, below.diffIDs(), store.PullOptions{})
	if err == nil && (got.DiffID != l.DiffID || got.Blob.Digest != l.Blob.Digest) {
		err = fmt.Errorf("layer %s is not what the cache says", l.Blob.Digest)
	}
	return err
}
