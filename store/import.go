// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/pgzip"
	godigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/overlay"
	"sbx/reference"
)

// Rootfs is a root filesystem that becomes an image of one layer.
type Rootfs struct {
	Reader io.Reader     // of a tar, compressed or not
	Config ocispec.Image // what is known of it; the zero value will do
}

const (
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// gzipBlock is what pgzip compresses at a time. It decides the bytes of the result, and
	// so the digests of images: it stays.
	gzipBlock = 1 << 20
	gzipLevel = 6
)

// Import makes an image of one layer from a root filesystem and gives it name. Bytes that
// are gzip or zstd become the layer's blob as they are; any others are compressed, the
// same way each time. The image depends on nothing but the bytes and r.Config: its date is
// that of the archive's first entry, and its command, where r.Config has none, bash if the
// tree has one and else /bin/sh.
func (s *Store) Import(ctx context.Context, name string, r Rootfs, o PullOptions) (Image, error) {
	img, err := s.importRootfs(ctx, canonical(name), r, o)
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", name, spaceError(err, s.dir, 0))
	}
	return img, nil
}

func (s *Store) importRootfs(ctx context.Context, name string, r Rootfs, o PullOptions) (Image, error) {
	if name == "" {
		return Image{}, errors.New("the image has no name")
	}
	hold, err := s.newLease(ctx)
	if err != nil {
		return Image{}, err
	}
	defer hold.release()
	f, err := createLocked(s.path(tmpDir, importPrefix))
	if err != nil {
		return Image{}, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	st, err := s.openStage(ctx, randomName())
	if err != nil {
		return Image{}, err
	}
	layer, err := s.spoolRootfs(ctx, f, st, r.Reader, newProgress(o.Progress))
	if err != nil {
		_ = st.discard(ctx, s)
		return Image{}, err
	}
	if err := f.Sync(); err != nil {
		_ = st.discard(ctx, s)
		return Image{}, err
	}
	s.step("sync blob")
	config := imageConfig(r.Config, layer, hasBash(st.dir+"/"+rootDir))
	return s.finishImport(ctx, name, f, st, layer, config, hold, o)
}

// importedLayer is a rootfs on disk, not yet under its final names.
type importedLayer struct {
	layerRecord
	size      int64
	mediaType string
	created   time.Time
}

// spoolRootfs writes the layer's blob to f and unpacks it into the stage as it grows.
func (s *Store) spoolRootfs(ctx context.Context, f *os.File, st *stage, r io.Reader, p *progress) (importedLayer, error) {
	var l importedLayer
	reading, stop := context.WithCancel(ctx)
	defer stop()
	input := bufio.NewReaderSize(&contextReader{reading, r}, copyBuffer)
	head, err := input.Peek(tarBlock)
	if err != nil && !errors.Is(err, io.EOF) {
		return l, err
	}
	if len(head) == 0 {
		return l, errors.New("the file is empty")
	}
	c := compressionOf(head)
	sp := newSpool(f)
	h := sha256.New()
	written := make(chan error, 1)
	go func() {
		err := encodeLayer(io.MultiWriter(h, sp), input, c)
		sp.end(err)
		written <- err
	}()
	tar := sp.follow(func(n int64) { p.tell(Event{Status: StatusExtracting, Current: n}) })
	l.layerRecord, l.created, err = s.unpackStage(ctx, st, tar, reference.Digest{}, nil)
	if err != nil {
		stop() // the rest of the input is of no use
	}
	if writeErr := <-written; writeErr != nil && (err == nil || !errors.Is(writeErr, context.Canceled)) {
		return l, writeErr
	}
	if err != nil {
		return l, err
	}
	if l.Entries == 0 {
		return l, errors.New("the archive is empty")
	}
	l.Blob = reference.SHA256([32]byte(h.Sum(nil)))
	l.size = sp.length()
	l.mediaType = ocispec.MediaTypeImageLayerGzip
	if c == overlay.Zstd {
		l.mediaType = ocispec.MediaTypeImageLayerZstd
	}
	return l, nil
}

// encodeLayer writes the blob of a layer: gzip and zstd as they come, others as gzip.
func encodeLayer(w io.Writer, r io.Reader, c overlay.Compression) error {
	if c == overlay.Gzip || c == overlay.Zstd {
		_, err := io.CopyBuffer(w, r, make([]byte, copyBuffer))
		return err
	}
	tar, _, err := overlay.Decompress(r)
	if err != nil {
		return err
	}
	defer tar.Close()
	z, err := pgzip.NewWriterLevel(w, gzipLevel)
	if err != nil {
		return err
	}
	if err := z.SetConcurrency(gzipBlock, min(runtime.NumCPU(), 4)); err != nil {
		return err
	}
	_, err = io.CopyBuffer(onlyWriter{z}, tar, make([]byte, copyBuffer))
	return errors.Join(err, z.Close())
}

// compressionOf tells how what begins with head is compressed, as unpacking it will.
func compressionOf(head []byte) overlay.Compression {
	r, c, err := overlay.Decompress(bytes.NewReader(head))
	if err == nil {
		r.Close()
	}
	return c
}

// firstModified reads the time from the first header of a tar. It is part of the bytes,
// unlike that of the file they are in, so the same tarball is the same image everywhere.
func firstModified(head []byte) time.Time {
	if len(head) < tarBlock {
		return time.Unix(0, 0).UTC()
	}
	field := strings.Trim(string(head[136:148]), " \x00")
	seconds, err := strconv.ParseInt(field, 8, 64)
	if err != nil || seconds < 0 {
		seconds = 0
	}
	return time.Unix(seconds, 0).UTC()
}

// imageConfig completes a config for a layer.
func imageConfig(c ocispec.Image, l importedLayer, bash bool) ocispec.Image {
	if c.Architecture == "" {
		c.Architecture = runtime.GOARCH
	}
	if c.OS == "" {
		c.OS = "linux"
	}
	if c.Created == nil {
		c.Created = &l.created
	}
	hasPath := func(v string) bool { return strings.HasPrefix(v, "PATH=") }
	if !slices.ContainsFunc(c.Config.Env, hasPath) {
		c.Config.Env = append([]string{defaultPath}, c.Config.Env...)
	}
	if len(c.Config.Cmd) == 0 && len(c.Config.Entrypoint) == 0 {
		c.Config.Cmd = []string{"/bin/sh"}
		if bash {
			c.Config.Cmd = []string{"bash"}
		}
	}
	c.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []godigest.Digest{godigest.Digest(l.DiffID.String())}}
	c.History = []ocispec.History{{Created: c.Created, CreatedBy: "sbx import of a root filesystem"}}
	return c
}

