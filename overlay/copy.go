// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"context"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// CopyData makes dst, an empty regular file, hold the same as src. Where the
// filesystem can, both share their blocks (a reflink); else the kernel copies
// them, and holes stay holes. The offsets of both files are undefined after it.
func CopyData(ctx context.Context, dst, src *os.File) (int64, error) {
	n, err := copyData(ctx, int(dst.Fd()), int(src.Fd()))
	runtime.KeepAlive(src)
	return n, named("copy to "+dst.Name(), err)
}

func copyData(ctx context.Context, dst, src int) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return 0, err
	}
	if st.Size == 0 {
		return 0, nil
	}
	if unix.IoctlFileClone(dst, src) == nil {
		return st.Size, nil
	}
	c := copier{ctx: ctx, dst: dst, src: src}
	for off := int64(0); off < st.Size; {
		start, end := dataAfter(src, off, st.Size)
		if err := c.copyRange(start, end); err != nil {
			return start, err
		}
		off = end
	}
	return st.Size, unix.Ftruncate(dst, st.Size)
}

// dataAfter finds the next piece of a file that is not a hole. Where there is
// none, the piece is empty and at the end.
func dataAfter(fd int, off, size int64) (start, end int64) {
	start, err := unix.Seek(fd, off, unix.SEEK_DATA)
	switch err {
	case nil:
	case unix.ENXIO:
		return size, size
	default: // a filesystem that does not know holes
		return off, size
	}
	end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	if err != nil {
		return start, size
	}
	return min(start, size), min(end, size)
}

type copier struct {
	ctx      context.Context
	dst, src int
	plain    bool // the kernel does not copy between these two
	buf      []byte
}

// copyRange copies the bytes from start to end to the same place.
func (c *copier) copyRange(start, end int64) error {
	const piece = 64 << 20 // after which the context is asked
	for start < end {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if c.plain {
			n, err := c.copyPlain(start, end)
			if err != nil {
				return err
			}
			start += n
			continue
		}
		from, to := start, start
		n, err := unix.CopyFileRange(c.src, &from, c.dst, &to, int(min(end-start, piece)), 0)
		switch err {
		case nil:
			if n == 0 { // the file shrank, or a filesystem that pretends to copy
				c.plain = true
			}
			start += int64(n)
		case unix.EINTR:
		case unix.EXDEV, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM, unix.EIO:
			c.plain = true
		default:
			return err
		}
	}
	return nil
}

func (c *copier) copyPlain(start, end int64) (int64, error) {
	if c.buf == nil {
		c.buf = make([]byte, 256<<10)
	}
	n, err := unix.Pread(c.src, c.buf[:min(int64(len(c.buf)), end-start)], start)
	switch {
	case err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return int64(n), writeAt(c.dst, c.buf[:n], start)
}
