// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// SaveImage is an image that goes into an archive.
type SaveImage struct {
	Manifest ocispec.Descriptor
	Names    []string // canonical references; the archive may hold it without any
	Created  time.Time
}

// SaveArchive writes images as docker save does since version 25: an OCI layout that is
// also an archive of docker save, so that everybody's load can read it. Blobs keep their
// bytes, each stands there once, and the same images are the same archive.
func SaveArchive(ctx context.Context, w io.Writer, images []SaveImage, blobs BlobSource) error {
	a := &archiveWriter{ctx: ctx, tar: tar.NewWriter(w), blobs: blobs, written: map[reference.Digest]bool{}}
	if err := a.write(images); err != nil {
		return localError("save images", err)
	}
	return nil
}

// archiveWriter writes one archive.
type archiveWriter struct {
	ctx     context.Context
	tar     *tar.Writer
	blobs   BlobSource
	written map[reference.Digest]bool
	when    time.Time // of what is about all images
}

func (a *archiveWriter) write(images []SaveImage) error {
	a.when = time.Unix(0, 0).UTC()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	contents := []savedEntry{}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: a.when}); err != nil {
			return err
		}
	}
	for _, img := range images {
		entry, err := a.image(img)
		if err != nil {
			return err
		}
		contents = append(contents, entry)
		index.Manifests = append(index.Manifests, indexEntries(img)...)
	}
	for _, doc := range []struct {
		name string
		v    any
	}{{indexFile, index}, {saveFile, contents}, {layoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}} {
		data, err := json.Marshal(doc.v)
		if err == nil {
			err = a.document(doc.name, data, a.when)
		}
		if err != nil {
			return err
		}
	}
	return a.tar.Close()
}

// savedEntry is a savedImage as it is written: without names, RepoTags is null.
type savedEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// indexEntries are the lines of index.json about an image, one for each name.
func indexEntries(img SaveImage) []ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: img.Manifest.MediaType, Digest: img.Manifest.Digest, Size: img.Manifest.Size}
	if len(img.Names) == 0 {
		return []ocispec.Descriptor{d}
	}
	var list []ocispec.Descriptor
	for _, name := range img.Names {
		named := d
		named.Annotations = map[string]string{annotationName: name}
		if ref, err := reference.Parse(name); err == nil && ref.Tag != "" {
			named.Annotations[ocispec.AnnotationRefName] = ref.Tag
		}
		list = append(list, named)
	}
	return list
}

// image writes the blobs of an image, those first that others refer to.
func (a *archiveWriter) image(img SaveImage) (savedEntry, error) {
	when := img.Created
	if when.IsZero() {
		when = a.when
	}
	body, err := a.readAll(img.Manifest)
	if err != nil {
		return savedEntry{}, err
	}
	doc, err := parseDocument(body, img.Manifest.MediaType)
	if err == nil && doc.manifest == nil {
		err = errors.New("it is an index")
	}
	if err != nil {
		return savedEntry{}, fmt.Errorf("manifest %s: %w", img.Manifest.Digest, err)
	}
	entry := savedEntry{Config: blobName(doc.manifest.Config), Layers: []string{}}
	for _, name := range img.Names {
		if ref, err := reference.Parse(name); err == nil {
			entry.RepoTags = append(entry.RepoTags, ref.FamiliarName()+":"+ref.Tag)
		}
	}
	for _, d := range slices.Concat(doc.manifest.Layers, []ocispec.Descriptor{doc.manifest.Config}) {
		if err := a.blob(d, when); err != nil {
			return savedEntry{}, err
		}
	}
	for _, d := range doc.manifest.Layers {
		entry.Layers = append(entry.Layers, blobName(d))
	}
	return entry, a.blob(img.Manifest, when)
}

func blobName(d ocispec.Descriptor) string {
	return "blobs/" + strings.Replace(string(d.Digest), ":", "/", 1)
}

func (a *archiveWriter) readAll(d ocispec.Descriptor) ([]byte, error) {
	f, err := a.open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if d.Size > maxManifest {
		return nil, fmt.Errorf("the manifest %s is larger than %d MiB", d.Digest, maxManifest>>20)
	}
	return io.ReadAll(f)
}

// open opens a blob and compares its size.
func (a *archiveWriter) open(d ocispec.Descriptor) (*os.File, error) {
	digest, err := reference.ParseDigest(string(d.Digest))
	if err != nil {
		return nil, err
	}
	f, err := a.blobs.Blob(digest)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != d.Size {
		err = fmt.Errorf("blob %s: it has %d bytes, its descriptor says %d", digest, info.Size(), d.Size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// blob writes a blob that is not in the archive yet.
func (a *archiveWriter) blob(d ocispec.Descriptor, when time.Time) error {
	digest, err := reference.ParseDigest(string(d.Digest))
	if err != nil || a.written[digest] {
		return err
	}
	f, err := a.open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	a.written[digest] = true
	h := &tar.Header{Typeflag: tar.TypeReg, Name: blobName(d), Mode: 0o644, Size: d.Size, ModTime: when.Truncate(time.Second)}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{a.tar}, &contextReader{a.ctx, f}, make([]byte, 1<<20))
	return err
}

func (a *archiveWriter) document(name string, data []byte, when time.Time) error {
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: when}); err != nil {
		return err
	}
	_, err := a.tar.Write(data)
	return err
}
