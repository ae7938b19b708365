// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sbx/reference"
)

// blobFolder is a BlobSource of files.
type blobFolder string

func (f blobFolder) Blob(d reference.Digest) (*os.File, error) {
	return os.Open(filepath.Join(string(f), d.Hex()))
}

// blobFolderOf writes the blobs of an image into a folder.
func blobFolderOf(t *testing.T, i *testImage) blobFolder {
	t.Helper()
	dir := t.TempDir()
	for digest, body := range i.blobs {
		if err := os.WriteFile(filepath.Join(dir, strings.TrimPrefix(digest, "sha256:")), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return blobFolder(dir)
}

// receiver is a registry that takes uploads as the specification has them. fault may answer
// a request in its place.
type receiver struct {
	t         *testing.T
	uploads   map[string][]byte
	blobs     map[string][]byte
	manifests map[string][]byte
	fault     func(r *receiver, rw http.ResponseWriter, req *http.Request) bool
	faults    int
	received  int
	begun     int
}

func (r *receiver) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	if r.fault != nil && r.fault(r, rw, req) {
		r.faults++
		return
	}
	parts := strings.Split(req.URL.Path, "/")
	last := parts[len(parts)-1]
	switch {
	case req.URL.Path == "/v2/":
	case strings.Contains(req.URL.Path, "/manifests/") && req.Method == http.MethodPut:
		r.manifests[last], _ = io.ReadAll(req.Body)
		rw.WriteHeader(201)
	case req.Method == http.MethodHead:
		if r.blobs[last] == nil {
			rw.WriteHeader(404)
		}
	case req.Method == http.MethodPost:
		r.begun++
		id := fmt.Sprint("u", r.begun)
		r.uploads[id] = []byte{}
		rw.Header().Set("Location", "/v2/app/blobs/uploads/"+id+"?_state=1")
		rw.WriteHeader(202)
	case r.uploads[last] == nil:
		rw.WriteHeader(404)
	case req.Method == http.MethodGet:
		r.ranged(rw, last, 204)
	case req.Method == http.MethodPatch:
		r.take(req, last)
		r.ranged(rw, last, 202)
	case req.Method == http.MethodPut:
		r.take(req, last)
		r.finish(rw, req, last)
	}
}

func (r *receiver) take(req *http.Request, id string) {
	b, _ := io.ReadAll(req.Body)
	r.received += len(b)
	r.uploads[id] = append(r.uploads[id], b...)
}

func (r *receiver) ranged(rw http.ResponseWriter, id string, status int) {
	rw.Header().Set("Location", "/v2/app/blobs/uploads/"+id+"?_state=2")
	rw.Header().Set("Range", fmt.Sprintf("0-%d", max(len(r.uploads[id])-1, 0)))
	rw.WriteHeader(status)
}

func (r *receiver) finish(rw http.ResponseWriter, req *http.Request, id string) {
	want := req.URL.Query().Get("digest")
	if string(descriptor("", r.uploads[id]).Digest) != want {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(400)
		fmt.Fprint(rw, `{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}`)
		return
	}
	r.blobs[want] = r.uploads[id]
	delete(r.uploads, id)
	rw.WriteHeader(201)
}

// status answers with a status the first n times that a request matches.
func status(n, code int, match func(*http.Request) bool) func(*receiver, http.ResponseWriter, *http.Request) bool {
	return func(_ *receiver, rw http.ResponseWriter, req *http.Request) bool {
		if n == 0 || !match(req) {
			return false
		}
		n--
		_, _ = io.Copy(io.Discard, req.Body)
		rw.WriteHeader(code)
		return true
	}
}

func method(m string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == m && !strings.Contains(r.URL.Path, "/manifests/") }
}

