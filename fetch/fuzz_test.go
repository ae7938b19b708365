// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func FuzzManifest(f *testing.F) {
	image := makeImage(f, "amd64")
	f.Add(image.manifest, ocispec.MediaTypeImageManifest)
	f.Add(makeIndex(f, onPlatform(image.desc, "linux/amd64")), dockerList+"; charset=utf-8")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[],"Layers":null}`), "")
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "text/html")
	f.Fuzz(func(t *testing.T, body []byte, declared string) {
		doc, err := parseDocument(body, declared)
		if err != nil {
			return
		}
		if (doc.index == nil) == (doc.manifest == nil) {
			t.Fatal("not one thing")
		}
		if isIndexType(doc.mediaType) != (doc.index != nil) || isImageType(doc.mediaType) != (doc.manifest != nil) {
			t.Fatalf("called %s", doc.mediaType)
		}
		all := []ocispec.Descriptor{}
		if doc.index != nil {
			all = doc.index.Manifests
		} else {
			all = append(append(all, doc.manifest.Config), doc.manifest.Layers...)
		}
		for _, d := range all {
			if err := checkDescriptor(d, -1); err != nil {
				t.Fatal(err)
			}
		}
		// What we accept means the same when it is written out and read again.
		again, err := parseDocument(marshalAny(either(doc)), doc.mediaType)
		if err != nil || (again.index == nil) != (doc.index == nil) {
			t.Fatalf("read again: %v", err)
		}
	})
}

func either(d document) any {
	if d.index != nil {
		if d.index.Manifests == nil {
			d.index.Manifests = []ocispec.Descriptor{}
		}
		return d.index
	}
	return d.manifest
}

func FuzzWWWAuthenticate(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="s",scope="repository:a:pull"`)
	f.Add(`Negotiate, Basic realm="a, Bearer realm=evil", Bearer realm="x\\"", Digest realm=y`)
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseBearer(s)
		if ok != (got["realm"] != "") {
			t.Fatalf("parseBearer(%q) = %v, %v", s, got, ok)
		}
		for name, value := range got {
			if name != strings.ToLower(name) || len(value) > len(s) {
				t.Fatalf("parseBearer(%q) = %v", s, got)
			}
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add([]byte(`{"token":"a"}`))
	f.Add([]byte(`{"access_token":"a\r\nb"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := readToken(bytes.NewReader(b)); err == nil && (got.text == "" || strings.ContainsAny(got.text, " \r\n\x00")) {
			t.Fatalf("readToken(%q) = %q", b, got.text)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-9/*", "bytes */10", "bytes 9-5/10"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, size, ok := parseContentRange(s)
		if ok && (first < 0 || size != -1 && size <= first) {
			t.Fatalf("parseContentRange(%q) = %d, %d", s, first, size)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "5", "-5", "99999999999999999999", "Wed, 21 Oct 2015 07:28:00 GMT", testNow.Add(time.Hour).Format(http.TimeFormat)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, _ := parseRetryAfter(s, testNow); d < 0 {
			t.Fatalf("parseRetryAfter(%q) = %v", s, d)
		}
	})
}

func FuzzPlatform(f *testing.F) {
	for _, s := range []string{"linux/arm64/v8", "amd64", "linux", "windows/amd64", "a/b/c/d", "linux/x86_64"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePlatform(s)
		if err != nil {
			return
		}
		if !cmp.Equal(p, normalize(p)) || rank(p, p) == 0 {
			t.Fatalf("ParsePlatform(%q) = %+v", s, p)
		}
		if again, err := ParsePlatform(platformString(p)); err != nil || platformString(again) != platformString(p) {
			t.Fatalf("ParsePlatform(%q) = %+v, %v; want %+v", platformString(p), again, err, p)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("plain\x1b[2J\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("clean(%q) = %q", s, got)
		}
	})
}

// FuzzOpen opens whatever comes as a file. All that it may say is what it is.
func FuzzOpen(f *testing.F) {
	image := makeImage(f, "amd64")
	small := &testImage{config: image.config, blobs: map[string][]byte{}}
	small.seal(f, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: descriptor(ocispec.MediaTypeImageConfig, image.config)})
	layout := makeTar(f, layoutFiles(makeIndex(f, small.desc), small)...)
	saved := makeTar(f, file{name: "c.json", body: `{"rootfs":{"type":"layers","diff_ids":[]}}`}, file{name: "manifest.json", body: `[{"Config":"c.json","Layers":[]}]`})
	for _, b := range [][]byte{layout, saved, makeTar(f, rootfs...)} {
		for _, how := range []compression{plain, gzipped, zstandard, xzCompressed} {
			f.Add(pack(f, how, b))
		}
	}
	f.Add([]byte("BZh91AY&SY"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, fmt.Sprint("in", os.Getpid()))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Open(t.Context(), path, newWorldOptions(dir))
		if err != nil {
			wantError(t, err)
			return
		}
		defer got.Close()
		if got.Rootfs != nil {
			if n, err := io.Copy(io.Discard, got.Rootfs.Reader); n != int64(len(b)) || err != nil {
				t.Fatalf("%d of %d bytes: %v", n, len(b), err)
			}
			return
		}
		_, body, err := got.Image.Manifest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		doc, err := parseDocument(body, "")
		if err != nil || doc.manifest == nil {
			t.Fatalf("%s: %v", body, err)
		}
		for _, d := range append([]ocispec.Descriptor{doc.manifest.Config}, doc.manifest.Layers...) {
			r, err := got.Image.Blob(t.Context(), d, 0)
			if err != nil {
				wantError(t, err)
				continue
			}
			if n, err := io.Copy(io.Discard, r); n > d.Size || err == nil && n != d.Size {
				t.Fatalf("%d of %d bytes: %v", n, d.Size, err)
			}
			r.Close()
		}
	})
}

// FuzzIndexTar compares the members' bytes with what a plain read of the tar gives.
func FuzzIndexTar(f *testing.F) {
	f.Add(makeTar(f, rootfs...))
	f.Add(makeTar(f, file{name: "a", body: strings.Repeat("x", 1000)}, file{name: strings.Repeat("long/", 50) + "b", body: "y"}, file{name: "a", body: "z"}))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, fmt.Sprint("in", os.Getpid()))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		set, err := indexTar(file)
		if err != nil {
			return
		}
		want := map[string][]byte{}
		for r := tar.NewReader(bytes.NewReader(b)); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("a plain read says %v", err)
			}
			if h.Typeflag == tar.TypeReg && !isSparse(h) {
				data, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				want[memberName(h.Name)] = data
			} else if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink || isSparse(h) {
				delete(want, memberName(h.Name))
			}
		}
		for name, data := range want {
			s, err := set.member(name)
			if err != nil {
				t.Fatalf("%q: %v", name, err)
			}
			if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%q: %d bytes, want %d: %v", name, len(got), len(data), err)
			}
		}
	})
}
