// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

// cache is files by their SHA-256 sums, got from web servers. Several processes
// may share it.
type cache struct {
	dir   string
	fetch fetch.Options
	use   *os.File // holds the lock of those who use it; nil in tests
}

// openCache makes the store's cache of downloads. Until it is closed, nothing is
// removed of it but by its users.
func openCache(ctx context.Context, st *store.Store, o fetch.Options) (cache, error) {
	dir := cacheDir(st)
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		return cache{}, fmt.Errorf("create cache: %w", err)
	}
	use, err := os.OpenFile(dir+lockEnding, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = store.LockFile(ctx, use, unix.LOCK_SH)
	}
	if err != nil {
		return cache{}, fmt.Errorf("lock cache: %w", err)
	}
	return cache{dir, o, use}, nil
}

// close ends the use of the cache.
func (c cache) close() { _ = c.use.Close() }

// anySize is the size of a file of which its index says none.
const anySize = -1

// get opens a file, from the cache or from where it is published, verified. A
// download that was cut is gone on with, also one of a process that died. tell,
// which may be nil, hears how much is there.
func (c cache) get(ctx context.Context, where string, digest reference.Digest, size int64, tell func(int64)) (*os.File, error) {
	whole := filepath.Join(c.dir, digest.Hex())
	if f, err := os.Open(whole); err == nil {
		noteUse(whole)
		return f, nil
	}
	part, err := os.OpenFile(whole+".part", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", path.Base(where), err)
	}
	// Who holds the part is getting it: it is waited for, and then it is whole.
	if err := store.LockFile(ctx, part, unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("cache %s: %w", path.Base(where), err)
	}
	if f, err := os.Open(whole); err == nil {
		part.Close()
		return f, nil
	}
	if err := c.download(ctx, part, where, digest, size, tell); err != nil {
		part.Close()
		return nil, err
	}
	if err := os.Rename(part.Name(), whole); err != nil {
		part.Close()
		return nil, fmt.Errorf("cache %s: %w", path.Base(where), err)
	}
	return part, seekStart(part)
}

// drop removes a file that is not wanted any more.
func (c cache) drop(digest reference.Digest) { _ = os.Remove(filepath.Join(c.dir, digest.Hex())) }

// download fills a part up and verifies it. One with the wrong sum is emptied.
func (c cache) download(ctx context.Context, part *os.File, where string, digest reference.Digest, size int64, tell func(int64)) error {
	sum := sha256.New()
	had, err := io.Copy(sum, part)
	if err != nil {
		return fmt.Errorf("cache %s: %w", path.Base(where), err)
	}
	most := int64(maxDownload)
	if size != anySize {
		most = size
	}
	if had >= most {
		had = 0
		sum.Reset()
		if err := errors.Join(part.Truncate(0), seekStart(part)); err != nil {
			return fmt.Errorf("cache %s: %w", path.Base(where), err)
		}
	}
	r, err := fetch.OpenFile(ctx, where, had, c.fetch)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(io.MultiWriter(part, sum, &teller{had, tell}), io.LimitReader(r, most-had+1))
	if err != nil {
		return err
	}
	if err := checkSum(sum, had+n, digest, size); err != nil {
		_ = part.Truncate(0)
		return fmt.Errorf("verify %s: %w", where, err)
	}
	return nil
}

// maxDownload bounds a file of which no size is known.
const maxDownload = 16 << 30

// teller counts what is written to it and tells of it.
type teller struct {
	n    int64
	tell func(int64)
}

// Write implements io.Writer.
func (t *teller) Write(p []byte) (int, error) {
	t.n += int64(len(p))
	if t.tell != nil {
		t.tell(t.n)
	}
	return len(p), nil
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

func checkSum(sum hash.Hash, n int64, digest reference.Digest, size int64) error {
	if size != anySize && n != size {
		return &sumError{fmt.Sprintf("it has %d bytes, the index says %d", n, size)}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest.Hex() {
		return &sumError{fmt.Sprintf("its SHA-256 sum is %s, the index says %s", got, digest.Hex())}
	}
	return nil
}

// sumError says that a server sent something else than its index promises.
type sumError struct{ text string }

func (e *sumError) Error() string { return e.text }

// Hint says what to try.
func (e *sumError) Hint() string {
	return "the mirror is being updated or is damaged: try again later, or another one"
}
