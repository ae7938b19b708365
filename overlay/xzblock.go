// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// xzCheck is the type of the check behind each block.
type xzCheck byte

const (
	xzNone   xzCheck = 0
	xzCRC32  xzCheck = 1
	xzCRC64  xzCheck = 4
	xzSHA256 xzCheck = 10
)

func (c xzCheck) known() bool { return c == xzNone || c == xzCRC32 || c == xzCRC64 || c == xzSHA256 }

func (c xzCheck) size() int {
	switch c {
	case xzCRC32:
		return crc32.Size
	case xzCRC64:
		return crc64.Size
	case xzSHA256:
		return sha256.Size
	}
	return 0
}

// newHash is what computes the check; nil if there is none.
func (c xzCheck) newHash() hash.Hash {
	switch c {
	case xzCRC32:
		return crc32.NewIEEE()
	case xzCRC64:
		return crc64.New(crc64.MakeTable(crc64.ECMA))
	case xzSHA256:
		return sha256.New()
	}
	return nil
}

// xzSum is a hash's sum as xz writes it: CRCs with the lowest byte first.
func xzSum(h hash.Hash) []byte {
	switch h := h.(type) {
	case hash.Hash64:
		return binary.LittleEndian.AppendUint64(nil, h.Sum64())
	case hash.Hash32:
		return binary.LittleEndian.AppendUint32(nil, h.Sum32())
	}
	return h.Sum(nil)
}

// xzBlock is a block of a stream. It reads what is in it, and at its end verifies it.
type xzBlock struct {
	header       int64 // bytes of the header
	packed, size int64 // bytes, compressed and not; -1 if the header does not tell
	window       int64
	check        xzCheck
	cost         int64 // bytes that it holds in memory
	inPlace      bool  // decoded by its reader

	// Of who decodes:
	in    *xzInput
	from  int64 // where its data begin in in
	lzma  *lzma.Reader2
	hash  hash.Hash
	count int64 // bytes decoded

	// Of what was decoded ahead:
	chunks chan chunk
	chunk  chunk
}

// minXzWindow is what the decoder holds at least, as the library's own reader has it.
const minXzWindow = 8 << 20

// parseXzBlock reads a block's header: flags, optional sizes, and one filter, LZMA2
// with its dictionary's size.
func parseXzBlock(header []byte, check xzCheck) (*xzBlock, error) {
	end := len(header) - crc32.Size
	if crc32.ChecksumIEEE(header[:end]) != binary.LittleEndian.Uint32(header[end:]) {
		return nil, errXz
	}
	flags, p := header[1], header[2:end]
	b := &xzBlock{header: int64(len(header)), packed: -1, size: -1, check: check}
	for _, field := range []struct {
		flag byte
		to   *int64
	}{{0x40, &b.packed}, {0x80, &b.size}} {
		if flags&field.flag == 0 {
			continue
		}
		n, used := binary.Uvarint(p)
		if *field.to = int64(n); used <= 0 || *field.to < 0 {
			return nil, errXz
		}
		p = p[used:]
	}
	const reserved, filters, lzma2 = 0x3c, 3, 0x21
	if flags&reserved != 0 || len(p) < 3 {
		return nil, errXz
	}
	if flags&filters != 0 || p[0] != lzma2 {
		return nil, errors.New("filters other than LZMA2 are not supported")
	}
	// Two bits of mantissa, the rest exponent; 40 means 4 GiB - 1.
	bits := int64(p[2])
	if p[1] != 1 || bits > 40 || len(bytes.Trim(p[3:], "\x00")) > 0 {
		return nil, errXz
	}
	if b.window = (2 | bits&1) << (bits/2 + 11); b.window > maxXzWindow {
		return nil, &LimitError{What: "bytes of window", Max: maxXzWindow}
	}
	b.window = max(b.window, minXzWindow)
	return b, nil
}

