// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// AddPacked makes a layer of the tar that pack writes, above the layers with the diff IDs in
// below, bottom first. It is compressed and unpacked at the same time, while it is written.
// A tar without entries is a layer without any, of which nothing is stored.
func (d *Draft) AddPacked(ctx context.Context, below []reference.Digest, pack func(io.Writer) error) (Layer, error) {
	l, err := d.addPacked(ctx, below, pack)
	if err != nil {
		return Layer{}, fmt.Errorf("make layer: %w", spaceError(err, d.s.dir, 0))
	}
	return l, nil
}

func (d *Draft) addPacked(ctx context.Context, below []reference.Digest, pack func(io.Writer) error) (Layer, error) {
	s := d.s
	lower, err := s.layersBelow(below)
	if err != nil {
		return Layer{}, err
	}
	f, err := createLocked(s.path(tmpDir, importPrefix))
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	st, err := s.openStage(ctx, randomName())
	if err != nil {
		return Layer{}, err
	}
	l, record, err := s.packInto(ctx, f, st, lower, pack)
	if err != nil || l.Entries == 0 {
		return l, errors.Join(err, st.discard(ctx, s))
	}
	id := l.DiffID
	if record.Blob, err = d.publish(ctx, f, l); err == nil && record.UsedLower {
		id = ChainID(append(append([]reference.Digest{}, below...), l.DiffID))
		err = d.hold.hold(ctx, id)
	}
	if err == nil {
		err = st.publish(ctx, s, id, record)
	}
	if err != nil {
		_ = st.discard(ctx, s)
		return Layer{}, err
	}
	return l, nil
}

// packInto lets pack write, compresses that into f and unpacks it into the stage.
func (s *Store) packInto(ctx context.Context, f *os.File, st *stage, lower []string, pack func(io.Writer) error) (Layer, layerRecord, error) {
	blob := newHashWriter(f)
	encoder, err := newGzip(blob, layerGzipLevel)
	if err != nil {
		return Layer{}, layerRecord{}, err
	}
	tarR, tarW := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		w := bufio.NewWriterSize(io.MultiWriter(encoder, tarW), copyBuffer)
		err := pack(w)
		if err == nil {
			err = w.Flush()
		}
		tarW.CloseWithError(err)
		packed <- errors.Join(err, encoder.Close())
	}()
	record, _, err := s.unpackStage(ctx, st, tarR, reference.Digest{}, lower)
	tarR.CloseWithError(errUnpackEnded)
	if packErr := <-packed; packErr != nil && !errors.Is(packErr, errUnpackEnded) {
		return Layer{}, record, packErr // which the reader has seen as its own
	}
	if err != nil {
		return Layer{}, record, err
	}
	return Layer{
		DiffID: record.DiffID, Entries: record.Entries, Bytes: record.Bytes,
		Blob: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: godigest.Digest(blob.digest().String()), Size: blob.size},
	}, record, nil
}

// errUnpackEnded is what a pack meets whose reader has failed.
var errUnpackEnded = errors.New("unpacking has ended")
