// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// listsDir holds manifest lists that are being put together, one file for each, named by
// the digest of its name.
const listsDir = "manifests"

const maxList = 64 << 20

func (s *Store) listPath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return listsDir + "/" + hex.EncodeToString(sum[:])
}

// List returns the manifest list of that name as SaveList got it. The error is ErrNotFound
// if there is none.
func (s *Store) List(name string) ([]byte, error) {
	data, err := readSmall(s.path(s.listPath(name)), maxList)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest list %s: %w", name, bare(err))
	}
	return data, nil
}

// SaveList keeps a manifest list under a name, durably.
func (s *Store) SaveList(ctx context.Context, name string, data []byte) error {
	unlock, err := s.lock(ctx)
	if err == nil {
		defer unlock()
		if err = os.Mkdir(s.path(listsDir), 0o700); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	next := s.path(tmpDir, "list-"+randomName())
	if err == nil {
		err = writeSynced(next, data)
	}
	if err == nil {
		err = os.Rename(next, s.path(s.listPath(name)))
	}
	if err == nil {
		err = syncDir(s.path(listsDir))
	}
	if err != nil {
		os.Remove(next)
		return fmt.Errorf("write manifest list %s: %w", name, spaceError(bare(err), s.dir, int64(len(data))))
	}
	return nil
}

// RemoveList forgets a manifest list. The error is ErrNotFound if there is none.
func (s *Store) RemoveList(name string) error {
	err := os.Remove(s.path(s.listPath(name)))
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("remove manifest list %s: %w", name, bare(err))
	}
	return nil
}
