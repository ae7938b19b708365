// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"sbx/reference"
)

// newHash returns the hash of d's algorithm.
func newHash(d reference.Digest) hash.Hash {
	if d.Algorithm() == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

// hashWriter hashes what it passes on, by SHA-256.
type hashWriter struct {
	w    io.Writer
	hash hash.Hash
	size int64
}

func newHashWriter(w io.Writer) *hashWriter { return &hashWriter{w: w, hash: sha256.New()} }

// Write implements io.Writer.
func (h *hashWriter) Write(p []byte) (int, error) {
	n, err := h.w.Write(p)
	h.hash.Write(p[:n])
	h.size += int64(n)
	return n, err
}

func (h *hashWriter) digest() reference.Digest { return sum(h.hash, reference.Digest{}) }

// sum is the digest that h has come to; h is of d's algorithm, or SHA-256.
func sum(h hash.Hash, d reference.Digest) reference.Digest {
	if d.IsZero() {
		return reference.SHA256([32]byte(h.Sum(nil)))
	}
	got, _ := reference.ParseDigest(d.Algorithm() + ":" + hex.EncodeToString(h.Sum(nil)))
	return got
}

// checkDigest returns a *DigestError unless data has digest d.
func checkDigest(data []byte, d reference.Digest) error {
	h := newHash(d)
	h.Write(data)
	if got := sum(h, d); got != d {
		return &DigestError{Want: d, Got: got}
	}
	return nil
}

func (s *Store) blobPath(d reference.Digest) string {
	return s.path(blobsDir, d.Algorithm(), d.Hex())
}

// Blob opens the blob with digest d for reading. Its content was right when it was
// stored; it is not hashed again.
func (s *Store) Blob(d reference.Digest) (*os.File, error) {
	if d.IsZero() {
		return nil, errors.New("open blob: no digest")
	}
	f, err := os.OpenFile(s.blobPath(d), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", d, bare(err))
	}
	return f, nil
}

func (s *Store) hasBlob(d reference.Digest) bool {
	_, err := os.Lstat(s.blobPath(d))
	return err == nil
}

// document reads a blob of at most limit bytes and checks its digest: it is small, and
// everything else hangs on it.
func (s *Store) document(d reference.Digest, limit int) ([]byte, error) {
	data, err := readSmall(s.blobPath(d), limit)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, bare(err))
	}
	if err := checkDigest(data, d); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	return data, nil
}

// putDocument stores a document whose digest was checked. The directory is not synced.
func (s *Store) putDocument(ctx context.Context, d reference.Digest, data []byte) error {
	if old, err := s.document(d, len(data)); err == nil && len(old) == len(data) {
		return nil
	}
	f, err := s.lockPartial(ctx, d)
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		os.Remove(f.Name())
		return spaceError(err, s.dir, int64(len(data)))
	}
	s.step("write document")
	return s.publishBlob(f.Name(), d)
}

// publishBlob gives a synced file in tmp its final name.
func (s *Store) publishBlob(from string, d reference.Digest) error {
	to := s.blobPath(d)
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) && d.Algorithm() != "sha256" {
		if err := os.Mkdir(s.path(blobsDir, d.Algorithm()), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		err = os.Rename(from, to)
	}
	if err != nil {
		return err
	}
	s.step("rename blob")
	return nil
}

// syncBlobs makes the names of blobs durable. Their content is already.
func (s *Store) syncBlobs(digests []reference.Digest) error {
	algorithms := make(map[string]bool)
	for _, d := range digests {
		algorithms[d.Algorithm()] = true
	}
	for a := range algorithms {
		if err := syncDir(s.path(blobsDir, a)); err != nil {
			return err
		}
	}
	if algorithms["sha512"] {
		return syncDir(s.path(blobsDir))
	}
	return nil
}

// verifyBlob hashes a stored blob.
func (s *Store) verifyBlob(ctx context.Context, d reference.Digest) error {
	f, err := s.Blob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	h := newHash(d)
	if _, err := io.Copy(h, &contextReader{ctx, f}); err != nil {
		return fmt.Errorf("read blob %s: %w", d, bare(err))
	}
	if got := sum(h, d); got != d {
		return fmt.Errorf("read blob %s: %w", d, &DigestError{Want: d, Got: got})
	}
	return nil
}

// contextReader ends a long read when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// bare takes the path off an error where the message names the object in better words.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
