// SPDX-License-Identifier: Apache-2.0

package build

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"sbx/overlay"
)

func unixTime(seconds int64) time.Time { return time.Unix(seconds, 0) }

// unpackArchive copies what is in a tar archive, compressed or not, into the
// directory dest. It reports false for a file that is no archive.
func (p *packer) unpackArchive(r *reading, e overlay.ViewEntry, dest string) (done bool, err error) {
	f, err := r.view.Open(e)
	if err != nil {
		return false, &SourcePathError{err}
	}
	defer f.Close()
	content, _, err := overlay.Decompress(f)
	if err != nil {
		return false, nil //nolint:nilerr // compressed in a way that is not known: an ordinary file
	}
	defer content.Close()
	archive := tar.NewReader(content)
	h, err := archive.Next()
	if err != nil {
		return false, nil //nolint:nilerr // so is what is no tar
	}
	if err := p.makeDirs(dest); err != nil {
		return true, fmt.Errorf("cannot copy to non-directory: %s", path.Join("/", dest))
	}
	for ; err == nil; h, err = archive.Next() {
		if err := p.member(h, archive, dest); err != nil {
			return true, err
		}
	}
	if !errors.Is(err, io.EOF) {
		return true, &SourcePathError{fmt.Errorf("unpack %s: %w", path.Join("/", e.Path), err)}
	}
	return true, nil
}

// member writes one entry of an archive below dest.
func (p *packer) member(h *tar.Header, content io.Reader, dest string) error {
	at := path.Join(dest, strings.TrimPrefix(path.Clean("/"+h.Name), "/"))
	next := &tar.Header{
		Typeflag: h.Typeflag, Linkname: h.Linkname, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid, Size: h.Size,
		ModTime: h.ModTime, Devmajor: h.Devmajor, Devminor: h.Devminor,
	}
	kind := overlay.File
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		next.Typeflag = tar.TypeReg
	case tar.TypeDir:
		kind, next.Size = overlay.Dir, 0
		if at == dest && dest != "" {
			return nil // it has been made, or was there
		}
	case tar.TypeSymlink:
		kind, next.Size = overlay.Symlink, 0
	case tar.TypeLink:
		next.Linkname, next.Size = path.Join(dest, strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")), 0
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		next.Size = 0
	default:
		return nil // global records and the like
	}
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, "SCHILY.xattr.") {
			if next.PAXRecords == nil {
				next.PAXRecords = map[string]string{}
			}
			next.PAXRecords[key] = value
		}
	}
	if err := p.write(next, at, kind); err != nil {
		return err
	}
	if next.Typeflag != tar.TypeReg {
		return nil
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{p.tar}, content, p.buf); err != nil {
		return &SourcePathError{fmt.Errorf("unpack %q: %w", h.Name, err)}
	}
	return nil
}
