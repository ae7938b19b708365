// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"sbx/store"
)

// tempDir holds what a build reads and no layer is: an unpacked context, a clone,
// a download. It is made when it is first needed. A lock tells that its maker
// lives; what has none is removed by the next build.
type tempDir struct {
	store *store.Store
	mu    sync.Mutex
	path  string
	lock  *os.File
	next  int
}

func newTempDir(st *store.Store) *tempDir { return &tempDir{store: st} }

// CacheDir is where a store keeps what builds share.
func CacheDir(st *store.Store) string { return filepath.Join(st.Path(), "cache") }

func (t *tempDir) parent() string { return filepath.Join(CacheDir(t.store), "tmp") }

// dir makes an empty directory.
func (t *tempDir) dir() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path == "" {
		if err := t.make(); err != nil {
			return "", fmt.Errorf("create temporary directory: %w", err)
		}
	}
	t.next++
	dir := filepath.Join(t.path, fmt.Sprint(t.next))
	return dir, os.Mkdir(dir, 0o700)
}

func (t *tempDir) make() error {
	if err := os.MkdirAll(t.parent(), 0o700); err != nil {
		return err
	}
	t.heal()
	for {
		path := filepath.Join(t.parent(), randomName())
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		lock, err := lockedDir(path)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(path); err == nil && lock != nil {
			t.path, t.lock = path, lock
			return nil
		}
	}
}

// lockedDir opens a directory and locks it; nil when another has.
func lockedDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, err
	}
	return f, nil
}

// heal removes what builds that were killed have left.
func (t *tempDir) heal() {
	entries, err := os.ReadDir(t.parent())
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(t.parent(), e.Name())
		if lock, err := lockedDir(path); lock != nil && err == nil {
			_ = t.store.RemoveTree(context.Background(), path)
			lock.Close()
		}
	}
}

func (t *tempDir) remove() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path != "" {
		_ = t.store.RemoveTree(context.Background(), t.path)
		t.lock.Close()
		t.path = ""
	}
}

func randomName() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