// hasBash looks for the shell that the larger distributions' own images start.
func hasBash(root string) bool {
	f, err := overlay.OpenMerged([]string{root}, "/bin/bash")
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// finishImport gives blob, layer, config and manifest their final names, then the image.
func (s *Store) finishImport(ctx context.Context, name string, f *os.File, st *stage, l importedLayer, config ocispec.Image, hold *lease, o PullOptions) (Image, error) {
	configData, err := json.Marshal(config)
	if err != nil {
		return Image{}, errors.Join(err, st.discard(ctx, s))
	}
	configDesc := describe(ocispec.MediaTypeImageConfig, configData)
	layerDesc := ocispec.Descriptor{MediaType: l.mediaType, Digest: godigest.Digest(l.Blob.String()), Size: l.size}
	data, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    configDesc.Descriptor,
		Layers:    []ocispec.Descriptor{layerDesc},
	})
	if err != nil {
		return Image{}, errors.Join(err, st.discard(ctx, s))
	}
	top := describe(ocispec.MediaTypeImageManifest, data)
	blobs := []reference.Digest{top.digest, configDesc.digest, l.Blob}
	err = hold.hold(ctx, append(blobs, l.DiffID)...)
	if err == nil && !s.hasBlob(l.Blob) {
		err = s.publishBlob(f.Name(), l.Blob)
	}
	if err == nil {
		err = s.putDocument(ctx, configDesc.digest, configData)
	}
	if err != nil {
		_ = st.discard(ctx, s)
		return Image{}, err
	}
	if err := st.publish(ctx, s, l.DiffID, l.layerRecord); err != nil {
		_ = st.discard(ctx, s)
		return Image{}, err
	}
	e := entry{MediaType: top.MediaType, Digest: top.digest, Size: top.Size, Notes: notes{Name: name, ID: configDesc.digest, Unpack: l.Bytes, Origin: o.Origin}}
	return s.finish(ctx, e, data, blobs)
}

// describe makes the descriptor of a document.
func describe(mediaType string, data []byte) descriptor {
	d := reference.SHA256(sha256.Sum256(data))
	return descriptor{ocispec.Descriptor{MediaType: mediaType, Digest: godigest.Digest(d.String()), Size: int64(len(data))}, d}
}
