// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	inprocess "github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// push puts an image into a registry under each of the tags.
func push(t *testing.T, h http.Handler, repo string, i *testImage, tags ...string) {
	t.Helper()
	for digest, body := range i.blobs {
		put(t, h, "POST", fmt.Sprintf("/v2/%s/blobs/uploads/?digest=%s", repo, digest), "", body)
	}
	for _, tag := range append(tags, string(i.desc.Digest)) {
		put(t, h, "PUT", fmt.Sprintf("/v2/%s/manifests/%s", repo, tag), i.desc.MediaType, i.manifest)
	}
}

func put(t *testing.T, h http.Handler, method, path, mediaType string, body []byte) {
	t.Helper()
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", mediaType)
	rw := httptest.NewRecorder()
	if h.ServeHTTP(rw, r); rw.Code >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, rw.Code, rw.Body)
	}
}

func newRegistry() http.Handler { return inprocess.New(inprocess.Logger(discardLog())) }

func TestRegistryInProcess(t *testing.T) {
	for _, host := range []string{"registry.test:443", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "127.3.4.5:5000"} {
		t.Run(host, func(t *testing.T) {
			w, h, image := newWorld(t), newRegistry(), makeImage(t, "amd64")
			push(t, h, "team/app", image, "v1")
			w.serve(host, h)
			for _, ref := range []string{"/team/app:v1", "/team/app@" + string(image.desc.Digest), "/team/app:gone@" + string(image.desc.Digest)} {
				got, err := Registry(t.Context(), mustRef(t, host+ref), w.options())
				if err != nil {
					t.Fatal(err)
				}
				d, m := checkSource(t, got)
				if diff := cmp.Diff(image.desc, d); diff != "" {
					t.Errorf("descriptor (-want +got):\n%s", diff)
				}
				if len(m.Layers) != 2 {
					t.Errorf("%d layers", len(m.Layers))
				}
				if err := got.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// tagged serves one manifest or index for every tag, and blobs and manifests by digest.
func tagged(body []byte, mediaType string, images ...*testImage) http.Handler {
	all := map[string][]byte{}
	types := map[string]string{}
	for _, i := range images {
		for d, b := range i.blobs {
			all[d] = b
		}
		types[string(i.desc.Digest)] = i.desc.MediaType
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		which := parts[len(parts)-1]
		b, ok := all[which]
		switch {
		case r.URL.Path == "/v2/":
			return
		case ok && parts[len(parts)-2] == "manifests":
			rw.Header().Set("Content-Type", types[which])
		case ok:
		case parts[len(parts)-2] == "manifests" && (!strings.Contains(which, ":") || which == string(descriptor("", body).Digest)):
			rw.Header().Set("Content-Type", mediaType)
			b = body
		default:
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(404)
			fmt.Fprint(rw, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
			return
		}
		http.ServeContent(rw, r, "", testNow, bytes.NewReader(b))
	})
}

// asBlob adds an index to what an image's server knows by digest.
func asBlob(i *testImage, body []byte) ocispec.Descriptor {
	d := descriptor(ocispec.MediaTypeImageIndex, body)
	i.blobs[string(d.Digest)] = body
	return d
}

func TestRegistryPlatforms(t *testing.T) {
	amd, arm, armv6 := makeImage(t, "amd64"), makeImage(t, "arm64"), makeImage(t, "arm")
	amdD, armD, v6D := onPlatform(amd.desc, "linux/amd64"), onPlatform(arm.desc, "linux/arm64/v8"), onPlatform(armv6.desc, "linux/arm/v6")
	attestation := onPlatform(armv6.desc, "unknown/unknown")
	nested := asBlob(amd, makeIndex(t, amdD, armD))
	index := makeIndex(t, attestation, armD, v6D, amdD)
	for _, tt := range []struct {
		name, platform string
		index          []byte
		want           ocispec.Descriptor
		err            string
	}{
		{"first choice", "linux/amd64", index, amdD, ""},
		{"variant spelled", "linux/arm64/v8", index, armD, ""},
		{"variant implied", "linux/arm64", index, armD, ""},
		{"older variant", "linux/arm/v7", index, v6D, ""},
		{"newer variant", "linux/arm/v5", index, v6D, "no image for linux/arm/v5: there is only linux/arm64, linux/arm/v6, linux/amd64"},
		{"missing", "linux/riscv64", index, amdD, "no image for linux/riscv64: there is only linux/arm64, linux/arm/v6, linux/amd64"},
		{"nested", "linux/arm64", makeIndex(t, nested), armD, ""},
		{"nested by platform", "linux/arm64", makeIndex(t, onPlatform(nested, "linux/arm64")), armD, ""},
		{"nested elsewhere", "linux/amd64", makeIndex(t, onPlatform(nested, "linux/arm64")), amdD, "no image for linux/amd64"},
		{"only one and no platform", "linux/arm64", makeIndex(t, arm.desc), arm.desc, ""},
		{"two and no platform", "linux/arm64", makeIndex(t, arm.desc, amd.desc), arm.desc, "no image for linux/arm64"},
		{"empty", "linux/arm64", makeIndex(t), arm.desc, "no image for linux/arm64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("registry.test:443", tagged(tt.index, ocispec.MediaTypeImageIndex, amd, arm, armv6))
			o := w.options()
			var err error
			if o.Platform, err = ParsePlatform(tt.platform); err != nil {
				t.Fatal(err)
			}
			got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), o)
			if tt.err != "" {
				wantError(t, err, "pull registry.test/app:latest: ", tt.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d, _ := checkSource(t, got)
			if d.Digest != tt.want.Digest {
				t.Errorf("got %s, want %s", d.Digest, tt.want.Digest)
			}
		})
	}
}

func TestRegistryForeignArchitectureAlone(t *testing.T) {
	w, image := newWorld(t), makeImage(t, "s390x")
	w.serve("registry.test:443", tagged(image.manifest, image.desc.MediaType, image))
	got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
	if err != nil {
		t.Fatal(err)
	}
	checkSource(t, got)
}

// TestS02 crosses bodies and the types that they are called by.
func TestS02ManifestConfusion(t *testing.T) {
	image := makeImage(t, "amd64")
	index := makeIndex(t, onPlatform(image.desc, "linux/amd64"))
	both := bytes.Replace(index, []byte(`"manifests":`), []byte(`"layers":[],"config":{},"manifests":`), 1)
	untyped := bytes.Replace(image.manifest, []byte(`"mediaType":"`+ocispec.MediaTypeImageManifest+`",`), nil, 1)
	for _, tt := range []struct {
		name, contentType string
		body              []byte
		err               string
	}{
		{"image", ocispec.MediaTypeImageManifest, image.manifest, ""},
		{"image by a parameter", ocispec.MediaTypeImageManifest + "; charset=utf-8", image.manifest, ""},
		{"image of no type", "text/plain", untyped, ""},
		{"index", ocispec.MediaTypeImageIndex, index, ""},
		{"index of a plain type", "application/json", index, ""},
		{"image called index", ocispec.MediaTypeImageIndex, image.manifest, "which it is not"},
		{"untyped image called index", dockerList, untyped, "which it is not"},
		{"index called image", dockerManifest, index, "which it is not"},
		{"both", ocispec.MediaTypeImageIndex, both, "an image and an index at once"},
		{"both, called image", ocispec.MediaTypeImageManifest, both, "an image and an index at once"},
		{"hidden by case", ocispec.MediaTypeImageIndex, bytes.Replace(index, []byte(`"manifests":`), []byte(`"Layers":[],"Config":{},"manifests":`), 1), "not how layers is spelled"},
		{"twice", ocispec.MediaTypeImageManifest, bytes.Replace(image.manifest, []byte(`"layers":`), []byte(`"layers":[],"layers":`), 1), "stands in it twice"},
		{"neither", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`), "neither an image nor an index"},
		{"schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1,"fsLayers":[]}`), "old schema 1"},
		{"artifact", ocispec.MediaTypeImageManifest, bytes.Replace(image.manifest, []byte(ocispec.MediaTypeImageConfig), []byte("application/vnd.cncf.helm.config.v1+json"), 1), "not a container image"},
		{"odd layer", ocispec.MediaTypeImageManifest, bytes.Replace(image.manifest, []byte("layer.v1.tar+gzip"), []byte("layer.v1.tar+gzip+encrypted"), 1), "not a container image: layer 1"},
		{"html", "text/html", []byte("<!DOCTYPE html><html>log in"), "web page"},
		{"deep", ocispec.MediaTypeImageManifest, []byte(`{"a":` + strings.Repeat("[", 20000)), "parse manifest"},
		{"rest", ocispec.MediaTypeImageManifest, append(bytes.Clone(image.manifest), `{"x":1}`...), "parse manifest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("registry.test:443", tagged(tt.body, tt.contentType, image))
			got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
			if tt.err != "" {
				wantError(t, err, tt.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkSource(t, got)
		})
	}
}

// TestS01 puts malformed digests wherever a registry could.
func TestS01MalformedDigests(t *testing.T) {
	image := makeImage(t, "amd64")
	good := string(image.desc.Digest)
	bad := []string{"", ":", "sha256:", "sha256:..", good[:70], good + "0", strings.ToUpper(good), "sha256:" + strings.Repeat("../", 21) + "x", "sha384:" + strings.Repeat("0", 96), good + "/", "md5:" + strings.Repeat("0", 32)}
	for _, d := range bad {
		entry := image.desc
		entry.Digest = wireDigestText(d)
		for name, body := range map[string][]byte{
			"index":  makeIndex(t, onPlatform(entry, "linux/amd64")),
			"config": bytes.Replace(image.manifest, marshal(t, descriptor("", image.config).Digest), marshal(t, d), 1),
			"layer":  bytes.Replace(image.manifest, marshal(t, descriptor("", image.layers[1]).Digest), marshal(t, d), 1),
		} {
			if _, err := parseDocument(body, ""); err == nil {
				t.Errorf("%s accepts the digest %q", name, d)
			}
		}
		if d == "" {
			continue
		}
		w := newWorld(t)
		w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Docker-Content-Digest", d)
			rw.Header().Set("Content-Type", image.desc.MediaType)
			rw.Write(image.manifest)
		}))
		_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
		wantError(t, err, "Docker-Content-Digest")
	}
}

func TestRegistryWrongContent(t *testing.T) {
	image := makeImage(t, "amd64")
	w := newWorld(t)
	other := makeImage(t, "arm64")
	w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", image.desc.MediaType)
		rw.Header().Set("Docker-Content-Digest", string(image.desc.Digest))
		rw.Write(other.manifest)
	}))
	for _, ref := range []string{"registry.test/app", "registry.test/app@" + string(image.desc.Digest)} {
		_, err := Registry(t.Context(), mustRef(t, ref), w.options())
		wantError(t, err, "wrong content")
	}
}

