// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const (
	maxWindow     = 128 << 20 // zstd
	maxDictionary = 64 << 20  // xz, of the first block
	// maxSniffed bounds the entries looked at before a tar counts as a root filesystem.
	maxSniffed = 100_000
	tarBlock   = 512
)

// compression is how a file is packed.
type compression string

const (
	plain        compression = ""
	gzipped      compression = "gzip"
	zstandard    compression = "zstd"
	xzCompressed compression = "xz"
	bzipped      compression = "bzip2"
)

// sniffCompression goes by the first bytes.
func sniffCompression(head []byte) compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return zstandard
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return xzCompressed
	case len(head) >= 10 && bytes.HasPrefix(head, []byte("BZh")) && (string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return bzipped
	}
	return plain
}

// foreign are formats that people try. packed ones could be a tar inside.
var foreign = []struct {
	magic, name string
	packed      bool
}{
	{"PK\x03\x04", "a zip archive", false},
	{"7z\xbc\xaf\x27\x1c", "a 7-zip archive", false},
	{"\x04\x22\x4d\x18", "compressed by lz4", true},
	{"LZIP", "compressed by lzip", true},
	{"\x5d\x00\x00", "compressed by lzma", true},
	{"\x89LZO", "compressed by lzop", true},
	{"\x1f\x9d", "compressed by compress", true},
	{"hsqs", "a squashfs image", false},
	{"\x7fELF", "a program", false},
	{"QFI\xfb", "a disk image", false},
	{"!<arch>\n", "a package or library", false},
	{"\xed\xab\xee\xdb", "an rpm package", false},
	{"070701", "a cpio archive", false},
	{"#!", "a script", false},
}

const tarHint = "an image file is a tar of a root filesystem, an OCI layout or an archive of docker save, plain or compressed by gzip, zstd, xz or bzip2"

// notTar explains what head is if it is no tar.
func notTar(head []byte) error {
	for _, f := range foreign {
		if !bytes.HasPrefix(head, []byte(f.magic)) {
			continue
		}
		if f.packed {
			return &hinted{text: "unknown compression: it is " + f.name, hint: "decompress it first; gzip, zstd, xz and bzip2 are read as they are"}
		}
		return &hinted{text: "not a tar archive: it is " + f.name, hint: tarHint}
	}
	if looksLikeHTML(head) {
		return &hinted{text: "not a tar archive: it is a web page", hint: tarHint}
	}
	return &hinted{text: "not a tar archive", hint: tarHint}
}

func looksLikeHTML(head []byte) bool {
	start := strings.ToLower(string(bytes.TrimSpace(head[:min(len(head), 256)])))
	return strings.HasPrefix(start, "<!doctype html") || strings.HasPrefix(start, "<html")
}

// decompress unpacks r by its first bytes, which it also returns.
func decompress(r io.Reader) (io.ReadCloser, compression, []byte, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(1100) // an xz stream's header and its first block's
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, plain, nil, err
	}
	if len(head) == 0 {
		return nil, plain, nil, &hinted{text: "the file is empty", hint: tarHint}
	}
	head = bytes.Clone(head)
	how := sniffCompression(head)
	switch how {
	case gzipped:
		z, err := gzip.NewReader(br)
		return z, how, head, err
	case zstandard:
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, how, head, err
		}
		return z.IOReadCloser(), how, head, nil
	case xzCompressed:
		if n := xzDictionary(head); n > maxDictionary {
			return nil, how, head, fmt.Errorf("its xz dictionary has %d MiB, the limit is %d", n>>20, maxDictionary>>20)
		}
		z, err := xz.NewReader(br)
		if err != nil {
			return nil, how, head, err
		}
		return io.NopCloser(z), how, head, nil
	case bzipped:
		return io.NopCloser(bzip2.NewReader(br)), how, head, nil
	}
	return io.NopCloser(br), how, head, nil
}

