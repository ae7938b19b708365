// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/reference"
)

// stage is a layer's directory while it is in tmp: being made, or being removed. Its
// record is locked, and empty until the layer is whole.
type stage struct {
	dir    string
	record *os.File
}

// openStage makes the directory in which a layer is unpacked, and waits while another
// process unpacks it. What a dead process left in it is removed.
func (s *Store) openStage(ctx context.Context, name string) (*stage, error) {
	dir := s.path(tmpDir, stagePrefix+s.key+"-"+name)
	for {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err := openLocked(ctx, dir+"/"+recordFile, os.O_RDWR|os.O_CREATE)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just got its final name, or was removed
		}
		if err != nil {
			os.Remove(dir) // if it is ours, it is empty
			return nil, err
		}
		st := &stage{dir: dir, record: f}
		err = s.removeTree(ctx, dir, rootDir)
		if err == nil {
			err = errors.Join(removeFile(dir+"/"+ownersFile), f.Truncate(0))
		}
		if err == nil {
			err = st.makeRoot()
		}
		if err != nil {
			_ = st.discard(ctx, s)
			return nil, err
		}
		s.step("make stage")
		return st, nil
	}
}

// makeRoot makes the layer's own root, with the mode that counts if its tar has none.
func (st *stage) makeRoot() error {
	if err := os.Mkdir(st.dir+"/"+rootDir, 0o755); err != nil {
		return err
	}
	return os.Chmod(st.dir+"/"+rootDir, 0o755)
}

// publish writes the record and gives the layer its final name, that of id. If it has been
// unpacked by somebody else meanwhile, the stage is discarded.
func (st *stage) publish(ctx context.Context, s *Store, id reference.Digest, r layerRecord) error {
	data, err := json.Marshal(r)
	if err == nil {
		_, err = st.record.WriteAt(data, 0)
	}
	if err != nil {
		return err
	}
	s.step("write record")
	if err := os.Mkdir(s.path(layersDir, s.key), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for {
		err := os.Rename(st.dir, s.layerDir(id))
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			if err == nil {
				s.step("rename layer")
				st.record.Close()
			}
			return err
		}
		if s.isUnpacked(id) {
			return st.discard(ctx, s)
		}
		// A layer that the last power loss may have torn has the name.
		if err := s.dropLayer(ctx, id); err != nil {
			return err
		}
	}
}

// discard removes the stage. The record goes last: while it is there, it is locked. What
// a program of the tree still runs from stays, and the next command removes it.
func (st *stage) discard(ctx context.Context, s *Store) error {
	defer st.record.Close()
	if err := s.removeTree(context.WithoutCancel(ctx), st.dir, rootDir); err != nil {
		if errors.Is(err, overlay.ErrInUse) {
			return nil
		}
		return err
	}
	names, err := os.ReadDir(st.dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Name() != recordFile {
			if err := removeFile(st.dir + "/" + n.Name()); err != nil {
				return err
			}
		}
	}
	if err := removeFile(st.dir + "/" + recordFile); err != nil {
		return err
	}
	if err := removeFile(st.dir); !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil // somebody who waited for the record has the directory now
}

// dropLayer takes a layer's name away and removes it.
func (s *Store) dropLayer(ctx context.Context, id reference.Digest) error {
	st, err := s.trashLayer(ctx, s.layerDir(id))
	if st == nil || err != nil {
		return err
	}
	return st.discard(ctx, s)
}

// trashLayer moves a layer's directory to tmp, where discard can take its time. It
// returns nil if the directory has gone. It may be called with the lock of the index:
// nobody holds the lock of a published layer for longer than a rename.
func (s *Store) trashLayer(ctx context.Context, dir string) (*stage, error) {
	f, err := openLocked(ctx, dir+"/"+recordFile, os.O_RDWR|os.O_CREATE)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st := &stage{dir: s.path(tmpDir, trashPrefix+s.key+"-"+randomName()), record: f}
	if err := os.Rename(dir, st.dir); err != nil {
		f.Close()
		return nil, err
	}
	s.step("trash layer")
	return st, nil
}

// saveOwners writes the owners table of a tree, if there is one to write.
func saveOwners(path string, owners overlay.Owners) error {
	if len(owners) == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(owners.Save(f), f.Close())
}

// removeFile is os.Remove for what may have gone already.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