// TestS03 follows index graphs that would never end.
func TestS03IndexGraphs(t *testing.T) {
	image := makeImage(t, "amd64")
	leaf := makeIndex(t, onPlatform(image.desc, "linux/amd64"))
	deep := makeIndex(t, asBlob(image, makeIndex(t, asBlob(image, leaf))))
	var wide, many []ocispec.Descriptor
	for n := range 600 {
		d := image.desc
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: fmt.Sprint("cpu", n)}
		wide = append(wide, d)
	}
	half := asBlob(image, makeIndex(t, wide[:300]...))
	for n := range 30 {
		many = append(many, asBlob(image, makeIndex(t, onPlatform(image.desc, fmt.Sprint("linux/x", n)))))
	}
	again := asBlob(image, makeIndex(t, onPlatform(image.desc, "linux/s390x")))
	for _, tt := range []struct {
		name  string
		index []byte
		err   string
	}{
		{"deep", deep, "nests deeper than 2 levels"},
		{"wide", makeIndex(t, wide...), "an index of 600 entries"},
		{"wide in sum", makeIndex(t, append(slices.Clone(wide[:300]), half)...), "more than 512 entries"},
		{"many", makeIndex(t, many...), "holds more than 16 others"},
		{"the same again", makeIndex(t, again, again, again, again), "no image for linux/amd64: there is only linux/s390x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("registry.test:443", tagged(tt.index, ocispec.MediaTypeImageIndex, image))
			_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
			wantError(t, err, tt.err)
			if n := len(w.lines()); n > 20 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestU09 answers without end.
func TestU09EndlessBodies(t *testing.T) {
	image := makeImage(t, "amd64")
	endless := func(rw http.ResponseWriter) {
		for chunk := bytes.Repeat([]byte(" "), 64<<10); ; {
			if _, err := rw.Write(chunk); err != nil {
				return
			}
		}
	}
	for _, where := range []string{"/v2/", "/token", "/manifests/", "/blobs/", "error"} {
		t.Run(strings.Trim(where, "/"), func(t *testing.T) {
			w := newWorld(t)
			w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if where == "/token" && r.URL.Path == "/v2/" {
					rw.Header().Set("WWW-Authenticate", `Bearer realm="https://registry.test/token"`)
					rw.WriteHeader(401)
					return
				}
				if where == "error" && strings.Contains(r.URL.Path, "/manifests/") {
					rw.WriteHeader(404)
					endless(rw)
				}
				if where != "/v2/" && strings.Contains(r.URL.Path, where) || where == "/v2/" && r.URL.Path == where {
					endless(rw)
				}
				tagged(image.manifest, image.desc.MediaType, image).ServeHTTP(rw, r)
			}))
			got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
			if where == "/blobs/" {
				if err != nil {
					t.Fatal(err)
				}
				r, err := got.Blob(t.Context(), descriptor("", image.config), 0)
				if err != nil {
					t.Fatal(err)
				}
				n, err := io.Copy(io.Discard, r)
				wantError(t, err, "longer than the")
				if n > int64(len(image.config)) {
					t.Errorf("%d bytes of %d", n, len(image.config))
				}
				return
			}
			if where == "/v2/" { // the answer to the ping is of no interest beyond its head
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantError(t, err, "pull registry.test/app:latest: ")
		})
	}
}

