// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
)

// recipe is an image to be made.
type recipe struct {
	layers      []string // lines, see layerTar; none makes an image without layers
	raw         [][]byte // layers that are these bytes, above
	config      ocispec.ImageConfig
	arch        string
	compression string
	docker      bool   // Docker's media types, as `docker push` sends
	name        string // the annotation with its reference
	annotations map[string]string
}

// layout writes an image as an OCI layout directory.
type layout struct{ dir string }

func (l layout) blob(mediaType string, data []byte) (ocispec.Descriptor, error) {
	sum := sha256.Sum256(data)
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.NewDigestFromBytes(digest.SHA256, sum[:]), Size: int64(len(data))}
	err := os.WriteFile(filepath.Join(l.dir, "blobs", "sha256", hex.EncodeToString(sum[:])), data, 0o644)
	return d, err
}

func (l layout) document(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return l.blob(mediaType, data)
}

func (l layout) write(r recipe) error {
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	manifestType, configType, layerType := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer
	if r.docker {
		manifestType = "application/vnd.docker.distribution.manifest.v2+json"
		configType = "application/vnd.docker.container.image.v1+json"
		layerType = "application/vnd.docker.image.rootfs.diff.tar"
	}
	suffix := map[string]string{"gzip": "+gzip", "zstd": "+zstd"}[r.compression]
	if r.docker && suffix != "" {
		suffix = "." + suffix[1:]
	}
	image := ocispec.Image{Config: r.config, Platform: ocispec.Platform{OS: "linux", Architecture: r.arch}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType, Layers: []ocispec.Descriptor{}, Annotations: r.annotations}
	layers := r.raw
	for i, lines := range r.layers {
		data, err := layerTar(lines)
		if err != nil {
			return err
		}
		layers = slices.Insert(layers, i, data)
	}
	for _, data := range layers {
		var err error
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, digest.FromBytes(data))
		if data, err = compress(data, r.compression); err != nil {
			return err
		}
		d, err := l.blob(layerType+suffix, data)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, d)
	}
	var err error
	if m.Config, err = l.document(configType, image); err != nil {
		return err
	}
	d, err := l.document(manifestType, m)
	if err != nil {
		return err
	}
	d.Platform = &image.Platform
	if r.name != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: r.name}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.dir, "index.json"), data, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`), 0o644)
}

// lines collects the -layer flags: files with a layer's lines.
type lines []string

func (l *lines) String() string { return strings.Join(*l, ",") }

func (l *lines) Set(path string) error {
	*l = append(*l, path)
	return nil
}

// mkimage [FLAGS] DIR: writes an OCI layout with the probe in it, and the layers
// given on top. -config is a file with the image's configuration, as in
// `docker inspect`; -tar packs the layout into DIR.tar as well.
func mkimageCommand(ts *testscript.TestScript, neg bool, args []string) {
	set := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	r := recipe{}
	var files lines
	set.Var(&files, "layer", "")
	set.StringVar(&r.arch, "arch", runtime.GOARCH, "")
	set.StringVar(&r.compression, "compression", "gzip", "")
	set.BoolVar(&r.docker, "docker", false, "")
	set.StringVar(&r.name, "name", "", "")
	config := set.String("config", "", "")
	bare := set.Bool("bare", false, "without the probe")
	packed := set.Bool("tar", false, "")
	if err := set.Parse(args); err != nil || neg || set.NArg() != 1 {
		ts.Fatalf("usage: mkimage [-layer FILE].. [-config FILE] [-arch A] [-compression C] [-docker] [-name N] [-bare] [-tar] DIR")
	}
	if !*bare {
		r.layers = append(r.layers, defaultLayer)
	}
	for _, f := range files {
		r.layers = append(r.layers, ts.ReadFile(f))
	}
	if *config != "" {
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(*config)), &r.config))
	}
	dir := ts.MkAbs(set.Arg(0))
	ts.Check(layout{dir}.write(r))
	if *packed {
		ts.Check(pack(dir, dir+".tar"))
	}
}

// pack writes the files of a directory into a tar.
func pack(dir, to string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		return err
	}
	return w.Close()
}

// mktar [-compression C] [-bare] FILE [LINES]: writes a root filesystem as a tar
// with the probe in it and what LINES, a file, adds.
func mktarCommand(ts *testscript.TestScript, neg bool, args []string) {
	set := flag.NewFlagSet("mktar", flag.ContinueOnError)
	compression := set.String("compression", "gzip", "")
	bare := set.Bool("bare", false, "without the probe")
	if err := set.Parse(args); err != nil || neg || set.NArg() < 1 || set.NArg() > 2 {
		ts.Fatalf("usage: mktar [-compression C] [-bare] FILE [LINES]")
	}
	var text string
	if !*bare {
		text = defaultLayer
	}
	if set.NArg() == 2 {
		text += "\n" + ts.ReadFile(set.Arg(1))
	}
	data, err := layerTar(text)
	ts.Check(err)
	data, err = compress(data, *compression)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(set.Arg(0)), data, 0o644))
}

// files lists the paths below a directory.
func files(dir string) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			list = append(list, path)
		}
		return nil // what a container's user has shut is listed, not entered
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return list, nil
}
