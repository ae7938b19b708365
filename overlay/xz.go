// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"runtime"
)

// Bounds of what is decoded ahead. A block whose sizes are not told, or that needs
// more than half of maxXzAhead, is decoded where it is read.
const (
	maxXzAhead  = 256 << 20 // bytes, of blocks in memory: compressed, decoded, windows
	maxXzBlocks = 1 << 20
	xzBuffer    = 64 << 10
)

var (
	errXz       = errors.New("damaged data")
	errXzBlocks = errors.New("too many blocks")
)

const (
	xzMagic       = "\xfd7zXZ\x00"
	xzFooterMagic = "YZ"
)

// xzStreams reads xz streams, one behind the other, and the padding between them
// (xz-file-format.txt 1.1). Blocks that tell both their sizes, as xz writes them with
// several threads, are decoded side by side, one for each processor; what they hold
// comes in order. No window is larger than maxXzWindow.
type xzStreams struct {
	in    *xzInput
	gate  *gate
	check xzCheck // of the stream

	inStream bool
	records  hash.Hash // of the stream's blocks, as the index must have them
	blocks   uint64    // of the stream

	ahead  []*xzBlock // being decoded, in order
	held   int64      // bytes of ahead and block
	block  *xzBlock   // being read
	total  int        // blocks of all streams
	behind error      // what comes behind the blocks ahead
}

// newXzStreams reads the first stream's header.
func newXzStreams(r io.Reader, g *gate) (*xzStreams, error) {
	x := &xzStreams{in: &xzInput{r: r, buf: make([]byte, xzBuffer)}, gate: g}
	if err := x.streamHeader(); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return x, nil
}

// Read implements io.Reader.
func (x *xzStreams) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if x.block == nil {
			x.lookAhead()
			if len(x.ahead) == 0 {
				return 0, x.behind
			}
			x.block, x.ahead = x.ahead[0], x.ahead[1:]
		}
		n, err := x.block.Read(p)
		if errors.Is(err, io.EOF) {
			err = x.done()
		}
		if err != nil {
			x.behind, x.ahead = err, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// done takes leave of the block that was read.
func (x *xzStreams) done() error {
	b := x.block
	x.block = nil
	x.held -= b.cost
	if b.inPlace {
		return x.record(b)
	}
	return nil
}

// lookAhead starts blocks until there are enough, or one must be decoded in place.
func (x *xzStreams) lookAhead() {
	for x.behind == nil && len(x.ahead) < runtime.GOMAXPROCS(0) {
		if n := len(x.ahead); n > 0 && (x.ahead[n-1].inPlace || x.held > maxXzAhead/2) {
			return
		}
		b, err := x.next()
		if err != nil {
			x.behind = err
			return
		}
		x.held += b.cost
		x.ahead = append(x.ahead, b)
	}
}

// next finds the next block, in this stream or the next; io.EOF behind the last.
func (x *xzStreams) next() (*xzBlock, error) {
	for {
		if !x.inStream {
			if err := x.streamHeader(); err != nil {
				return nil, err
			}
		}
		size, err := x.in.ReadByte()
		if err != nil {
			return nil, err
		}
		if size != 0 {
			return x.start(size)
		}
		if err := x.tail(); err != nil {
			return nil, err
		}
		x.inStream = false
	}
}

// start reads a block's header and, if both sizes are known, the block.
func (x *xzStreams) start(size byte) (*xzBlock, error) {
	if x.total++; x.total > maxXzBlocks {
		return nil, errXzBlocks
	}
	header := make([]byte, (int(size)+1)*4)
	header[0] = size
	if _, err := io.ReadFull(x.in, header[1:]); err != nil {
		return nil, err
	}
	b, err := parseXzBlock(header, x.check)
	if err != nil {
		return nil, err
	}
	if b.packed < 0 || b.size < 0 || max(b.packed, b.size) > maxXzAhead/2 || b.packed+b.size+b.window > maxXzAhead/2 {
		b.inPlace, b.in = true, x.in
		return b, nil
	}
	b.cost = b.packed + b.size + b.window
	// What is claimed is taken as it comes, not before it is there.
	var data bytes.Buffer
	n := b.packed + padding(b.packed) + int64(x.check.size())
	if _, err := io.CopyN(&data, x.in, n); err != nil {
		return nil, err
	}
	if err := x.record(b); err != nil {
		return nil, err
	}
	b.decode(data.Bytes(), x.gate)
	return b, nil
}

// record notes what the index must say of a block.
func (x *xzStreams) record(b *xzBlock) error {
	x.blocks++
	return writeRecord(x.records, uint64(b.header)+uint64(b.packed)+uint64(x.check.size()), uint64(b.size))
}

func writeRecord(w io.Writer, unpadded, size uint64) error {
	_, err := w.Write(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, unpadded), size))
	return err
}