// xzDictionary reads the dictionary size that the first block of an xz stream declares,
// 0 if there is none.
func xzDictionary(head []byte) int64 {
	const streamHeader, lzma2 = 12, 0x21
	if len(head) < streamHeader+2 || head[streamHeader] == 0 {
		return 0
	}
	end := streamHeader + (int(head[streamHeader])+1)*4
	block := head[streamHeader+1 : min(end, len(head))]
	flags, block := block[0], block[1:]
	number := func() (n uint64) {
		n, used := binary.Uvarint(block)
		block = block[max(used, 0):]
		return n
	}
	for _, present := range []byte{0x40, 0x80} {
		if flags&present != 0 {
			number()
		}
	}
	for range int(flags&3) + 1 {
		id, size := number(), number()
		if size > uint64(len(block)) {
			return 0
		}
		if id == lzma2 && size == 1 {
			bits := block[0] & 0x3f
			return int64(2|bits&1) << (bits/2 + 11)
		}
		block = block[size:]
	}
	return 0
}

// errUndecided is what a reader given to isImageArchive returns when no more bytes may
// be spent on the question.
var errUndecided = errors.New("undecided")

// isImageArchive reads r, a tar of any compression, as far as needed to tell an archive
// that may hold an image from a root filesystem. An image archive has none but a few
// kinds of names; the first other name decides.
func isImageArchive(r io.Reader) (bool, error) {
	source := &keepError{r: r}
	z, how, head, err := decompress(source)
	if err != nil {
		return false, sniffError(source, how, err)
	}
	defer z.Close()
	t := tar.NewReader(z)
	empty := true
	for n := range maxSniffed {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			if empty {
				return false, &hinted{text: "the archive is empty", hint: tarHint}
			}
			return false, nil
		}
		if err != nil && n == 0 && source.err == nil && (errors.Is(err, tar.ErrHeader) || how == plain && len(head) < tarBlock) {
			if how == plain {
				return false, notTar(head)
			}
			return false, &hinted{text: "not a tar archive: it is something else in " + string(how), hint: tarHint}
		}
		if err != nil {
			return false, sniffError(source, how, err)
		}
		name := memberName(h.Name)
		if h.Typeflag == tar.TypeXGlobalHeader || name == "" {
			continue
		}
		empty = false
		if h.Typeflag == tar.TypeReg && (name == layoutFile || name == saveFile) {
			return true, nil
		}
		if !archiveLike(name) {
			return false, nil
		}
	}
	return false, nil
}

// sniffError says whose fault err is: the source's own error as it is, else the data's.
func sniffError(source *keepError, how compression, err error) error {
	var known *hinted
	switch {
	case source.err != nil:
		return source.err
	case errors.As(err, &known):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &hinted{text: "the file is truncated", hint: "download or copy it again"}
	case how == plain:
		return fmt.Errorf("read tar: %w", err)
	}
	return fmt.Errorf("decompress %s: %w", how, err)
}

// memberName is a tar entry's name as a path beneath the archive's root, "" for the
// root itself.
func memberName(name string) string { return path.Clean("/" + name)[1:] }

// archiveLike tells whether name occurs in image archives: of docker save, skopeo,
// podman, buildx, crane, kaniko and nix.
func archiveLike(name string) bool {
	top, _, below := strings.Cut(name, "/")
	if top == "blobs" || (len(top) == 64 && every(top, isHexDigit)) {
		return true
	}
	if below {
		return false
	}
	switch name {
	case layoutFile, indexFile, saveFile, "repositories", "VERSION":
		return true
	}
	for _, suffix := range []string{".json", ".tar", ".tar.gz", ".tar.zst"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return strings.HasPrefix(name, "sha256:")
}

func isHexDigit(c byte) bool { return isDigit(c) || (c >= 'a' && c <= 'f') }

// keepError remembers an error of r other than EOF.
type keepError struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (k *keepError) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		k.err = err
	}
	return n, err
}