// TestR01 has a layer that lies at a foreign address, which must not even be asked.
func TestR01ForeignLayerURLs(t *testing.T) {
	image := makeImage(t, "amd64")
	layer := descriptor(ociForeign+"+gzip", []byte("not there"))
	layer.URLs = []string{"https://evil.test/layer", "http://evil.test/layer"}
	doc, err := parseDocument(image.manifest, "")
	if err != nil {
		t.Fatal(err)
	}
	doc.manifest.Layers = append(doc.manifest.Layers, layer)
	image.seal(t, *doc.manifest)
	w := newWorld(t)
	w.serve("registry.test:443", tagged(image.manifest, image.desc.MediaType, image))
	trap := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("WWW-Authenticate", `Basic realm="evil"`)
		rw.WriteHeader(401)
	})
	w.serve("evil.test:443", trap)
	w.serve("evil.test:80", trap)
	got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
	if err != nil {
		t.Fatal(err)
	}
	_, err = got.Blob(t.Context(), layer, 0)
	e := wantError(t, err, "read blob "+string(layer.Digest), "names another place")
	if !strings.Contains(e.Hint(), "not followed") {
		t.Errorf("hint %q", e.Hint())
	}
	for _, line := range w.lines() {
		if strings.Contains(line, "evil.test") {
			t.Errorf("asked %s", line)
		}
	}
}

