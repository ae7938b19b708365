// SPDX-License-Identifier: Apache-2.0

package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	godigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
	"sbx/tests/need"
	"sbx/userns"
)

func TestMain(m *testing.M) {
	userns.Dispatch(map[string]userns.Role{"unpack": UnpackRole, "remove": RemoveRole, "copy": CopyRole, "diff": DiffRole, "archive": ArchiveRole})
	os.Exit(m.Run())
}

// rungs are those that this user can climb.
func rungs(t testing.TB) []userns.Rung {
	t.Helper()
	list := []userns.Rung{userns.SingleRung()}
	r, err := userns.MappedRung()
	if err == nil {
		return append(list, r)
	}
	t.Logf("subids: the rung mapped is left out: %v", err)
	return list
}

// needUserns skips a test of what happens in a user namespace where there can be none.
func needUserns(t testing.TB) {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := userns.Call[removeQuestion, struct{}](t.Context(), userns.SingleRung(), "remove", removeQuestion{}, dir); err != nil {
		t.Log(err)
		need.Need(t, need.Userns)
		t.Fatal(err)
	}
}

// onRungs runs a test with a fresh store on each rung.
func onRungs(t *testing.T, name string, f func(t *testing.T, s *Store)) {
	for _, r := range rungs(t) {
		t.Run(strings.TrimPrefix(name+"/"+r.Name, "/"), func(t *testing.T) { f(t, newStore(t, r)) })
	}
}

func newStore(t testing.TB, r userns.Rung) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	return openStore(t, dir, r)
}

func openStore(t testing.TB, dir string, r userns.Rung) *Store {
	t.Helper()
	s, err := Open(dir, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Files of subordinate IDs are beyond what os.RemoveAll can do.
		if err := s.RemoveTree(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustCheck(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// mustBeClean fails if anything but partial downloads is left in tmp.
func mustBeClean(t testing.TB, s *Store) {
	t.Helper()
	names, err := os.ReadDir(s.path(tmpDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !bytes.HasPrefix([]byte(n.Name()), []byte(partialPrefix)) {
			t.Errorf("tmp/%s was left behind", n.Name())
		}
	}
}

// file is an entry of a layer. A name with a slash at its end is a directory.
type file struct {
	name, data, link string
	mode             int64
	uid, gid         int
	kind             byte
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.uid, Gid: f.gid, Size: int64(len(f.data)), Linkname: f.link, Typeflag: f.kind, ModTime: time.Unix(1700000000, 0)}
		switch {
		case f.kind != 0:
		case f.link != "":
			h.Typeflag = tar.TypeSymlink
		case f.name[len(f.name)-1] == '/':
			h.Typeflag = tar.TypeDir
		default:
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstdOf(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func digestOf(data []byte) reference.Digest { return reference.SHA256(sha256.Sum256(data)) }

func descOf(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: godigest.Digest(digestOf(data).String()), Size: int64(len(data))}
}

// fakeSource is an image in memory. Its fields may be bent before it is pulled.
type fakeSource struct {
	desc     ocispec.Descriptor
	manifest []byte
	config   ocispec.Descriptor
	layers   []ocispec.Descriptor
	diffIDs  []reference.Digest

	mu    sync.Mutex
	blobs map[string][]byte
	asked []string // "HEX OFFSET" of each call of Blob
	// body, if set, wraps what Blob returns.
	body func(d ocispec.Descriptor, offset int64, r io.Reader) io.Reader
}

// source makes an image of layers given as tars.
func source(t testing.TB, tars ...[]byte) *fakeSource {
	t.Helper()
	s := &fakeSource{blobs: make(map[string][]byte)}
	for i, data := range tars {
		blob, mediaType := gzipOf(t, data), ocispec.MediaTypeImageLayerGzip
		if i%2 == 1 {
			blob, mediaType = zstdOf(t, data), ocispec.MediaTypeImageLayerZstd
		}
		s.diffIDs = append(s.diffIDs, digestOf(data))
		s.layers = append(s.layers, s.add(mediaType, blob))
	}
	s.seal(t)
	return s
}

func (s *fakeSource) add(mediaType string, data []byte) ocispec.Descriptor {
	d := descOf(mediaType, data)
	s.blobs[string(d.Digest)] = data
	return d
}

// seal makes config and manifest of what the source has.
func (s *fakeSource) seal(t testing.TB) {
	t.Helper()
	created := time.Unix(1700000000, 0).UTC()
	c := ocispec.Image{Created: &created, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	c.Config.Cmd = []string{"/bin/sh"}
	for _, id := range s.diffIDs {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, godigest.Digest(id.String()))
	}
	s.config = s.add(ocispec.MediaTypeImageConfig, mustJSON(t, c))
	s.setManifest(mustJSON(t, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    s.config,
		Layers:    s.layers,
	}))
}

func (s *fakeSource) setManifest(data []byte) {
	s.manifest = data
	s.desc = descOf(ocispec.MediaTypeImageManifest, data)
}

// Manifest implements Source.
func (s *fakeSource) Manifest(context.Context) (ocispec.Descriptor, []byte, error) {
	return s.desc, s.manifest, nil
}

// Blob implements Source.
func (s *fakeSource) Blob(_ context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, fmt.Sprintf("%s %d", d.Digest.Encoded()[:8], offset))
	data, ok := s.blobs[string(d.Digest)]
	if !ok || offset > int64(len(data)) {
		return nil, errors.New("no such blob")
	}
	var r io.Reader = bytes.NewReader(data[offset:])
	if s.body != nil {
		r = s.body(d, offset, r)
	}
	return io.NopCloser(r), nil
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// base and second are two layers of a small image, with owners and special modes, a
// directory that the second only implies, a whiteout and a hard link to the first.
func base(t testing.TB) []byte {
	return tarOf(t,
		file{name: "./", mode: 0o755},
		file{name: "bin/"}, file{name: "bin/sh", data: "#!shell", mode: 0o755},
		file{name: "bin/su", data: "setuid", mode: 0o4755},
		file{name: "etc/", mode: 0o711, gid: 5}, file{name: "etc/passwd", data: "root:x:0:0::/root:/bin/sh\n", mode: 0o644},
		file{name: "etc/shadow", data: "secret", mode: 0o040, gid: 42},
		file{name: "tmp/", mode: 0o1777}, file{name: "home/", uid: 1000, gid: 1000}, file{name: "home/link", link: "../etc/passwd", uid: 1000, gid: 1000},
		file{name: "gone", data: "going"},
		file{name: "big", data: string(bytes.Repeat([]byte("0123456789abcdef"), 16<<10)), mode: 0o644},
	)
}

func second(t testing.TB) []byte {
	return tarOf(t, file{name: "etc/motd", data: "hello", mode: 0o644}, file{name: ".wh.gone"})
}

func mustPull(t testing.TB, s *Store, name string, src Source) Image {
	t.Helper()
	img, err := s.Pull(context.Background(), name, src, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
	mustBeClean(t, s)
	return img
}
