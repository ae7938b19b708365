// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sbx/tests/need"
)

func open(t *testing.T, location string) (*Opened, error) {
	t.Helper()
	return openIn(t, location, t.TempDir())
}

func openIn(t *testing.T, location, temp string) (*Opened, error) {
	t.Helper()
	o := newWorldOptions(temp)
	got, err := Open(t.Context(), location, o)
	if got != nil {
		t.Cleanup(func() { got.Close() })
		if (got.Image == nil) == (got.Rootfs == nil) {
			t.Fatalf("%s: image %v, rootfs %v", location, got.Image, got.Rootfs)
		}
		if got.Origin == "" {
			t.Errorf("%s: no origin", location)
		}
	}
	return got, err
}

func newWorldOptions(temp string) Options {
	p, _ := ParsePlatform("linux/amd64")
	return Options{Platform: p, TempDir: temp}
}

var rootfs = []file{{name: "./"}, {name: "./bin/"}, {name: "./bin/sh", body: "#!"}, {name: "./etc/os-release", body: "ID=x"}}

// bzipFixture returns a tar of testdata that the program bzip2 packed; Go cannot.
func bzipFixture(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenRootfs(t *testing.T) {
	tarball := makeTar(t, rootfs...)
	packed := map[string][]byte{"plain": tarball, "bzip2": bzipFixture(t, "rootfs.tar.bz2")}
	for _, how := range []compression{gzipped, zstandard, xzCompressed} {
		packed[string(how)] = pack(t, how, tarball)
	}
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, packed["zstd"]...)
	packed["zstd behind a skippable frame"] = skippable
	packed["docker export"] = makeTar(t, file{name: ".dockerenv"}, file{name: "bin", link: "usr/bin"})
	packed["one program"] = makeTar(t, file{name: "hello", body: "\x7fELF"})
	packed["manifest.json of something else"] = makeTar(t, file{name: "manifest.json", body: `{"name":"web app"}`}, file{name: "index.html"})
	packed["the same, packed"] = pack(t, gzipped, packed["manifest.json of something else"])
	for name, data := range packed {
		t.Run(name, func(t *testing.T) {
			path, temp := writeFile(t, data), t.TempDir()
			got, err := openIn(t, path, temp)
			if err != nil {
				t.Fatal(err)
			}
			if got.Rootfs == nil {
				t.Fatal("not taken for a root filesystem")
			}
			b, err := io.ReadAll(got.Rootfs.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, data) {
				t.Error("the bytes are not the file's")
			}
			c := got.Rootfs.Config
			if diff := cmp.Diff([]string{"/bin/sh"}, c.Config.Cmd); diff != "" || c.OS != "linux" || c.Architecture != "amd64" {
				t.Errorf("config %+v", c)
			}
			if left, _ := os.ReadDir(temp); len(left) != 0 {
				t.Errorf("left in the temporary folder: %v", left)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	tarball := makeTar(t, rootfs...)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, 4096)
	r := rand.NewChaCha8([32]byte{})
	r.Read(junk)
	gz := pack(t, gzipped, tarball)
	flipped := bytes.Clone(gz)
	flipped[len(flipped)/2] ^= 0xff
	archive := makeTar(t, layoutFiles(makeIndex(t, makeImage(t, "amd64").desc), makeImage(t, "amd64"))...)
	hugeXZ := pack(t, xzCompressed, tarball)
	hugeXZ[16] = 40 // the dictionary's size in the first block's header, 4 GiB
	for _, tt := range []struct {
		name, location, want, hint string
	}{
		{"missing", filepath.Join(dir, "none"), "no such file or directory", ""},
		{"beneath a file", "/dev/null/x", "not a directory", ""},
		{"fifo", fifo, "neither a file nor a folder", "save the data"},
		{"device", "/dev/zero", "neither a file nor a folder", ""},
		{"folder", dir, "the folder is not an OCI layout", "--rootfs " + dir},
		{"empty", writeFile(t, nil), "the file is empty", "an image file is"},
		{"empty gzip", writeFile(t, pack(t, gzipped, nil)), "the archive is empty", "an image file is"},
		{"empty tar", writeFile(t, makeTar(t)), "the archive is empty", ""},
		{"only the root", writeFile(t, makeTar(t, file{name: "./"})), "is empty", ""},
		{"text", writeFile(t, []byte("hello\n")), "not a tar archive", "an image file is"},
		{"long text", writeFile(t, bytes.Repeat([]byte("hello\n"), 1000)), "not a tar archive", "an image file is"},
		{"noise", writeFile(t, junk), "not a tar archive", ""},
		{"html", writeFile(t, []byte("\n<!DOCTYPE HTML><title>404</title>")), "it is a web page", ""},
		{"zip", writeFile(t, []byte("PK\x03\x04"+strings.Repeat("x", 600))), "it is a zip archive", ""},
		{"lz4", writeFile(t, []byte("\x04\x22\x4d\x18"+strings.Repeat("x", 600))), "unknown compression: it is compressed by lz4", "decompress it first"},
		{"elf", "/proc/self/exe", "it is a program", ""},
		{"text in gzip", writeFile(t, pack(t, gzipped, bytes.Repeat([]byte("hello\n"), 1000))), "it is something else in gzip", ""},
		{"gzip's head", writeFile(t, gz[:5]), "truncated", "download or copy it again"},
		{"half a gzip", writeFile(t, gz[:20]), "truncated", ""},
		{"half an xz", writeFile(t, pack(t, xzCompressed, tarball)[:30]), "truncated", ""},
		{"half a zstd", writeFile(t, pack(t, zstandard, tarball)[:20]), "truncated", ""},
		{"broken gzip", writeFile(t, flipped), "", ""},
		{"half an archive", writeFile(t, archive[:len(archive)/2]), "", ""},
		{"half a packed archive", writeFile(t, pack(t, gzipped, archive)[:600]), "truncated", ""},
		{"xz with a huge dictionary", writeFile(t, hugeXZ), "the limit is 64", ""},
		{"nul in the name", dir + "/\x00", "invalid argument", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := open(t, tt.location)
			if tt.want == "" && err == nil && got.Rootfs != nil {
				return // its end is the reader's to find
			}
			e := wantError(t, err, "open ", tt.want)
			if !strings.Contains(e.Hint(), tt.hint) {
				t.Errorf("hint %q, want %q", e.Hint(), tt.hint)
			}
		})
	}
}

func TestOrigin(t *testing.T) {
	path := writeFile(t, makeTar(t, rootfs...))
	first, err := open(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, makeTar(t, append(rootfs, file{name: "new", body: "x"})...), 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := open(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if first.Origin == second.Origin {
		t.Errorf("a changed file has the same origin %s", first.Origin)
	}
}

func TestLocate(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"./a.tar": dir + "/a.tar", "../a": filepath.Dir(dir) + "/a", "/a/../b": "/b", ".": dir, "..": filepath.Dir(dir),
		"http://h/a": "http://h/a", "https://h/a?b": "https://h/a?b", "HTTPS://h/a": "HTTPS://h/a",
		"alpine": "", "a.tar": "", "localhost:5000/a": "", "host": "", "": "", "ftp://h/a": "", ".hidden": "", "...": "", "~/a": "", "dir/a.tar": "",
	} {
		got, ok := Locate(in)
		if got != want || ok != (want != "") {
			t.Errorf("Locate(%q) = %q, %v", in, got, ok)
		}
	}
}

func TestOpenCancelled(t *testing.T) {
	path := writeFile(t, pack(t, gzipped, makeTar(t, layoutFiles(makeIndex(t, makeImage(t, "amd64").desc), makeImage(t, "amd64"))...)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, path, newWorldOptions(t.TempDir())); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestOpenDescriptors opens what fails hundreds of times: no descriptor may stay.
func TestOpenDescriptors(t *testing.T) {
	archive := makeTar(t, layoutFiles(makeIndex(t), makeImage(t, "amd64"))...)
	folder := writeFolder(t, layoutFiles(makeIndex(t), makeImage(t, "amd64")))
	paths := []string{writeFile(t, archive), writeFile(t, pack(t, gzipped, archive)), folder, writeFile(t, []byte("text")), t.TempDir()}
	count := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := count()
	for n := range 300 {
		if got, err := Open(t.Context(), paths[n%len(paths)], newWorldOptions(t.TempDir())); err == nil {
			t.Fatalf("opened %v", got)
		}
	}
	if after := count(); after > before+2 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestOpenRealImages reads the distributions' own files.
func TestOpenRealImages(t *testing.T) {
	need.Need(t, need.Images)
	dir := os.Getenv("SBX_TEST_IMAGES")
	tarballs, err := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
	if err != nil || len(tarballs) == 0 {
		t.Fatalf("no tarballs in %s: %v", dir, err)
	}
	for _, path := range tarballs {
		got, err := open(t, path)
		if err != nil {
			t.Error(err)
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, got.Rootfs.Reader); err != nil || n != info.Size() {
			t.Errorf("%s: %d of %d bytes: %v", path, n, info.Size(), err)
		}
	}
	got, err := open(t, filepath.Join(dir, "busybox-musl.oci"))
	if err != nil {
		t.Fatal(err)
	}
	d, m := checkSource(t, got.Image)
	if fmt.Sprint(d.Digest)[:15] != "sha256:a34ce920" || len(m.Layers) != 1 {
		t.Errorf("got %s with %d layers", d.Digest, len(m.Layers))
	}
}
