// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	godigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/overlay"
	"sbx/reference"
)

// Draft is an image in the making, or several that share layers: a build, a commit. What
// it adds to the store is safe from garbage collection until Close; what no image has then
// may go. Its methods may be called by several goroutines.
type Draft struct {
	s    *Store
	hold *lease
}

// NewDraft begins one. It must be closed.
func (s *Store) NewDraft(ctx context.Context) (*Draft, error) {
	hold, err := s.newLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("make image: %w", err)
	}
	return &Draft{s, hold}, nil
}

// Close ends the draft, whether or not an image was made of it.
func (d *Draft) Close() { d.hold.release() }

// Keep makes sure that a layer that is in the store stays there until Close. It reports
// whether the layer is whole: its blob is there, so that an image can be made of it.
func (d *Draft) Keep(ctx context.Context, l Layer) (bool, error) {
	blob, err := reference.ParseDigest(string(l.Blob.Digest))
	if err == nil {
		err = d.hold.hold(ctx, blob, l.DiffID)
	}
	return err == nil && d.s.hasBlob(blob), err
}

// Layer is a layer in the store: the blob that goes into a manifest, and the tar in it.
type Layer struct {
	DiffID  reference.Digest   `json:"diffID"`
	Blob    ocispec.Descriptor `json:"blob"`
	Entries int64              `json:"entries"` // 0: it changes nothing
	Bytes   int64              `json:"bytes"`   // of file contents
}

// LayerOptions say how changes become a layer.
type LayerOptions struct {
	// Consume makes Changes.Dir the unpacked layer itself, where it can: it is moved into
	// the store, and gone. Nothing may use it any more. Otherwise, and where it could not be
	// moved, it stays, and the layer is unpacked from its blob when it is first needed.
	Consume bool

	// Epoch is the latest time of a file, as SOURCE_DATE_EPOCH says; zero: any.
	Epoch time.Time

	// Zstd compresses by zstd instead of gzip.
	Zstd bool
}

// AddChanges makes a layer of what was changed in a directory: the same changes give the
// same bytes, on every rung. It is compressed once, while it is read.
func (d *Draft) AddChanges(ctx context.Context, ch Changes, o LayerOptions) (Layer, error) {
	l, err := d.addChanges(ctx, ch, o)
	if err != nil {
		return Layer{}, fmt.Errorf("make layer: %w", spaceError(err, d.s.dir, 0))
	}
	return l, nil
}

func (d *Draft) addChanges(ctx context.Context, ch Changes, o LayerOptions) (Layer, error) {
	s := d.s
	f, err := createLocked(s.path(tmpDir, importPrefix))
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	p, err := newLayerWriter(f, o.Zstd)
	if err != nil {
		return Layer{}, err
	}
	settle := o.Consume && !ch.Tree
	answer, err := s.diff(ctx, ch, diffQuestion{Want: wantLayer, Clamp: o.Epoch, Settle: settle}, p)
	if err = errors.Join(err, p.Close()); err != nil {
		return Layer{}, err
	}
	l := p.layer()
	l.Entries, l.Bytes = answer.Entries, answer.Bytes
	blob, err := d.publish(ctx, f, l)
	if err != nil {
		return Layer{}, err
	}
	if settle {
		r := layerRecord{DiffID: l.DiffID, Blob: blob, Entries: l.Entries, Bytes: l.Bytes, bootRecord: s.boot()}
		if err := s.adopt(ctx, ch, r); err != nil {
			return Layer{}, err
		}
	}
	return l, nil
}

// publish gives the blob of a layer its final name. The layer is held from then on.
func (d *Draft) publish(ctx context.Context, f *os.File, l Layer) (reference.Digest, error) {
	blob, err := reference.ParseDigest(string(l.Blob.Digest))
	if err == nil {
		err = d.hold.hold(ctx, blob, l.DiffID)
	}
	if err != nil || d.s.hasBlob(blob) {
		return blob, err
	}
	if err := f.Sync(); err != nil {
		return blob, err
	}
	d.s.step("sync blob")
	return blob, d.s.publishBlob(f.Name(), blob)
}

// adopt makes a directory the unpacked layer that it was packed as, unless there is one. A
// directory that cannot be moved stays where it is.
func (s *Store) adopt(ctx context.Context, ch Changes, r layerRecord) error {
	if s.isUnpacked(r.DiffID) {
		return nil
	}
	st, err := s.openStage(ctx, randomName())
	if err != nil {
		return err
	}
	err = errors.Join(os.Remove(st.dir+"/"+rootDir), os.Rename(ch.Dir, st.dir+"/"+rootDir))
	if err == nil && ch.Owners != "" {
		var table overlay.Owners
		if table, err = overlay.ReadOwners(ch.Owners); err == nil {
			err = saveOwners(st.dir+"/"+ownersFile, table)
		}
	} else if err != nil {
		return st.discard(ctx, s) // another filesystem, or not the user's to move
	}
	if err == nil {
		err = st.publish(ctx, s, r.DiffID, r)
	}
	if err != nil {
		_ = st.discard(ctx, s)
	}
	return err
}

