// SPDX-License-Identifier: Apache-2.0

package build

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
	"sbx/store"
)

// resultJob packs the whole tree of a result.
func resultJob(st *store.Store, r Result) packJob {
	return packJob{
		Dest:    "/",
		From:    tree{Lower: r.Layers, Owners: store.OwnersFiles(r.Layers), Recorded: !st.Rung().IsMapped()},
		Sources: []packSource{{Path: "/", Exact: true}},
	}
}

// ExportTar writes the files of a result as one tar, owners included.
func ExportTar(ctx context.Context, st *store.Store, r Result, w io.Writer) error {
	return packByRole(ctx, st.Rung(), w, resultJob(st, r))
}

// ExportDir writes the files of a result into a directory, which is made if it
// is missing. They are the user's; devices, and links whose place is taken by a
// directory, are errors. No link that is there is followed.
func ExportDir(ctx context.Context, st *store.Store, r Result, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	pipeR, pipeW := io.Pipe()
	go func() { pipeW.CloseWithError(ExportTar(ctx, st, r, pipeW)) }()
	defer pipeR.Close()
	archive := tar.NewReader(pipeR)
	var dirs []*tar.Header
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, h)
		}
		if err := exportEntry(root, h, archive); err != nil {
			return fmt.Errorf("write %s: %w", h.Name, err)
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		name := entryName(dirs[i])
		if err := root.Chmod(name, os.FileMode(dirs[i].Mode)&os.ModePerm); err != nil {
			return err
		}
		_ = root.Chtimes(name, dirs[i].ModTime, dirs[i].ModTime)
	}
	return nil
}

func entryName(h *tar.Header) string {
	name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if name == "" {
		return "."
	}
	return name
}

func exportEntry(root *os.Root, h *tar.Header, content io.Reader) error {
	name := entryName(h)
	if name == "." {
		return nil
	}
	if h.Typeflag != tar.TypeDir {
		if err := root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err := root.Mkdir(name, 0o700)
		if errors.Is(err, os.ErrExist) {
			if fi, statErr := root.Lstat(name); statErr == nil && fi.IsDir() {
				return root.Chmod(name, 0o700)
			}
		}
		return err
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(h.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if err = errors.Join(err, f.Chmod(os.FileMode(h.Mode)&os.ModePerm), f.Close()); err != nil {
			return err
		}
		return root.Chtimes(name, h.ModTime, h.ModTime)
	}
	return fmt.Errorf("a file of kind %q cannot be exported to a directory", h.Typeflag)
}

// dockerManifest is manifest.json of docker save's archives.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// ExportArchive writes an image as an OCI layout in a tar, which docker load
// takes, too: index.json and manifest.json stand beside each other. Images for several
// platforms are one index, which docker load knows nothing of.
func ExportArchive(_ context.Context, st *store.Store, results []Result, names []string, w io.Writer) error {
	a := &archiveWriter{tar: tar.NewWriter(w), store: st, written: map[string]bool{}}
	// Some readers give a directory that is not there an owner that they may not give.
	a.directory("blobs/")
	a.directory("blobs/sha256/")
	a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	top := results[0].Image.Manifest
	if len(results) > 1 {
		d, index, err := Index(results)
		if err != nil {
			return err
		}
		top = d
		a.file(blobName(d.Digest.String()), index)
	}
	var saved []dockerManifest
	for _, r := range results {
		m, err := a.image(r.Image.Manifest.Digest.String())
		if err != nil {
			return err
		}
		m.RepoTags = names
		saved = append(saved, m)
	}
	a.document("index.json", namedIndex(top, names))
	if len(results) == 1 {
		a.document("manifest.json", saved)
	}
	return errors.Join(a.err, a.tar.Close())
}

// namedIndex is the index.json of a layout that holds one image or index.
func namedIndex(top ocispec.Descriptor, names []string) ocispec.Index {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	if len(names) == 0 {
		index.Manifests = []ocispec.Descriptor{top}
	}
	for _, name := range names {
		d := top
		d.Annotations = map[string]string{"io.containerd.image.name": name}
		if ref, err := reference.Parse(name); err == nil {
			d.Annotations[ocispec.AnnotationRefName] = ref.Tag
		}
		index.Manifests = append(index.Manifests, d)
	}
	return index
}

// archiveWriter writes blobs into a tar, and remembers the first failure.
type archiveWriter struct {
	tar     *tar.Writer
	store   *store.Store
	written map[string]bool // digests
	err     error
}

// image writes a manifest and all that it names.
func (a *archiveWriter) image(manifest string) (dockerManifest, error) {
	data, err := a.read(manifest)
	if err != nil {
		return dockerManifest{}, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return dockerManifest{}, err
	}
	a.blob(manifest)
	a.blob(m.Config.Digest.String())
	saved := dockerManifest{Config: blobName(m.Config.Digest.String())}
	for _, l := range m.Layers {
		saved.Layers = append(saved.Layers, blobName(l.Digest.String()))
		a.blob(l.Digest.String())
	}
	return saved, a.err
}

func (a *archiveWriter) directory(name string) {
	if a.err == nil {
		a.err = a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: time.Unix(0, 0)})
	}
}

func (a *archiveWriter) document(name string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	a.file(name, data)
}

func blobName(digest string) string { return "blobs/" + strings.ReplaceAll(digest, ":", "/") }

func (a *archiveWriter) read(digest string) ([]byte, error) {
	d, err := reference.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	f, err := a.store.Blob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 32<<20))
}

func (a *archiveWriter) file(name string, data []byte) {
	a.entry(name, int64(len(data)), bytes.NewReader(data))
}

func (a *archiveWriter) entry(name string, size int64, r io.Reader) {
	if a.err != nil {
		return
	}
	a.err = a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
	if a.err == nil {
		_, a.err = io.Copy(a.tar, r)
	}
}

func (a *archiveWriter) blob(digest string) {
	if a.err != nil || a.written[digest] {
		return
	}
	a.written[digest] = true
	d, err := reference.ParseDigest(digest)
	if err != nil {
		a.err = err
		return
	}
	f, err := a.store.Blob(d)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		a.err = err
		return
	}
	a.entry(blobName(digest), fi.Size(), f)
}
