// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sbx/store"
)

// CacheEntry is something that builds keep: a step's layer, or a cache mount.
type CacheEntry struct {
	ID    string // of a step, the beginning of its key
	Size  int64  // bytes of files
	Used  time.Time
	Mount bool

	step store.CachedStep
	dir  string
}

// CacheUse lists what builds keep, the longest unused first. Caches that are
// mounted at this moment are among it.
func CacheUse(st *store.Store) ([]CacheEntry, error) {
	steps, err := st.CachedSteps()
	if err != nil {
		return nil, err
	}
	var entries []CacheEntry
	for _, s := range steps {
		entries = append(entries, CacheEntry{ID: s.Key.Hex()[:25], Size: s.Layer.Bytes, Used: s.Used, step: s})
	}
	dirs, err := filepath.Glob(filepath.Join(CacheDir(st), mountsDir, st.Rung().Key(), "*", "*", cacheLock))
	if err != nil {
		return nil, err
	}
	for _, lock := range dirs {
		fi, err := os.Lstat(lock)
		if err != nil {
			continue
		}
		dir := filepath.Dir(lock)
		entries = append(entries, CacheEntry{
			ID: filepath.Base(filepath.Dir(dir))[:25], Size: treeSize(dir), Used: fi.ModTime(), Mount: true, dir: dir,
		})
	}
	slices.SortFunc(entries, func(a, b CacheEntry) int { return a.Used.Compare(b.Used) })
	return entries, nil
}

// treeSize is what the files of a tree hold, as far as it can be read.
func treeSize(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what is shut is not counted
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return nil
	})
	return n
}

// PruneOptions say what may stay.
type PruneOptions struct {
	Keep      int64         // bytes that may stay, the last used first
	UnusedFor time.Duration // what was used since then stays
}

// Pruned is what was removed.
type Pruned struct {
	Entries []CacheEntry
	Bytes   int64
}

// Prune forgets what builds keep, the longest unused first, and collects the
// layers that nobody else needs. What a build uses at this moment stays.
func Prune(ctx context.Context, st *store.Store, keep store.Roots, o PruneOptions) (Pruned, error) {
	entries, err := CacheUse(st)
	if err != nil {
		return Pruned{}, err
	}
	var total int64
	for _, e := range entries {
		total += e.Size
	}
	var p Pruned
	before := time.Now().Add(-o.UnusedFor)
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return p, err
		}
		if e.Used.After(before) || total <= o.Keep && o.Keep > 0 {
			continue
		}
		removed, err := e.remove(ctx, st)
		if err != nil {
			return p, fmt.Errorf("prune build cache: %w", err)
		}
		if removed {
			total -= e.Size
			p.Bytes += e.Size
			p.Entries = append(p.Entries, e)
		}
	}
	return p, st.Collect(ctx, keep)
}

// remove removes an entry, unless it is in use.
func (e *CacheEntry) remove(ctx context.Context, st *store.Store) (bool, error) {
	if !e.Mount {
		return true, st.ForgetStep(ctx, e.step.Key)
	}
	f, err := os.OpenFile(filepath.Join(e.dir, cacheLock), os.O_RDWR, 0o600)
	if err != nil {
		return false, nil //nolint:nilerr // somebody else has removed it
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, nil //nolint:nilerr // in use
	}
	// Whoever waits for the lock finds the directory without a tree, and makes one.
	err = errors.Join(st.RemoveTree(ctx, filepath.Join(e.dir, cacheTree)), st.RemoveTree(ctx, filepath.Join(e.dir, cacheTree+".making")))
	for _, name := range []string{store.TableOf(filepath.Join(e.dir, cacheTree)), store.TableOf(filepath.Join(e.dir, cacheTree+".making"))} {
		_ = os.Remove(name) // there need not be one
	}
	if err == nil {
		err = os.Remove(f.Name())
	}
	return err == nil, err
}