// AddTar makes a layer of a tar, compressed or not. Bytes that are gzip or zstd are kept as
// they are. It is unpacked at once, above the layers with the diff IDs in below, bottom
// first. An archive without entries is refused.
func (d *Draft) AddTar(ctx context.Context, r io.Reader, below []reference.Digest, o PullOptions) (Layer, error) {
	l, err := d.addTar(ctx, r, below, newProgress(o.Progress))
	if err != nil {
		return Layer{}, fmt.Errorf("make layer: %w", spaceError(err, d.s.dir, 0))
	}
	return l.Layer, nil
}

func (d *Draft) addTar(ctx context.Context, r io.Reader, below []reference.Digest, p *progress) (spooledLayer, error) {
	s := d.s
	f, err := createLocked(s.path(tmpDir, importPrefix))
	if err != nil {
		return spooledLayer{}, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	lower, err := s.layersBelow(below)
	if err != nil {
		return spooledLayer{}, err
	}
	st, err := s.openStage(ctx, randomName())
	if err != nil {
		return spooledLayer{}, err
	}
	l, err := s.spoolLayer(ctx, f, st, r, lower, p)
	if err == nil {
		_, err = d.publish(ctx, f, l.Layer)
	}
	if err == nil {
		id := l.DiffID
		if l.record.UsedLower {
			chain := chainIDs(append(append([]reference.Digest{}, below...), l.DiffID))
			id = chain[len(chain)-1]
			err = d.hold.hold(ctx, id)
		}
		if err == nil {
			err = st.publish(ctx, s, id, l.record)
		}
	}
	if err != nil {
		_ = st.discard(ctx, s)
		return spooledLayer{}, err
	}
	return l, nil
}

// layersBelow returns the directories of unpacked layers, topmost first.
func (s *Store) layersBelow(diffIDs []reference.Digest) ([]string, error) {
	lower := make([]string, len(diffIDs))
	for i := range diffIDs {
		id, ok := s.unpackedAs(diffIDs, i)
		if !ok {
			return nil, fmt.Errorf("layer %s below it was removed meanwhile", diffIDs[i])
		}
		lower[len(diffIDs)-1-i] = s.layerDir(id) + "/" + rootDir
	}
	return lower, nil
}

// NewImage is what an image is made of.
type NewImage struct {
	// Base is the image below; the zero value is none. Its layers keep their bytes.
	Base Image

	// Layers are put above it, bottom first.
	Layers []Layer

	// Config is the whole configuration. Its rootfs is written here, and so is its history:
	// that of Base and then what Config.History adds. What it lacks of a platform is Base's,
	// or this machine's.
	Config dockerspec.DockerOCIImage

	// Names are canonical references that the image gets. Without any it is listed as
	// <none>.
	Names []string

	origin string // as PullOptions has it
}

// Commit makes an image. When it returns without an error, the image is complete and
// durable. The ID is that of the same parts everywhere.
func (d *Draft) Commit(ctx context.Context, n NewImage) (Image, error) {
	img, err := d.commit(ctx, n)
	if err != nil {
		return Image{}, fmt.Errorf("make image: %w", spaceError(err, d.s.dir, 0))
	}
	return img, nil
}

func (d *Draft) commit(ctx context.Context, n NewImage) (Image, error) {
	s, config := d.s, n.Config
	var layers []ocispec.Descriptor
	if !n.Base.ID.IsZero() {
		base, err := reference.ParseDigest(string(n.Base.Manifest.Digest))
		if err != nil {
			return Image{}, err
		}
		m, err := s.manifest(base, n.Base.Manifest.MediaType)
		if err != nil {
			return Image{}, damaged(err)
		}
		for _, l := range m.layers {
			layers = append(layers, layerOf(l.Descriptor))
		}
		if config.OS == "" || config.Architecture == "" {
			config.Platform = n.Base.Config.Platform
		}
		config.History = append(append([]ocispec.History{}, n.Base.Config.History...), config.History...)
	}
	diffIDs := append([]reference.Digest{}, n.Base.Layers...)
	size := n.Base.Size
	for _, l := range n.Layers {
		layers = append(layers, l.Blob)
		diffIDs = append(diffIDs, l.DiffID)
		size += l.Bytes
	}
	completePlatform(&config)
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []godigest.Digest{}}
	for _, id := range diffIDs {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, godigest.Digest(id.String()))
	}
	return d.seal(ctx, n, config, layers, diffIDs, size)
}

