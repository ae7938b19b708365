// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	ggcrlayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"
)

// journal is what clients have asked of a registry.
type journal struct {
	mu   sync.Mutex
	rows []string
}

func (j *journal) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		j.mu.Lock()
		j.rows = append(j.rows, r.Method+" "+r.URL.Path)
		j.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

// take empties the journal.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := strings.Join(j.rows, "\n") + "\n"
	j.rows = nil
	return text
}

// registries are the journals of running registries by address.
var registries sync.Map

// registry: starts a registry of this process on a port of 127.0.0.1, and sets
// REGISTRY to its address.
func registryCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: registry")
	}
	j := &journal{}
	server := httptest.NewServer(j.wrap(registry.New(registry.Logger(log.New(io.Discard, "", 0)))))
	ts.Defer(server.Close)
	address := strings.TrimPrefix(server.URL, "http://")
	registries.Store(address, j)
	ts.Defer(func() { registries.Delete(address) })
	ts.Setenv("REGISTRY", address)
}

// serve DIR: serves the files of a directory by HTTP on a port of 127.0.0.1, and
// sets SERVER to its address, http:// included.
func serveCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serve DIR")
	}
	server := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[0]))))
	ts.Defer(server.Close)
	ts.Setenv("SERVER", server.URL)
}

// requests FILE: writes what was asked of the registry since the last time.
func requestsCommand(ts *testscript.TestScript, neg bool, args []string) {
	j, ok := registries.Load(ts.Getenv("REGISTRY"))
	if neg || len(args) != 1 || !ok {
		ts.Fatalf("usage: requests FILE, after registry")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(j.(*journal).take()), 0o644))
}

// push REFERENCE DIR...: pushes the image of an OCI layout; of several, an index.
func pushCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: push REFERENCE DIR...")
	}
	ref, err := name.ParseReference(args[0], name.Insecure)
	ts.Check(err)
	var images []v1.Image
	index := v1.ImageIndex(empty.Index)
	for _, dir := range args[1:] {
		image, platform, err := readLayout(ts.MkAbs(dir))
		ts.Check(err)
		images = append(images, image)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	if len(images) == 1 {
		ts.Check(remote.Write(ref, images[0]))
	} else {
		ts.Check(remote.WriteIndex(ref, index))
	}
	if j, ok := registries.Load(ref.Context().RegistryStr()); ok {
		j.(*journal).take()
	}
}

func readLayout(dir string) (v1.Image, *v1.Platform, error) {
	index, err := ggcrlayout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, nil, err
	}
	image, err := index.Image(m.Manifests[0].Digest)
	return image, m.Manifests[0].Platform, err
}