// TestR06 lets the registry speak to the terminal.
func TestR06ControlCharacters(t *testing.T) {
	const attack = "\x1b]0;owned\x07\r\n\x1b[2J\u202e\u009b\xff"
	image := makeImage(t, "amd64")
	answers := map[string]http.HandlerFunc{
		"message": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(404)
			rw.Write(marshalAny(map[string]any{"errors": []any{map[string]any{"code": attack, "message": attack}}}))
		},
		"text": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "text/plain")
			rw.WriteHeader(403)
			io.WriteString(rw, attack)
		},
		"platform": func(rw http.ResponseWriter, r *http.Request) {
			d := image.desc
			d.Platform = &ocispec.Platform{OS: attack, Architecture: attack}
			rw.Write(makeIndex(t, d))
		},
		"media type": func(rw http.ResponseWriter, r *http.Request) {
			rw.Write(marshalAny(map[string]any{"schemaVersion": 2, "mediaType": attack, "manifests": []any{}}))
		},
		"config type": func(rw http.ResponseWriter, r *http.Request) {
			rw.Write(marshalAny(map[string]any{"schemaVersion": 2, "config": map[string]any{"mediaType": attack}, "layers": []any{}}))
		},
		"member": func(rw http.ResponseWriter, r *http.Request) {
			rw.Write(marshalAny(map[string]any{attack: 1, strings.ToUpper(attack): 2}))
		},
		"json": func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, attack) },
		"location": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Location", "file:///"+attack)
			rw.WriteHeader(307)
		},
		"challenge": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("WWW-Authenticate", "Bearer realm=\"https://registry.test/\x1b[2J\"")
			rw.WriteHeader(401)
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v2/" || name == "challenge" {
					answer(rw, r)
				}
			}))
			_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
			wantError(t, err)
		})
	}
}