func completePlatform(c *dockerspec.DockerOCIImage) {
	if c.Architecture == "" {
		c.Architecture = runtime.GOARCH
	}
	if c.OS == "" {
		c.OS = "linux"
	}
}

// layerOf takes a layer's descriptor from the manifest of another format, or with
// annotations that were about the image it stood in.
func layerOf(l ocispec.Descriptor) ocispec.Descriptor {
	mediaType := l.MediaType
	switch mediaType {
	case "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":
		mediaType = ocispec.MediaTypeImageLayerGzip
	case "application/vnd.docker.image.rootfs.diff.tar":
		mediaType = ocispec.MediaTypeImageLayer
	case "application/vnd.docker.image.rootfs.diff.tar.zstd":
		mediaType = ocispec.MediaTypeImageLayerZstd
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: l.Digest, Size: l.Size}
}

// seal writes config and manifest and gives the image its names, its layers being there.
func (d *Draft) seal(ctx context.Context, n NewImage, config dockerspec.DockerOCIImage, layers []ocispec.Descriptor, diffIDs []reference.Digest, size int64) (Image, error) {
	s := d.s
	configData, err := json.Marshal(config)
	if err != nil {
		return Image{}, err
	}
	if len(configData) > maxConfig {
		return Image{}, fmt.Errorf("config: %w", errTooLarge)
	}
	if len(layers) > maxLayers {
		return Image{}, fmt.Errorf("%d layers are too many", len(layers))
	}
	configDesc := describe(ocispec.MediaTypeImageConfig, configData)
	if layers == nil {
		layers = []ocispec.Descriptor{}
	}
	data, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    configDesc.Descriptor,
		Layers:    layers,
	})
	if err != nil {
		return Image{}, err
	}
	top := describe(ocispec.MediaTypeImageManifest, data)
	blobs := []reference.Digest{top.digest, configDesc.digest}
	for _, l := range layers {
		blob, err := reference.ParseDigest(string(l.Digest))
		if err != nil {
			return Image{}, err
		}
		blobs = append(blobs, blob)
	}
	if err := d.hold.hold(ctx, append(blobs, layerIDs(diffIDs)...)...); err != nil {
		return Image{}, err
	}
	for _, blob := range blobs[2:] {
		if !s.hasBlob(blob) {
			return Image{}, fmt.Errorf("layer %s: %w", blob, fs.ErrNotExist)
		}
	}
	if err := s.putDocument(ctx, configDesc.digest, configData); err != nil {
		return Image{}, err
	}
	var img Image
	names := n.Names
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		e := entry{MediaType: top.MediaType, Digest: top.digest, Size: top.Size, Notes: notes{Name: canonical(name), ID: configDesc.digest, Unpack: size, Origin: n.origin}}
		if img, err = s.finish(ctx, e, data, blobs); err != nil {
			return Image{}, err
		}
	}
	return img, nil
}

// layerGzipLevel is that of layers that are made here. Like gzipBlock, it decides digests:
// it stays. Level 3 takes half the time of 6 and a tenth more room.
const layerGzipLevel = 3

// layerWriter compresses a tar into a file and hashes both.
type layerWriter struct {
	encoder   io.WriteCloser
	mediaType string
	diff      *hashWriter
	blob      *hashWriter
}

func newLayerWriter(f *os.File, z bool) (*layerWriter, error) {
	w := &layerWriter{mediaType: ocispec.MediaTypeImageLayerGzip, diff: newHashWriter(io.Discard), blob: newHashWriter(f)}
	var err error
	if z {
		w.mediaType = ocispec.MediaTypeImageLayerZstd
		w.encoder, err = zstd.NewWriter(w.blob, zstd.WithEncoderConcurrency(1))
	} else {
		w.encoder, err = newGzip(w.blob, layerGzipLevel)
	}
	return w, err
}

// newGzip compresses in blocks of a fixed size, so that the bytes do not depend on how
// many processors do it.
func newGzip(w io.Writer, level int) (*pgzip.Writer, error) {
	z, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, err
	}
	return z, z.SetConcurrency(gzipBlock, min(runtime.NumCPU(), 4))
}

// Write implements io.Writer.
func (w *layerWriter) Write(p []byte) (int, error) {
	_, _ = w.diff.Write(p) // a hash takes everything
	return w.encoder.Write(p)
}

// Close ends the blob.
func (w *layerWriter) Close() error { return w.encoder.Close() }

func (w *layerWriter) layer() Layer {
	return Layer{
		DiffID: w.diff.digest(),
		Blob:   ocispec.Descriptor{MediaType: w.mediaType, Digest: godigest.Digest(w.blob.digest().String()), Size: w.blob.size},
	}
}
