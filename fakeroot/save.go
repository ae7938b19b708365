// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"time"

	"sbx/overlay"
)

// Save writes down what the container's files cannot carry themselves: to a file
// for those of Upper, and to the volumes' tables. It is to be called when the
// container's processes are gone, and waits until all threads have seen that.
func (s *Supervisor) Save(ctx context.Context, name string) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.save(ctx, name, true)
}

// SaveNow is Save while the container runs.
func (s *Supervisor) SaveNow(ctx context.Context, name string) error { return s.save(ctx, name, true) }

func (s *Supervisor) save(ctx context.Context, name string, all bool) error {
	if !s.loaded.Load() {
		return nil // nothing has run yet
	}
	s.saved.mu.Lock()
	defer s.saved.mu.Unlock()
	t, err := s.saved.tables(ctx, s.table, s.rootFD, all)
	if err == nil && name != "" && !maps.EqualFunc(s.saved.last, t.upper, sameOwner) {
		if err = saveOwners(name, t.upper); err == nil {
			s.saved.last = t.upper
		}
	}
	for i, v := range s.saved.volumes {
		if v.fd != noFD && err == nil {
			err = v.save(t.volumes[i])
		}
	}
	if err != nil {
		return fmt.Errorf("save owners: %w", err)
	}
	return nil
}

// Merged is what the tables say of the container's files, as it shows them. It
// is for who reads them from outside.
//
// Runs in: the host's mounts.
func Merged(o Options) (overlay.Owners, error) {
	s, err := openSaved(&o)
	if err != nil {
		return nil, fmt.Errorf("read owners: %w", err)
	}
	defer s.close()
	all := s.initial
	for name := range all {
		if v, _ := s.volumeOf("/" + name); v != nil {
			delete(all, name)
		}
	}
	for _, v := range s.volumes {
		for name, owner := range v.read {
			if rel, ok := v.inside(name); ok && v.fd != noFD {
				all[path.Join(v.at, rel)[1:]] = owner
			}
		}
	}
	return all, nil
}

// What Keep waits before it saves: a little after a change, for what belongs to it
// and may be renamed at once; then longer and longer, for what is renamed later,
// which nobody tells us. And always so much longer than the last time took that it
// is no load.
const (
	firstKeep = time.Second
	lastKeep  = 32 * time.Second
	restKeep  = 20
)

// Keep saves from time to time while something changes, until ctx ends, so that
// little is lost if this process is killed. A container that changes no owners
// costs nothing.
func (s *Supervisor) Keep(ctx context.Context, name string) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.table.changed:
		}
		var took time.Duration
		for wait := firstKeep; wait <= lastKeep; wait *= 2 {
			timer.Reset(max(wait, restKeep*took))
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			begun := time.Now()
			if err := s.save(ctx, name, false); err != nil && !errors.Is(err, context.Canceled) {
				s.log.Warn("keep owners", "error", err)
			}
			took = time.Since(begun)
			select {
			case <-s.table.changed:
				wait = firstKeep / 2 // and once more after that
			default:
			}
		}
	}
}

// saveOwners writes a table beside the upper directory, or takes it away when it
// is empty. A reader sees the old one or the new one.
func saveOwners(name string, t overlay.Owners) error {
	if len(t) == 0 {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".owners-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err = t.Save(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
