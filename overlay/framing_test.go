// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inner is an archive in an archive: what a reader finds who is one header off.
func inner() string { return string(archive(file("smuggled", "pwned"))) }

// Archives that two readers could take for two different things are refused
// (U07), and what only looks unusual is not.
func TestU07Framing(t *testing.T) {
	hidden := inner()
	size := int64(len(hidden))
	block := strings.Repeat("x", blockSize)
	tests := []struct {
		name    string
		entries []maker
		want    string   // of the error
		names   []string // without an error
	}{
		{"size before long name", []maker{pax("size", fmt.Sprint(size)), long("a"), raw(tar.TypeReg, "x", "", 0, hidden)},
			"read archive: ambiguous archive: a size in front of a long name", nil},
		{"size before long link", []maker{pax("size", "0"), raw(tar.TypeGNULongLink, "././@LongLink", "", 2, "a\x00"), raw(tar.TypeSymlink, "x", "", 0, "")},
			"read archive: ambiguous archive: a size in front of a long name", nil},
		{"two extended headers", []maker{pax("size", "512"), pax("path", "a"), raw(tar.TypeReg, "x", "", 0, block)},
			"read archive: ambiguous archive: two extended headers in a row", nil},
		{"two sizes", []maker{pax("size", "512", "size", "0"), raw(tar.TypeReg, "x", "", 0, block)},
			"read archive: ambiguous archive: an entry's size", nil},
		{"size with a sign", []maker{pax("size", "+512"), raw(tar.TypeReg, "x", "", 0, block)},
			"read archive: ambiguous archive: an entry's size", nil},
		{"negative size", []maker{pax("size", "-512"), raw(tar.TypeReg, "x", "", 0, block)},
			"read archive: ambiguous archive: an entry's size", nil},
		{"size for all", []maker{raw(tar.TypeXGlobalHeader, "g", "", 12, "12 size=512\n"), raw(tar.TypeReg, "x", "", 0, block)},
			"read archive: ambiguous archive: a size for all entries", nil},
		{"directory with content", []maker{raw(tar.TypeDir, "d", "", size, hidden)},
			"read archive: ambiguous archive: content of an entry that has none", nil},
		{"link with content", []maker{pax("size", fmt.Sprint(size)), raw(tar.TypeSymlink, "l", "x", 0, hidden)},
			"read archive: ambiguous archive: content of an entry that has none", nil},
		{"hard link with extended size", []maker{file("f", ""), pax("size", "512"), raw(tar.TypeLink, "l", "f", 0, block)},
			"read archive after 1 entries: ambiguous archive: content of an entry that has none", nil},
		{"old directory with content", []maker{raw(0, "d/", "", size, hidden)},
			"read archive: ambiguous archive: an entry's size", nil},
		{"endless extended headers", []maker{long("a"), long("a"), long("a"), long("a"), long("a"), long("a"), long("a"), long("a"), long("a")},
			"read archive: too many extended headers in a row", nil},
		{"huge extended header", []maker{raw(tar.TypeXHeader, "x", "", 1<<30, "")},
			"read archive: an extended header is too long", nil},

		{"size", []maker{pax("size", fmt.Sprint(size)), raw(tar.TypeReg, "x", "", 0, hidden)}, "", []string{"x"}},
		{"size of nothing", []maker{pax("size", ""), raw(tar.TypeReg, "x", "", size, hidden)}, "", []string{"x"}},
		{"hard link with size", []maker{file("f", "content"), raw(tar.TypeLink, "l", "f", 7, "")}, "", []string{"f", "l"}},
		{"long name and link", []maker{raw(tar.TypeGNULongLink, "././@LongLink", "", 3, "to\x00"), long("a"), raw(tar.TypeSymlink, "x", "y", 0, "")}, "", []string{"a"}},
		{"comment for all", []maker{raw(tar.TypeXGlobalHeader, "g", "", 13, "13 comment=x\n"), file("x", "")}, "", []string{"x"}},
		{"label", []maker{raw('V', "label", "", 0, ""), file("x", "")}, "", []string{"x"}},
		{"old form", []maker{raw(0, "d/", "", 0, ""), raw(0, "d/f", "", 3, "abc")}, "", []string{"d", "d/f"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := filepath.Join(tempDir(t), "root")
			_, err := unpackInto(t, root, archive(tt.entries...), UnpackOptions{})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
				t.Fatalf("error %v\nwant  %s", err, tt.want)
			}
			if tt.want == "" {
				if diff := cmp.Diff(names(t, root), tt.names); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestDamagedArchives(t *testing.T) {
	whole := archive(dir("d"), file("d/f", strings.Repeat("x", 2000)), sym("d/l", "f"))
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"text", []byte(strings.Repeat("this is no archive ", 100)), "read archive: not a tar archive"},
		{"short text", []byte("no"), "read archive: not a tar archive"},
		{"in a header", whole[:blockSize+100], "read archive after 1 entries: it ends too early"},
		{"in content", whole[:3*blockSize], "read archive after 2 entries: it ends too early"},
		{"in padding", whole[:2*blockSize+2010], "read archive after 2 entries: it ends too early"},
		{"checksum", append(bytes.Clone(whole[:blockSize]), bytes.Repeat([]byte("y"), 3*blockSize)...), "read archive after 1 entries: damaged tar header"},
		{"one block of zeros", append(append(bytes.Clone(whole[:blockSize]), make([]byte, blockSize)...), whole...), "read archive after 1 entries: damaged tar header"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := unpackInto(t, filepath.Join(tempDir(t), "root"), tt.data, UnpackOptions{})
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
	for _, data := range [][]byte{nil, make([]byte, 1024), whole[:len(whole)-1024]} {
		if _, err := unpackInto(t, filepath.Join(tempDir(t), "root"), data, UnpackOptions{}); err != nil {
			t.Errorf("%d bytes: %v", len(data), err)
		}
	}
}

// What follows the archive is read to its end, so that a digest sees it (U20).
func TestU20TrailingDataIsRead(t *testing.T) {
	for _, trailer := range []string{"", "garbage", strings.Repeat("\x00", 100000), inner()} {
		r := bytes.NewReader(append(archive(file("x", "")), trailer...))
		root := tempDir(t)
		if _, err := unpackReader(t, root, r, Limits{}); err != nil {
			t.Errorf("%.10q: %v", trailer, err)
		}
		if r.Len() > 0 {
			t.Errorf("%.10q: %d bytes were not read", trailer, r.Len())
		}
		if diff := cmp.Diff(names(t, root), []string{"x"}); diff != "" {
			t.Error(diff)
		}
	}
	failing := io.MultiReader(bytes.NewReader(archive(file("x", ""))), errReader{})
	if _, err := unpackReader(t, tempDir(t), failing, Limits{}); !errors.Is(err, errBroken) {
		t.Errorf("error %v behind the archive is lost", err)
	}
}

var errBroken = errors.New("broken")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBroken }

// Sparse files are unpacked when small, refused when large, and cannot make the
// reader hold a huge map (U08).
func TestU08Sparse(t *testing.T) {
	small := pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", "1000000")
	root := filepath.Join(tempDir(t), "root")
	data := "1\n999999\n1\n"
	content := data + strings.Repeat("\x00", blockSize-len(data)) + "x"
	if _, err := unpackInto(t, root, archive(small, raw(tar.TypeReg, "x", "", int64(len(content)), content)), UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := look(t, filepath.Join(root, "s")); !strings.HasPrefix(got, "file 0644 1000000 ") {
		t.Errorf("got %s", got)
	}

	large := pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", fmt.Sprint(int64(1)<<40))
	_, err := unpackInto(t, filepath.Join(tempDir(t), "root"), archive(large, raw(tar.TypeReg, "x", "", int64(len(content)), content)), UnpackOptions{})
	if err == nil || !strings.Contains(err.Error(), "the archive") && !strings.Contains(err.Error(), "sparse") {
		t.Errorf("error %v", err)
	}

	// 10^7 regions in a map of the form 1.0, and in extension headers of the old one.
	regions := "10000000\n" + strings.Repeat("0\n0\n", 1<<20)
	_, err = unpackInto(t, filepath.Join(tempDir(t), "root"), archive(small, raw(tar.TypeReg, "x", "", int64(len(regions)), regions)), UnpackOptions{})
	if err == nil {
		t.Error("10^7 regions: no error")
	}
	old := func(b *bytes.Buffer) {
		var h [blockSize]byte
		raw(tar.TypeGNUSparse, "s", "", 0, "")(b)
		copy(h[:], b.Bytes()[b.Len()-blockSize:])
		b.Truncate(b.Len() - blockSize)
		h[482] = 1
		copy(h[483:], "00000001000\x00")
		checksum(&h)
		b.Write(h[:])
		extension := bytes.Repeat([]byte("00000000000\x0000000000000\x00"), 21)
		extension = append(extension, 1)
		extension = append(extension, make([]byte, blockSize-len(extension))...)
		for range 10000 {
			b.Write(extension)
		}
	}
	_, err = unpackInto(t, filepath.Join(tempDir(t), "root"), archive(old), UnpackOptions{})
	if err == nil {
		t.Error("old map without end: no error")
	}
}
