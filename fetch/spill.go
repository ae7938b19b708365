// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// maxSpill bounds a temporary file; a real image archive stays far below.
const maxSpill = 64 << 30

// flatten returns f as an uncompressed tar: f itself, or an unlinked temporary file.
func flatten(ctx context.Context, f *os.File, dir string) (*os.File, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	source := &keepError{r: &contextReader{ctx, f}}
	z, how, _, err := decompress(source)
	if err != nil {
		return nil, sniffError(source, how, err)
	}
	defer z.Close()
	if how == plain {
		return f, nil
	}
	data := &keepError{r: z}
	flat, err := spill(dir, data)
	if err != nil && data.err != nil {
		err = sniffError(source, how, data.err)
	}
	return flat, err
}

// spill copies r into an unlinked temporary file, to be read from its beginning.
func spill(dir string, r io.Reader) (*os.File, error) {
	f, err := unlinked(dir)
	if err != nil {
		return nil, fmt.Errorf("make temporary file: %w", err)
	}
	n, err := io.Copy(f, io.LimitReader(r, maxSpill+1))
	var write *fs.PathError
	switch {
	case errors.As(err, &write) && write.Op == "write":
		err = fmt.Errorf("write temporary file in %s: %w", dir, write.Err)
	case err == nil && n > maxSpill:
		err = fmt.Errorf("it unpacks to more than %d GiB", maxSpill>>30)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unlinked makes a file without a name, so that nothing is left however we end.
func unlinked(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|unix.O_EXCL, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(unlinked)"), nil
	}
	f, err := os.CreateTemp(dir, "sbx-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