// TestR08 moves the tag while the image is pulled.
func TestR08TagMoves(t *testing.T) {
	old, next := makeImage(t, "amd64"), makeImage(t, "arm64")
	w := newWorld(t)
	times := 0
	w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		now := old
		if strings.HasSuffix(r.URL.Path, "/manifests/latest") {
			if times++; times > 1 {
				now = next
			}
		}
		tagged(now.manifest, now.desc.MediaType, old, next).ServeHTTP(rw, r)
	}))
	got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if d, _ := checkSource(t, got); d.Digest != old.desc.Digest {
			t.Errorf("got %s", d.Digest)
		}
	}
	if times != 1 {
		t.Errorf("the tag was asked for %d times", times)
	}
}

func TestRegistryHub(t *testing.T) {
	w, image := newWorld(t), makeImage(t, "amd64")
	w.serve("registry-1.docker.io:443", tagged(image.manifest, image.desc.MediaType, image))
	if _, err := Registry(t.Context(), mustRef(t, "alpine"), w.options()); err != nil {
		t.Fatal(err)
	}
	want := []string{"GET https://registry-1.docker.io/v2/", "GET https://registry-1.docker.io/v2/library/alpine/manifests/latest"}
	if diff := cmp.Diff(want, w.lines()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	for _, r := range w.requests {
		if got := r.header.Get("User-Agent"); got != "sbx" {
			t.Errorf("User-Agent %q", got)
		}
	}
}

func TestRegistryErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   string
		hint   string
	}{
		{"unauthorized", 401, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, "401 Unauthorized: authentication required", "sbx login registry.test"},
		{"denied", 403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`, "403 Forbidden: requested access", "check the spelling of registry.test/app"},
		{"no tag", 404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`, "404 Not Found: manifest unknown", "check that registry.test/app has the tag latest"},
		{"no repository", 404, `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`, "404 Not Found: repository name", "there is no repository registry.test/app"},
		{"teapot", 418, "<html>", "418 I'm a teapot", ""},
		{"nothing", 204, "", "204 No Content", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v2/" {
					return
				}
				rw.WriteHeader(tt.status)
				io.WriteString(rw, tt.body)
			}))
			_, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
			e := wantError(t, err, "pull registry.test/app:latest: GET https://registry.test/v2/app/manifests/latest: "+tt.want)
			if e.Status != tt.status || e.Registry != "registry.test" {
				t.Errorf("Status %d, Registry %q", e.Status, e.Registry)
			}
			if !strings.Contains(e.Hint(), tt.hint) || (tt.hint == "") != (e.Hint() == "") {
				t.Errorf("hint %q, want %q", e.Hint(), tt.hint)
			}
		})
	}
}

