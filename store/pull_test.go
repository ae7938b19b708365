// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"golang.org/x/sync/errgroup"

	"sbx/reference"
)

const alpine = "docker.io/library/alpine:latest"

func TestPull(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		src := source(t, base(t), second(t))
		var events []Event
		img, err := s.Pull(t.Context(), alpine, src, PullOptions{Progress: func(e Event) { events = append(events, e) }, Origin: "x"})
		if err != nil {
			t.Fatal(err)
		}
		mustCheck(t, s)
		mustBeClean(t, s)
		if img.Name != alpine || img.ID.String() != string(src.config.Digest) || img.Origin != "x" || img.Pulled.IsZero() || img.Config.Config.Cmd[0] != "/bin/sh" {
			t.Errorf("image %+v", img)
		}
		if diff := cmp.Diff(src.diffIDs, img.Layers, cmp.Comparer(func(a, b reference.Digest) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		if img.Size < 256<<10 || img.Size > 257<<10 {
			t.Errorf("size %d", img.Size)
		}
		dirs, err := s.LayerDirs(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{dirs[0] + "/bin/sh": "#!shell", dirs[0] + "/etc/passwd": "root:x:0:0::/root:/bin/sh\n", dirs[1] + "/etc/motd": "hello"} {
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", path, got, err)
			}
		}
		// The second layer has no entry for etc, so it looks like the first's.
		if fi, err := os.Stat(dirs[1] + "/etc"); err != nil || fi.Mode().Perm() != 0o711 {
			t.Errorf("implied directory: %v %v", fi.Mode(), err)
		}
		var words []string
		for _, e := range events {
			if e.Digest.String() == string(src.layers[0].Digest) && !slices.Contains(words, e.Status) {
				words = append(words, e.Status)
			}
		}
		for _, want := range []string{StatusWaiting, StatusDownloading, StatusVerifying, StatusDownloaded, StatusDone} {
			if !slices.Contains(words, want) {
				t.Errorf("no event %q among %q", want, words)
			}
		}

		// Once more: nothing is fetched, everything exists.
		src.asked, events = nil, nil
		again, err := s.Pull(t.Context(), alpine, src, PullOptions{Progress: func(e Event) { events = append(events, e) }, Origin: "x"})
		if err != nil || len(src.asked) != 0 {
			t.Errorf("second pull: asked for %q, %v", src.asked, err)
		}
		if len(events) != 2 || events[0].Status != StatusExists {
			t.Errorf("second pull: events %+v", events)
		}
		if again.Pulled.Before(img.Pulled) {
			t.Errorf("second pull: pulled at %v, the first at %v", again.Pulled, img.Pulled)
		}
		again.Pulled = img.Pulled
		if diff := cmp.Diff(img, again, cmp.Comparer(func(a, b reference.Digest) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPullWithoutLayers(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		img := mustPull(t, s, "localhost/empty:1", source(t))
		dirs, err := s.LayerDirs(t.Context(), img)
		if err != nil || len(dirs) != 1 {
			t.Fatalf("%q, %v", dirs, err)
		}
		names, err := os.ReadDir(dirs[0])
		if err != nil || len(names) != 0 {
			t.Errorf("%v, %v", names, err)
		}
		if err := s.Collect(t.Context(), Roots{}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dirs[0]); err != nil {
			t.Error(err)
		}
		mustCheck(t, s)
	})
}

// The same layer twice, at the bottom and again.
func TestPullRepeatedLayer(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	src := source(t, base(t))
	src.layers = append(src.layers, src.layers[0])
	src.diffIDs = append(src.diffIDs, src.diffIDs[0])
	src.seal(t)
	img := mustPull(t, s, alpine, src)
	dirs, err := s.LayerDirs(t.Context(), img)
	if err != nil || len(dirs) != 2 || dirs[0] != dirs[1] {
		t.Errorf("%q, %v", dirs, err)
	}
	if n := len(src.asked); n != 2 {
		t.Errorf("asked for %q", src.asked)
	}
}

// sha512 is rare, and allowed everywhere.
func TestPullSHA512(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	src := source(t, base(t))
	blob := gzipOf(t, base(t))
	h := newHash(mustDigest(t, "sha512:"+strings.Repeat("0", 128)))
	h.Write(blob)
	d := mustDigest(t, fmt.Sprintf("sha512:%x", h.Sum(nil)))
	src.layers[0].Digest = godigest.Digest(d.String())
	src.blobs[d.String()] = blob
	src.seal(t)
	img := mustPull(t, s, alpine, src)
	if _, err := s.LayerDirs(t.Context(), img); err != nil {
		t.Error(err)
	}
	f, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// A wrong source must leave the store as it was: no image, no blob that is not what its
// name says, no layer, nothing in tmp.
func TestPullRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		bend func(t *testing.T, s *fakeSource)
		want string
	}{
		"manifest of another digest": {func(t *testing.T, s *fakeSource) { s.manifest = append([]byte(" "), s.manifest[:len(s.manifest)-1]...) }, "wrong content"},
		"manifest too short":         {func(t *testing.T, s *fakeSource) { s.desc.Size++ }, "wrong size"},
		"manifest too large": {func(t *testing.T, s *fakeSource) {
			s.setManifest(append(bytes.Repeat([]byte(" "), maxManifest), s.manifest...))
		}, "larger than allowed"},
		"manifest of negative size": {func(t *testing.T, s *fakeSource) { s.desc.Size = -1 }, "negative size"},
		"manifest is an index": {func(t *testing.T, s *fakeSource) {
			s.setManifest([]byte(`{"schemaVersion":2,"manifests":[]}`))
		}, "it is an index"},
		"manifest and index at once (CVE-2021-41190)": {func(t *testing.T, s *fakeSource) {
			s.setManifest(append(s.manifest[:len(s.manifest)-1:len(s.manifest)-1], `,"manifests":[]}`...))
		}, "at the same time"},
		"layers in two spellings": {func(t *testing.T, s *fakeSource) {
			s.setManifest(append(s.manifest[:len(s.manifest)-1:len(s.manifest)-1], `,"Layers":[]}`...))
		}, "stands there twice"},
		"announced as something else": {func(t *testing.T, s *fakeSource) { s.desc.MediaType = dockerManifest }, "announced as"},
		"not JSON":                    {func(t *testing.T, s *fakeSource) { s.setManifest([]byte("<html>")) }, "not JSON"},
		"no object":                   {func(t *testing.T, s *fakeSource) { s.setManifest([]byte("[]")) }, "not a JSON object"},
		"schema 1":                    {func(t *testing.T, s *fakeSource) { s.setManifest([]byte(`{"schemaVersion":1,"fsLayers":[]}`)) }, "schema 1"},
		"artifact": {func(t *testing.T, s *fakeSource) {
			s.setManifest(bytes.Replace(s.manifest, []byte(ocispec.MediaTypeImageConfig), []byte("application/vnd.example.thing"), 1))
		}, "not an image that can be run"},
		"encrypted layer": {func(t *testing.T, s *fakeSource) {
			s.setManifest(bytes.Replace(s.manifest, []byte(ocispec.MediaTypeImageLayerGzip), []byte(ocispec.MediaTypeImageLayerGzip+"+encrypted"), 1))
		}, "encrypted"},
		"layer that is none": {func(t *testing.T, s *fakeSource) {
			s.setManifest(bytes.Replace(s.manifest, []byte(ocispec.MediaTypeImageLayerGzip), []byte("text/html"), 1))
		}, "unknown layer type"},
		"layer of negative size": {func(t *testing.T, s *fakeSource) { s.layers[0].Size = -5; s.seal(t) }, "negative size"},
		"layer larger than any disk": {func(t *testing.T, s *fakeSource) {
			s.layers[0].Size = 1 << 60
			s.seal(t)
		}, "no space left on device: at least 1.153EB needed, "},
		"layers whose sizes overflow": {func(t *testing.T, s *fakeSource) {
			s.layers[0].Size, s.layers[1].Size = 1<<63-1, 1<<63-1
			s.seal(t)
		}, "larger than any disk"},
		"layer too short": {func(t *testing.T, s *fakeSource) { s.layers[0].Size++; s.seal(t) }, "wrong size"},
		"layer too long":  {func(t *testing.T, s *fakeSource) { s.layers[0].Size--; s.seal(t) }, "wrong size: more than"},
		"layer of size 0": {func(t *testing.T, s *fakeSource) { s.layers[0].Size = 0; s.seal(t) }, "wrong content"},
		"layer of another digest": {func(t *testing.T, s *fakeSource) {
			b := bytes.Clone(s.blobs[string(s.layers[0].Digest)])
			b[len(b)/2] ^= 1
			s.blobs[string(s.layers[0].Digest)] = b
		}, "wrong content"},
		"layer that is no tar": {func(t *testing.T, s *fakeSource) {
			s.replace(t, 0, gzipOf(t, bytes.Repeat([]byte("not a tar "), 1000)))
		}, "not a tar"},
		"layer cut in its compression": {func(t *testing.T, s *fakeSource) {
			b := gzipOf(t, base(t))
			s.replace(t, 0, b[:len(b)/2])
		}, "layer"},
		"diff ID of another layer": {func(t *testing.T, s *fakeSource) { s.diffIDs[0] = s.diffIDs[1]; s.seal(t) }, "diff ID"},
		"diff ID of nothing":       {func(t *testing.T, s *fakeSource) { s.diffIDs[1] = digestOf(nil); s.seal(t) }, "the config has another diff ID"},
		"too few diff IDs":         {func(t *testing.T, s *fakeSource) { s.diffIDs = s.diffIDs[:1]; s.seal(t) }, "1 diff IDs for 2 layers"},
		"too many diff IDs":        {func(t *testing.T, s *fakeSource) { s.diffIDs = append(s.diffIDs, s.diffIDs[0]); s.seal(t) }, "3 diff IDs for 2 layers"},
		"config of another digest": {func(t *testing.T, s *fakeSource) {
			s.blobs[string(s.config.Digest)] = bytes.Replace(s.blobs[string(s.config.Digest)], []byte("linux"), []byte("Linux"), 1)
		}, "wrong content"},
		"config too large": {func(t *testing.T, s *fakeSource) {
			s.setManifest(bytes.Replace(s.manifest, []byte(fmt.Sprintf(`"size":%d`, s.config.Size)), []byte(`"size":4194305`), 1))
		}, "larger than allowed"},
		"config that is no object": {func(t *testing.T, s *fakeSource) { s.setConfig(t, []byte("null")) }, "not a JSON object"},
		"config of another kind":   {func(t *testing.T, s *fakeSource) { s.setConfig(t, []byte(`{"rootfs":{"type":"tree"}}`)) }, "root filesystem type"},
		"config with a strange diff ID": {func(t *testing.T, s *fakeSource) {
			s.setConfig(t, []byte(`{"rootfs":{"type":"layers","diff_ids":["sha256:../../../etc/passwd","x"]}}`))
		}, "parse digest"},
		"too many layers": {func(t *testing.T, s *fakeSource) {
			for len(s.layers) <= maxLayers {
				s.layers = append(s.layers, s.layers[0])
				s.diffIDs = append(s.diffIDs, s.diffIDs[0])
			}
			s.seal(t)
		}, "too many"},
		"source that breaks off": {func(t *testing.T, s *fakeSource) {
			s.body = func(_ ocispec.Descriptor, _ int64, r io.Reader) io.Reader {
				return io.MultiReader(io.LimitReader(r, 10), brokenReader{})
			}
		}, "the wire is cut"},
		"fine": {func(*testing.T, *fakeSource) {}, ""},
	} {
		onRungs(t, name, func(t *testing.T, s *Store) {
			src := source(t, base(t), second(t))
			c.bend(t, src)
			_, err := s.Pull(t.Context(), alpine, src, PullOptions{})
			mustCheck(t, s)
			mustBeClean(t, s)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "pull "+alpine+": ") || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %v; want %q", err, c.want)
			}
			if _, err := s.Image(alpine); !errors.Is(err, ErrNotFound) {
				t.Errorf("the image is there: %v", err)
			}
			if err := s.Collect(t.Context(), Roots{}); err != nil {
				t.Fatal(err)
			}
			if left := contents(t, s); len(left) > 0 {
				t.Errorf("left after collection: %q", left)
			}
			// What was wrong does not stand in the way of what is right.
			mustPull(t, s, alpine, source(t, base(t), second(t)))
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the wire is cut") }

// replace makes blob layer i, with the digest of blob.
func (s *fakeSource) replace(t *testing.T, i int, blob []byte) {
	s.layers[i] = s.add(ocispec.MediaTypeImageLayerGzip, blob)
	s.seal(t)
}

func (s *fakeSource) setConfig(t *testing.T, data []byte) {
	config := s.add(ocispec.MediaTypeImageConfig, data)
	s.setManifest(bytes.Replace(s.manifest, mustJSON(t, s.config), mustJSON(t, config), 1))
	s.config = config
}

// contents lists blobs, layers and what is in tmp.
func contents(t testing.TB, s *Store) []string {
	t.Helper()
	var names []string
	for _, dir := range []string{"blobs/sha256", "layers/" + s.key, "tmp"} {
		list, err := filepath.Glob(s.path(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list {
			names = append(names, strings.TrimPrefix(n, s.dir+"/"))
		}
	}
	return names
}

// CVE-2024-3727 and others: 500 malformed digests in every field that has one.
func TestMalformedDigests(t *testing.T) {
	good := strings.Repeat("0123456789abcdef", 4)
	var bad []string
	for _, algorithm := range []string{"sha256", "SHA256", "sha512", "md5", "", "sha256+b64", "../sha256", "sha256/..", "sha256\x00"} {
		for _, separator := range []string{":", "", "::", "/", "@", "-"} {
			for _, hex := range []string{"", good[:63], good + "0", strings.ToUpper(good), good[:62] + "/.", "../../../../etc/passwd", good[:63] + "\x00", good[:63] + "g", good + "\n", " " + good, "."} {
				bad = append(bad, algorithm+separator+hex)
			}
		}
	}
	if len(bad) < 500 {
		t.Fatalf("%d cases", len(bad))
	}
	d := `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + good + `","size":1}`
	l := strings.Replace(d, "config.v1+json", "layer.v1.tar", 1)
	documents := map[string]string{
		"config":  `{"schemaVersion":2,"config":` + strings.Replace(d, "sha256:"+good, "%s", 1) + `,"layers":[` + l + `]}`,
		"layer":   `{"schemaVersion":2,"config":` + d + `,"layers":[` + strings.Replace(l, "sha256:"+good, "%s", 1) + `]}`,
		"subject": `{"schemaVersion":2,"config":` + d + `,"layers":[],"subject":` + strings.Replace(d, "sha256:"+good, "%s", 1) + `}`,
	}
	for field, text := range documents {
		if _, err := parseManifest([]byte(strings.Replace(text, "%s", "sha256:"+good, 1)), ""); err != nil {
			t.Fatalf("%s: %v", field, err)
		}
	}
	for _, digest := range bad {
		quoted := strings.Trim(string(mustJSON(t, digest)), `"`)
		for field, text := range documents {
			if _, err := parseManifest([]byte(strings.Replace(text, "%s", quoted, 1)), ""); err == nil {
				t.Errorf("%s %q is accepted", field, digest)
			}
		}
		if _, _, err := parseConfig([]byte(`{"rootfs":{"type":"layers","diff_ids":["` + quoted + `"]}}`)); err == nil {
			t.Errorf("diff ID %q is accepted", digest)
		}
		index := `{"schemaVersion":2,"manifests":[{"digest":"` + quoted + `","size":1}]}`
		if _, err := parseIndex([]byte(index)); err == nil {
			t.Errorf("index entry %q is accepted", digest)
		}
		index = `{"schemaVersion":2,"manifests":[{"digest":"sha256:` + good + `","size":1,"annotations":{"sbx.id":"` + quoted + `"}}]}`
		if entries, err := parseIndex([]byte(index)); err == nil && digest != "" {
			t.Errorf("annotation %q is accepted: %+v", digest, entries)
		}
	}
	s := newStore(t, rungs(t)[0])
	src := source(t, base(t))
	src.desc.Digest = "sha256:../../../../etc/passwd"
	if _, err := s.Pull(t.Context(), alpine, src, PullOptions{}); err == nil {
		t.Error("a strange manifest digest is accepted")
	}
}

// Two blobs that claim the same diff ID, the second wrongly: the layer that is there must
// not stand for it.
func TestDiffIDOfUnpackedLayer(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	first := source(t, base(t))
	mustPull(t, s, alpine, first)
	liar := source(t, second(t))
	liar.diffIDs = first.diffIDs
	liar.seal(t)
	if _, err := s.Pull(t.Context(), "localhost/liar:1", liar, PullOptions{}); err == nil || !strings.Contains(err.Error(), "diff ID") {
		t.Fatalf("error %v", err)
	}
	// The same content, compressed in another way, is fine and not unpacked again.
	other := source(t)
	other.diffIDs = first.diffIDs
	other.layers = []ocispec.Descriptor{other.add(ocispec.MediaTypeImageLayerZstd, zstdOf(t, base(t)))}
	other.seal(t)
	mustPull(t, s, "localhost/other:1", other)
}

// A download that breaks off goes on where it was, in whatever process.
func TestResume(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		src := source(t, randomTar(t, 300<<10))
		cut := true
		src.body = func(d ocispec.Descriptor, _ int64, r io.Reader) io.Reader {
			if cut && d.Digest == src.layers[0].Digest {
				return io.MultiReader(io.LimitReader(r, 100<<10), brokenReader{})
			}
			return r
		}
		if _, err := s.Pull(t.Context(), alpine, src, PullOptions{}); err == nil {
			t.Fatal("no error")
		}
		mustCheck(t, s)
		mustBeClean(t, s)
		cut, src.asked = false, nil
		mustPull(t, s, alpine, src)
		want := []string{fmt.Sprintf("%s %d", src.layers[0].Digest.Encoded()[:8], 100<<10)}
		if diff := cmp.Diff(want, src.asked); diff != "" {
			t.Error(diff)
		}
		if left, _ := filepath.Glob(s.path(tmpDir, "*")); len(left) > 0 {
			t.Errorf("left %q", left)
		}
	})
}

// A partial file that is not the beginning of the blob, as a power loss or a failing disk
// makes it, is dropped, and the pull succeeds all the same.
func TestResumeDamaged(t *testing.T) {
	for name, partial := range map[string]func(blob []byte) []byte{
		"zeros":        func(b []byte) []byte { return make([]byte, len(b)/2) },
		"a bit":        func(b []byte) []byte { c := bytes.Clone(b[:len(b)/2]); c[len(c)/2] ^= 4; return c },
		"of all":       func(b []byte) []byte { c := bytes.Clone(b); c[len(c)/2] ^= 4; return c },
		"more":         func(b []byte) []byte { return append(bytes.Clone(b), 1) },
		"all of it":    func(b []byte) []byte { return b },
		"nothing":      func(b []byte) []byte { return nil },
		"another gzip": func(b []byte) []byte { return gzipOf(t, []byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, rungs(t)[0])
			src := source(t, randomTar(t, 100<<10))
			d := mustDigest(t, string(src.layers[0].Digest))
			if err := os.WriteFile(s.partialPath(d), partial(src.blobs[d.String()]), 0o600); err != nil {
				t.Fatal(err)
			}
			mustPull(t, s, alpine, src)
			if left, _ := filepath.Glob(s.path(tmpDir, "*")); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}

// A blob that rotted on disk is fetched again by a pull that needs it, and only it.
func TestPullRepairs(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		src := source(t, base(t), second(t))
		img := mustPull(t, s, alpine, src)
		for _, damage := range []func(path string, data []byte) error{
			func(path string, data []byte) error {
				data = bytes.Clone(data)
				data[len(data)/2] ^= 1
				return os.WriteFile(path, data, 0o600)
			},
			func(path string, data []byte) error { return os.Truncate(path, int64(len(data)/2)) },
			func(path string, data []byte) error { return os.Remove(path) },
		} {
			d := mustDigest(t, string(src.layers[0].Digest))
			if err := damage(s.blobPath(d), src.blobs[d.String()]); err != nil {
				t.Fatal(err)
			}
			if s.Check(t.Context()) == nil {
				t.Fatal("Check finds nothing")
			}
			if err := s.dropLayer(t.Context(), img.Layers[0]); err != nil {
				t.Fatal(err)
			}
			if _, err := s.LayerDirs(t.Context(), img); err == nil {
				t.Fatal("a damaged blob was unpacked")
			} else if h, ok := errors.AsType[interface {
				error
				Hint() string
			}](err); !ok || !strings.Contains(h.Hint(), "pull it again") {
				t.Errorf("%v has no hint", err)
			}
			src.asked = nil
			mustPull(t, s, alpine, src)
			if len(src.asked) != 1 {
				t.Errorf("asked for %q", src.asked)
			}
		}
	})
}

// Many pulls, imports, lookups and collections of one Store at the same time.
func TestConcurrentUse(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		shared := randomTar(t, 200<<10)
		var g errgroup.Group
		for i := range 6 {
			g.Go(func() error {
				src := source(t, shared, second(t))
				_, err := s.Pull(t.Context(), fmt.Sprintf("localhost/i:%d", i/2), src, PullOptions{Progress: func(Event) {}})
				return err
			})
			g.Go(func() error {
				_, err := s.Import(t.Context(), fmt.Sprintf("/x%d", i/2), Rootfs{Reader: bytes.NewReader(shared)}, PullOptions{})
				return err
			})
			g.Go(func() error {
				_, err := s.Images()
				return errors.Join(err, s.Collect(t.Context(), Roots{}))
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		mustCheck(t, s)
		mustBeClean(t, s)
		images, err := s.Images()
		if err != nil || len(images) != 6 {
			t.Fatalf("%d images, %v", len(images), err)
		}
		for _, img := range images {
			g.Go(func() error {
				_, err := s.LayerDirs(t.Context(), img)
				if err == nil {
					_, err = s.Remove(t.Context(), img.ID, Roots{})
				}
				if errors.Is(err, ErrNotFound) {
					err = nil // another name of it was first
				}
				return err
			})
		}
		// An image that is removed while its layers are looked up may be missed.
		_ = g.Wait()
		mustCheck(t, s)
		if left := contents(t, s); len(left) > 0 {
			t.Errorf("left %q", left)
		}
	})
}

// The end of the context ends a pull that waits for the network, soon and cleanly.
func TestPullCancelled(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	src := source(t, randomTar(t, 100<<10), second(t))
	ctx, cancel := context.WithCancel(t.Context())
	src.body = func(d ocispec.Descriptor, _ int64, r io.Reader) io.Reader {
		if d.Digest != src.layers[0].Digest {
			return r
		}
		return io.MultiReader(io.LimitReader(r, 50<<10), waitingReader{ctx, cancel})
	}
	if _, err := s.Pull(ctx, alpine, src, PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	mustCheck(t, s)
	mustBeClean(t, s)
}

type waitingReader struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func (w waitingReader) Read([]byte) (int, error) {
	w.cancel()
	<-w.ctx.Done()
	return 0, w.ctx.Err()
}

// randomTar is a layer of about size bytes that gzip cannot make smaller.
func randomTar(t testing.TB, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	for i, x := 0, uint64(88172645463325252); i < size; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		data[i] = byte(x)
	}
	return tarOf(t, file{name: "etc/"}, file{name: "noise", data: string(data)}, file{name: "etc/x", data: "y", uid: 7})
}

func mustDigest(t testing.TB, s string) reference.Digest {
	t.Helper()
	d, err := reference.ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
