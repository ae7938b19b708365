// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"path/filepath"

	"sbx/reference"
)

// ChainDirs returns the directories of an image's layers, and then of layers above them,
// bottom first. Those that are not unpacked are unpacked from their blobs, which somebody
// holds: a Draft. Without any layer it is the empty directory.
func (s *Store) ChainDirs(ctx context.Context, base Image, above []Layer) ([]string, error) {
	dirs, err := s.LayerDirs(ctx, base)
	if err != nil || len(above) == 0 {
		return dirs, err
	}
	if len(base.Layers) == 0 {
		dirs = nil // the empty one
	}
	diffIDs := append([]reference.Digest{}, base.Layers...)
	for _, l := range above {
		diffIDs = append(diffIDs, l.DiffID)
		i := len(diffIDs) - 1
		id, ok := s.unpackedAs(diffIDs, i)
		if !ok {
			blob, err := reference.ParseDigest(string(l.Blob.Digest))
			if err == nil {
				err = s.unpackBlob(ctx, blob, diffIDs, i)
			}
			if err != nil {
				return nil, fmt.Errorf("unpack layer %s: %w", l.DiffID, spaceError(err, s.dir, 0))
			}
			if id, ok = s.unpackedAs(diffIDs, i); !ok {
				return nil, fmt.Errorf("unpack layer %s: it was removed meanwhile", l.DiffID)
			}
		}
		dirs = append(dirs, s.layerDir(id)+"/"+rootDir)
	}
	return dirs, nil
}

// ChainID names a stack of layers, bottom first (OCI image-spec, config.md). It is zero for none.
func ChainID(diffIDs []reference.Digest) reference.Digest {
	if len(diffIDs) == 0 {
		return reference.Digest{}
	}
	return chainIDs(diffIDs)[len(diffIDs)-1]
}

// OwnersFiles returns, for each directory of LayerDirs or ChainDirs, the file of owners that
// its files cannot carry. It need not exist.
func OwnersFiles(dirs []string) []string {
	files := make([]string, len(dirs))
	for i, dir := range dirs {
		if filepath.Base(dir) == rootDir {
			files[i] = filepath.Join(filepath.Dir(dir), ownersFile)
		}
	}
	return files
}
