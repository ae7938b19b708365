// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// saveFile is the table of contents of docker save's archives.
const saveFile = "manifest.json"

// saved is an archive of docker save. It has no OCI manifest, so one is made: layers
// are named by their diff IDs, because they lie there as plain tars.
type saved struct {
	tar    *tarball
	where  string
	config []byte
	blobs  map[reference.Digest]string // member names; "" is the config
}

// savedImage is an entry of manifest.json.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// parseSave reads manifest.json; ok is false if it is some other file of that name.
func parseSave(body []byte) (images []savedImage, ok bool) {
	if json.Unmarshal(body, &images) != nil || len(images) == 0 {
		return nil, false
	}
	for _, i := range images {
		if i.Config == "" {
			return nil, false
		}
	}
	return images, true
}

// image makes the manifest of the archive's only image.
func (s *saved) image(ctx context.Context, images []savedImage) (*Image, error) {
	entry, err := oneSaved(images)
	if err != nil {
		return nil, err
	}
	return s.read(ctx, entry)
}

// read makes the manifest of one image.
func (s *saved) read(ctx context.Context, entry savedImage) (*Image, error) {
	var err error
	if s.config, err = readMember(s.tar, s.tar.resolve(entry.Config)); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(s.config, &config); err != nil {
		return nil, fmt.Errorf("parse config %s: %w", entry.Config, err)
	}
	if n := len(config.RootFS.DiffIDs); n != len(entry.Layers) || n > maxDescriptors {
		return nil, fmt.Errorf("the archive has %d layers, its config names %d", len(entry.Layers), n)
	}
	configDigest := digestOf(s.config, reference.Digest{})
	s.blobs = map[reference.Digest]string{configDigest: ""}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: wireDigest(configDigest), Size: int64(len(s.config))},
		Layers:    []ocispec.Descriptor{},
	}
	for i, name := range entry.Layers {
		d, err := s.layer(ctx, name, string(config.RootFS.DiffIDs[i]))
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
		m.Layers = append(m.Layers, d)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: wireDigest(digestOf(body, reference.Digest{})), Size: int64(len(body))}
	return &Image{manifest: d, body: body, blobs: s}, nil
}

// layer describes one layer. A plain one is its diff ID; some builders put compressed
// ones there, and those have to be hashed.
func (s *saved) layer(ctx context.Context, name, diffID string) (ocispec.Descriptor, error) {
	digest, err := reference.ParseDigest(diffID)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	name = s.tar.resolve(name)
	part, err := s.tar.member(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	head := make([]byte, 10)
	n, err := part.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return ocispec.Descriptor{}, err
	}
	mediaType := ocispec.MediaTypeImageLayer
	switch how := sniffCompression(head[:n]); how {
	case plain:
	case gzipped, zstandard:
		mediaType += "+" + string(how)
		if digest, err = hashAll(ctx, part); err != nil {
			return ocispec.Descriptor{}, err
		}
	default:
		return ocispec.Descriptor{}, fmt.Errorf("compressed by %s, which layers cannot be", how)
	}
	s.blobs[digest] = name
	return ocispec.Descriptor{MediaType: mediaType, Digest: wireDigest(digest), Size: part.Size()}, nil
}

func hashAll(ctx context.Context, r io.Reader) (reference.Digest, error) {
	h := sha256.New()
	if _, err := io.Copy(h, &contextReader{ctx, r}); err != nil {
		return reference.Digest{}, err
	}
	return reference.SHA256([32]byte(h.Sum(nil))), nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// oneSaved returns the only image, or the one that is tagged latest.
func oneSaved(images []savedImage) (savedImage, error) {
	if len(images) == 1 {
		return images[0], nil
	}
	var latest []savedImage
	var names []string
	for _, i := range images {
		if slices.ContainsFunc(i.RepoTags, func(tag string) bool { return strings.HasSuffix(tag, ":latest") }) {
			latest = append(latest, i)
		}
		if len(i.RepoTags) == 0 {
			names = append(names, i.Config)
		}
		names = append(names, i.RepoTags...)
	}
	if len(latest) == 1 {
		return latest[0], nil
	}
	return savedImage{}, severalImages(names)
}

func (s *saved) open(_ context.Context, d ocispec.Descriptor, digest reference.Digest, offset int64) (io.ReadCloser, error) {
	name, ok := s.blobs[digest]
	if !ok {
		return nil, errors.New("the archive has no such blob")
	}
	if name == "" {
		return io.NopCloser(io.NewSectionReader(strings.NewReader(string(s.config)), offset, int64(len(s.config))-offset)), nil
	}
	part, err := s.tar.member(name)
	if err != nil {
		return nil, err
	}
	if part.Size() != d.Size {
		return nil, fmt.Errorf("%s has %d bytes, its descriptor says %d", name, part.Size(), d.Size)
	}
	_, err = part.Seek(offset, io.SeekStart)
	return part, err
}

func (s *saved) fail(op string, err error) error { return localError(op+" in "+s.where, err) }
func (s *saved) close() error                    { return s.tar.close() }
