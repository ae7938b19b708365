// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fault spoils the answer to a request, of which this is the nth for its path, from 1.
// It returns false to have it answered well.
type fault func(w http.ResponseWriter, r *http.Request, body []byte, n int) bool

// faultyRegistry serves one image, badly, and counts the bytes of bodies that it sends.
type faultyRegistry struct {
	*httptest.Server
	layer, manifest ocispec.Descriptor
	bodies          map[string][]byte // by path
	types           map[string]string

	mu    sync.Mutex
	fault fault
	asked map[string]int
	sent  map[string]int64
}

// newFaultyRegistry has an image of one layer with size random bytes in /data. spoil, if
// any, changes the compressed layer before it gets its digest.
func newFaultyRegistry(t *testing.T, size int, spoil func([]byte) []byte) *faultyRegistry {
	t.Helper()
	r := &faultyRegistry{bodies: map[string][]byte{}, types: map[string]string{}, asked: map[string]int{}, sent: map[string]int64{}}
	var plain, packed bytes.Buffer
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	w := tar.NewWriter(&plain)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "data", Mode: 0o644, Size: int64(size), ModTime: stamp}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(data)
	_ = w.Close()
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(plain.Bytes())
	_ = z.Close()
	layer := packed.Bytes()
	if spoil != nil {
		layer = spoil(layer)
	}
	r.layer = r.blob(ocispec.MediaTypeImageLayerGzip, layer)
	r.bodies[signedPath] = layer
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain.Bytes())}},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: r.blob(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{r.layer},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.setManifest(ocispec.MediaTypeImageManifest, manifest)
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// signedPath is where the layer is, too, for registries that keep blobs elsewhere.
const signedPath = "/signed/layer"

func (r *faultyRegistry) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.bodies["/v2/app/blobs/"+d.Digest.String()] = data
	return d
}

// setManifest makes a document what the tag v1 stands for.
func (r *faultyRegistry) setManifest(mediaType string, data []byte) {
	r.manifest = ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	for _, name := range []string{"v1", r.manifest.Digest.String()} {
		path := "/v2/app/manifests/" + name
		r.bodies[path], r.types[path] = data, mediaType
	}
}

func (r *faultyRegistry) ref() string { return strings.TrimPrefix(r.URL, "http://") + "/app:v1" }

func (r *faultyRegistry) layerPath() string { return "/v2/app/blobs/" + r.layer.Digest.String() }

// heal makes the registry a good one.
func (r *faultyRegistry) heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = nil
}

// bytesOf is how much of a path has been sent, and how often it was asked for.
func (r *faultyRegistry) bytesOf(path string) (sent int64, asked int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent[path], r.asked[path]
}

func (r *faultyRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := req.URL.Path
	body := r.bodies[path]
	r.mu.Lock()
	if req.Method == http.MethodGet {
		r.asked[path]++
	}
	n, fault := r.asked[path], r.fault
	r.mu.Unlock()
	counted := &countedWriter{ResponseWriter: w, r: r, path: path}
	if fault != nil && fault(counted, req, body, n) {
		return
	}
	switch {
	case path == "/v2/":
		w.WriteHeader(http.StatusOK)
	case body == nil:
		http.NotFound(w, req)
	default:
		serveBody(counted, req, r.types[path], body)
	}
}

func serveBody(w http.ResponseWriter, req *http.Request, mediaType string, body []byte) {
	if mediaType == "" {
		mediaType = "application/octet-stream"
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
	http.ServeContent(w, req, "", stamp, bytes.NewReader(body))
}

// countedWriter counts what of a body is sent.
type countedWriter struct {
	http.ResponseWriter
	r    *faultyRegistry
	path string
}

func (c *countedWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.count(n)
	return n, err
}

func (c *countedWriter) count(n int) {
	c.r.mu.Lock()
	c.r.sent[c.path] += int64(n)
	c.r.mu.Unlock()
}

// Unwrap lets connections be taken over.
func (c *countedWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// cut answers a request for body from where it asks on, with n bytes of it, and then
// closes the connection: with a reset, or in order.
func cut(w http.ResponseWriter, req *http.Request, body []byte, n int, reset bool) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	from, status := 0, "200 OK"
	if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); err == nil {
		status = "206 Partial Content\r\n" + fmt.Sprintf("Content-Range: bytes %d-%d/%d", from, len(body)-1, len(body))
	}
	n = min(n, len(body)-from)
	fmt.Fprintf(buffered, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n", status, len(body)-from)
	_, _ = buffered.Write(body[from : from+n])
	_ = buffered.Flush()
	if c, ok := w.(*countedWriter); ok {
		c.count(n)
	}
	if reset {
		// What is on its way must arrive, or nobody knows how much did.
		_, _ = io.CopyN(io.Discard, conn, 0)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	}
}
