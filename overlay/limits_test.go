// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func unpackReader(t testing.TB, root string, r io.Reader, l Limits) (Result, error) {
	t.Helper()
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return Unpack(context.Background(), f, r, UnpackOptions{Recorded: true, Limits: l})
}

// endless repeats what next makes.
type endless struct {
	next func(i int, b *bytes.Buffer)
	i    int
	b    bytes.Buffer
}

func (e *endless) Read(p []byte) (int, error) {
	for e.b.Len() == 0 {
		e.next(e.i, &e.b)
		e.i++
	}
	return e.b.Read(p)
}

// An archive that would fill the disk, the memory or the time stops at a limit,
// which the error names (U21).
func TestU21Bombs(t *testing.T) {
	deep := strings.Repeat("d/", 1000)
	zeros := make([]byte, 1<<20)
	tests := []struct {
		name   string
		limits Limits
		next   func(i int, b *bytes.Buffer)
		want   string
	}{
		{"bytes", Limits{Bytes: 8 << 20}, func(i int, b *bytes.Buffer) { file(fmt.Sprint(i), string(zeros))(b) }, "more than 8388608 bytes in the archive"},
		{"one file", Limits{Bytes: 8 << 20}, func(i int, b *bytes.Buffer) {
			if i == 0 {
				raw(tar.TypeReg, "f", "", 1<<32, "")(b)
			}
			b.Write(zeros)
		}, "more than 8388608 bytes in the archive"},
		{"sparse bytes", Limits{Bytes: 100 << 20}, func(i int, b *bytes.Buffer) {
			pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", fmt.Sprint(i), "GNU.sparse.realsize", fmt.Sprint(50<<20))(b)
			raw(tar.TypeReg, "x", "", 512, "0\n"+string(zeros[:510]))(b)
		}, "more than 104857600 bytes in files"},
		{"trailing bytes", Limits{Bytes: 8 << 20}, func(i int, b *bytes.Buffer) { b.Write(zeros) }, "more than 8388608 bytes in the archive"},
		{"empty files", Limits{Entries: 2000}, func(i int, b *bytes.Buffer) { file(fmt.Sprint(i), "")(b) }, "more than 2000 entries"},
		{"same file", Limits{Entries: 2000}, func(i int, b *bytes.Buffer) { file("f", "")(b) }, "more than 2000 entries"},
		{"hard links", Limits{Entries: 2000}, func(i int, b *bytes.Buffer) {
			if i == 0 {
				file("f", "")(b)
			}
			hard(fmt.Sprint("l", i), "f")(b)
		}, "more than 2000 entries"},
		{"comments", Limits{Entries: 2000}, func(i int, b *bytes.Buffer) {
			raw(tar.TypeXGlobalHeader, "g", "", 13, "13 comment=x\n")(b)
		}, "more than 2000 entries"},
		{"implied directories", Limits{Entries: 3000}, func(i int, b *bytes.Buffer) { file(fmt.Sprint(i, "/", deep, "f"), "")(b) }, "more than 3000 entries"},
		{"depth", Limits{}, func(i int, b *bytes.Buffer) { file(strings.Repeat("d/", 1024)+"f", "")(b) }, "more than 1024 directories in a path"},
		{"depth through links", Limits{}, func(i int, b *bytes.Buffer) {
			file(strings.Repeat("d/", 600)+"f", "")(b)
			sym("l", strings.Repeat("d/", 600))(b)
			file("l/"+strings.Repeat("e/", 600)+"f", "")(b)
		}, "more than 1024 directories in a path"},
		{"path", Limits{}, func(i int, b *bytes.Buffer) { file(strings.Repeat(strings.Repeat("d", 250)+"/", 17)+"f", "")(b) }, "more than 4095 bytes in a path"},
		{"path through links", Limits{}, func(i int, b *bytes.Buffer) {
			long := strings.Repeat(strings.Repeat("d", 250)+"/", 10)
			file(long+"f", "")(b)
			sym("l", long)(b)
			file("l/"+long+"f", "")(b)
		}, "more than 4095 bytes in a path"},
		{"attributes", Limits{}, func(i int, b *bytes.Buffer) {
			records := []string{}
			for n := range 8 {
				records = append(records, fmt.Sprint("SCHILY.xattr.user.", n), string(zeros[:60000]))
			}
			pax(records...)(b)
			raw(tar.TypeReg, "f", "", 0, "")(b)
		}, "more than 262144 bytes of attributes"},
		{"steps", Limits{}, func(i int, b *bytes.Buffer) {
			// A path of 2000 components behind each of 200 links, for every entry.
			if i == 0 {
				dir("d")(b)
				sym("l0", "d")(b)
				for n := range 200 {
					sym(fmt.Sprint("l", n+1), strings.Repeat("d/../", 800)+fmt.Sprint("l", n))(b)
				}
			}
			file(fmt.Sprint("l200/", i), "")(b)
			file(fmt.Sprint("x", i), "")(b)
		}, "more than 2097152 steps to look up its paths"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && tt.name == "steps" {
				tt.limits.Entries, tt.want = 1000, "more than"
			}
			root := tempDir(t)
			_, err := unpackReader(t, root, &endless{next: tt.next}, tt.limits)
			var limit *LimitError
			if !errors.As(err, &limit) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
			if hintOf(err) == "" {
				t.Error("the error has no hint")
			}
		})
	}
}

