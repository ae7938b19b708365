// SPDX-License-Identifier: Apache-2.0

package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"

	"sbx/reference"
)

// A packed tar becomes a blob and an unpacked layer at once, the same bytes every time,
// and what fails half-way leaves nothing.
func TestAddPacked(t *testing.T) {
	onRungs(t, "packed", func(t *testing.T, s *Store) {
		needUserns(t)
		data := tarOf(t, file{name: "d/", mode: 0o755}, file{name: "d/f", mode: 0o640, uid: 7, gid: 8, data: "content"})
		d, err := s.NewDraft(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		pack := func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		}
		l, err := d.AddPacked(t.Context(), nil, pack)
		if err != nil {
			t.Fatal(err)
		}
		if l.DiffID != digestOf(data) || l.Entries != 2 || l.Bytes != int64(len("content")) {
			t.Errorf("got %+v, want the diff ID %s of 2 entries", l, digestOf(data))
		}
		again, err := d.AddPacked(t.Context(), nil, pack)
		if err != nil || again.Blob.Digest != l.Blob.Digest {
			t.Errorf("again: blob %s, %v; want %s", again.Blob.Digest, err, l.Blob.Digest)
		}
		digest, err := reference.ParseDigest(string(l.Blob.Digest))
		if err != nil {
			t.Fatal(err)
		}
		blob, err := s.Blob(digest)
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		z, err := gzip.NewReader(blob)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(z); err != nil || !bytes.Equal(plain, data) {
			t.Errorf("the blob holds %d bytes, %v; want those that were packed", len(plain), err)
		}
		if !s.isUnpacked(l.DiffID) {
			t.Error("the layer is not unpacked")
		}

		// Nothing makes a layer of nothing.
		empty, err := d.AddPacked(t.Context(), nil, func(w io.Writer) error { return tar.NewWriter(w).Close() })
		if err != nil || empty.Entries != 0 {
			t.Errorf("an empty tar: %+v, %v; want no entries", empty, err)
		}
		failure := errors.New("the source has gone")
		if _, err := d.AddPacked(t.Context(), nil, func(w io.Writer) error { return errors.Join(pack(w), failure) }); !errors.Is(err, failure) {
			t.Errorf("a failing pack: %v, want %v", err, failure)
		}
		if _, err := d.AddPacked(t.Context(), nil, func(w io.Writer) error {
			_, err := w.Write(bytes.Repeat([]byte("no tar "), 1000))
			return err
		}); err == nil {
			t.Error("what is no tar was packed")
		}
		d.Close()
		mustBeClean(t, s)
	})
}
