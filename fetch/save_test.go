// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/tests/need"
)

func hexOf(body []byte) string { return descriptor("", body).Digest.Encoded() }

// savedFiles is an image as docker save wrote it before it knew OCI layouts.
func savedFiles(t *testing.T, i *testImage, tags ...string) []file {
	t.Helper()
	entry := savedImage{Config: hexOf(i.config) + ".json", RepoTags: tags}
	var files []file
	for _, d := range i.diffs {
		dir := hexOf(append([]byte("layer of "), d...))
		entry.Layers = append(entry.Layers, dir+"/layer.tar")
		files = append(files, file{name: dir + "/"}, file{name: dir + "/VERSION", body: "1.0"}, file{name: dir + "/layer.tar", body: string(d)})
	}
	return append(files, file{name: entry.Config, body: string(i.config)}, file{name: "manifest.json", body: string(marshal(t, []savedImage{entry}))}, file{name: "repositories", body: "{}"})
}

func checkSaved(t *testing.T, got *Opened, i *testImage) ocispec.Manifest {
	t.Helper()
	if got.Image == nil {
		t.Fatal("not taken for an archive of docker save")
	}
	_, m := checkSource(t, got.Image)
	if m.Config.Digest != descriptor("", i.config).Digest || len(m.Layers) != len(i.diffs) {
		t.Fatalf("manifest %+v", m)
	}
	return m
}

func TestSaveArchive(t *testing.T) {
	image := makeImage(t, "amd64")
	files := savedFiles(t, image, "app:v1")
	for _, how := range []compression{plain, gzipped, xzCompressed, zstandard} {
		got, err := open(t, writeFile(t, pack(t, how, makeTar(t, files...))))
		if err != nil {
			t.Fatal(err)
		}
		for n, d := range checkSaved(t, got, image).Layers {
			if d.MediaType != ocispec.MediaTypeImageLayer || d.Digest != descriptor("", image.diffs[n]).Digest {
				t.Errorf("layer %d: %+v", n, d)
			}
		}
	}
	first, err := open(t, writeFile(t, makeTar(t, files...)))
	if err != nil {
		t.Fatal(err)
	}
	second, err := open(t, writeFile(t, makeTar(t, files...)))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := first.Image.manifest.Digest, second.Image.manifest.Digest; a != b {
		t.Errorf("the made manifest differs: %s, %s", a, b)
	}
}

// TestSaveForms are archives as other builders write them.
func TestSaveForms(t *testing.T) {
	image := makeImage(t, "amd64")
	d0, d1 := image.diffs[0], image.diffs[1]
	entry := func(config string, layers ...string) string {
		return string(marshal(t, []savedImage{{Config: config, Layers: layers}}))
	}
	config := file{name: hexOf(image.config) + ".json", body: string(image.config)}
	dir := strings.Repeat("a", 64)
	for _, tt := range []struct {
		name  string
		files []file
		kinds []string
	}{
		{"podman", []file{{name: hexOf(d0) + ".tar", body: string(d0)}, {name: hexOf(d1) + ".tar", body: string(d1)}, config, {name: dir + "/layer.tar", link: "../" + hexOf(d0) + ".tar"}, {name: "manifest.json", body: entry(config.name, hexOf(d0)+".tar", hexOf(d1)+".tar")}}, []string{"", ""}},
		{"links", []file{{name: dir + "/layer.tar", body: string(d0)}, {name: strings.Repeat("b", 64) + "/layer.tar", link: "../" + dir + "/layer.tar"}, {name: hexOf(d1) + ".tar", body: string(d1)}, config, {name: "manifest.json", body: entry(config.name, strings.Repeat("b", 64)+"/layer.tar", hexOf(d1)+".tar")}}, []string{"", ""}},
		{"crane", []file{{name: "sha256:" + hexOf(image.config), body: string(image.config)}, {name: "a.tar.gz", body: string(pack(t, gzipped, d0))}, {name: "b.tar.zst", body: string(pack(t, zstandard, d1))}, {name: "manifest.json", body: entry("sha256:"+hexOf(image.config), "a.tar.gz", "b.tar.zst")}}, []string{"+gzip", "+zstd"}},
		{"blobs", []file{{name: "blobs/"}, {name: "blobs/sha256/" + hexOf(d0), body: string(d0)}, {name: "blobs/sha256/" + hexOf(d1), body: string(d1)}, {name: "blobs/sha256/" + hexOf(image.config), body: string(image.config)}, {name: "manifest.json", body: entry("blobs/sha256/"+hexOf(image.config), "blobs/sha256/"+hexOf(d0), "blobs/sha256/"+hexOf(d1))}}, []string{"", ""}},
		{"dotted", []file{{name: "./"}, {name: "./a.tar", body: string(d0)}, {name: "./b.tar", body: string(d1)}, {name: "./c.json", body: string(image.config)}, {name: "./manifest.json", body: entry("c.json", "./a.tar", "b.tar")}}, []string{"", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := open(t, writeFile(t, makeTar(t, tt.files...)))
			if err != nil {
				t.Fatal(err)
			}
			for n, d := range checkSaved(t, got, image).Layers {
				if d.MediaType != ocispec.MediaTypeImageLayer+tt.kinds[n] {
					t.Errorf("layer %d is %s", n, d.MediaType)
				}
			}
		})
	}
}

