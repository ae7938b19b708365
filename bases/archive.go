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
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"sbx/fetch"
	"sbx/overlay"
	"sbx/reference"
)

// archive is a mirror of a Debian archive, and the cache of what came from it.
type archive struct {
	url   string
	keys  keyring
	cache string // files by SHA-256 sum; several processes may share it
	fetch fetch.Options
	now   time.Time
}

// Bounds for what a mirror sends before anything about it is signed.
const (
	maxRelease = 16 << 20
	maxIndex   = 1 << 30
)

// release gets and verifies the index of a suite.
func (a *archive) release(ctx context.Context, suite string) (*release, error) {
	where := a.url + "/dists/" + suite + "/InRelease"
	r, err := fetch.OpenFile(ctx, where, 0, a.fetch)
	if err != nil {
		var e *fetch.Error
		if errors.As(err, &e) && e.Status == 404 {
			return nil, fmt.Errorf("the mirror %s has no suite %s", a.url, suite)
		}
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxRelease+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRelease {
		return nil, fmt.Errorf("get %s: more than %d bytes", where, maxRelease)
	}
	text, err := a.keys.openSigned(data, a.now)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", where, err)
	}
	rel, err := parseRelease(text)
	if err == nil {
		err = rel.check(suite, a.now)
	}
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", where, err)
	}
	return rel, nil
}

// packages gets the package indexes of components and joins them. Gzip is taken
// before xz: it is a third larger and unpacks ten times faster.
func (a *archive) packages(ctx context.Context, suite string, rel *release, components []string, arch string) (*packageIndex, error) {
	var all []byte
	for _, component := range components {
		name, file := "", indexFile{}
		for _, ending := range []string{".gz", ".xz", ""} {
			name = component + "/binary-" + arch + "/Packages" + ending
			var ok bool
			if file, ok = rel.files[name]; ok {
				break
			}
		}
		if file.digest.IsZero() {
			return nil, fmt.Errorf("the suite %s has no component %s for %s", suite, component, arch)
		}
		at := "dists/" + suite + "/" + name
		if rel.byHash {
			at = path.Join(path.Dir(at), "by-hash", "SHA256", file.digest.Hex())
		}
		f, err := a.get(ctx, at, file.digest, file.size)
		if err != nil {
			return nil, err
		}
		text, err := readIndex(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		all = append(append(all, text...), '\n')
	}
	return parsePackages(all)
}

func readIndex(f *os.File) ([]byte, error) {
	plain, _, err := overlay.Decompress(f)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	text, err := io.ReadAll(io.LimitReader(plain, maxIndex+1))
	if err == nil && len(text) > maxIndex {
		err = fmt.Errorf("more than %d bytes", maxIndex)
	}
	return text, err
}

// downloads is how many packages are got at once.
const downloads = 4

// getAll gets packages into the cache and tells of each that is there.
func (a *archive) getAll(ctx context.Context, list []*debPackage, got func(p *debPackage)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(downloads)
	for _, p := range list {
		group.Go(func() error {
			f, err := a.get(ctx, p.file, p.digest, p.size)
			if err != nil {
				return ofPackage(p, err)
			}
			got(p)
			return f.Close()
		})
	}
	return group.Wait()
}

// get opens a file of the archive, from the cache or the mirror, verified. A
// download that was cut is gone on with, also one of a process that died.
func (a *archive) get(ctx context.Context, name string, digest reference.Digest, size int64) (*os.File, error) {
	whole := filepath.Join(a.cache, digest.Hex())
	if f, err := os.Open(whole); err == nil {
		return f, nil
	}
	part, err := os.OpenFile(whole+".part", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", path.Base(name), err)
	}
	// Who holds the part is getting it: it is waited for, and then it is whole.
	if err := unix.Flock(int(part.Fd()), unix.LOCK_EX); err != nil {
		part.Close()
		return nil, fmt.Errorf("cache %s: %w", path.Base(name), err)
	}
	if f, err := os.Open(whole); err == nil {
		part.Close()
		return f, nil
	}
	if err := a.download(ctx, part, name, digest, size); err != nil {
		part.Close()
		return nil, err
	}
	if err := os.Rename(part.Name(), whole); err != nil {
		part.Close()
		return nil, fmt.Errorf("cache %s: %w", path.Base(name), err)
	}
	_, err = part.Seek(0, io.SeekStart)
	return part, err
}

// download fills a part up and verifies it. One with the wrong sum is emptied.
func (a *archive) download(ctx context.Context, part *os.File, name string, digest reference.Digest, size int64) error {
	sum := sha256.New()
	had, err := io.Copy(sum, part)
	if err != nil {
		return fmt.Errorf("cache %s: %w", path.Base(name), err)
	}
	if had >= size {
		had = 0
		sum.Reset()
		if err := errors.Join(part.Truncate(0), seekStart(part)); err != nil {
			return fmt.Errorf("cache %s: %w", path.Base(name), err)
		}
	}
	where := a.url + "/" + name
	r, err := fetch.OpenFile(ctx, where, had, a.fetch)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(io.MultiWriter(part, sum), io.LimitReader(r, size-had+1))
	if err != nil {
		return err
	}
	if err := checkSum(sum, had+n, digest, size); err != nil {
		_ = part.Truncate(0)
		return fmt.Errorf("verify %s: %w", where, err)
	}
	return nil
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

func checkSum(sum hash.Hash, n int64, digest reference.Digest, size int64) error {
	if n != size {
		return &sumError{fmt.Sprintf("it has %d bytes, the index says %d", n, size)}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest.Hex() {
		return &sumError{fmt.Sprintf("its SHA-256 sum is %s, the index says %s", got, digest.Hex())}
	}
	return nil
}

// sumError says that a mirror sent something else than its signed index promises.
type sumError struct{ text string }

func (e *sumError) Error() string { return e.text }

// Hint says what to try.
func (e *sumError) Hint() string {
	return "the mirror is being updated or is damaged: try again later, or another one with --mirror URL"
}
