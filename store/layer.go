// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/reference"
)

const (
	recordFile = "layer.json"
	rootDir    = "root"
	ownersFile = "owners.json"
	// emptyLayer is the layer of images that have none: overlayfs wants one.
	emptyLayer = "empty"

	maxRecord = 4 << 10
)

// layerRecord is layer.json.
type layerRecord struct {
	Synced  bool             `json:"synced"` // on the disk, not only in the page cache
	DiffID  reference.Digest `json:"diffID"`
	Blob    reference.Digest `json:"blob"` // it was unpacked from
	Entries int64            `json:"entries"`
	Bytes   int64            `json:"bytes"`
	// Markers and UsedLower are as overlay.Result has them.
	Markers   bool `json:"markers,omitempty"`
	UsedLower bool `json:"usedLower,omitempty"`
	bootRecord
}

// syncedMark is how the record of a synced layer begins, so that the common case costs no
// parsing.
var syncedMark = []byte(`{"synced":true,`)

func (s *Store) layerDir(id reference.Digest) string {
	return s.path(layersDir, s.key, id.Hex())
}

// isUnpacked reports whether the layer is there and has outlived what happened since: one
// that was not synced may be torn after this machine went down.
func (s *Store) isUnpacked(id reference.Digest) bool {
	data, err := readSmall(s.layerDir(id)+"/"+recordFile, maxRecord)
	if err != nil {
		return false
	}
	if bytes.HasPrefix(data, syncedMark) {
		return true
	}
	var r layerRecord
	if json.Unmarshal(data, &r) != nil {
		return false
	}
	now := s.boot()
	return r.Boot == now.Boot || r.Machine != now.Machine
}

func (s *Store) layerRecord(id reference.Digest) (layerRecord, error) {
	var r layerRecord
	data, err := readSmall(s.layerDir(id)+"/"+recordFile, maxRecord)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return layerRecord{}, fmt.Errorf("read layer %s: %w", id, err)
	}
	return r, nil
}

// LayerDirs returns the directories of the image's layers, bottom first. Those that are
// not unpacked for this rung, or not since the machine went down, are unpacked from their
// blobs. An image without layers has one empty directory, so that overlayfs can be mounted
// in every case.
func (s *Store) LayerDirs(ctx context.Context, img Image) ([]string, error) {
	if len(img.Layers) == 0 {
		dir := s.path(layersDir, s.key, emptyLayer, rootDir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, spaceError(err, s.dir, 0)
		}
		return []string{dir}, nil
	}
	dirs := make([]string, len(img.Layers))
	var loose []reference.Digest
	for i := range img.Layers {
		id, ok := s.unpackedAs(img.Layers, i)
		if !ok {
			if err := s.unpackAgain(ctx, img); err != nil {
				return nil, fmt.Errorf("unpack image %s: %w", img.label(), spaceError(err, s.dir, 0))
			}
			if id, ok = s.unpackedAs(img.Layers, i); !ok {
				return nil, fmt.Errorf("unpack image %s: layer %s was removed meanwhile", img.label(), img.Layers[i])
			}
		}
		dirs[i] = s.layerDir(id) + "/" + rootDir
		if s.isLoose(id) {
			loose = append(loose, id)
		}
	}
	s.settle(ctx, loose)
	return dirs, nil
}

// unpackAgain unpacks from its blobs what is missing of an image.
func (s *Store) unpackAgain(ctx context.Context, img Image) error {
	d, err := reference.ParseDigest(string(img.Manifest.Digest))
	if err != nil {
		return err
	}
	m, err := s.manifest(d, img.Manifest.MediaType)
	if err != nil {
		return advise(err, "the image is damaged on disk: pull it again")
	}
	if len(m.layers) != len(img.Layers) {
		return errors.New("manifest and config disagree about the number of layers")
	}
	for i, l := range m.layers {
		if err := s.unpackBlob(ctx, l.digest, img.Layers, i); err != nil {
			return fmt.Errorf("layer %s: %w", l.digest, err)
		}
	}
	return nil
}