// decode decodes a block that is whole in memory, in a goroutine, until g is shut. The
// goroutine ends by itself: there is room for all that the header promises.
func (b *xzBlock) decode(data []byte, g *gate) {
	b.in = &xzInput{r: eofReader{}, buf: data, end: len(data)}
	b.chunks = make(chan chunk, b.size/ringSize+2)
	go func() {
		for {
			c := chunk{buf: make([]byte, min(ringSize, b.size-b.count+1))}
			if c.n, c.err = readFull(readerFunc(b.verified), c.buf); g.shut.Load() {
				c.err = errClosed
			}
			b.chunks <- c
			if c.err != nil {
				return
			}
		}
	}()
}

// Read implements io.Reader.
func (b *xzBlock) Read(p []byte) (int, error) {
	if b.inPlace {
		return b.verified(p)
	}
	for b.chunk.n == 0 {
		if b.chunk.err != nil {
			return 0, b.chunk.err
		}
		b.chunk = <-b.chunks
	}
	n := copy(p, b.chunk.buf[:b.chunk.n])
	b.chunk.buf, b.chunk.n = b.chunk.buf[n:], b.chunk.n-n
	return n, nil
}

// verified decodes, and at the end holds what was decoded against the sizes and the
// check.
func (b *xzBlock) verified(p []byte) (int, error) {
	if b.lzma == nil {
		var err error
		b.from, b.hash = b.in.offset(), b.check.newHash()
		if b.lzma, err = (lzma.Reader2Config{DictCap: int(b.window)}).NewReader2(b.in); err != nil {
			return 0, err
		}
	}
	n, err := b.lzma.Read(p)
	b.count += int64(n)
	if b.hash != nil {
		b.hash.Write(p[:n])
	}
	packed := b.in.offset() - b.from
	if b.size >= 0 && b.count > b.size || b.packed >= 0 && packed > b.packed {
		return n, errXz
	}
	if err != io.EOF {
		return n, err
	}
	if b.size >= 0 && b.count != b.size || b.packed >= 0 && packed != b.packed {
		return n, errXz
	}
	b.packed, b.size = packed, b.count
	rest := make([]byte, padding(packed)+int64(b.check.size()))
	if _, err := io.ReadFull(b.in, rest); err != nil {
		return n, err
	}
	zeros, sum := rest[:padding(packed)], rest[padding(packed):]
	if len(bytes.Trim(zeros, "\x00")) > 0 || b.hash != nil && !bytes.Equal(sum, xzSum(b.hash)) {
		return n, errXz
	}
	return n, io.EOF
}

// readerFunc is a function as an io.Reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// eofReader has nothing.
type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

// xzInput is a buffer that knows where it is. The decoder reads it a byte at a time, so
// there is nothing between the two. Its end is io.ErrUnexpectedEOF, but for readStart.
type xzInput struct {
	r       io.Reader
	buf     []byte
	at, end int
	before  int64 // bytes before buf
}

func (x *xzInput) offset() int64 { return x.before + int64(x.at) }

func (x *xzInput) fill() error {
	x.before += int64(x.end)
	x.at, x.end = 0, 0
	for range 100 {
		n, err := x.r.Read(x.buf)
		if n > 0 {
			x.end = n
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// Read implements io.Reader.
func (x *xzInput) Read(p []byte) (int, error) {
	if x.at == x.end {
		if err := x.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	if len(p) == 1 {
		p[0] = x.buf[x.at]
		x.at++
		return 1, nil
	}
	n := copy(p, x.buf[x.at:x.end])
	x.at += n
	return n, nil
}

// ReadByte implements io.ByteReader.
func (x *xzInput) ReadByte() (byte, error) {
	var b [1]byte
	_, err := x.Read(b[:])
	return b[0], err
}

// readStart fills p, or reads nothing where the input ends before it.
func (x *xzInput) readStart(p []byte) (int, error) {
	if x.at == x.end {
		if err := x.fill(); errors.Is(err, io.EOF) {
			return 0, nil
		} else if err != nil {
			return 0, err
		}
	}
	return io.ReadFull(x, p)
}
