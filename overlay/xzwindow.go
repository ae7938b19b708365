// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bufio"
	"errors"
)

// xzWindow watches an xz stream on its way to the decoder and stops it in front
// of a block whose header declares a larger dictionary than allowed: the decoder
// allocates whatever a header says, up to 4 GiB. (The format: xz-file-format.txt
// and the LZMA2 chunks that a block consists of.)
type xzWindow struct {
	r   *bufio.Reader
	max int64

	state xzState
	want  int    // bytes that state still needs
	got   []byte // those it has
	skip  int64  // bytes to pass unseen

	check   int   // size of a block's check
	block   int64 // compressed bytes of the block
	records int   // of the index, in numbers still to come
	index   int   // bytes of the index
	blocks  int
	err     error
}

type xzState byte

const (
	xzStream xzState = iota // a stream's header, or four bytes of padding
	xzHeader                // the rest of a stream's header
	xzSize                  // the size byte of a block's header, or an index
	xzBlock                 // the rest of a block's header
	xzChunk                 // the control byte of a chunk
	xzLength                // and its lengths
	xzCount                 // how many records the index has
	xzRecord                // the numbers in them
)

// maxXzBlocks bounds what the decoder remembers, one record for each block.
const maxXzBlocks = 1 << 20

var (
	errXz       = errors.New("damaged data")
	errXzBlocks = errors.New("too many blocks")
)

// checkSizes are the sizes of the check after each block, by its type.
var checkSizes = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

// Read passes bytes on.
func (x *xzWindow) Read(p []byte) (int, error) {
	if x.err != nil {
		return 0, x.err
	}
	// What the decoder is to see was looked at: a header that is too large must
	// not reach it, so no more is read than up to its end.
	n, err := x.r.Read(p[:min(len(p), x.span())])
	if x.skip > 0 {
		x.skip -= int64(n)
		return n, err
	}
	for _, b := range p[:n] {
		if x.watch(b) != nil {
			return 0, x.err
		}
	}
	return n, err
}

// ReadByte passes one byte on.
func (x *xzWindow) ReadByte() (byte, error) {
	if x.err != nil {
		return 0, x.err
	}
	b, err := x.r.ReadByte()
	if err == nil {
		if x.skip > 0 {
			x.skip--
		} else if err := x.watch(b); err != nil {
			return 0, err
		}
	}
	return b, err
}

// span is how many bytes can be read before a decision is due.
func (x *xzWindow) span() int {
	if x.skip > 0 {
		return int(min(x.skip, 1<<20))
	}
	return max(1, x.want-len(x.got))
}

// watch looks at one byte.
func (x *xzWindow) watch(b byte) error {
	if x.skip > 0 {
		x.skip--
		return nil
	}
	if x.want == 0 {
		x.want = 1
		if x.state == xzStream {
			x.want = 4
		}
	}
	if x.got = append(x.got, b); len(x.got) < x.want {
		return nil
	}
	got := x.got
	x.got, x.want = x.got[:0], 0
	x.err = x.decide(got)
	return x.err
}

// decide acts on the bytes that the state waited for.
func (x *xzWindow) decide(p []byte) error {
	switch x.state {
	case xzStream:
		if p[0] != 0 { // else padding between two streams
			x.state, x.want = xzHeader, 8
		}
	case xzHeader:
		x.check = checkSizes[p[3]&0xf]
		x.state = xzSize
	case xzSize:
		if p[0] == 0 {
			x.state, x.index = xzCount, 1
			x.records = 0
			return nil
		}
		x.state, x.want = xzBlock, (int(p[0])+1)*4-1
		x.block = 0
	case xzBlock:
		return x.header(p)
	case xzChunk:
		return x.control(p[0])
	case xzLength:
		n := int64(p[len(p)-2])<<8 | int64(p[len(p)-1])
		x.skip = n + 1
		if len(p) == 5 { // a compressed chunk with new properties: one byte more
			n = int64(p[2])<<8 | int64(p[3])
			x.skip = n + 1
		}
		x.block += int64(len(p)) + x.skip
		x.state = xzChunk
	case xzCount, xzRecord:
		return x.number(p[0])
	}
	return nil
}

// control reads the first byte of a chunk.
func (x *xzWindow) control(b byte) error {
	x.block++
	switch {
	case b == 0: // the end of the block: padding to four bytes, and the check
		x.skip = (4-x.block%4)%4 + int64(x.check)
		x.state = xzSize
		if x.blocks++; x.blocks > maxXzBlocks {
			return errXzBlocks
		}
	case b == 1 || b == 2: // not compressed: a length of two bytes
		x.state, x.want = xzLength, 2
	case b >= 0xc0: // two lengths and properties
		x.state, x.want = xzLength, 5
	case b >= 0x80: // two lengths
		x.state, x.want = xzLength, 4
	default:
		return errXz
	}
	return nil
}

// number passes the numbers of an index, of seven bits each byte.
func (x *xzWindow) number(b byte) error {
	x.index++
	if x.state == xzCount {
		if x.records > 1<<30 {
			return errXz
		}
		// The count comes with its lowest bits first; it must be that of the blocks,
		// which the decoder checks, so here it only has to be taken apart.
		x.records |= int(b&0x7f) << (7 * (x.index - 2))
		if b&0x80 != 0 {
			if x.index > 5 {
				return errXz
			}
			return nil
		}
		x.records *= 2
		x.state = xzRecord
	} else if b&0x80 == 0 {
		x.records--
	}
	if x.records == 0 {
		const crc, footer = 4, 12
		x.skip = int64((4-x.index%4)%4 + crc + footer)
		x.state = xzStream
	}
	return nil
}

// header reads a block's header: flags, optional sizes, and one filter, LZMA2
// with its dictionary's size.
func (x *xzWindow) header(p []byte) error {
	flags, p := p[0], p[1:]
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} {
		if !present {
			continue
		}
		for len(p) > 0 && p[0]&0x80 != 0 {
			p = p[1:]
		}
		if len(p) == 0 {
			return errXz
		}
		p = p[1:]
	}
	const lzma2 = 0x21
	if flags&3 != 0 || len(p) < 3 || p[0] != lzma2 || p[1] != 1 {
		return errors.New("filters other than LZMA2 are not supported")
	}
	// Two bits of mantissa, the rest exponent; 40 means 4 GiB - 1.
	bits := int64(p[2])
	if bits > 40 || (2|bits&1)<<(bits/2+11) > x.max {
		return &LimitError{What: "bytes of window", Max: x.max}
	}
	x.state = xzChunk
	return nil
}