// streamHeader reads the header of a stream and the padding before it; io.EOF where
// no stream follows.
func (x *xzStreams) streamHeader() error {
	var head [12]byte
	for {
		n, err := x.in.readStart(head[:4])
		if err != nil {
			return err
		}
		if n == 0 {
			return io.EOF
		}
		if !bytes.Equal(head[:4], []byte{0, 0, 0, 0}) {
			break
		}
	}
	if _, err := io.ReadFull(x.in, head[4:]); err != nil {
		return err
	}
	if string(head[:6]) != xzMagic || crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return errXz
	}
	x.check = xzCheck(head[7])
	if head[6] != 0 || !x.check.known() {
		return fmt.Errorf("a check of type %d is not supported", binary.BigEndian.Uint16(head[6:8]))
	}
	x.inStream, x.records, x.blocks = true, sha256.New(), 0
	return nil
}

// tail reads the index, whose first byte was read, and the footer. They must say what
// the blocks were.
func (x *xzStreams) tail() error {
	index := &xzIndex{in: x.in, length: 1, crc: crc32.ChecksumIEEE([]byte{0})}
	if n, err := index.number(); err != nil || n != x.blocks {
		return errors.Join(err, errIf(err == nil, errXz))
	}
	records := sha256.New()
	for range x.blocks {
		unpadded, err := index.number()
		if err != nil {
			return err
		}
		size, err := index.number()
		if err != nil {
			return err
		}
		if err := writeRecord(records, unpadded, size); err != nil {
			return err
		}
	}
	for index.length%4 != 0 {
		if b, err := index.ReadByte(); err != nil || b != 0 {
			return errors.Join(err, errIf(err == nil, errXz))
		}
	}
	var rest [16]byte // the index's CRC32, then the footer: CRC32, backward size, flags, magic
	if _, err := io.ReadFull(x.in, rest[:]); err != nil {
		return err
	}
	number := func(at int) uint32 { return binary.LittleEndian.Uint32(rest[at:]) }
	if !bytes.Equal(records.Sum(nil), x.records.Sum(nil)) || number(0) != index.crc || number(4) != crc32.ChecksumIEEE(rest[8:14]) ||
		(int64(number(8))+1)*4 != index.length+4 || rest[12] != 0 || rest[13] != byte(x.check) || string(rest[14:]) != xzFooterMagic {
		return errXz
	}
	return nil
}

func errIf(wrong bool, err error) error {
	if wrong {
		return err
	}
	return nil
}

// xzIndex reads the numbers of an index, and sums them up.
type xzIndex struct {
	in     *xzInput
	length int64
	crc    uint32
}

// ReadByte implements io.ByteReader.
func (x *xzIndex) ReadByte() (byte, error) {
	b, err := x.in.ReadByte()
	if err == nil {
		x.length++
		x.crc = crc32.Update(x.crc, crc32.IEEETable, []byte{b})
	}
	return b, err
}

func (x *xzIndex) number() (uint64, error) {
	n, err := binary.ReadUvarint(x)
	if err == nil && n > math.MaxInt64 {
		err = errXz
	}
	return n, err
}

// padding is what is missing to a multiple of four.
func padding(n int64) int64 { return -n & 3 }
