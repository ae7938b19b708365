// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"io/fs"
	"path/filepath"
	"syscall"

	"sbx/reference"
)

// TreeSize adds up what the files of a tree take on the disk, each file once. What
// vanishes meanwhile, or is shut to this user, is left out.
func (s *Store) TreeSize(ctx context.Context, root string) (int64, error) {
	var total int64
	seen := map[[2]uint64]bool{}
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return nil
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if id := [2]uint64{st.Dev, st.Ino}; st.Nlink > 1 && !d.IsDir() {
			if seen[id] {
				return nil
			}
			seen[id] = true
		}
		if !d.IsDir() {
			total += min(st.Blocks*512, max(st.Size, 0))
		}
		return ctx.Err()
	})
	return total, err
}

// LayerSize returns how many bytes of file contents an unpacked layer holds, 0 if it is
// not unpacked.
func (s *Store) LayerSize(id reference.Digest) int64 {
	r, err := s.layerRecord(id)
	if err != nil {
		return 0
	}
	return r.Bytes
}