func TestRegistryNoAnswer(t *testing.T) {
	w := newWorld(t)
	w.serve("registry.test:80", newRegistry())
	w.at["registry.test:443"] = w.at["registry.test:80"] // http where https is due
	w.at["closed.registry.test:443"] = "127.0.0.1:1"
	w.at["10.1.2.3:5000"] = w.at["registry.test:80"]
	stranger := newWorld(t)
	stranger.serve("registry.test:443", newRegistry())
	w.at["evil.test:443"] = stranger.at["registry.test:443"]
	for _, tt := range []struct{ host, want, hint string }{
		{"nowhere.test", "GET https://nowhere.test/v2/: dial tcp: lookup nowhere.test: no such host", "check the name and the network"},
		{"registry.test", "GET https://registry.test/v2/: http: server gave HTTP response to HTTPS client", "plain http only to registries on this machine"},
		{"10.1.2.3:5000", "GET https://10.1.2.3:5000/v2/: http: server gave HTTP response to HTTPS client", "plain http only to registries on this machine"},
		{"closed.registry.test", "connection refused", "check that the server runs"},
		{"evil.test", "certificate", "SSL_CERT_FILE"},
	} {
		_, err := Registry(t.Context(), mustRef(t, tt.host+"/app"), w.options())
		e := wantError(t, err, tt.want)
		if !strings.Contains(e.Hint(), tt.hint) {
			t.Errorf("%s: hint %q, want %q", tt.host, e.Hint(), tt.hint)
		}
	}
	if len(w.clock.sleeps()) != 0 {
		t.Errorf("waited for what cannot change: %v", w.clock.sleeps())
	}
	for _, line := range w.lines() {
		if !strings.HasPrefix(line, "GET https") {
			t.Errorf("plain http went out: %s", line)
		}
	}
}

func TestRegistryCancelled(t *testing.T) {
	w := newWorld(t)
	w.serve("registry.test:443", newRegistry())
	ctx, cancel := contextWithCancel(t)
	cancel()
	_, err := Registry(ctx, mustRef(t, "registry.test/app"), w.options())
	if !errors.Is(err, ctx.Err()) {
		t.Errorf("got %v", err)
	}
}

func TestDigestOfSHA512(t *testing.T) {
	want, err := reference.ParseDigest("sha512:" + strings.Repeat("0", 128))
	if err != nil {
		t.Fatal(err)
	}
	if got := digestOf(nil, want); !strings.HasPrefix(got.String(), "sha512:cf83e1357eefb8bd") {
		t.Errorf("got %s", got)
	}
}

// TestS10 embeds data in a descriptor that is not what its digest says.
func TestS10DescriptorData(t *testing.T) {
	image := makeImage(t, "amd64")
	doc, err := parseDocument(image.manifest, "")
	if err != nil {
		t.Fatal(err)
	}
	doc.manifest.Config.Data = []byte(`{"evil":true}`)
	image.seal(t, *doc.manifest)
	w := newWorld(t)
	w.serve("registry.test:443", tagged(image.manifest, image.desc.MediaType, image))
	got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
	if err != nil {
		t.Fatal(err)
	}
	checkSource(t, got)
}

// TestU11 pulls what fails, often: nothing may stay behind.
func TestU11NoLeaks(t *testing.T) {
	w, image := newWorld(t), makeImage(t, "amd64")
	w.serve("registry.test:443", tagged(image.manifest, image.desc.MediaType, image))
	pull := func() {
		got, err := Registry(t.Context(), mustRef(t, "registry.test/app"), w.options())
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		if _, err := got.Blob(t.Context(), descriptor("", []byte("none")), 0); err == nil {
			t.Fatal("a blob that is not there")
		}
		r, err := got.Blob(t.Context(), descriptor("", image.layers[0]), 0)
		if err != nil {
			t.Fatal(err)
		}
		r.Read(make([]byte, 10)) // and no more of it
		r.Close()
		if _, err := Registry(t.Context(), mustRef(t, "registry.test/app@sha256:"+strings.Repeat("0", 64)), w.options()); err == nil {
			t.Fatal("a manifest that is not there")
		}
	}
	pull()
	before := runtime.NumGoroutine()
	for range 50 {
		pull()
	}
	for range 6000 {
		if runtime.NumGoroutine() <= before+5 {
			return
		}
		time.Sleep(10 * time.Millisecond) // connections end in goroutines of their own
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}
