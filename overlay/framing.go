// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	blockSize = 512

	// maxMeta bounds one extended header or long name, as archive/tar does.
	maxMeta = 1 << 20

	// maxMetas is how many headers may stand in front of one entry. Tools write
	// at most three: an extended header, a long name, a long link.
	maxMetas = 8
)

// framing watches the bytes of a tar on their way to archive/tar and finds by
// itself where each header and each content begins. Wherever two readers of tar
// could disagree about that, and one of them thus see entries that the other does
// not, the archive is refused: CVE-2025-62518 and its family.
type framing struct {
	ctx  context.Context
	r    *bufio.Reader
	max  int64 // bytes of the whole archive
	read int64

	block [blockSize]byte // the header that is being collected
	have  int
	skip  int64        // bytes of content and padding still to come
	zeros int          // blocks of zeros in a row; two end the archive
	meta  []byte       // content of an extended header that is being collected
	left  int          // bytes of it still to come
	ext   bool         // the next block continues an old sparse map
	pax   extended     // of the extended headers since the last entry
	metas int          // headers since the last entry
	entry framedHeader // the last entry
	err   error
}

// extended is what extended headers say about framing.
type extended struct {
	kind    byte // 'x' or 'g' while one is being collected
	size    int64
	hasSize bool
	seen    bool
}

type framedHeader struct {
	kind byte
	size int64
}

func newFraming(ctx context.Context, r io.Reader, maxBytes int64) *framing {
	const most = 1 << 60 // so that padding a size cannot overflow
	return &framing{ctx: ctx, r: bufio.NewReaderSize(r, 64<<10), max: min(maxBytes, most)}
}

// Read hands bytes on, after they were looked at.
func (f *framing) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := f.r.Read(p)
	if f.read += int64(n); f.read > f.max {
		f.err = &LimitError{What: "bytes in the archive", Max: f.max}
		return 0, f.err
	}
	if f.zeros < 2 {
		if f.err = f.watch(p[:n]); f.err != nil {
			return 0, f.err
		}
	}
	return n, err
}

// check compares what archive/tar made of the header with what was seen here.
func (f *framing) check(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader || isSparse(h) {
		return nil
	}
	size := h.Size
	if isHeaderOnly(h.Typeflag) {
		size = 0
	}
	if size != f.entry.size {
		return errAmbiguous("an entry's size")
	}
	return nil
}

