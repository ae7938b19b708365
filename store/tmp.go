// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"sbx/reference"
)

// What stands in tmp/, by the beginning of its name. Its maker holds a flock on the file,
// or on layer.json in the directory, until it has its final name or is gone.
const (
	partialPrefix = "partial-" // ALGORITHM-HEX: a blob on its way; kept when its maker dies
	importPrefix  = "import-"  // RANDOM: a blob whose digest is not known yet
	leasePrefix   = "lease-"   // RANDOM: digests that a pull is going to need
	stagePrefix   = "layer-"   // KEY-HEX or KEY-RANDOM: a layer being unpacked
	trashPrefix   = "trash-"   // KEY-RANDOM: a layer being removed
)

// keepPartial is how long a partial download waits for somebody to go on with it.
const keepPartial = 7 * 24 * time.Hour

// lockPartial opens the partial file of blob d, makes it if there is none, and waits
// until nobody else works on it.
func (s *Store) lockPartial(ctx context.Context, d reference.Digest) (*os.File, error) {
	return openLocked(ctx, s.partialPath(d), os.O_RDWR|os.O_CREATE)
}

func (s *Store) partialPath(d reference.Digest) string {
	return s.path(tmpDir, partialPrefix+d.Algorithm()+"-"+d.Hex())
}

// heal removes what dead processes left in tmp, partial downloads only if they are old or
// allPartials is set. It waits for nobody.
func (s *Store) heal(ctx context.Context, allPartials bool) error {
	names, err := os.ReadDir(s.path(tmpDir))
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		var err error
		switch name := n.Name(); {
		case strings.HasPrefix(name, leasePrefix), strings.HasPrefix(name, importPrefix):
			err = s.dropUnheld(name, 0)
		case strings.HasPrefix(name, partialPrefix):
			age := keepPartial
			if allPartials {
				age = 0
			}
			err = s.dropUnheld(name, age)
		case s.isStage(name, stagePrefix), s.isStage(name, trashPrefix):
			err = s.dropStage(ctx, name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// isStage reports whether name is prefix and a directory of this store's rung. Those of
// other rungs hold files that this one may not remove.
func (s *Store) isStage(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix+s.key+"-")
	return ok && !strings.Contains(rest, "-")
}

// dropUnheld removes a file that nobody holds and that has not changed for age.
func (s *Store) dropUnheld(name string, age time.Duration) error {
	f, err := tryLocked(s.path(tmpDir, name), os.O_RDWR)
	if f == nil || err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || time.Since(fi.ModTime()) < age {
		return err
	}
	return os.Remove(f.Name())
}

// dropStage removes the directory of a dead process.
func (s *Store) dropStage(ctx context.Context, name string) error {
	dir := s.path(tmpDir, name)
	f, err := tryLocked(dir+"/"+recordFile, os.O_RDWR|os.O_CREATE)
	if f == nil || err != nil {
		return err
	}
	return (&stage{dir: dir, record: f}).discard(ctx, s)
}

// lease protects digests from garbage collection for as long as its file is held.
type lease struct {
	s *Store
	f *os.File
}

// newLease makes an empty lease. Dead processes' remains are removed by the way.
func (s *Store) newLease(ctx context.Context) (*lease, error) {
	if err := s.heal(ctx, false); err != nil {
		return nil, err
	}
	f, err := createLocked(s.path(tmpDir, leasePrefix))
	if err != nil {
		return nil, spaceError(err, s.dir, 0)
	}
	s.step("make lease")
	return &lease{s, f}, nil
}

// hold adds digests of blobs and layers. What of them is on disk when hold returns stays
// there; what is not may be added.
func (l *lease) hold(ctx context.Context, digests ...reference.Digest) error {
	unlock, err := l.s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var b strings.Builder
	for _, d := range digests {
		b.WriteString(d.String() + "\n")
	}
	_, err = l.f.WriteString(b.String())
	return spaceError(err, l.s.dir, 0)
}

// release ends the lease.
func (l *lease) release() {
	os.Remove(l.f.Name())
	l.f.Close()
}

// leased adds to the set what living processes hold. The caller holds the lock of the
// index, so that no lease grows meanwhile.
func (s *Store) leased(set map[reference.Digest]bool) error {
	names, err := os.ReadDir(s.path(tmpDir))
	if err != nil {
		return err
	}
	for _, n := range names {
		if !strings.HasPrefix(n.Name(), leasePrefix) {
			continue
		}
		path := s.path(tmpDir, n.Name())
		f, err := tryLocked(path, os.O_RDWR)
		if err != nil {
			return err
		}
		if f != nil {
			os.Remove(path)
			f.Close()
			continue
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			if d, err := reference.ParseDigest(strings.TrimSpace(line)); err == nil {
				set[d] = true
			}
		}
	}
	return nil
}
