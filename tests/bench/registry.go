// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/tests/distribution"
)

// Goals of the exchange with a registry, from the issues.
const (
	pullPodman  = 2.5
	pullGzip    = 1.1 // times gzip -dc of the layers
	againPodman = 5.0
	pushPodman  = 2.5
	pullMemory  = 64*mebibyte + 2*gzipWindow
	bigLayer    = 95 * mebibyte
)

// sample images that are pulled and pushed: Debian and two layers, and one large layer.
type pullImage struct {
	name   string
	layers []string // gzip files
}

// registryRows compare pull and push with podman's, on the reference registry.
func (b *bench) registryRows(ctx context.Context) []row {
	names := []string{"pull", "pull, times gzip -dc", "pull, peak memory", "second pull", "push", "load"}
	unknown := func(err error) []row {
		var rows []row
		for _, n := range names {
			rows = append(rows, row{name: n, unknown: err})
		}
		return rows
	}
	if b.images == "" {
		return unknown(errors.New("SBX_TEST_IMAGES is not set"))
	}
	dir := filepath.Join(b.dir, "registry")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return unknown(err)
	}
	r, err := distribution.Start(dir, false)
	if err != nil {
		return unknown(err)
	}
	defer r.Stop()
	images, err := b.pullImages()
	if err != nil {
		return unknown(err)
	}
	var rows []row
	for _, img := range images {
		ref := r.Address + "/bench/" + img.name + ":v1"
		if err := b.seed(ctx, img, ref); err != nil {
			return append(rows, unknown(err)...)
		}
		own := append(b.pull(ctx, img, ref), b.secondPull(ctx, img, ref), b.push(ctx, img, ref, r), b.load(ctx, img, ref))
		show(own) // they take long
		rows = append(rows, own...)
	}
	return rows
}

// pullImages makes the layers.
func (b *bench) pullImages() ([]pullImage, error) {
	debian := filepath.Join(b.images, "debian-bookworm-slim-amd64-rootfs.tar.gz")
	big := filepath.Join(b.dir, "big.tar.gz")
	if err := enlarge(big, debian); err != nil {
		return nil, err
	}
	return []pullImage{
		{"debian", []string{debian, filepath.Join(b.images, "debian-bookworm-nginx-layer.tar.gz"), filepath.Join(b.images, "debian-bookworm-python3.11-layer.tar.gz")}},
		{"big", []string{big}},
	}, nil
}

// enlarge writes a layer of bigLayer bytes, compressed, that holds the tree of another one
// several times.
func enlarge(to, from string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	z := gzip.NewWriter(out)
	w := tar.NewWriter(z)
	for n := 0; ; n++ {
		if err := copyTree(w, from, fmt.Sprintf("copy%d/", n), out); errors.Is(err, errEnough) {
			break
		} else if err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), z.Close())
}

var errEnough = errors.New("large enough")

func copyTree(w *tar.Writer, from, below string, out *os.File) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if size, err := out.Seek(0, io.SeekCurrent); err != nil || size >= bigLayer {
			return errors.Join(err, errEnough)
		}
		h.Name = below + h.Name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = below + h.Linkname
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
}

// seed puts an image into the registry, its layers as they are.
func (b *bench) seed(ctx context.Context, img pullImage, ref string) error {
	dir := filepath.Join(b.dir, "layout-"+img.name)
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, layer := range img.layers {
		d, diffID, err := addLayer(blobs, layer)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	}
	var err error
	if m.Config, err = addDocument(blobs, ocispec.MediaTypeImageConfig, config); err != nil {
		return err
	}
	d, err := addDocument(blobs, ocispec.MediaTypeImageManifest, m)
	if err != nil {
		return err
	}
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{d}})
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"index.json": index, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	out, err := exec.CommandContext(ctx, "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:"+dir, "docker://"+ref).CombinedOutput()
	if err != nil {
		return fmt.Errorf("skopeo: %w: %s", err, out)
	}
	return os.RemoveAll(dir)
}