// TestSaveAndLayout is what docker save writes today: both, and the layout counts.
func TestSaveAndLayout(t *testing.T) {
	image := makeImage(t, "amd64")
	files := append(layoutFiles(makeIndex(t, image.desc), image), file{name: "manifest.json", body: `[{"Config":"blobs/sha256/x","Layers":[]}]`})
	got, err := open(t, writeFile(t, makeTar(t, files...)))
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := checkSource(t, got.Image); d.Digest != image.desc.Digest {
		t.Errorf("got %s", d.Digest)
	}
}

func TestSaveErrors(t *testing.T) {
	image, other := makeImage(t, "amd64"), makeImage(t, "arm64")
	config := hexOf(image.config) + ".json"
	base := []file{{name: config, body: string(image.config)}, {name: "c2.json", body: string(other.config)}, {name: "a.tar", body: string(image.diffs[0])}, {name: "b.tar", body: string(image.diffs[1])}, {name: "x.tar", body: string(bzipFixture(t, "rootfs.tar.bz2"))}, {name: "bad.json", body: "{"}, {name: "loop1.tar", link: "loop2.tar"}, {name: "loop2.tar", link: "loop1.tar"}, {name: "out.tar", link: "../../../etc/passwd"}}
	for _, tt := range []struct {
		name    string
		entries []savedImage
		want    string
	}{
		{"no config", []savedImage{{Config: "none.json", Layers: []string{"a.tar", "b.tar"}}}, "read config: none.json"},
		{"bad config", []savedImage{{Config: "bad.json", Layers: []string{"a.tar"}}}, "parse config bad.json"},
		{"no layer", []savedImage{{Config: config, Layers: []string{"a.tar", "none.tar"}}}, "layer none.tar"},
		{"too few layers", []savedImage{{Config: config, Layers: []string{"a.tar"}}}, "has 1 layers, its config names 2"},
		{"too many layers", []savedImage{{Config: config, Layers: []string{"a.tar", "b.tar", "b.tar"}}}, "has 3 layers, its config names 2"},
		{"outside", []savedImage{{Config: config, Layers: []string{"../../../../etc/passwd", "/etc/passwd"}}}, "layer ../../../../etc/passwd: etc/passwd: file does not exist"},
		{"link outside", []savedImage{{Config: config, Layers: []string{"out.tar", "b.tar"}}}, "layer out.tar"},
		{"loop", []savedImage{{Config: config, Layers: []string{"loop1.tar", "b.tar"}}}, "is a link"},
		{"bzip2", []savedImage{{Config: config, Layers: []string{"x.tar", "b.tar"}}}, "compressed by bzip2"},
		{"several", []savedImage{{Config: config, RepoTags: []string{"a:1", "a:2"}, Layers: []string{"a.tar", "b.tar"}}, {Config: "c2.json", Layers: []string{"a.tar", "b.tar"}}}, "it holds several images: a:1, a:2, c2.json"},
		{"two latest", []savedImage{{Config: config, RepoTags: []string{"a:latest"}}, {Config: "c2.json", RepoTags: []string{"b:latest"}}}, "it holds several images: a:latest, b:latest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := open(t, writeFile(t, makeTar(t, append(base, file{name: "manifest.json", body: string(marshal(t, tt.entries))})...)))
			wantError(t, err, tt.want)
		})
	}
	entries := []savedImage{{Config: "c2.json", RepoTags: []string{"b:1"}, Layers: []string{"a.tar", "b.tar"}}, {Config: config, RepoTags: []string{"a:1", "a:latest"}, Layers: []string{"a.tar", "b.tar"}}}
	got, err := open(t, writeFile(t, makeTar(t, append(base, file{name: "manifest.json", body: string(marshal(t, entries))})...)))
	if err != nil {
		t.Fatal(err)
	}
	checkSaved(t, got, image)
}

// TestSaveBySkopeo reads what the real tool writes.
func TestSaveBySkopeo(t *testing.T) {
	need.Need(t, need.Peers)
	image := makeImage(t, "amd64")
	dir := writeFolder(t, layoutFiles(makeIndex(t, refName(image.desc, "v1")), image))
	for _, form := range []string{"docker-archive", "oci-archive"} {
		out := filepath.Join(t.TempDir(), "out.tar")
		cmd := exec.Command("skopeo", "copy", "--insecure-policy", "oci:"+dir+":v1", form+":"+out+":app:v1")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		got, err := open(t, out)
		if err != nil {
			t.Fatal(err)
		}
		_, m := checkSource(t, got.Image)
		data, err := os.ReadFile(out)
		if err != nil || !bytes.Contains(data, []byte(m.Config.Digest.Encoded())) {
			t.Errorf("%s: config %s: %v", form, m.Config.Digest, err)
		}
	}
}
