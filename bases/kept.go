// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/reference"
)

// decompress is overlay.Decompress for what is in the package of a digest. What xz
// has compressed is kept, compressed by gzip: the next time it is read five times
// faster. The result must be read to its end to be kept, and closed.
func (c cache) decompress(r io.Reader, digest reference.Digest) (io.ReadCloser, error) {
	name := filepath.Join(c.dir, digest.Hex()+".data")
	if kept := openKept(name); kept != nil {
		return kept, nil
	}
	plain, how, err := overlay.Decompress(r)
	if err != nil || how != overlay.Xz {
		return plain, err
	}
	part, err := os.OpenFile(name+".part", os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return plain, nil // it is only for the next time
	}
	if unix.Flock(int(part.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || part.Truncate(0) != nil {
		part.Close() // another process keeps it
		return plain, nil
	}
	z, err := gzip.NewWriterLevel(part, gzip.BestSpeed)
	if err != nil {
		part.Close()
		return plain, nil
	}
	return &keeper{ReadCloser: plain, part: part, z: z, name: name}, nil
}

// openKept opens what is kept, or returns nil. A power cut can leave an empty file.
func openKept(name string) io.ReadCloser {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	plain, how, err := overlay.Decompress(f)
	if err == nil && how == overlay.Gzip {
		noteUse(name)
		return &keptReader{plain, f}
	}
	if err == nil {
		plain.Close()
	}
	f.Close()
	return nil
}

// keep keeps what was got from a URL, for when that is not reached.
func (c cache) keep(where string, data []byte) {
	part, err := os.CreateTemp(c.dir, "*.part")
	if err != nil {
		return // it is only for the next time
	}
	_, err = part.Write(data)
	if err = errors.Join(err, part.Close()); err == nil {
		err = os.Rename(part.Name(), c.keptName(where))
	}
	if err != nil {
		_ = os.Remove(part.Name())
	}
}

// kept returns what keep has kept.
func (c cache) kept(where string) ([]byte, error) { return os.ReadFile(c.keptName(where)) }

func (c cache) keptName(where string) string {
	return filepath.Join(c.dir, reference.SHA256(sha256.Sum256([]byte(where))).Hex()+".index")
}

type keptReader struct {
	io.ReadCloser
	file *os.File
}

// Close implements io.Closer.
func (k *keptReader) Close() error { return errors.Join(k.ReadCloser.Close(), k.file.Close()) }

// keeper writes what is read of it to a part, which takes its name at the end.
type keeper struct {
	io.ReadCloser
	part *os.File // nil: it is not kept any more
	z    *gzip.Writer
	name string
}

// Read implements io.Reader.
func (k *keeper) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	if k.part == nil {
		return n, err
	}
	if _, writeErr := k.z.Write(p[:n]); writeErr != nil {
		k.give(false)
	}
	if errors.Is(err, io.EOF) {
		k.give(true)
	}
	return n, err
}

// give ends keeping: whole, or not at all.
func (k *keeper) give(whole bool) {
	if k.part == nil {
		return
	}
	if !whole || k.z.Close() != nil || os.Rename(k.part.Name(), k.name) != nil {
		_ = os.Remove(k.part.Name())
	}
	k.part.Close()
	k.part = nil
}

// Close implements io.Closer.
func (k *keeper) Close() error {
	k.give(false)
	return k.ReadCloser.Close()
}
