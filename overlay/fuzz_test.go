// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fuzzLimits keep one input cheap.
var fuzzLimits = Limits{Bytes: 1 << 20, Entries: 200, Depth: 64}

// FuzzUnpack unpacks any bytes; what is beside the root must not change, and
// nothing may panic, hang, or leave a descriptor.
func FuzzUnpack(f *testing.F) {
	for i, h := range hostiles("/../decoy") {
		if i%50 == 0 {
			f.Add(archive(h.entries...))
		}
	}
	f.Add(archive(dir("d"), file("d/f", "x", owned(1, 1), attr("user.x", "y")), hard("h", "d/f"), fifo("p"), char("c", 1, 3), file("d/.wh.x", ""), file(".wh..wh..opq", "")))
	f.Add(archive(pax("path", "long", "size", "3"), raw(tar.TypeReg, "x", "", 3, "abc")))
	f.Add(archive(pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "100"), raw(tar.TypeReg, "x", "", 512, "0\n"+string(make([]byte, 510)))))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzOne(t, summed(data)) })
}

// summed corrects the checksum of every block that looks like a header, or hardly
// any mutated archive would be read beyond its first one.
func summed(data []byte) []byte {
	data = bytes.Clone(data)
	for b := data; len(b) >= blockSize; b = b[blockSize:] {
		if string(b[257:262]) == "ustar" {
			checksum((*[blockSize]byte)(b))
		}
	}
	return data
}

// FuzzEntries makes entries of its bytes, so that almost every input is a whole
// archive with names that meet each other.
func FuzzEntries(f *testing.F) {
	f.Add([]byte{1, 0, 1, 2, 1, 0, 0, 3, 1})
	f.Add([]byte{2, 1, 9, 0, 20, 0, 1, 1, 5, 3, 2, 7})
	names := []string{"a", "b", "a/b", "a/b/c", "./a/", "b/a", "a/../b", "/a//b", "..", ".", "../decoy", "a/.wh.b", ".wh.a", "a/.wh..wh..opq", "b/c", "c"}
	targets := append([]string{"/", "../decoy/secret", "../../..", "a/b/..", "/a", "nowhere/x"}, names...)
	kinds := []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar, tar.TypeDir, tar.TypeSymlink}
	f.Fuzz(func(t *testing.T, ops []byte) {
		var entries []maker
		for ; len(ops) >= 3 && len(entries) < 64; ops = ops[3:] {
			kind, content := kinds[int(ops[0])%len(kinds)], ""
			if kind == tar.TypeReg {
				content = "pwned"
			}
			entries = append(entries, raw(kind, names[int(ops[1])%len(names)], targets[int(ops[2])%len(targets)], int64(len(content)), content))
		}
		fuzzOne(t, archive(entries...))
	})
}

func fuzzOne(t *testing.T, data []byte) {
	base, _ := decoyTree(t)
	before := guarded(t, base)
	descriptors := countFDs(t)
	root := filepath.Join(base, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := unpackReader(t, root, bytes.NewReader(data), fuzzLimits)
	if diff := cmp.Diff(before, guarded(t, base)); diff != "" {
		t.Errorf("outside the root changed (error %v):\n%s", err, diff)
	}
	if n := countFDs(t); n != descriptors {
		t.Errorf("%d descriptors are open, there were %d", n, descriptors)
	}
}

// FuzzFraming holds framing to archive/tar: where both read an archive to its end
// they found the same entries, byte for byte.
func FuzzFraming(f *testing.F) {
	f.Add(archive(file("a", "content"), pax("size", "5"), raw(tar.TypeReg, "x", "", 0, "hello"), long("b"), raw(tar.TypeLink, "x", "a", 7, "")))
	f.Add(archive(raw(0, "d/", "", 0, ""), raw('V', "v", "", 0, ""), raw(tar.TypeXGlobalHeader, "g", "", 13, "13 comment=x\n"), file("c", "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newFraming(t.Context(), bytes.NewReader(summed(data)), 1<<20)
		r := tar.NewReader(w)
		for {
			h, err := r.Next()
			if err != nil {
				return
			}
			if err := w.check(h); err != nil || isSparse(h) {
				return
			}
			// The content that archive/tar gives out is what framing skips.
			before := w.read
			n, err := io.Copy(io.Discard, r)
			if err != nil {
				return
			}
			if n != w.read-before || h.Typeflag != tar.TypeXGlobalHeader && n != w.entry.size {
				t.Errorf("%q: %d bytes of content, framing has %d", h.Name, n, w.entry.size)
			}
		}
	})
}

// FuzzDecompress reads any bytes; nothing may panic, hang or take much memory.
func FuzzDecompress(f *testing.F) {
	small := []byte("some content, some content, some content")
	f.Add(zipped(small))
	f.Add(zstded(small))
	f.Add(bzipped)
	f.Add(small)
	f.Add([]byte(skippable))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, err := Decompress(bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 8<<20))
	})
}

// FuzzParseRecord parses what it prints, and prints what it parsed.
func FuzzParseRecord(f *testing.F) {
	f.Add("0:42:0640:file")
	f.Add("0:0:0666:char-1-3")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseRecord(s)
		if err != nil {
			return
		}
		if again, err := ParseRecord(o.Record()); err != nil || !cmp.Equal(again, o) {
			t.Errorf("%q: %v, then %v, %v", s, o, again, err)
		}
	})
}

// FuzzLoadOwners reads any bytes as a table, and saves what it accepted.
func FuzzLoadOwners(f *testing.F) {
	f.Add([]byte(`{"version":1,"owners":{"a%FF":"1:1:0644:file"},"xattrs":{"a%FF":{"user.x":"y"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := LoadOwners(bytes.NewReader(data))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := table.Save(&b); err != nil {
			t.Fatal(err)
		}
		if again, err := LoadOwners(&b); err != nil || !cmp.Equal(again, table) {
			t.Errorf("%v, then %v, %v", table, again, err)
		}
	})
}
