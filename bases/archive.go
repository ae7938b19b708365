// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sync/errgroup"

	"sbx/fetch"
	"sbx/overlay"
	"sbx/reference"
)

// archive is a mirror of a Debian archive, and the cache of what came from it.
type archive struct {
	url   string
	keys  keyring
	cache cache
	now   time.Time
}

// Bounds for what a mirror sends before anything about it is signed.
const (
	maxRelease = 16 << 20
	maxIndex   = 1 << 30
)

// release gets and verifies the index of a suite, and keeps it.
func (a *archive) release(ctx context.Context, suite string) (*release, error) {
	where := a.releaseURL(suite)
	r, err := fetch.OpenFile(ctx, where, 0, a.cache.fetch)
	if err != nil {
		if isMissing(err) {
			return nil, &missingError{what: fmt.Sprintf("the mirror %s has no suite %s", a.url, suite)}
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
	rel, err := a.openRelease(data, suite)
	if err == nil {
		a.cache.keep(where, data)
	}
	return rel, err
}

func (a *archive) releaseURL(suite string) string { return a.url + "/dists/" + suite + "/InRelease" }

// keptRelease is release without the mirror: as that was when it was last reached.
func (a *archive) keptRelease(suite string) (*release, error) {
	data, err := a.cache.kept(a.releaseURL(suite))
	if err != nil {
		return nil, err
	}
	return a.openRelease(data, suite)
}

func (a *archive) openRelease(data []byte, suite string) (*release, error) {
	where := a.releaseURL(suite)
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

// get opens a file of the archive, from the cache or the mirror, verified.
func (a *archive) get(ctx context.Context, name string, digest reference.Digest, size int64) (*os.File, error) {
	return a.cache.get(ctx, a.url+"/"+name, digest, size, nil)
}
