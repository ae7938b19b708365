// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	digest "github.com/opencontainers/go-digest"
)

// TestLayoutForms opens one layout as a folder and as archives of every compression.
func TestLayoutForms(t *testing.T) {
	image := makeImage(t, "amd64")
	files := layoutFiles(makeIndex(t, refName(image.desc, "v1")), image)
	archive := makeTar(t, files...)
	dotted := make([]file, len(files))
	for i, f := range files {
		dotted[i] = f
		dotted[i].name = "./" + f.name
	}
	at := map[string]string{"folder": writeFolder(t, files), "tar": writeFile(t, archive), "dotted": writeFile(t, makeTar(t, dotted...))}
	for _, how := range []compression{gzipped, zstandard, xzCompressed} {
		at[string(how)] = writeFile(t, pack(t, how, archive))
	}
	for name, location := range at {
		t.Run(name, func(t *testing.T) {
			temp := t.TempDir()
			got, err := openIn(t, location, temp)
			if err != nil {
				t.Fatal(err)
			}
			d, _ := checkSource(t, got.Image)
			if diff := cmp.Diff(refName(image.desc, "v1"), d); diff != "" {
				t.Errorf("descriptor (-want +got):\n%s", diff)
			}
			missing := descriptor("", []byte("not there"))
			_, err = got.Image.Blob(t.Context(), missing, 0)
			wantError(t, err, "read blob "+string(missing.Digest)+" in "+location, "the layout has no blob")
			if left, _ := os.ReadDir(temp); len(left) != 0 {
				t.Errorf("left in the temporary folder: %v", left)
			}
			if err := got.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLayoutInBzip2(t *testing.T) {
	got, err := open(t, writeFile(t, bzipFixture(t, "layout.tar.bz2")))
	if err != nil {
		t.Fatal(err)
	}
	checkSource(t, got.Image)
}

func TestLayoutChoice(t *testing.T) {
	amd, arm := makeImage(t, "amd64"), makeImage(t, "arm64")
	amdD, armD := onPlatform(amd.desc, "linux/amd64"), onPlatform(arm.desc, "linux/arm64")
	multi := asBlob(amd, makeIndex(t, amdD, armD))
	deeper := asBlob(amd, makeIndex(t, multi))
	deepest := asBlob(amd, makeIndex(t, deeper))
	for _, tt := range []struct {
		name  string
		index []byte
		want  digest.Digest
		err   string
	}{
		{"one", makeIndex(t, amdD), amdD.Digest, ""},
		{"one of another machine", makeIndex(t, armD), armD.Digest, ""},
		{"one with two names", makeIndex(t, refName(amdD, "v1"), refName(amdD, "v2")), amdD.Digest, ""},
		{"two platforms", makeIndex(t, armD, amdD), amdD.Digest, ""},
		{"two platforms of one name", makeIndex(t, refName(armD, "v1"), refName(amdD, "v1")), amdD.Digest, ""},
		{"an index", makeIndex(t, multi), amdD.Digest, ""},
		{"an index in an index", makeIndex(t, deeper), amdD.Digest, ""},
		{"too deep", makeIndex(t, deepest), "", "nests deeper"},
		{"latest", makeIndex(t, refName(arm.desc, "v1"), refName(amd.desc, "latest")), amdD.Digest, ""},
		{"latest, written out", makeIndex(t, refName(arm.desc, "r/app:v1"), refName(amd.desc, "r/app:latest")), amdD.Digest, ""},
		{"latest for two platforms", makeIndex(t, refName(armD, "v1"), refName(armD, "latest"), refName(amdD, "latest")), amdD.Digest, ""},
		{"two", makeIndex(t, refName(arm.desc, "v1"), refName(amd.desc, "v2")), "", "it holds several images: v1, v2"},
		{"two latest", makeIndex(t, refName(arm.desc, "a:latest"), refName(amd.desc, "b:latest")), "", "it holds several images: a:latest, b:latest"},
		{"two without names", makeIndex(t, arm.desc, amd.desc), "", "it holds several images: " + string(arm.desc.Digest) + ", " + string(amd.desc.Digest)},
		{"two for one platform", makeIndex(t, amdD, onPlatform(arm.desc, "linux/amd64")), "", "it holds several images"},
		{"none", makeIndex(t), "", "the layout holds no image"},
		{"wrong platform", makeIndex(t, armD, onPlatform(amd.desc, "linux/s390x")), "", "no image for linux/amd64: there is only linux/arm64, linux/s390x"},
		{"no index", amd.manifest, "", "index.json is not an index"},
		{"both", bytes.Replace(makeIndex(t, amdD), []byte(`"manifests":`), []byte(`"config":{},"manifests":`), 1), "", "at once"},
		{"not JSON", []byte("hello"), "", "index.json: parse manifest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := layoutFiles(tt.index, amd, arm)
			for _, location := range []string{writeFolder(t, files), writeFile(t, makeTar(t, files...))} {
				got, err := open(t, location)
				if tt.err != "" {
					wantError(t, err, "open "+location+": ", tt.err)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if d, _ := checkSource(t, got.Image); d.Digest != tt.want {
					t.Errorf("got %s, want %s", d.Digest, tt.want)
				}
			}
		})
	}
}

// TestS05 puts links and other things into a layout where its files should be.
func TestS05LayoutLinks(t *testing.T) {
	image := makeImage(t, "amd64")
	secret := writeFile(t, image.layers[0]) // even the right bytes must not come from outside
	layer := "blobs/sha256/" + descriptor("", image.layers[0]).Digest.Encoded()
	manifest := "blobs/sha256/" + image.desc.Digest.Encoded()
	index := makeIndex(t, image.desc)
	outside := writeFolder(t, layoutFiles(index, image))
	swap := func(t *testing.T, name, target string) string {
		dir := writeFolder(t, layoutFiles(index, image))
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, tt := range []struct{ name, target string }{
		{layer, secret},
		{layer, "../../" + manifest},
		{manifest, filepath.Join(outside, manifest)},
		{"blobs/sha256", filepath.Join(outside, "blobs/sha256")},
		{"blobs", filepath.Join(outside, "blobs")},
		{"index.json", filepath.Join(outside, "index.json")},
		{"oci-layout", filepath.Join(outside, "oci-layout")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := open(t, swap(t, tt.name, tt.target))
			if tt.name == layer && err == nil {
				_, err = got.Image.Blob(t.Context(), descriptor("", image.layers[0]), 0)
			}
			e := wantError(t, err, "is a symbolic link")
			if !strings.Contains(e.Hint(), "not followed") {
				t.Errorf("hint %q", e.Hint())
			}
		})
	}
	t.Run("folder for a blob", func(t *testing.T) {
		dir := writeFolder(t, layoutFiles(index, image))
		os.Remove(filepath.Join(dir, layer))
		os.Mkdir(filepath.Join(dir, layer), 0o755)
		got, err := open(t, dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = got.Image.Blob(t.Context(), descriptor("", image.layers[0]), 0)
		wantError(t, err, "not a regular file")
	})
	t.Run("link in a tar", func(t *testing.T) {
		files := layoutFiles(index, image)
		for i := range files {
			if files[i].name == layer {
				files[i] = file{name: layer, link: secret}
			}
		}
		got, err := open(t, writeFile(t, makeTar(t, files...)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = got.Image.Blob(t.Context(), descriptor("", image.layers[0]), 0)
		wantError(t, err, "is a link")
	})
}

// TestS09 lies about sizes.
func TestS09Sizes(t *testing.T) {
	image := makeImage(t, "amd64")
	for _, size := range []int64{-1, 0, image.desc.Size - 1, image.desc.Size + 1, 1<<63 - 1} {
		d := image.desc
		d.Size = size
		_, err := open(t, writeFolder(t, layoutFiles(makeIndex(t, d), image)))
		wantError(t, err)
	}
	got, err := open(t, writeFolder(t, layoutFiles(makeIndex(t, image.desc), image)))
	if err != nil {
		t.Fatal(err)
	}
	layer := descriptor("", image.layers[0])
	for _, size := range []int64{-1, 0, layer.Size - 1, layer.Size + 1, 1<<63 - 1} {
		d := layer
		d.Size = size
		_, err := got.Image.Blob(t.Context(), d, 0)
		wantError(t, err, "read blob")
	}
	for _, bad := range []string{"", "sha256:../../../../etc/passwd", "sha256:" + strings.Repeat("A", 64)} {
		d := layer
		d.Digest = wireDigestText(bad)
		_, err := got.Image.Blob(t.Context(), d, 0)
		wantError(t, err, "parse digest")
	}
}

func TestLayoutWrongDigest(t *testing.T) {
	image, other := makeImage(t, "amd64"), makeImage(t, "arm64")
	d := image.desc
	image.blobs[string(d.Digest)] = append(bytes.Clone(other.manifest[:len(other.manifest)-1]), ' ', '}')[:d.Size]
	_, err := open(t, writeFolder(t, layoutFiles(makeIndex(t, d), image)))
	wantError(t, err, "wrong content")
}

func TestLayoutVersion(t *testing.T) {
	image := makeImage(t, "amd64")
	for version, want := range map[string]string{`{"imageLayoutVersion":"2.0.0"}`: `version "2.0.0"`, `{}`: `version ""`, `[]`: "parse oci-layout"} {
		files := layoutFiles(makeIndex(t, image.desc), image)
		files[len(files)-1].body = version
		_, err := open(t, writeFolder(t, files))
		wantError(t, err, want)
	}
	files := layoutFiles(makeIndex(t, image.desc), image)
	_, err := open(t, writeFolder(t, append(files[:len(files)-2], files[len(files)-1])))
	wantError(t, err, "has no index.json")
}

// TestSparseMember has a member with holes, whose bytes lie elsewhere than its size says.
func TestSparseMember(t *testing.T) {
	image := makeImage(t, "amd64")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range layoutFiles(makeIndex(t, image.desc), image) {
		if strings.HasSuffix(f.name, "/") {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.body))}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f.body)
	}
	w.Close()
	set, err := indexTar(mustOpen(t, writeFile(t, b.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	name := "blobs/sha256/" + image.desc.Digest.Encoded()
	m := set.members[name]
	m.sparse = true
	set.members[name] = m
	if _, err := set.member(name); err == nil {
		t.Error("a member with holes was opened")
	}
	for _, h := range []*tar.Header{{Typeflag: tar.TypeGNUSparse}, {Typeflag: tar.TypeReg, PAXRecords: map[string]string{"GNU.sparse.major": "1"}}} {
		if !isSparse(h) {
			t.Errorf("%+v is not seen to have holes", h)
		}
	}
}

func mustOpen(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

var _ source = (*Image)(nil)
