// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/pgzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"

	"sbx/reference"
	"sbx/tests/need"
)

var sameDigest = cmp.Comparer(func(a, b reference.Digest) bool { return a == b })

func TestImport(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		plain := base(t)
		forms := map[string][]byte{"gzip": gzipOf(t, plain), "zstd": zstdOf(t, plain), "plain": plain, "xz": xzOf(t, plain)}
		ids := make(map[string]Image)
		for name, data := range forms {
			img, err := s.Import(t.Context(), "/images/"+name, Rootfs{Reader: bytes.NewReader(data)}, PullOptions{Origin: name})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			mustCheck(t, s)
			mustBeClean(t, s)
			again, err := s.Import(t.Context(), "/images/"+name, Rootfs{Reader: bytes.NewReader(data)}, PullOptions{Origin: name})
			if err != nil || again.ID != img.ID || again.Manifest.Digest != img.Manifest.Digest {
				t.Errorf("%s: the same tarball is %v, %v; not %v", name, again.ID, err, img.ID)
			}
			ids[name] = img
			m, err := s.manifest(mustDigest(t, string(img.Manifest.Digest)), img.Manifest.MediaType)
			if err != nil {
				t.Fatal(err)
			}
			blob, err := os.ReadFile(s.blobPath(m.layers[0].digest))
			if err != nil {
				t.Fatal(err)
			}
			kept := bytes.Equal(blob, data)
			if want := name == "gzip" || name == "zstd"; kept != want {
				t.Errorf("%s: bytes kept: %v", name, kept)
			}
		}
		img := ids["xz"]
		if img.ID != ids["plain"].ID || img.Manifest.Digest != ids["plain"].Manifest.Digest || img.ID != ids["gzip"].ID || img.ID != ids["zstd"].ID {
			t.Error("what is the same unpacked is not the same image")
		}
		c := img.Config
		if !slices.Equal(c.Config.Cmd, []string{"/bin/sh"}) || !slices.Equal(c.Config.Env, []string{defaultPath}) || c.OS != "linux" || c.Architecture == "" || len(c.History) != 1 || !c.Created.Equal(time.Unix(1700000000, 0)) {
			t.Errorf("config %+v", c)
		}
		dirs, err := s.LayerDirs(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(dirs[0] + "/bin/sh"); err != nil || string(data) != "#!shell" {
			t.Errorf("%q, %v", data, err)
		}
	})
}

func xzOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestImportConfig(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	date := time.Unix(1, 0).UTC()
	given := ocispec.Image{Created: &date, Platform: ocispec.Platform{OS: "linux", Architecture: "riscv64"}}
	given.Config.Env = []string{"A=1", "PATH=/x"}
	given.Config.Entrypoint = []string{"/init"}
	bash := tarOf(t, file{name: "usr/bin/bash", data: "x"}, file{name: "bin", link: "usr/bin"})
	img, err := s.Import(t.Context(), "a", Rootfs{Reader: bytes.NewReader(bash), Config: given}, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := img.Config
	if c.Architecture != "riscv64" || !c.Created.Equal(date) || !slices.Equal(c.Config.Env, given.Config.Env) || len(c.Config.Cmd) != 0 || c.Config.Entrypoint[0] != "/init" {
		t.Errorf("config %+v", c)
	}
	img, err = s.Import(t.Context(), "b", Rootfs{Reader: bytes.NewReader(bash)}, PullOptions{})
	if err != nil || !slices.Equal(img.Config.Config.Cmd, []string{"bash"}) {
		t.Errorf("config %+v, %v", img.Config.Config, err)
	}
	mustCheck(t, s)
}

func TestImportRefuses(t *testing.T) {
	plain := randomTar(t, 3<<20)
	zipped := gzipOf(t, plain)
	for name, c := range map[string]struct {
		r    func() io.Reader
		want string
	}{
		"nothing":            {func() io.Reader { return bytes.NewReader(nil) }, "the file is empty"},
		"empty archive":      {func() io.Reader { return bytes.NewReader(tarOf(t)) }, "the archive is empty"},
		"empty gzip":         {func() io.Reader { return bytes.NewReader(gzipOf(t, nil)) }, "archive"},
		"no tar":             {func() io.Reader { return strings.NewReader(strings.Repeat("hello\n", 1000)) }, "not a tar"},
		"short text":         {func() io.Reader { return strings.NewReader("hello") }, "tar"},
		"gzip of no tar":     {func() io.Reader { return bytes.NewReader(gzipOf(t, bytes.Repeat([]byte("x"), 4096))) }, "not a tar"},
		"truncated gzip":     {func() io.Reader { return bytes.NewReader(zipped[:len(zipped)/2]) }, "archive"},
		"truncated plain":    {func() io.Reader { return bytes.NewReader(plain[:len(plain)/2]) }, "archive"},
		"broken":             {func() io.Reader { return io.MultiReader(bytes.NewReader(zipped[:1<<20]), brokenReader{}) }, "the wire is cut"},
		"broken at once":     {func() io.Reader { return brokenReader{} }, "the wire is cut"},
		"broken plain":       {func() io.Reader { return io.MultiReader(bytes.NewReader(plain[:1<<20]), brokenReader{}) }, "the wire is cut"},
		"unknown":            {func() io.Reader { return strings.NewReader("PK\x03\x04" + strings.Repeat("x", 600)) }, "zip is not supported"},
		"a path that leaves": {func() io.Reader { return bytes.NewReader(tarOf(t, file{name: "a/../../../../tmp/escaped", data: "x"})) }, ""},
	} {
		onRungs(t, name, func(t *testing.T, s *Store) {
			_, err := s.Import(t.Context(), "x", Rootfs{Reader: c.r()}, PullOptions{})
			mustCheck(t, s)
			mustBeClean(t, s)
			if c.want == "" {
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "import x: ") || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %v; want %q", err, c.want)
			}
			if left := contents(t, s); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		})
	}
	if _, err := os.Stat("/tmp/escaped"); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file escaped")
	}
}

// The bytes that pgzip makes must not depend on how they are handed to it, or the same
// archive would be two images on two machines.
func TestEncodingIsReproducible(t *testing.T) {
	data := bytes.Repeat(randomTar(t, 300<<10), 10)
	var want []byte
	for _, blocks := range []int{1, 2, 7} {
		for _, piece := range []int{1000, 32 << 10, 1 << 20, len(data)} {
			var b bytes.Buffer
			w, _ := pgzip.NewWriterLevel(&b, gzipLevel)
			if err := w.SetConcurrency(gzipBlock, blocks); err != nil {
				t.Fatal(err)
			}
			for rest := data; len(rest) > 0; {
				n := min(piece, len(rest))
				if _, err := w.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = b.Bytes()
			} else if !bytes.Equal(want, b.Bytes()) {
				t.Fatalf("%d blocks, pieces of %d: other bytes", blocks, piece)
			}
		}
	}
}

// The real distributions, if the folder is there.
func TestImportDistributions(t *testing.T) {
	need.Need(t, need.Images)
	dir := os.Getenv("SBX_TEST_IMAGES")
	for file, cmd := range map[string]string{"debian-bookworm-slim-amd64-rootfs.tar.gz": "bash", "alpine-minirootfs-3.20.3-x86_64.tar.gz": "/bin/sh", "busybox-musl-amd64-rootfs.tar.gz": "/bin/sh"} {
		onRungs(t, "", func(t *testing.T, s *Store) {
			f, err := os.Open(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			img, err := s.Import(t.Context(), file, Rootfs{Reader: f}, PullOptions{})
			if err != nil {
				t.Fatal(err)
			}
			mustCheck(t, s)
			mustBeClean(t, s)
			if img.Config.Config.Cmd[0] != cmd {
				t.Errorf("%s: command %q", file, img.Config.Config.Cmd)
			}
		})
	}
}