// unpackBlob unpacks layer i of an image from its stored blob.
func (s *Store) unpackBlob(ctx context.Context, blob reference.Digest, diffIDs []reference.Digest, i int) error {
	f, err := s.Blob(blob)
	if err == nil {
		defer f.Close()
		_, err = s.unpack(ctx, layerSource{blob: blob, diffIDs: diffIDs, at: i, r: &contextReader{ctx, f}})
	}
	if err == nil || ctx.Err() != nil || isSpace(err) {
		return err
	}
	// It could be unpacked once: look for what has changed since.
	if damage := s.verifyBlob(ctx, blob); damage != nil {
		return advise(damage, "the image is damaged on disk: pull it again")
	}
	return err
}

// unpackedAs returns the name of layer i of an image among the unpacked ones: its diff ID,
// or, if it took something from the layers below it when it was unpacked (see
// overlay.Result), its chain ID, which says what they are.
func (s *Store) unpackedAs(diffIDs []reference.Digest, i int) (id reference.Digest, ok bool) {
	if s.isUnpacked(diffIDs[i]) {
		return diffIDs[i], true
	}
	if i == 0 {
		return reference.Digest{}, false
	}
	id = chainIDs(diffIDs[:i+1])[i]
	return id, s.isUnpacked(id)
}

// layerIDs are all names that the layers of an image may have.
func layerIDs(diffIDs []reference.Digest) []reference.Digest {
	return append(chainIDs(diffIDs), diffIDs...)
}

// ChainIDs names each of an image's layers, given bottom first, together with all beneath
// it: what Removed.Deleted calls them.
func ChainIDs(diffIDs []reference.Digest) []reference.Digest { return chainIDs(diffIDs) }

// chainIDs names each layer together with all beneath it (OCI image-spec, config.md).
func chainIDs(diffIDs []reference.Digest) []reference.Digest {
	chain := make([]reference.Digest, 0, 2*len(diffIDs))
	for i, id := range diffIDs {
		if i > 0 {
			id = reference.SHA256(sha256.Sum256([]byte(chain[i-1].String() + " " + id.String())))
		}
		chain = append(chain, id)
	}
	return chain
}

// Owners returns the owners table of an unpacked layer by its diff ID, or its chain ID if
// it depends on the layers below. It is empty where every file carries its own record.
func (s *Store) Owners(id reference.Digest) (overlay.Owners, error) {
	return overlay.ReadOwners(s.layerDir(id) + "/" + ownersFile)
}

// writebackAge is when the kernel has written of itself what was written to a file: half a
// minute, and what its flusher takes (vm.dirty_expire_centisecs).
const writebackAge = time.Minute

// isLoose reports whether the layer was unpacked here since the machine started and is not
// known to be on the disk, though by now it should be.
func (s *Store) isLoose(id reference.Digest) bool {
	path := s.layerDir(id) + "/" + recordFile
	data, err := readSmall(path, maxRecord)
	var r layerRecord
	if err != nil || bytes.HasPrefix(data, syncedMark) || json.Unmarshal(data, &r) != nil || r.bootRecord != s.boot() {
		return false
	}
	fi, err := os.Lstat(path)
	return err == nil && time.Since(fi.ModTime()) >= writebackAge
}

// settle makes layers durable, so that they need not be unpacked again after a power loss.
// No pull waits for that, nor fails for it: they are a cache of blobs that are durable.
// Later there is next to nothing to write any more.
func (s *Store) settle(ctx context.Context, loose []reference.Digest) {
	if len(loose) == 0 || syncFilesystem(s.dir) != nil {
		return
	}
	s.step("sync layers")
	for _, id := range loose {
		_ = s.markSynced(ctx, id)
	}
}

func syncFilesystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// markSynced replaces layer.json. A layer that was removed meanwhile stays removed.
func (s *Store) markSynced(ctx context.Context, id reference.Digest) error {
	path := s.layerDir(id) + "/" + recordFile
	f, err := openLocked(ctx, path, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := s.layerRecord(id)
	if err != nil {
		return err
	}
	r.Synced = true
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	next := path + ".next" // whoever makes one holds the lock
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// layerID is the diff ID of the layer whose directory is called so.
func layerID(name string) (reference.Digest, bool) {
	algorithm := "sha256:"
	if len(name) > 64 {
		algorithm = "sha512:"
	}
	id, err := reference.ParseDigest(algorithm + name)
	return id, err == nil
}
