// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

const (
	layoutFile = ocispec.ImageLayoutFile
	indexFile  = ocispec.ImageIndexFile
)

// layout is an OCI image layout, in a folder or in a tar.
type layout struct {
	members memberSet
	where   string // the path or URL, for messages
}

// index reads the layout's index.json.
func (l *layout) index() (*ocispec.Index, error) {
	body, err := readMember(l.members, indexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the OCI layout has no index.json")
	}
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(body, "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	if doc.index == nil {
		return nil, errors.New("index.json is not an index")
	}
	return doc.index, nil
}

// image finds the image of one platform in the layout.
func (l *layout) image(ctx context.Context, want ocispec.Platform) (*Image, error) {
	if err := l.checkVersion(); err != nil {
		return nil, err
	}
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	entries, err := oneImage(index.Manifests)
	if err != nil {
		return nil, err
	}
	d, body, err := l.choose(ctx, want, entries)
	if err != nil {
		return nil, err
	}
	return &Image{manifest: d, body: body, blobs: l}, nil
}

func (l *layout) checkVersion() error {
	body, err := readMember(l.members, layoutFile)
	if err != nil {
		return err
	}
	var version ocispec.ImageLayout
	if err := json.Unmarshal(body, &version); err != nil {
		return fmt.Errorf("parse oci-layout: %w", err)
	}
	if !strings.HasPrefix(version.Version, "1.") {
		return fmt.Errorf("the OCI layout has version %q, want 1.0.0", version.Version)
	}
	return nil
}

// choose finds the manifest among the entries of one image. index.json is the layout's
// table of contents and does not count as a level of the image's own index.
func (l *layout) choose(ctx context.Context, want ocispec.Platform, entries []ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	if len(entries) == 1 {
		d := entries[0]
		doc, body, err := l.load(ctx, d)
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		d = ocispec.Descriptor{MediaType: doc.mediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform, Annotations: d.Annotations}
		c := chooser{want: want, load: l.load}
		return c.choose(ctx, d, doc, body)
	}
	c := chooser{want: want, load: l.load}
	return c.choose(ctx, ocispec.Descriptor{}, document{index: &ocispec.Index{Manifests: entries}}, nil)
}

// oneImage returns the entries that make one image: all if they have one name or none,
// else those named latest. An image with a manifest for each of several platforms has
// several entries.
func oneImage(entries []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if len(entries) == 0 {
		return nil, errors.New("the layout holds no image")
	}
	var names, latest []string
	named := map[string][]ocispec.Descriptor{}
	same := true
	for _, d := range entries {
		name := d.Annotations[ocispec.AnnotationRefName]
		if named[name] == nil {
			names = append(names, name)
			if name == "latest" || strings.HasSuffix(name, ":latest") {
				latest = append(latest, name)
			}
		}
		named[name] = append(named[name], d)
		same = same && d.Digest == entries[0].Digest
	}
	switch {
	case same:
		return entries[:1], nil
	case len(names) == 1 && !collide(entries):
		return entries, nil
	case len(latest) == 1 && !collide(named[latest[0]]):
		return named[latest[0]], nil
	}
	return nil, severalImages(imageNames(entries))
}

// collide tells whether two entries claim one platform.
func collide(entries []ocispec.Descriptor) bool {
	var seen []string
	for _, d := range entries {
		if !isImageType(d.MediaType) && !isIndexType(d.MediaType) {
			continue
		}
		p := "any"
		if d.Platform != nil {
			p = platformString(normalize(*d.Platform))
		}
		if slices.Contains(seen, p) && p != "unknown/unknown" {
			return true
		}
		seen = append(seen, p)
	}
	return false
}

func imageNames(entries []ocispec.Descriptor) []string {
	var names []string
	for _, d := range entries {
		name := d.Annotations[ocispec.AnnotationRefName]
		if name == "" {
			name = string(d.Digest)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func severalImages(names []string) error {
	const most = 20
	if len(names) > most {
		names = append(slices.Clone(names[:most]), "...")
	}
	return &hinted{
		text: "it holds several images: " + strings.Join(names, ", "),
		hint: "copy the one that is meant into a layout of its own, or tag it latest",
	}
}

// load reads and verifies a manifest among the blobs.
func (l *layout) load(_ context.Context, d ocispec.Descriptor) (document, []byte, error) {
	digest, err := reference.ParseDigest(string(d.Digest))
	if err != nil {
		return document{}, nil, err
	}
	s, err := l.blob(digest, d.Size)
	if err != nil {
		return document{}, nil, err
	}
	defer s.Close()
	if d.Size > maxManifest {
		return document{}, nil, fmt.Errorf("the manifest %s is larger than %d MiB", digest, maxManifest>>20)
	}
	body, err := io.ReadAll(s)
	if err != nil {
		return document{}, nil, err
	}
	if err := verify(body, digest); err != nil {
		return document{}, nil, err
	}
	doc, err := parseDocument(body, d.MediaType)
	return doc, body, err
}

// blob opens a blob and compares its size.
func (l *layout) blob(digest reference.Digest, size int64) (*section, error) {
	name := "blobs/" + digest.Algorithm() + "/" + digest.Hex()
	s, err := l.members.member(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the layout has no blob %s", digest)
	}
	if err != nil {
		return nil, err
	}
	if s.Size() != size {
		s.Close()
		return nil, fmt.Errorf("%s has %d bytes, its descriptor says %d", name, s.Size(), size)
	}
	return s, nil
}

func (l *layout) open(_ context.Context, d ocispec.Descriptor, digest reference.Digest, offset int64) (io.ReadCloser, error) {
	s, err := l.blob(digest, d.Size)
	if err != nil {
		return nil, err
	}
	if _, err := s.Seek(offset, io.SeekStart); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (l *layout) fail(op string, err error) error { return localError(op+" in "+l.where, err) }
func (l *layout) close() error                    { return l.members.close() }
