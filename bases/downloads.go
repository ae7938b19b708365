// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sbx/store"
)

// lockEnding is that of the file beside the cache that its users hold a lock of.
const lockEnding = ".lock"

func cacheDir(st *store.Store) string { return filepath.Join(st.Path(), "cache", "archive") }

// noteUse dates a file of the cache by its last use.
func noteUse(name string) {
	now := time.Now()
	_ = os.Chtimes(name, now, now) // only Prune asks for it
}

// Download is a file that is kept of what was got to make bases.
type Download struct {
	ID   string // its name in the cache
	Kind string // what it is, in words
	Size int64
	Used time.Time
}

// Downloads are those that a store keeps.
type Downloads struct {
	Files []Download
	InUse bool // by one that makes a base right now
}

// Downloaded lists what a store keeps of what was got to make bases.
func Downloaded(st *store.Store) (Downloads, error) {
	var d Downloads
	entries, err := os.ReadDir(cacheDir(st))
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return d, fmt.Errorf("list downloads: %w", err)
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			continue // it was finished, or dropped
		}
		d.Files = append(d.Files, Download{e.Name(), kindOf(e.Name()), fi.Size(), fi.ModTime()})
	}
	lock, err := lockUnused(st)
	if err == nil {
		err = lock.Close()
	}
	d.InUse = errors.Is(err, unix.EWOULDBLOCK)
	if d.InUse {
		err = nil
	}
	return d, err
}

func kindOf(name string) string {
	switch filepath.Ext(name) {
	case ".part":
		return "partial"
	case ".data":
		return "unpacked"
	case ".index":
		return "index"
	}
	return "regular"
}

// lockUnused takes the cache from all who would use it. It is EWOULDBLOCK when
// somebody does.
func lockUnused(st *store.Store) (*os.File, error) {
	f, err := os.OpenFile(cacheDir(st)+lockEnding, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock downloads: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock downloads: %w", err)
	}
	return f, nil
}

// Prune removes the downloads that were last used before a moment; zero: all. It
// returns those that have gone. Of a cache that is in use it removes none.
func (d Downloads) Prune(st *store.Store, before time.Time) (gone []Download, err error) {
	if len(d.Files) == 0 {
		return nil, nil
	}
	lock, err := lockUnused(st)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	for _, f := range d.Files {
		if !before.IsZero() && !f.Used.Before(before) {
			continue
		}
		removeErr := os.Remove(filepath.Join(cacheDir(st), f.ID))
		switch {
		case removeErr == nil:
			gone = append(gone, f)
		case !errors.Is(removeErr, fs.ErrNotExist):
			err = errors.Join(err, fmt.Errorf("remove download: %w", removeErr))
		}
	}
	return gone, err
}

// Name is a short one: the first digits of its sum, and its ending.
func (d Download) Name() string {
	sum, ending, _ := strings.Cut(d.ID, ".")
	if ending != "" {
		ending = "." + ending
	}
	return sum[:min(len(sum), 12)] + ending
}
