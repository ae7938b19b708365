// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stamp is the time of every entry that does not say another.
var stamp = time.Unix(1700000000, 0)

// A maker adds an entry to an archive.
type maker func(b *bytes.Buffer)

// An option changes a header.
type option func(h *tar.Header)

func write(b *bytes.Buffer, h *tar.Header, content string, options []option) {
	if h.ModTime.IsZero() {
		h.ModTime = stamp
	}
	for _, o := range options {
		o(h)
	}
	w := tar.NewWriter(b)
	err := w.WriteHeader(h)
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		panic(err)
	}
}

// raw adds an entry that archive/tar would not write, with a header of the GNU
// form: any kind, names and sizes that lie.
func raw(kind byte, name, link string, size int64, content string) maker {
	return func(b *bytes.Buffer) {
		var h [blockSize]byte
		copy(h[0:100], name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", size, stamp.Unix()))
		h[156] = kind
		copy(h[157:257], link)
		copy(h[257:], "ustar  \x00")
		checksum(&h)
		b.Write(h[:])
		b.WriteString(content)
		b.Write(make([]byte, padded(int64(len(content)))-int64(len(content))))
	}
}

func checksum(h *[blockSize]byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// pax adds an extended header for the next entry.
func pax(records ...string) maker {
	var content string
	for i := 0; i < len(records); i += 2 {
		content += paxRecord(records[i], records[i+1])
	}
	return raw(tar.TypeXHeader, "PaxHeaders.0/x", "", int64(len(content)), content)
}

func paxRecord(key, value string) string {
	size := len(key) + len(value) + 3
	for n := size + len(fmt.Sprint(size)); ; n++ {
		if record := fmt.Sprintf("%d %s=%s\n", n, key, value); len(record) == n {
			return record
		}
	}
}

// long adds a GNU long name for the next entry.
func long(name string) maker {
	return raw(tar.TypeGNULongName, "././@LongLink", "", int64(len(name)+1), name+"\x00")
}

func file(name, content string, options ...option) maker {
	return func(b *bytes.Buffer) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}
		write(b, h, content, options)
	}
}

func entry(kind byte, name, link string, mode int64, options ...option) maker {
	return func(b *bytes.Buffer) {
		write(b, &tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: mode}, "", options)
	}
}

func dir(name string, options ...option) maker {
	return entry(tar.TypeDir, name, "", 0o755, options...)
}
func sym(name, to string, options ...option) maker {
	return entry(tar.TypeSymlink, name, to, 0o777, options...)
}
func hard(name, to string) maker { return entry(tar.TypeLink, name, to, 0o644) }
func fifo(name string, options ...option) maker {
	return entry(tar.TypeFifo, name, "", 0o644, options...)
}
func char(name string, major, minor int64) maker {
	return entry(tar.TypeChar, name, "", 0o666, func(h *tar.Header) { h.Devmajor, h.Devminor = major, minor })
}

func mode(m int64) option      { return func(h *tar.Header) { h.Mode = m } }
func owned(u, g int) option    { return func(h *tar.Header) { h.Uid, h.Gid = u, g } }
func at(t time.Time) option    { return func(h *tar.Header) { h.ModTime = t } }
func device(a, b int64) option { return func(h *tar.Header) { h.Devmajor, h.Devminor = a, b } }
func attr(name, v string) option {
	return func(h *tar.Header) {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = v
	}
}

// archive makes a tar.
func archive(entries ...maker) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		e(&b)
	}
	b.Write(make([]byte, 2*blockSize))
	return b.Bytes()
}

// unpackInto unpacks an archive as a user with one ID.
func unpackInto(t testing.TB, root string, data []byte, o UnpackOptions) (Result, error) {
	t.Helper()
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o.Recorded = true
	return Unpack(context.Background(), f, bytes.NewReader(data), o)
}

// layerDir unpacks entries into a new directory.
func layerDir(t testing.TB, entries ...maker) string {
	t.Helper()
	root := filepath.Join(tempDir(t), "layer")
	if _, err := unpackInto(t, root, archive(entries...), UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	return root
}

// tempDir is t.TempDir, but for directories with names and modes that
// os.RemoveAll does not manage.
func tempDir(t testing.TB) string {
	t.Helper()
	base, err := os.MkdirTemp("", "sbx-overlay-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		up, err := os.Open(filepath.Dir(base))
		if err == nil {
			err = RemoveAll(context.Background(), up, filepath.Base(base))
			up.Close()
		}
		if err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return base
}

// look describes one file as the disk has it: everything but its name and, for a
// directory, its size.
func look(t testing.TB, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	s := fmt.Sprintf("%s %04o", kindOf(st.Mode), st.Mode&modeBits)
	switch kindOf(st.Mode) {
	case File:
		data, err := os.ReadFile(path)
		if err != nil {
			data = []byte(err.Error())
		}
		s += fmt.Sprintf(" %d %x", st.Size, sha256.Sum256(data))
	case Symlink:
		target, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		return s + " -> " + target
	case Char, Block:
		s += fmt.Sprintf(" %d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	}
	for _, name := range attrNames(path) {
		s += fmt.Sprintf(" %s=%q", name, attrOf(path, name))
	}
	return s
}

func attrNames(path string) []string {
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return nil
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	return names
}

func attrOf(path, name string) string {
	buf := make([]byte, 1<<16)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// snapshot describes every file below root, by its path; the root is ".".
func snapshot(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		all[rel] = look(t, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// names lists the paths below root, sorted, without the root.
func names(t testing.TB, root string) []string {
	t.Helper()
	var list []string
	for name := range snapshot(t, root) {
		if name != "." {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}
