// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"

	"sbx/reference"
)

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// file is a tar entry; a name that ends in / is a folder, link makes a symbolic link.
type file struct {
	name, body, link string
}

func makeTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.body))}
		switch {
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pack(t testing.TB, how compression, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case plain:
		return data
	case gzipped:
		w = gzip.NewWriter(&b)
	case zstandard:
		w, err = zstd.NewWriter(&b)
	case xzCompressed:
		w, err = xz.NewWriter(&b)
	default:
		t.Fatalf("no writer for %s", how)
	}
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

// testImage is an image with everything by digest.
type testImage struct {
	config   []byte
	layers   [][]byte // as they lie at the source
	diffs    [][]byte // plain
	manifest []byte
	desc     ocispec.Descriptor
	blobs    map[string][]byte // by digest, the manifest included
}

func descriptor(mediaType string, body []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: wireDigest(digestOf(body, reference.Digest{})), Size: int64(len(body))}
}

// makeImage makes a two layer image for an architecture.
func makeImage(t testing.TB, arch string) *testImage {
	t.Helper()
	i := &testImage{blobs: map[string][]byte{}}
	big := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB, so that it can be cut
	i.diffs = [][]byte{makeTar(t, file{name: "bin/"}, file{name: "bin/" + arch, body: big}), makeTar(t, file{name: "etc/os-release", body: "ID=test\n"})}
	i.layers = [][]byte{i.diffs[0], pack(t, gzipped, i.diffs[1])}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Config: ocispec.ImageConfig{Cmd: []string{"sh"}}, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, d := range i.diffs {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, wireDigest(digestOf(d, reference.Digest{})))
	}
	i.config = marshal(t, config)
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: descriptor(ocispec.MediaTypeImageConfig, i.config)}
	m.Layers = []ocispec.Descriptor{descriptor(ocispec.MediaTypeImageLayer, i.layers[0]), descriptor(ocispec.MediaTypeImageLayerGzip, i.layers[1])}
	i.seal(t, m)
	return i
}

// seal makes m the manifest.
func (i *testImage) seal(t testing.TB, m ocispec.Manifest) {
	i.manifest = marshal(t, m)
	i.desc = descriptor(m.MediaType, i.manifest)
	for _, b := range append([][]byte{i.config, i.manifest}, i.layers...) {
		i.blobs[string(descriptor("", b).Digest)] = b
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func makeIndex(t testing.TB, entries ...ocispec.Descriptor) []byte {
	return marshal(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: append([]ocispec.Descriptor{}, entries...)})
}

func onPlatform(d ocispec.Descriptor, platform string) ocispec.Descriptor {
	parts := append(strings.Split(platform, "/"), "")
	d.Platform = &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	return d
}

func refName(d ocispec.Descriptor, name string) ocispec.Descriptor {
	d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	return d
}

// layoutFiles is an OCI layout of the images with the given index.
func layoutFiles(index []byte, images ...*testImage) []file {
	files := []file{{name: "blobs/"}, {name: "blobs/sha256/"}}
	for _, i := range images {
		for _, digest := range sortedKeys(i.blobs) {
			files = append(files, file{name: "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:"), body: string(i.blobs[digest])})
		}
	}
	return append(files, file{name: "index.json", body: string(index)}, file{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`})
}

func sortedKeys(m map[string][]byte) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// writeFolder lays files out in a new folder.
func writeFolder(t testing.TB, files []file) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		name := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case f.link != "":
			err = os.Symlink(f.link, name)
		case strings.HasSuffix(f.name, "/"):
			err = os.MkdirAll(name, 0o755)
		default:
			err = os.WriteFile(name, []byte(f.body), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeFile(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// source is the store's view of an Image.
type source interface {
	Manifest(context.Context) (ocispec.Descriptor, []byte, error)
	Blob(context.Context, ocispec.Descriptor, int64) (io.ReadCloser, error)
}

// checkSource does what a pull does: every byte of every blob has to be there, from
// every kind of offset, and to have the digest that it goes by.
func checkSource(t *testing.T, s source) (ocispec.Descriptor, ocispec.Manifest) {
	t.Helper()
	d, body, err := s.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := descriptor(d.MediaType, body); got.Digest != d.Digest || got.Size != d.Size {
		t.Fatalf("the manifest's descriptor says %s of %d bytes, it is %s of %d", d.Digest, d.Size, got.Digest, got.Size)
	}
	doc, err := parseDocument(body, d.MediaType)
	if err != nil || doc.manifest == nil {
		t.Fatalf("not a manifest: %s: %v", body, err)
	}
	for _, b := range append([]ocispec.Descriptor{doc.manifest.Config}, doc.manifest.Layers...) {
		whole := readBlob(t, s, b, 0)
		if got := descriptor("", whole); got.Digest != b.Digest || got.Size != b.Size {
			t.Fatalf("blob %s has the digest %s", b.Digest, got.Digest)
		}
		for _, offset := range []int64{1, b.Size / 2, b.Size - 1, b.Size} {
			if part := readBlob(t, s, b, offset); !bytes.Equal(part, whole[offset:]) {
				t.Fatalf("blob %s differs from offset %d on", b.Digest, offset)
			}
		}
		for _, offset := range []int64{-1, b.Size + 1} {
			_, err := s.Blob(t.Context(), b, offset)
			wantError(t, err, "offset")
		}
	}
	return d, *doc.manifest
}

func readBlob(t *testing.T, s source, d ocispec.Descriptor, offset int64) []byte {
	t.Helper()
	r, err := s.Blob(t.Context(), d, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wireDigestText(s string) (d digest.Digest) { return digest.Digest(s) }

func marshalAny(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}