func addLayer(blobs, layer string) (ocispec.Descriptor, digest.Digest, error) {
	in, err := os.Open(layer)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer in.Close()
	whole := sha256.New()
	size, err := io.Copy(whole, in)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	plain := sha256.New()
	if _, err := io.Copy(plain, z); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	sum := hex.EncodeToString(whole.Sum(nil))
	if err := os.Symlink(layer, filepath.Join(blobs, sum)); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.Digest("sha256:" + sum), Size: size}, digest.NewDigest(digest.SHA256, plain), nil
}

func addDocument(blobs, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := digest.FromBytes(data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, os.WriteFile(filepath.Join(blobs, d.Encoded()), data, 0o644)
}

func (b *bench) pullCommand(ref string) command {
	home := filepath.Join(b.dir, "pull")
	c := b.sbxCommand("", "pull", "-q", ref)
	c.env = append(c.env, "SBX_HOME="+home)
	return c
}

func (b *bench) podmanImage(args ...string) command {
	return command{args: append(b.podmanBase(), args...), env: b.podmanEnv()}
}

// pull compares the first pull with podman's and with the decompression of the layers.
func (b *bench) pull(ctx context.Context, img pullImage, ref string) []row {
	speed := row{name: "pull " + img.name + ", times faster than podman", goal: fmt.Sprintf(">= %.1f", pullPodman)}
	inflate := row{name: "pull " + img.name + ", times gzip -dc", goal: fmt.Sprintf("<= %.1f", pullGzip)}
	memory := row{name: "pull " + img.name + ", peak memory", goal: fmt.Sprintf("< %.2f MiB", float64(pullMemory)/mebibyte)}
	ours := b.inFreshHome("", "pull", "-q", ref)
	rounds := 3
	a, o, err := pairs(ctx, ours, b.podmanFresh("pull", "-q", "--tls-verify=false", ref), rounds)
	if err != nil {
		speed.unknown = err
	} else {
		speed = speed.faster(a, o, pullPodman)
	}
	gz := command{args: append([]string{"sh", "-c", `for l; do gzip -dc "$l" > /dev/null; done`, "sh"}, img.layers...)}
	a, o, err = pairs(ctx, ours, gz, rounds)
	if err != nil {
		inflate.unknown, memory.unknown = err, err
		return []row{speed, inflate, memory}
	}
	inflate = inflate.compare(median(times(a)), median(times(o)), pullGzip)
	peak := median(peaks(a))
	memory.sbx = fmt.Sprintf("%.1f MiB", float64(peak)/mebibyte)
	memory.missed = peak >= pullMemory
	return []row{speed, inflate, memory}
}

// secondPull compares a pull of what is here.
func (b *bench) secondPull(ctx context.Context, img pullImage, ref string) row {
	r := row{name: "second pull " + img.name + ", times faster than podman", goal: fmt.Sprintf(">= %.0f", againPodman)}
	a, o, err := pairs(ctx, b.pullCommand(ref), b.podmanImage("pull", "-q", "--tls-verify=false", ref), 5)
	if err != nil {
		r.unknown = err
		return r
	}
	return r.faster(a, o, againPodman)
}

// push compares a push to an empty registry. Both have pulled the image before.
func (b *bench) push(ctx context.Context, img pullImage, ref string, registry *distribution.Registry) row {
	r := row{name: "push " + img.name + ", times faster than podman", goal: fmt.Sprintf(">= %.1f", pushPodman)}
	empty := func() error { return os.RemoveAll(registry.Data) }
	ours := b.pullCommand(ref)
	ours.args[1], ours.before = "push", empty
	theirs := b.podmanImage("push", "-q", "--tls-verify=false", ref)
	theirs.before = empty
	a, o, err := pairs(ctx, ours, theirs, 3)
	if err != nil {
		r.unknown = err
		return r
	}
	return r.faster(a, o, pushPodman)
}

func (r row) faster(a, o []sample, goal float64) row {
	ours, theirs := median(times(a)), median(times(o))
	ratio := float64(theirs) / float64(ours)
	r.sbx, r.other, r.ratio = milliseconds(ours), milliseconds(theirs), fmt.Sprintf("%.1f", ratio)
	r.missed = ratio < goal
	return r
}
