// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compression is how a blob is compressed.
type Compression int

// The compressions that Decompress knows.
const (
	Plain Compression = iota
	Gzip
	Zstd
	Xz
	Bzip2
)

func (c Compression) String() string {
	switch c {
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	case Xz:
		return "xz"
	case Bzip2:
		return "bzip2"
	}
	return "plain"
}

// A window is what a decompressor must remember of its output. Its size is
// declared by the blob, so it is bounded here: by what `zstd --long` and `xz -9`
// declare at most without further options.
const (
	maxZstdWindow = 128 << 20
	maxXzWindow   = 64 << 20
)

// UnknownCompressionError says that a blob is compressed in a way that is known,
// but not to sbx.
type UnknownCompressionError struct{ Name string }

func (e *UnknownCompressionError) Error() string {
	return "decompress: " + e.Name + " is not supported"
}

// Hint says what is.
func (e *UnknownCompressionError) Hint() string {
	return "compress it again with gzip, zstd, xz or bzip2"
}

// Decompress finds out by its first bytes how r is compressed, and returns a
// reader of what is in it. Everything in r is read, to its end: further members
// and frames are content, and anything else behind them is an error. What is not
// compressed is read as it is.
//
// Decompression runs in a goroutine of its own, ahead of the reader by a bounded
// amount. Close ends it; r is not read after that, but a read that was under way
// may still return, so whoever can block r must be able to close it.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	gate := &gate{r: r}
	in := bufio.NewReaderSize(gate, 128<<10)
	head, err := in.Peek(blockSize)
	if err != nil && err != io.EOF {
		return nil, Plain, fmt.Errorf("decompress: %w", err)
	}
	c, err := sniff(head)
	if err != nil {
		return nil, Plain, err
	}
	var content io.Reader
	closeContent := func() {}
	switch c {
	case Plain:
		return plainReader{in, gate}, Plain, nil
	case Gzip:
		content, err = gzip.NewReader(in)
	case Zstd:
		var z *zstd.Decoder
		// One decoder without goroutines of its own: ours is ahead already.
		z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderMaxMemory(maxZstdWindow))
		if err == nil {
			content, closeContent = z, z.Close
		}
	case Xz:
		content, err = newXzStreams(in, gate)
	case Bzip2:
		content = bzip2.NewReader(in)
	}
	if err != nil {
		return nil, c, explain(c, err)
	}
	return newPump(content, gate, closeContent, func(err error) error { return explain(c, err) }), c, nil
}

// explain turns a decompressor's error into ours.
func explain(c Compression, err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = &LimitError{What: "bytes of window", Max: maxZstdWindow}
	}
	return fmt.Errorf("decompress %s: %w", c, err)
}

var magics = []struct {
	magic string
	c     Compression
	name  string // of a compression that is not supported
}{
	{"\x1f\x8b", Gzip, ""},
	{"\x28\xb5\x2f\xfd", Zstd, ""},
	{"\xfd7zXZ\x00", Xz, ""},
	{"BZh", Bzip2, ""},
	{"\x1f\x9d", Plain, "compress (.Z)"},
	{"\x1f\xa0", Plain, "compress (.Z)"},
	{"\x04\x22\x4d\x18", Plain, "lz4"},
	{"LZIP", Plain, "lzip"},
	{"\x89LZO\x00", Plain, "lzop"},
	{"7z\xbc\xaf\x27\x1c", Plain, "7-Zip"},
	{"PK\x03\x04", Plain, "zip"},
	{"\x5d\x00\x00", Plain, "lzma"},
	{"Rar!\x1a\x07", Plain, "rar"},
	{"hsqs", Plain, "squashfs"},
}

// sniff tells a compression by its magic number.
func sniff(head []byte) (Compression, error) {
	if len(head) >= 263 && string(head[257:262]) == "ustar" {
		return Plain, nil // whatever the first file is called
	}
	if isSkippableFrame(head) {
		return Zstd, nil
	}
	for _, m := range magics {
		if !bytes.HasPrefix(head, []byte(m.magic)) {
			continue
		}
		if m.name != "" {
			return Plain, &UnknownCompressionError{Name: m.name}
		}
		return m.c, nil
	}
	return Plain, nil
}

// isSkippableFrame reports whether a zstd stream begins with a frame of metadata,
// as those of pzstd and seekable zstd do.
func isSkippableFrame(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && head[1] == 0x2a && head[2] == 0x4d && head[3] == 0x18
}