// finish reports whether the archive ended where an entry may begin.
func (f *framing) finish() error {
	if f.err != nil {
		return f.err
	}
	if f.zeros < 2 && (f.have > 0 || f.skip > 0 || f.left > 0 || f.ext || f.metas > 0) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (f *framing) watch(p []byte) error {
	for len(p) > 0 && f.zeros < 2 {
		switch {
		case f.left > 0:
			n := min(f.left, len(p))
			f.meta = append(f.meta, p[:n]...)
			f.left, p = f.left-n, p[n:]
			if f.left == 0 {
				if err := f.extend(); err != nil {
					return err
				}
			}
		case f.skip > 0:
			n := min(f.skip, int64(len(p)))
			f.skip, p = f.skip-n, p[n:]
		default:
			n := copy(f.block[f.have:], p)
			f.have, p = f.have+n, p[n:]
			if f.have == blockSize {
				f.have = 0
				if err := f.header(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// header looks at a whole header block.
func (f *framing) header() error {
	if f.ext {
		f.ext = f.block[504] != 0
		return nil
	}
	if f.block == [blockSize]byte{} {
		f.zeros++
		return nil
	}
	f.zeros = 0
	kind := f.block[156]
	size, err := parseSize(f.block[124:136])
	if err != nil {
		return err
	}
	switch kind {
	case tar.TypeXHeader, tar.TypeXGlobalHeader:
		return f.beginExtended(kind, size)
	case tar.TypeGNULongName, tar.TypeGNULongLink:
		if f.pax.hasSize {
			return errAmbiguous("a size in front of a long name")
		}
		if err := f.countMeta(size); err != nil {
			return err
		}
		f.skip = padded(size)
		return nil
	}
	if f.pax.hasSize {
		size = f.pax.size
	}
	if isHeaderOnly(kind) && size != 0 {
		// Every tar but a few reads no content after a hard link, whatever its
		// header says; after the others, some do.
		if kind != tar.TypeLink || f.pax.hasSize {
			return errAmbiguous("content of an entry that has none")
		}
		size = 0
	}
	if size > f.max {
		return &LimitError{What: "bytes in the archive", Max: f.max}
	}
	f.entry = framedHeader{kind: kind, size: size}
	f.skip = padded(size)
	f.ext = kind == tar.TypeGNUSparse && f.block[482] != 0
	f.pax, f.metas = extended{}, 0
	return nil
}

func (f *framing) beginExtended(kind byte, size int64) error {
	if kind == tar.TypeXHeader && f.pax.seen {
		return errAmbiguous("two extended headers in a row")
	}
	if err := f.countMeta(size); err != nil {
		return err
	}
	f.pax.kind, f.meta, f.left = kind, f.meta[:0], int(size)
	f.skip = padded(size) - size
	if size == 0 {
		return f.extend()
	}
	return nil
}

func (f *framing) countMeta(size int64) error {
	if size > maxMeta {
		return errors.New("an extended header is too long")
	}
	if f.metas++; f.metas > maxMetas {
		return errors.New("too many extended headers in a row")
	}
	return nil
}

// extend reads the records of an extended header: "LEN KEY=VALUE\n".
func (f *framing) extend() error {
	global := f.pax.kind == tar.TypeXGlobalHeader
	f.pax.kind = 0
	if global {
		f.metas = 0 // archive/tar returns it as an entry, which is counted there
	} else {
		f.pax.seen = true
	}
	for s := string(f.meta); s != ""; {
		digits, rest, found := strings.Cut(s, " ")
		n, err := strconv.ParseUint(digits, 10, 31)
		if !found || err != nil || int(n) <= len(digits)+1 || int(n) > len(s) {
			return tar.ErrHeader
		}
		record := rest[:int(n)-len(digits)-1]
		s = s[n:]
		key, value, _ := strings.Cut(strings.TrimSuffix(record, "\n"), "=")
		if global && (key == "size" || key == "path" || key == "linkpath") {
			return errAmbiguous("a " + key + " for all entries")
		}
		if key != "size" || value == "" {
			continue
		}
		size, err := strconv.ParseUint(value, 10, 63)
		if err != nil || f.pax.hasSize {
			return errAmbiguous("an entry's size")
		}
		f.pax.size, f.pax.hasSize = int64(size), true
	}
	return nil
}

func errAmbiguous(what string) error {
	return fmt.Errorf("ambiguous archive: %s", what)
}

func padded(size int64) int64 { return (size + blockSize - 1) &^ (blockSize - 1) }

// parseSize reads the size field of a header: octal, or base 256.
func parseSize(field []byte) (int64, error) {
	if field[0]&0x80 != 0 {
		var n uint64
		for i, c := range field {
			if i == 0 {
				c &= 0x7f
			}
			if n>>55 != 0 {
				return 0, tar.ErrHeader
			}
			n = n<<8 | uint64(c)
		}
		return int64(n), nil
	}
	s := strings.Trim(string(field), " \x00")
	if s == "" {
		return 0, nil
	}
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	n, err := strconv.ParseUint(s, 8, 62)
	if err != nil {
		return 0, tar.ErrHeader
	}
	return int64(n), nil
}

func isHeaderOnly(kind byte) bool {
	switch kind {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return true
	}
	return false
}

// isSparse reports whether an entry uses one of the sparse forms of GNU tar.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for _, key := range []string{"GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.numblocks", "GNU.sparse.size"} {
		if _, ok := h.PAXRecords[key]; ok {
			return true
		}
	}
	return false
}
