// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/container"
	"sbx/reference"
	"sbx/store"
	"sbx/userns"
)

// tarball is a tar with one file.
func tarball(t *testing.T, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "note", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// testResolver has a store of its own. What it prints can be read from said.
func testResolver(t *testing.T, flags imageFlags) (r *resolver, said func() string) {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "store"), userns.Rung{Name: userns.Single, UID: os.Getuid(), GID: os.Getgid()})
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "err"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	c := &client{err: out, lookup: lookupIn(nil)}
	r, err = newResolver(c, &container.Home{Store: st}, flags, out)
	if err != nil {
		t.Fatal(err)
	}
	return r, func() string {
		data, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(out.Truncate(0), func() error { _, err := out.Seek(0, 0); return err }()); err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
}

func TestResolveFile(t *testing.T) {
	r, said := testResolver(t, imageFlags{})
	file := filepath.Join(t.TempDir(), "root.tar")
	write := func(content string) {
		if err := os.WriteFile(file, tarball(t, content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	first, err := r.image(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if got := said(); got != "Importing "+file+"\n" {
		t.Errorf("said %q", got)
	}
	again, err := r.image(t.Context(), file)
	if err != nil || again.ID != first.ID || said() != "" {
		t.Errorf("the same file: %v, %v", again.ID, err)
	}
	write("another")
	second, err := r.image(t.Context(), file)
	if err != nil || second.ID == first.ID || said() == "" {
		t.Errorf("a changed file: %v, %v", second.ID, err)
	}
	r.flags.pull = pullNever
	if _, err := r.image(t.Context(), file); err != nil {
		t.Errorf("--pull never of one that is here: %v", err)
	}
	write("a third")
	if _, err := r.image(t.Context(), file); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("--pull never of one that has changed: %v", err)
	}
	r.flags.pull = pullMissing
	if _, err := r.image(t.Context(), file+".gone"); err == nil || err.Error() != "open "+file+".gone: no such file or directory" {
		t.Errorf("missing: %v", err)
	}
	for _, typed := range []string{file, second.ID.String(), second.ID.Hex(), second.ID.Hex()[:12], "sha256:" + second.ID.Hex()[:6]} {
		if img, err := findImage(r.home.Store, typed); err != nil || img.ID != second.ID {
			t.Errorf("findImage(%s) = %v, %v", typed, img.ID, err)
		}
	}
	for _, typed := range []string{"alpine", "ffffffffffff", "sha256:ffff", testID, "sha256:" + testID, file + "x", "u/app@sha256:" + testID} {
		if _, err := findImage(r.home.Store, typed); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("findImage(%s): %v", typed, err)
		}
	}
	if _, err := r.image(t.Context(), testID); err == nil || err.Error() != "no such image: "+testID {
		t.Errorf("an ID that is not here: %v", err)
	}
	if err := r.home.Store.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// testRegistry serves app:v1 for amd64, and returns its host and how to replace it.
func testRegistry(t *testing.T) (host string, push func(tag, architecture, content string)) {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	return host, func(tag, architecture, content string) {
		t.Helper()
		layer := static.NewLayer(tarball(t, content), "application/vnd.oci.image.layer.v1.tar")
		img, err := mutate.AppendLayers(empty.Image, layer)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: architecture, RootFS: rootFS(t, img)}); err != nil {
			t.Fatal(err)
		}
		ref, err := name.ParseReference(host + "/team/app:" + tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
	}
}

func rootFS(t *testing.T, img v1.Image) v1.RootFS {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c.RootFS
}

func TestResolveReference(t *testing.T) {
	host, push := testRegistry(t)
	typed := host + "/team/app:v1"
	r, said := testResolver(t, imageFlags{pull: pullNever})
	if _, err := r.image(t.Context(), typed); err == nil || err.Error() != "no such image: "+typed {
		t.Errorf("--pull never: %v", err)
	}
	push("v1", "amd64", "one")
	r.flags.pull = pullMissing
	first, err := r.image(t.Context(), typed)
	if err != nil {
		t.Fatal(err)
	}
	text := said()
	for _, line := range []string{"Unable to find image '" + typed + "' locally\n", "v1: Pulling from team/app\n", ": Pull complete\n", "Digest: sha256:", "Status: Downloaded newer image for " + typed + "\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	push("v1", "amd64", "two")
	if img, err := r.image(t.Context(), typed); err != nil || img.ID != first.ID || said() != "" {
		t.Errorf("--pull missing of one that is here: %v, %v", img.ID, err)
	}
	r.flags.pull = pullAlways
	second, err := r.image(t.Context(), typed)
	if err != nil || second.ID == first.ID || !strings.Contains(said(), "Downloaded newer image") {
		t.Errorf("--pull always: %v, %v", second.ID, err)
	}
	if _, err := r.image(t.Context(), typed); err != nil || !strings.Contains(said(), "Image is up to date") {
		t.Errorf("--pull always again: %v", err)
	}
	r.flags.quiet = true
	if _, err := r.image(t.Context(), typed); err != nil || said() != "" {
		t.Errorf("quiet: %v", err)
	}
}

func TestResolvePlatform(t *testing.T) {
	host, push := testRegistry(t)
	push("v1", "s390x", "one")
	typed := host + "/team/app:v1"
	r, said := testResolver(t, imageFlags{quiet: true})
	img, err := r.image(t.Context(), typed)
	if err != nil {
		t.Fatal(err)
	}
	r.warnPlatform(img)
	if got := said(); !strings.Contains(got, "The requested image's platform (linux/s390x) does not match the detected host platform (linux/") {
		t.Errorf("said %q", got)
	}
	r, _ = testResolver(t, imageFlags{quiet: true, platform: "linux/ppc64le"})
	_, err = r.image(t.Context(), typed)
	var wrong *platformError
	if !errors.As(err, &wrong) {
		t.Errorf("another platform than asked for: %v", err)
	}
	r.flags.platform = ""
	r.warnPlatform(img) // nobody asked: says so, once
	for _, tt := range []struct {
		have, want ocispec.Platform
		ok         bool
	}{
		{ocispec.Platform{OS: "linux", Architecture: "arm64"}, ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, true},
		{ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, true},
		{ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, false},
		{ocispec.Platform{OS: "linux", Architecture: "arm"}, ocispec.Platform{OS: "linux", Architecture: "arm64"}, false},
		{ocispec.Platform{}, ocispec.Platform{OS: "linux", Architecture: "amd64"}, false},
	} {
		r := &resolver{flags: imageFlags{platform: "given"}, platform: tt.want}
		if got := r.suits(store.Image{Config: dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: tt.have}}}); got != tt.ok {
			t.Errorf("%v for %v: %v", tt.have, tt.want, got)
		}
	}
}

func TestLocationName(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"/tmp/a.tar", "/tmp/a.tar"},
		{"https://example.org/a.tar?x=1", "https://example.org/a.tar?x=1"},
		{"https://user:secret@example.org/a.tar", "https://example.org/a.tar"},
	} {
		if got := locationName(tt.in); got != tt.want {
			t.Errorf("locationName(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestInterrupted(t *testing.T) {
	err := interruptible(t.Context(), func(ctx context.Context) error {
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			return err
		}
		if err := self.Signal(os.Interrupt); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if status(err, 1) != 130 {
		t.Errorf("%v: status %d", err, status(err, 1))
	}
	if text, _ := describe(err); text != "" {
		t.Errorf("said %q", text)
	}
	want := errors.New("its own")
	if err := interruptible(t.Context(), func(context.Context) error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

func TestImageNames(t *testing.T) {
	host, push := testRegistry(t)
	push("v1", "amd64", "one")
	push("v2", "amd64", "one")
	r, _ := testResolver(t, imageFlags{quiet: true})
	var img store.Image
	for _, tag := range []string{":v1", ":v2"} {
		var err error
		if img, err = r.image(t.Context(), host+"/team/app"+tag); err != nil {
			t.Fatal(err)
		}
	}
	ref, err := reference.Parse(host + "/team/app:v2")
	if err != nil {
		t.Fatal(err)
	}
	if !isNameOf(img, ref.Familiar()) || isNameOf(img, img.ID.Hex()[:12]) {
		t.Error("isNameOf confuses names and IDs")
	}
	if diff := cmp.Diff("alpine:latest", familiar("docker.io/library/alpine:latest")); diff != "" {
		t.Error(diff)
	}
}
