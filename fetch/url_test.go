// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
)

// bigRootfs is a tarball that does not fit into what is looked at first.
func bigRootfs(t *testing.T) []byte {
	noise := make([]byte, 3*maxPeek)
	r := rand.NewChaCha8([32]byte{})
	r.Read(noise)
	return pack(t, gzipped, makeTar(t, append(rootfs, file{name: "big", body: string(noise)})...))
}

func openAt(t *testing.T, w *world, location string) (*Opened, error) {
	t.Helper()
	o := w.options()
	got, err := Open(t.Context(), location, o)
	if got != nil {
		t.Cleanup(func() { got.Close() })
	}
	if left, _ := os.ReadDir(o.TempDir); len(left) != 0 {
		t.Errorf("left in the temporary folder: %v", left)
	}
	return got, err
}

func TestURLRootfs(t *testing.T) {
	data := bigRootfs(t)
	for _, location := range []string{"https://registry.test/base.tar.gz", "http://registry.test/base.tar.gz", "HTTP://registry.test/base?sig=canary#part"} {
		w := newWorld(t)
		serve := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("ETag", `"v1"`)
			http.ServeContent(rw, r, "", testNow, bytes.NewReader(data))
		})
		w.serve("registry.test:443", serve)
		w.serve("registry.test:80", serve)
		got, err := openAt(t, w, location)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf(`size=%d state="v1"`, len(data)); got.Origin != want {
			t.Errorf("origin %s, want %s", got.Origin, want)
		}
		b, err := io.ReadAll(got.Rootfs.Reader)
		if err != nil || !bytes.Equal(b, data) {
			t.Errorf("%s: %d of %d bytes: %v", location, len(b), len(data), err)
		}
		if n := len(w.lines()); n != 1 {
			t.Errorf("%d requests", n)
		}
	}
}

func TestURLImages(t *testing.T) {
	image := makeImage(t, "amd64")
	noise := make([]byte, 2*maxPeek)
	rand.NewChaCha8([32]byte{}).Read(noise)
	image.blobs[string(descriptor("", noise).Digest)] = noise
	layout := makeTar(t, layoutFiles(makeIndex(t, image.desc), image)...)
	for name, data := range map[string][]byte{"layout": layout, "packed layout": pack(t, gzipped, layout), "save": makeTar(t, savedFiles(t, makeImage(t, "amd64"))...)} {
		w := newWorld(t)
		w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { rw.Write(data) }))
		got, err := openAt(t, w, "https://registry.test/image.tar")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkSource(t, got.Image)
	}
}

func TestURLResume(t *testing.T) {
	data := bigRootfs(t)
	changed := bytes.Clone(data)
	changed[len(changed)-1]++
	for _, tt := range []struct {
		name string
		etag func(try int) string
		last bool // a date, too
		then func(rw http.ResponseWriter, r *http.Request)
		err  string
	}{
		{name: "same tag", etag: func(int) string { return `"v1"` }},
		{name: "date alone", last: true},
		{name: "weak tag and date", etag: func(int) string { return `W/"v1"` }, last: true},
		{name: "other tag", etag: func(try int) string { return fmt.Sprintf("%q", fmt.Sprint(try)) }, err: "the file changed while it was read"},
		{name: "weak tag alone", etag: func(int) string { return `W/"v1"` }, err: "cannot tell whether the file is still the same"},
		{name: "nothing", err: "cannot tell whether the file is still the same"},
		{name: "no ranges", etag: func(int) string { return `"v1"` }, then: func(rw http.ResponseWriter, r *http.Request) { rw.Write(data) }},
		{name: "another size", etag: func(int) string { return `"v1"` }, then: func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(len(data)-1))
			rw.Write(data[1:])
		}, err: "changed"},
		{name: "gone", etag: func(int) string { return `"v1"` }, then: func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(404) }, err: "404 Not Found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, try := newWorld(t), 0
			w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				try++
				if tt.etag != nil {
					rw.Header().Set("ETag", tt.etag(try))
				}
				if tt.last {
					rw.Header().Set("Last-Modified", testNow.Format(http.TimeFormat))
				}
				if try == 1 {
					cut(rw, data, 0, len(data)/2)
				}
				if tt.then != nil {
					tt.then(rw, r)
					return
				}
				if v := r.Header.Get("If-Range"); v == "" || v == rw.Header().Get("ETag") || v == rw.Header().Get("Last-Modified") {
					r.Header.Del("If-Range")
				}
				http.ServeContent(rw, r, "", testNow.Add(0), bytes.NewReader(data))
			}))
			got, err := openAt(t, w, "https://registry.test/base.tar.gz?sig=canary")
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(got.Rootfs.Reader)
			if tt.err != "" {
				if e := wantError(t, err, "open https://registry.test/base.tar.gz: ", tt.err); strings.Contains(e.Error(), "canary") {
					t.Errorf("the signature stands in %q", e)
				}
				return
			}
			if err != nil || !bytes.Equal(b, data) {
				t.Errorf("%d of %d bytes: %v", len(b), len(data), err)
			}
		})
	}
}

func TestURLErrors(t *testing.T) {
	w := newWorld(t)
	w.serve("registry.test:443", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/empty":
		case "/page":
			io.WriteString(rw, "<!doctype html>")
		case "/half":
			rw.Write(pack(t, gzipped, makeTar(t, rootfs...))[:30])
		case "/http":
			http.Redirect(rw, r, "http://registry.test/x", 302)
		case "/here":
			http.Redirect(rw, r, "https://127.0.0.1/x", 302)
		case "/busy":
			rw.Header().Set("Retry-After", "3600")
			rw.WriteHeader(429)
		default:
			rw.WriteHeader(404)
		}
	}))
	w.serve("registry.test:80", http.NotFoundHandler())
	for _, tt := range []struct{ location, want, hint string }{
		{"https://registry.test/none?sig=canary", "open https://registry.test/none: GET https://registry.test/none: 404 Not Found", ""},
		{"https://registry.test/empty", "the file is empty", "an image file is"},
		{"https://registry.test/page", "it is a web page", "an image file is"},
		{"https://registry.test/half", "the file is truncated", "again"},
		{"https://registry.test/http", "refuse redirect from https", ""},
		{"https://registry.test/here", "points to this machine", ""},
		{"https://registry.test/busy", "429 Too Many Requests", "try again in 1h0m0s"},
		{"https://nowhere.test/x", "no such host", "HTTPS_PROXY"},
		{"https://user:canary@registry.test/x", "carries a password", "download the file yourself"},
		{"https:///x", "names no host", ""},
		{"https://%zz/x?canary", "not a URL", ""},
	} {
		_, err := openAt(t, w, tt.location)
		e := wantError(t, err, tt.want)
		if !strings.Contains(e.Hint(), tt.hint) {
			t.Errorf("%s: hint %q, want %q", tt.location, e.Hint(), tt.hint)
		}
		if tt.location != "https://%zz/x?canary" && strings.Contains(e.Error(), "canary") {
			t.Errorf("a secret stands in %q", e)
		}
	}
	for _, line := range w.lines() {
		if strings.HasPrefix(line, "GET http://") {
			t.Errorf("plain http went out: %s", line)
		}
	}
}