func manifestPut(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

// TestUploadFaults breaks uploads in every way that registries have: each comes through, or
// ends in one line.
func TestUploadFaults(t *testing.T) {
	type fault = func(r *receiver, rw http.ResponseWriter, req *http.Request) bool
	once := func(match func(*http.Request) bool, f fault) fault {
		done := false
		return func(r *receiver, rw http.ResponseWriter, req *http.Request) bool {
			if done || !match(req) {
				return false
			}
			done = true
			return f(r, rw, req)
		}
	}
	location := func(where string) fault {
		return once(method("POST"), func(_ *receiver, rw http.ResponseWriter, _ *http.Request) bool {
			if where != "" {
				rw.Header().Set("Location", where)
			}
			rw.WriteHeader(202)
			return true
		})
	}
	for _, tt := range []struct {
		name  string
		fault fault
		err   string
	}{
		{"none", nil, ""},
		{"500 to POST", status(1, 500, method("POST")), ""},
		{"503 to PATCH", status(1, 503, method("PATCH")), ""},
		{"429 to PATCH", status(2, 429, method("PATCH")), ""},
		{"500 to PUT", status(1, 500, method("PUT")), ""},
		{"500 to PUT of a manifest", status(2, 500, manifestPut), ""},
		{"500 for ever", status(1<<30, 500, method("PATCH")), "PATCH https://registry.test/v2/app/blobs/uploads/"},
		{"403", status(1<<30, 403, method("POST")), "POST https://registry.test/v2/app/blobs/uploads/: 403 Forbidden"},
		{"405 to POST", status(1<<30, 405, method("POST")), "405"},
		{"400 to a manifest", status(1<<30, 400, manifestPut), "PUT https://registry.test/v2/app/manifests/v1: 400"},
		{"session expired", status(1, 404, method("PATCH")), ""},
		{"416 after a gap", status(1, 416, method("PATCH")), ""},
		{"413 for ever", status(1<<30, 413, method("PATCH")), "413"},
		{"no Location", location(""), "does not say where to upload to"},
		{"Location no URL", location("http://[::1"), "which is no URL"},
		{"Location by plain http", location("http://evil.test/upload"), "refuse to upload from https to http://evil.test/upload"},
		{"Location inside this machine", location("https://127.0.0.1/upload"), "points to this machine"},
		{"PUT fails behind its effect", once(method("PUT"), func(r *receiver, rw http.ResponseWriter, req *http.Request) bool {
			parts := strings.Split(req.URL.Path, "/")
			r.take(req, parts[len(parts)-1])
			r.finish(&discarded{}, req, parts[len(parts)-1])
			rw.WriteHeader(502)
			return true
		}), ""},
		{"connection lost in PATCH", once(method("PATCH"), func(r *receiver, rw http.ResponseWriter, req *http.Request) bool {
			b := make([]byte, 300<<10)
			n, _ := io.ReadFull(req.Body, b)
			r.received += n
			r.uploads["u1"] = append(r.uploads["u1"], b[:n]...)
			panic(http.ErrAbortHandler)
		}), ""},
		{"connection lost for ever", func(_ *receiver, _ http.ResponseWriter, req *http.Request) bool {
			if req.Method == http.MethodPatch {
				panic(http.ErrAbortHandler)
			}
			return false
		}, "PATCH"},
		{"another digest for the manifest", once(manifestPut, func(_ *receiver, rw http.ResponseWriter, _ *http.Request) bool {
			rw.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
			rw.WriteHeader(201)
			return true
		}), "the registry has stored"},
		{"redirected PATCH", once(method("PATCH"), func(_ *receiver, rw http.ResponseWriter, req *http.Request) bool {
			rw.Header().Set("Location", req.URL.String()+"&again")
			rw.WriteHeader(307)
			return true
		}), ""},
		{"redirects for ever", func(_ *receiver, rw http.ResponseWriter, req *http.Request) bool {
			if req.Method != http.MethodPatch {
				return false
			}
			rw.Header().Set("Location", req.URL.String())
			rw.WriteHeader(307)
			return true
		}, "more than 10 redirects"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, image := newWorld(t), largeImage(t)
			r := &receiver{t: t, uploads: map[string][]byte{}, blobs: map[string][]byte{}, manifests: map[string][]byte{}, fault: tt.fault}
			w.serve("registry.test:443", r)
			w.serve("evil.test:80", http.NotFoundHandler())
			repository, err := OpenRepository(mustRef(t, "registry.test/app:v1"), w.options())
			if err != nil {
				t.Fatal(err)
			}
			defer repository.Close()
			root, err := reference.ParseDigest(string(image.desc.Digest))
			if err != nil {
				t.Fatal(err)
			}
			_, err = repository.Push(t.Context(), mustRef(t, "registry.test/app:v1"), root, blobFolderOf(t, image), PushOptions{})
			if tt.err != "" {
				wantError(t, err, "push registry.test/app:v1: ", tt.err)
				if n := len(w.lines()); n > 60 {
					t.Errorf("%d requests before it gave up", n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for digest, body := range image.blobs {
				if digest != string(image.desc.Digest) && !bytes.Equal(r.blobs[digest], body) {
					t.Errorf("%s did not arrive", digest)
				}
			}
			if !bytes.Equal(r.manifests["v1"], image.manifest) {
				t.Error("the manifest is another")
			}
		})
	}
}

// discarded is an answer that gets lost.
type discarded struct{}

func (d *discarded) Header() http.Header         { return http.Header{} }
func (d *discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d *discarded) WriteHeader(int)             {}

// largeImage has a layer that does not fit into the last request of an upload.
func largeImage(t *testing.T) *testImage {
	t.Helper()
	i := makeImage(t, "amd64")
	if len(i.layers[0]) <= putAtOnce {
		t.Fatalf("a layer of %d bytes", len(i.layers[0]))
	}
	return i
}

// TestPushResumes looks how much goes out again after a cut.
func TestPushResumes(t *testing.T) {
	w, image := newWorld(t), largeImage(t)
	size := len(image.layers[0])
	cut := false
	r := &receiver{t: t, uploads: map[string][]byte{}, blobs: map[string][]byte{}, manifests: map[string][]byte{}}
	r.fault = func(r *receiver, rw http.ResponseWriter, req *http.Request) bool {
		if cut || req.Method != http.MethodPatch {
			return false
		}
		cut = true
		parts := strings.Split(req.URL.Path, "/")
		b := make([]byte, size-100)
		n, _ := io.ReadFull(req.Body, b)
		r.received += n
		r.uploads[parts[len(parts)-1]] = append(r.uploads[parts[len(parts)-1]], b[:n]...)
		panic(http.ErrAbortHandler)
	}
	w.serve("registry.test:443", r)
	ref := mustRef(t, "registry.test/app:v1")
	repository, err := OpenRepository(ref, w.options())
	if err != nil {
		t.Fatal(err)
	}
	defer repository.Close()
	root, _ := reference.ParseDigest(string(image.desc.Digest))
	if _, err := repository.Push(t.Context(), ref, root, blobFolderOf(t, image), PushOptions{}); err != nil {
		t.Fatal(err)
	}
	whole := len(image.config) + len(image.layers[0]) + len(image.layers[1])
	if !cut || r.received > whole+size/100 {
		t.Errorf("%d bytes were sent of %d", r.received, whole)
	}
}

// TestPushDamaged has a blob that has changed on disk.
func TestPushDamaged(t *testing.T) {
	w, image := newWorld(t), largeImage(t)
	r := &receiver{t: t, uploads: map[string][]byte{}, blobs: map[string][]byte{}, manifests: map[string][]byte{}}
	w.serve("registry.test:443", r)
	src := blobFolderOf(t, image)
	layer := bytes.Clone(image.layers[0])
	layer[1000] ^= 1
	path := filepath.Join(string(src), strings.TrimPrefix(string(descriptor("", image.layers[0]).Digest), "sha256:"))
	if err := os.WriteFile(path, layer, 0o600); err != nil {
		t.Fatal(err)
	}
	ref := mustRef(t, "registry.test/app:v1")
	repository, err := OpenRepository(ref, w.options())
	if err != nil {
		t.Fatal(err)
	}
	defer repository.Close()
	root, _ := reference.ParseDigest(string(image.desc.Digest))
	_, err = repository.Push(t.Context(), ref, root, src, PushOptions{})
	wantError(t, err, "the stored blob is damaged")
	if len(r.manifests) != 0 {
		t.Error("a manifest was pushed whose layer is not there")
	}
	var e *Error
	if errors.As(err, &e) && e.Hint() == "" {
		t.Error("no hint")
	}
}
