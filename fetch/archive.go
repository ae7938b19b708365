// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"sbx/reference"
)

// Archive is a file or folder with images in it: what docker save or podman save writes,
// or an OCI layout.
type Archive struct {
	Images  []Archived
	closers []func() error
}

// Archived is one of the images of an archive, with the names that it has there.
type Archived struct {
	Names []string // canonical references; none if it has none
	Image *Image
}

// Close releases the files. The images cannot be read any more.
func (a *Archive) Close() error {
	var errs []error
	for _, c := range a.closers {
		errs = append(errs, c())
	}
	a.closers = nil
	return errors.Join(errs...)
}

// annotationName is where containerd and Docker keep the whole name of an image.
const annotationName = "io.containerd.image.name"

// OpenArchive opens all images in the archive at path, or in f if that is set: then path
// is what messages call it. An archive may be compressed; what cannot be read at any place,
// a pipe, is copied to a temporary file first. Of an image for several platforms
// o.Platform is chosen. Errors are *Error.
func OpenArchive(ctx context.Context, path string, f *os.File, o Options) (*Archive, error) {
	o = o.withDefaults()
	a := &Archive{}
	err := a.open(ctx, path, f, o)
	if err != nil {
		_ = a.Close()
		return nil, localError("open "+path, err)
	}
	return a, nil
}

func (a *Archive) open(ctx context.Context, path string, f *os.File, o Options) error {
	if f == nil {
		var err error
		// O_NONBLOCK: a named pipe must not hold us up before we know that it is one.
		if f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		a.closers = append(a.closers, f.Close)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		l := &layout{members: &folder{dir: f}, where: path}
		return a.fromLayout(ctx, l, nil, o)
	}
	flat, err := a.flat(ctx, f, info.Mode(), o)
	if err != nil {
		return err
	}
	b, err := indexTar(flat)
	if err != nil {
		return err
	}
	var images []savedImage
	if b.has(saveFile) {
		body, err := readMember(b, saveFile)
		if err != nil {
			return err
		}
		images, _ = parseSave(body)
	}
	switch {
	case b.has(layoutFile):
		return a.fromLayout(ctx, &layout{members: b, where: path}, images, o)
	case images != nil:
		return a.fromSave(ctx, b, path, images)
	}
	return &hinted{text: "it holds no image", hint: "a tar of a root filesystem is made an image by: sbx import " + path}
}

// flat returns the archive as a plain tar that can be read at any place.
func (a *Archive) flat(ctx context.Context, f *os.File, mode fs.FileMode, o Options) (*os.File, error) {
	if mode.IsRegular() {
		flat, err := flatten(ctx, f, o.TempDir)
		if err == nil && flat != f {
			a.closers = append(a.closers, flat.Close)
		}
		return flat, err
	}
	source := &keepError{r: &contextReader{ctx, f}}
	z, how, _, err := decompress(source)
	if err != nil {
		return nil, sniffError(source, how, err)
	}
	defer z.Close()
	data := &keepError{r: z}
	flat, err := spill(o.TempDir, data)
	if err != nil {
		if data.err != nil {
			err = sniffError(source, how, data.err)
		}
		return nil, err
	}
	a.closers = append(a.closers, flat.Close)
	return flat, nil
}

// borrowed is a place for blobs that somebody else closes.
type borrowed struct{ blobSource }

func (borrowed) close() error { return nil }

// fromSave takes the images that manifest.json lists.
func (a *Archive) fromSave(ctx context.Context, b *tarball, where string, images []savedImage) error {
	for _, entry := range images {
		s := &saved{tar: b, where: where}
		img, err := s.read(ctx, entry)
		if err != nil {
			return err
		}
		img.blobs = borrowed{s}
		a.Images = append(a.Images, Archived{Names: canonicalNames(entry.RepoTags), Image: img})
	}
	return nil
}

// fromLayout takes the images that index.json lists. Names are in its annotations, or in
// the manifest.json beside it, which names images by their configs.
func (a *Archive) fromLayout(ctx context.Context, l *layout, tags []savedImage, o Options) error {
	entries, err := l.entries()
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return errors.New("the layout holds no image")
	}
	for _, group := range images(entries) {
		d, body, err := l.choose(ctx, normalize(o.Platform), group)
		if err != nil {
			return err
		}
		a.add(&Image{manifest: d, body: body, blobs: borrowed{l}}, group, tags)
	}
	return nil
}

// add adds an image, or names to one that is there.
func (a *Archive) add(img *Image, entries []ocispec.Descriptor, tags []savedImage) {
	var names []string
	for _, d := range entries {
		if name := d.Annotations[annotationName]; name != "" {
			names = append(names, name)
		} else if name := d.Annotations[ocispec.AnnotationRefName]; strings.ContainsAny(name, ":/") {
			names = append(names, name)
		}
	}
	var m ocispec.Manifest
	if json.Unmarshal(img.body, &m) == nil {
		for _, t := range tags {
			if t.Config == "blobs/"+m.Config.Digest.Algorithm().String()+"/"+m.Config.Digest.Encoded() {
				names = append(names, t.RepoTags...)
			}
		}
	}
	names = canonicalNames(names)
	i := slices.IndexFunc(a.Images, func(o Archived) bool { return o.Image.manifest.Digest == img.manifest.Digest })
	if i < 0 {
		a.Images = append(a.Images, Archived{Names: names, Image: img})
		return
	}
	for _, name := range names {
		if !slices.Contains(a.Images[i].Names, name) {
			a.Images[i].Names = append(a.Images[i].Names, name)
		}
	}
}

// images parts the entries of a layout into those of one image each: entries of one name
// for different platforms are one image.
func images(entries []ocispec.Descriptor) [][]ocispec.Descriptor {
	var groups [][]ocispec.Descriptor
	at := map[string]int{}
	for _, d := range entries {
		name := d.Annotations[annotationName]
		if name == "" {
			name = d.Annotations[ocispec.AnnotationRefName]
		}
		i, ok := at[name]
		if ok && name != "" && !collide(append(slices.Clone(groups[i]), d)) {
			groups[i] = append(groups[i], d)
			continue
		}
		at[name] = len(groups)
		groups = append(groups, []ocispec.Descriptor{d})
	}
	return groups
}

// canonicalNames leaves out what is no name of an image with a tag.
func canonicalNames(list []string) []string {
	var names []string
	for _, name := range list {
		ref, err := reference.Parse(name)
		if err != nil || !ref.Digest.IsZero() || slices.Contains(names, ref.String()) {
			continue
		}
		names = append(names, ref.String())
	}
	return names
}

// entries reads the table of contents of a layout: the entries that can be images.
func (l *layout) entries() ([]ocispec.Descriptor, error) {
	if err := l.checkVersion(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errors.New("the folder is not an OCI layout")
		}
		return nil, err
	}
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
		isOther := d.MediaType != "" && !isImageType(d.MediaType) && !isIndexType(d.MediaType)
		return isOther || d.Platform != nil && d.Platform.OS == "unknown"
	}), nil
}
