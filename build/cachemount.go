// SPDX-License-Identifier: Apache-2.0

package build

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"

	"sbx/container"
	"sbx/store"
)

// The directories of `RUN --mount=type=cache` stand in cache/mounts/KEY/HASH/N of
// the store: KEY is the rung, HASH of the cache's ID, N a number for caches that
// are private. Beside the tree stands "lock": shared caches are used under a
// shared flock, locked and private ones under an exclusive one. Its time says when
// the cache was last used.

const (
	mountsDir = "mounts"
	cacheTree = "tree"
	cacheLock = "lock"

	maxPrivate = 64
)

// cache mounts a directory that outlives the build.
func (m *stepMounts) cache(ctx context.Context, mount *instructions.Mount) error {
	id := mount.CacheID
	if id == "" {
		id = path.Clean(mount.Target)
	}
	sum := sha256.Sum256([]byte(id))
	parent := filepath.Join(CacheDir(m.b.home.Store), mountsDir, m.b.home.Store.Rung().Key(), hex.EncodeToString(sum[:]))
	dir, lock, err := m.takeCache(ctx, parent, mount.CacheSharing)
	if err != nil {
		return fmt.Errorf("cache %s: %w", id, err)
	}
	m.held = append(m.held, lock)
	now := time.Now()
	_ = os.Chtimes(filepath.Join(dir, cacheLock), now, now)
	root := filepath.Join(dir, cacheTree)
	if err := m.fillCache(ctx, root, mount); err != nil {
		return fmt.Errorf("cache %s: %w", id, err)
	}
	bind := container.Mount{Type: container.Bind, Source: root, Target: m.run.absolute(mount.Target), ReadOnly: mount.ReadOnly, Kept: true}
	if mount.Source != "" {
		// Earlier steps have written there: it is opened beneath the cache, or a link
		// of theirs would show this machine's files (CVE-2024-23651).
		bind.Subpath = path.Clean("/" + mount.Source)[1:]
	}
	m.mounts = append(m.mounts, bind)
	return nil
}

// takeCache locks a cache's directory as its sharing asks. A private one that is
// in use is passed over for the next.
func (m *stepMounts) takeCache(ctx context.Context, parent string, sharing instructions.ShareMode) (string, *os.File, error) {
	for n := range maxPrivate {
		dir := filepath.Join(parent, strconv.Itoa(n))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", nil, err
		}
		how := unix.LOCK_SH
		switch sharing {
		case instructions.MountSharingLocked:
			how = unix.LOCK_EX
		case instructions.MountSharingPrivate:
			how = unix.LOCK_EX | unix.LOCK_NB
		}
		f, err := lockCache(ctx, filepath.Join(dir, cacheLock), how)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		return dir, f, err
	}
	return "", nil, errNoCacheDir
}

// lockCache opens and locks a file. The wait ends with ctx.
func lockCache(ctx context.Context, name string, how int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := store.LockFile(ctx, f, how); err != nil {
		return nil, err
	}
	return f, nil
}

// fillCache makes the tree of a cache that is new, of what its mount comes from.
func (m *stepMounts) fillCache(ctx context.Context, root string, mount *instructions.Mount) error {
	if _, err := os.Lstat(root); err == nil {
		return nil
	}
	st := m.b.home.Store
	making := root + ".making"
	if err := st.RemoveTree(ctx, making); err != nil {
		return err
	}
	err := os.Mkdir(making, 0o700)
	switch {
	case err != nil && !errors.Is(err, os.ErrExist):
		return err
	case mount.From == "" || mount.From == scratch:
		err = st.UnpackTree(ctx, making, emptyTree(mount))
	default:
		err = m.fillFrom(ctx, making, mount)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(store.TableOf(making), store.TableOf(root)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err = os.Rename(making, root)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return st.RemoveTree(ctx, making) // another has just made it
	}
	return err
}

// fillFrom copies the tree of a stage, an image or a context.
func (m *stepMounts) fillFrom(ctx context.Context, dir string, mount *instructions.Mount) error {
	from, err := m.treeOf(ctx, mount)
	if err != nil {
		return err
	}
	job := m.b.newJob("/")
	job.From, job.Sources = from, []packSource{{Path: "/", Exact: true}}
	return m.b.copyOut(ctx, dir, job)
}

// emptyTree is a tar of one directory, with the owner and mode that a mount asks for.
func emptyTree(mount *instructions.Mount) io.Reader {
	h := &tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, ModTime: time.Now()}
	if mount.Mode != nil {
		h.Mode = int64(*mount.Mode & 0o7777)
	}
	if mount.UID != nil {
		h.Uid = int(*mount.UID)
	}
	if mount.GID != nil {
		h.Gid = int(*mount.GID)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	// A header of ours fits, and memory takes it.
	_ = w.WriteHeader(h)
	_ = w.Close()
	return &b
}
