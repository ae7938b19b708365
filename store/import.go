// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	godigest "github.com/opencontainers/go-digest"
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
	d, err := s.NewDraft(ctx)
	if err != nil {
		return Image{}, err
	}
	defer d.Close()
	layer, err := d.addTar(ctx, r.Reader, nil, newProgress(o.Progress))
	if err != nil {
		return Image{}, err
	}
	config := imageConfig(r.Config, layer, hasBash(s.layerDir(layer.DiffID)+"/"+rootDir))
	n := NewImage{Layers: []Layer{layer.Layer}, Config: config, Names: []string{name}, origin: o.Origin}
	return d.commit(ctx, n)
}

// spooledLayer is a tar that has become a layer on disk.
type spooledLayer struct {
	Layer
	record  layerRecord
	created time.Time // of its first entry
}

// spoolLayer writes the layer's blob to f and unpacks it into the stage as it grows.
func (s *Store) spoolLayer(ctx context.Context, f *os.File, st *stage, r io.Reader, lower []string, p *progress) (spooledLayer, error) {
	var l spooledLayer
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
	h := newHashWriter(sp)
	written := make(chan error, 1)
	go func() {
		err := encodeLayer(h, input, c)
		sp.end(err)
		written <- err
	}()
	tar := sp.follow(func(n int64) { p.tell(Event{Status: StatusExtracting, Current: n}) })
	l.record, l.created, err = s.unpackStage(ctx, st, tar, reference.Digest{}, lower)
	if err != nil {
		stop() // the rest of the input is of no use
	}
	if writeErr := <-written; writeErr != nil && (err == nil || !errors.Is(writeErr, context.Canceled)) {
		return l, writeErr
	}
	if err == nil && l.record.Entries == 0 {
		err = errors.New("the archive is empty")
	}
	if err != nil {
		return l, err
	}
	mediaType := ocispec.MediaTypeImageLayerGzip
	if c == overlay.Zstd {
		mediaType = ocispec.MediaTypeImageLayerZstd
	}
	l.record.Blob = h.digest()
	l.Layer = Layer{
		DiffID: l.record.DiffID, Entries: l.record.Entries, Bytes: l.record.Bytes,
		Blob: ocispec.Descriptor{MediaType: mediaType, Digest: godigest.Digest(h.digest().String()), Size: h.size},
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
	z, err := newGzip(w, gzipLevel)
	if err != nil {
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
func imageConfig(given ocispec.Image, l spooledLayer, bash bool) dockerspec.DockerOCIImage {
	c := dockerspec.DockerOCIImage{Image: given}
	c.Config.ImageConfig = given.Config
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

// describe makes the descriptor of a document.
func describe(mediaType string, data []byte) descriptor {
	d := reference.SHA256(sha256.Sum256(data))
	return descriptor{ocispec.Descriptor{MediaType: mediaType, Digest: godigest.Digest(d.String()), Size: int64(len(data))}, d}
}
