// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/gzip"
)

// A file of a log that has been rotated away can be compressed: N becomes N.gz. There
// is at every moment one of the two, for a reader that looks for N first.
const (
	compressedLog  = ".gz"
	compressingLog = "compressing" // what is not whole yet; another's leftover is written over
)

// compressLog compresses the file of a number. It stays as it is where that fails.
func compressLog(dir string, number int) error {
	path, part := filepath.Join(dir, strconv.Itoa(number)), filepath.Join(dir, compressingLog)
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err == nil {
		_, err = io.Copy(w, in)
		err = errors.Join(err, w.Close(), out.Sync())
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(part, path+compressedLog)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return os.Remove(path)
}

// removeLog removes the file of a number, compressed or not.
func removeLog(dir string, number int) {
	path := filepath.Join(dir, strconv.Itoa(number))
	_ = os.Remove(path)
	_ = os.Remove(path + compressedLog)
}

// openLog opens the file of a number to read it from anywhere. One that is compressed
// is read into a file without a name.
func openLog(dir string, number int) (*os.File, error) {
	path := filepath.Join(dir, strconv.Itoa(number))
	f, err := os.Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	packed, err := os.Open(path + compressedLog)
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	if f, err = os.CreateTemp("", "sbx-log-"); err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		err = decompress(f, packed)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read log %s: %w", packed.Name(), err)
	}
	return f, nil
}

func decompress(to io.Writer, from io.Reader) error {
	r, err := gzip.NewReader(from)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, r) //nolint:gosec // it is our own, and no larger than a file of a log
	return errors.Join(err, r.Close())
}
