// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// blockSize holds the largest frame: 10 bytes of virtio_net_hdr, 14 of Ethernet
	// and an IP packet of 64 KiB.
	blockSize = 68 << 10
	// smallSize is for what would pin a whole block.
	smallSize = 4 << 10
	// headroom is kept in front of a payload, for the headers of its frame.
	headroom = 96
	// smallPayload is the most that a small buffer holds behind its headroom.
	smallPayload = smallSize - headroom
)

// buffer is memory of an arena. data has always its full length.
type buffer struct {
	data  []byte
	small bool
	dirty bool // its pages may be resident
}

// arena is the memory of a loop for bytes that wait: of fixed size, outside of the
// garbage collector's heap, resident only as far as it was used.
type arena struct {
	memory []byte
	blocks []*buffer // free ones; the end was used last
	small  []*buffer
	total  int // blocks in all
	carved int // blocks that were cut into small buffers
}

func newArena(size int) (arena, error) {
	total := max(size/blockSize, 8)
	memory, err := unix.Mmap(-1, 0, total*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return arena{}, fmt.Errorf("map buffers: %w", err)
	}
	// Huge pages would make the first byte of each block cost two megabytes.
	_ = unix.Madvise(memory, unix.MADV_NOHUGEPAGE)
	a := arena{memory: memory, total: total}
	for i := total - 1; i >= 0; i-- {
		a.blocks = append(a.blocks, &buffer{data: memory[i*blockSize : (i+1)*blockSize : (i+1)*blockSize]})
	}
	return a, nil
}

// block returns a free block, or nil.
func (a *arena) block() *buffer {
	n := len(a.blocks)
	if n == 0 {
		return nil
	}
	b := a.blocks[n-1]
	a.blocks = a.blocks[:n-1]
	b.dirty = true
	return b
}

// fit returns a buffer for a payload of n bytes behind its headroom, or nil.
func (a *arena) fit(n int) *buffer {
	if n > smallPayload {
		return a.block()
	}
	if len(a.small) == 0 && !a.carve() {
		return a.block()
	}
	last := len(a.small) - 1
	b := a.small[last]
	a.small = a.small[:last]
	return b
}

// carve cuts a block into small buffers, which it stays.
func (a *arena) carve() bool {
	if a.carved >= a.total/4 {
		return false
	}
	b := a.block()
	if b == nil {
		return false
	}
	a.carved++
	for i := 0; i+smallSize <= blockSize; i += smallSize {
		a.small = append(a.small, &buffer{data: b.data[i : i+smallSize : i+smallSize], small: true})
	}
	return true
}

func (a *arena) free(b *buffer) {
	if b.small {
		a.small = append(a.small, b)
		return
	}
	a.blocks = append(a.blocks, b)
}

// scarce reports whether less than 1/of of the arena is free.
func (a *arena) scarce(of int) bool { return len(a.blocks)*of < a.total }

// waiting is how many bytes are in use.
func (a *arena) waiting() int {
	return (a.total-a.carved-len(a.blocks))*blockSize + (a.carved*(blockSize/smallSize)-len(a.small))*smallSize
}

// trim gives pages of free blocks back to the kernel, but for the last few.
func (a *arena) trim() {
	const keep = 4
	for i := 0; i < len(a.blocks)-keep; i++ {
		if b := a.blocks[i]; b.dirty {
			b.dirty = false
			_ = unix.Madvise(b.data, unix.MADV_DONTNEED)
		}
	}
}

func (a *arena) close() { _ = unix.Munmap(a.memory) }