// Opaque markers cost the same however many there are (U10).
func TestU10RepeatedOpaque(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 5000
	}
	var b bytes.Buffer
	dir("d")(&b)
	raw(tar.TypeReg, "d/.wh.first", "", 0, "")(&b)
	for i := range n / 10 {
		raw(tar.TypeReg, fmt.Sprint("d/", i), "", 0, "")(&b)
	}
	for i := range n {
		raw(tar.TypeReg, "d/.wh..wh..opq", "", 0, "")(&b)
		if i%10 == 0 { // and from somewhere else, so that nothing is remembered
			raw(tar.TypeReg, "x", "", 0, "")(&b)
		}
	}
	b.Write(make([]byte, 2*blockSize))
	var u *unpacker
	if _, err := unpackAs(t, tempDir(t), b.Bytes(), func(made *unpacker) { u = made }); err != nil {
		t.Fatal(err)
	}
	// What is in the directory is looked through when it becomes opaque, and only then.
	if u.tree.opaques != 1 {
		t.Errorf("the directory became opaque %d times", u.tree.opaques)
	}
}

// Neither descriptors nor goroutines stay behind a layer that fails (U11), and
// none keeps us waiting (U19).
func TestU11NothingStaysBehind(t *testing.T) {
	base, decoy := decoyTree(t)
	cases := hostiles(decoy)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(archive(file("a", strings.Repeat("x", 1<<20)), dir("d"), file("d/b", "y")))
	z.Close()
	root := filepath.Join(base, "root")
	descriptors, routines := countFDs(t), runtime.NumGoroutine()
	for i := range 2000 {
		if i%10 != 1 {
			runHostile(t, base, ours(i%2 == 0, true), cases[i*len(cases)/2000])
			continue
		}
		cut := bytes.Clone(zipped.Bytes())
		at := 10 + (len(cut)-10)*i/2000 // behind the header, where everything counts
		if i%20 == 1 {
			cut = cut[:at]
		} else {
			cut[at] ^= 0xff
		}
		content, _, err := Decompress(bytes.NewReader(cut))
		if err != nil {
			continue
		}
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err = unpackReader(t, root, content, Limits{})
		content.Close()
		os.RemoveAll(root)
		if err == nil {
			t.Errorf("layer %d: damaged, and no error", i)
		}
	}
	if n := countFDs(t); n != descriptors {
		t.Errorf("%d descriptors, there were %d", n, descriptors)
	}
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > routines; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, there were %d", runtime.NumGoroutine(), routines)
		}
	}
}

// Names and attributes at the kernel's limits, and one beyond (U12).
func TestU12LongNames(t *testing.T) {
	n := func(c int) string { return strings.Repeat("n", c) }
	tests := []struct {
		name string
		make maker
		want error // nil: it works
	}{
		{"255", file(n(255), ""), nil},
		{"256", file(n(256), ""), unix.ENAMETOOLONG},
		{"256 parent", file(n(256)+"/f", ""), unix.ENAMETOOLONG},
		{"256 link", sym(n(256), "x"), unix.ENAMETOOLONG},
		{"256 pipe", fifo(n(256)), unix.ENAMETOOLONG},
		{"256 whiteout", file(".wh."+n(256), ""), unix.ENAMETOOLONG},
		{"255 whiteout", file(".wh."+n(255), ""), nil},
		{"4095 target", sym("l", n(4095)), nil},
		{"4096 target", sym("l", n(4096)), unix.ENAMETOOLONG},
		{"no target", sym("l", ""), unix.ENOENT},
		{"attribute 255", file("f", "", attr("user."+n(250), "x")), nil},
		{"attribute 256", file("f", "", attr("user."+n(251), "x")), unix.ERANGE},
		{"attribute prefix", file("f", "", attr("trusted."+n(247), "x")), unix.ERANGE},
		{"attribute 0", func(b *bytes.Buffer) { pax("SCHILY.xattr.", "x")(b); raw(tar.TypeReg, "f", "", 0, "")(b) }, unix.EINVAL},
		{"attribute without name", file("f", "", attr("user.", "x")), unix.EINVAL},
		{"attribute value", file("f", "", attr("user.x", n(65537))), unix.E2BIG},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := unpackInto(t, filepath.Join(tempDir(t), "root"), archive(tt.make), UnpackOptions{})
			var named *EntryError
			if !errors.Is(err, tt.want) || err != nil && !errors.As(err, &named) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}
