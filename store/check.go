// SPDX-License-Identifier: Apache-2.0

package store

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/reference"
)

// Check recomputes every digest of the store and resolves every reference in it: index,
// manifests, configs, blobs, diff IDs, unpacked layers. It returns everything that is
// wrong, one line each. What is in tmp is nobody's, and not looked at. Check is for tests
// and for doubts: it reads all there is.
func (s *Store) Check(ctx context.Context) error {
	c := &checker{s: s, ctx: ctx, layers: make(map[reference.Digest]bool)}
	if _, err := Open(s.dir, s.rung); err != nil {
		c.report(err)
	}
	entries, err := s.entries()
	if err != nil {
		c.report(err)
	}
	c.checkNames(entries)
	c.checkBlobs()
	for _, e := range entries {
		if e.isImage() {
			c.checkImage(e)
		}
	}
	c.checkLayers()
	if err := errors.Join(c.found...); err != nil {
		return fmt.Errorf("check store %s: %w", s.dir, err)
	}
	return ctx.Err()
}

type checker struct {
	s      *Store
	ctx    context.Context
	found  []error
	layers map[reference.Digest]bool // compared with their tar
}

func (c *checker) report(err error) {
	if err != nil {
		c.found = append(c.found, err)
	}
}

// checkNames makes sure that no name means two images.
func (c *checker) checkNames(entries []entry) {
	seen := make(map[string]bool)
	for _, e := range entries {
		name := e.Notes.Name
		if name == "" {
			continue
		}
		if seen[name] {
			c.report(fmt.Errorf("name %s: it stands in the index twice", name))
		}
		seen[name] = true
	}
}

// checkBlobs hashes every blob, needed or not: a blob's name is a promise.
func (c *checker) checkBlobs() {
	for _, algorithm := range []string{"sha256", "sha512"} {
		names, err := os.ReadDir(c.s.path(blobsDir, algorithm))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.report(err)
		}
		for _, n := range names {
			d, err := reference.ParseDigest(algorithm + ":" + n.Name())
			if err != nil {
				c.report(fmt.Errorf("blobs/%s/%q: not a digest", algorithm, n.Name()))
				continue
			}
			c.report(c.s.verifyBlob(c.ctx, d))
		}
	}
}

func (c *checker) checkImage(e entry) {
	fail := func(err error) {
		if err != nil {
			c.report(fmt.Errorf("image %s: %w", e.label(), err))
		}
	}
	data, err := c.s.document(e.Digest, maxManifest)
	if err != nil {
		fail(err)
		return
	}
	if int64(len(data)) != e.Size {
		fail(&SizeError{Want: e.Size, Got: int64(len(data))})
	}
	m, err := parseManifest(data, e.MediaType)
	if err != nil {
		fail(err)
		return
	}
	if m.config.digest != e.Notes.ID {
		fail(fmt.Errorf("the index says that its ID is %s, the manifest says %s", e.Notes.ID, m.config.digest))
	}
	img, err := c.s.load(e)
	if err != nil {
		fail(err)
		return
	}
	if len(img.Layers) != len(m.layers) {
		fail(fmt.Errorf("%d diff IDs for %d layers", len(img.Layers), len(m.layers)))
		return
	}
	for i, l := range m.layers {
		fi, err := os.Lstat(c.s.blobPath(l.digest))
		if err == nil && fi.Size() != l.Size {
			err = &SizeError{Want: l.Size, Got: fi.Size()}
		}
		if err == nil {
			err = c.checkLayer(l.digest, img.Layers, i)
		}
		if err != nil {
			fail(fmt.Errorf("layer %d: %w", i, err))
		}
	}
}

// checkLayer recomputes a diff ID and compares the unpacked layer with its tar.
func (c *checker) checkLayer(blob reference.Digest, diffIDs []reference.Digest, i int) error {
	diffID := diffIDs[i]
	f, err := c.s.Blob(blob)
	if err != nil {
		return err
	}
	defer f.Close()
	tr, err := openTar(&contextReader{c.ctx, f}, diffID)
	if err != nil {
		return err
	}
	defer tr.close()
	if id, ok := c.s.unpackedAs(diffIDs, i); ok && !c.layers[id] {
		c.layers[id] = true
		if err := compareTree(c.s.layerDir(id)+"/"+rootDir, tr); err != nil {
			return err
		}
	}
	if _, err := io.CopyBuffer(io.Discard, tr, make([]byte, copyBuffer)); err != nil {
		return err
	}
	if got := sum(tr.hash, diffID); got != diffID {
		return wrongDiffID(diffID, got)
	}
	return nil
}

// checkLayers looks at every unpacked layer, of an image or not.
func (c *checker) checkLayers() {
	names, err := os.ReadDir(c.s.path(layersDir, c.s.key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.report(err)
	}
	for _, n := range names {
		if n.Name() == emptyLayer {
			continue
		}
		id, ok := layerID(n.Name())
		if !ok {
			c.report(fmt.Errorf("layers/%s/%q: not a digest", c.s.key, n.Name()))
			continue
		}
		r, err := c.s.layerRecord(id)
		if err == nil && r.DiffID != id && !r.UsedLower {
			err = fmt.Errorf("layer %s: its record is of %s", id, r.DiffID)
		}
		if err == nil {
			_, err = c.s.Owners(id)
		}
		if fi, statErr := os.Lstat(c.s.layerDir(id) + "/" + rootDir); err == nil && (statErr != nil || !fi.IsDir()) {
			err = fmt.Errorf("layer %s: it has no root", id)
		}
		c.report(err)
	}
}

// compareTree makes sure that what the tar holds at its end is in the tree: every path,
// with its type, and the size of regular files. Where this user cannot look (on the mapped
// rung), nothing is said.
func compareTree(root string, r io.Reader) error {
	want, err := lastEntries(r)
	if err != nil {
		return err
	}
	dir, err := os.Open(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	for name, h := range want {
		if err := compareEntry(int(dir.Fd()), name, h); err != nil {
			return fmt.Errorf("unpacked %q: %w", name, err)
		}
	}
	return nil
}

// lastEntries returns the header that counts for each path of the archive.
func lastEntries(r io.Reader) (map[string]*tar.Header, error) {
	want := make(map[string]*tar.Header)
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return want, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean("/" + h.Name)
		if strings.HasPrefix(path.Base(name), ".wh.") || name == "/" {
			continue
		}
		if old := want[name]; old != nil && old.Typeflag == tar.TypeDir && h.Typeflag != tar.TypeDir {
			for below := range want {
				if strings.HasPrefix(below, name+"/") {
					delete(want, below)
				}
			}
		}
		want[name] = h
	}
}

func compareEntry(root int, name string, h *tar.Header) error {
	fd, err := overlay.Openat2(root, strings.TrimPrefix(name, "/"), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOSYS):
		return nil
	case err != nil:
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	types := map[byte]uint32{tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK, tar.TypeFifo: unix.S_IFIFO}
	if want, ok := types[h.Typeflag]; ok && st.Mode&unix.S_IFMT != want {
		return fmt.Errorf("type %o instead of %o", st.Mode&unix.S_IFMT, want)
	}
	if h.Typeflag == tar.TypeReg && st.Size != h.Size {
		return &SizeError{Want: h.Size, Got: st.Size}
	}
	return nil
}
