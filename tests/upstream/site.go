// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Site is a web server with files of the test's.
type Site struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string][]byte
	asked  map[string]int
	cut    map[string]int
	Signer *Signer
}

// NewSite starts a server; it ends with Close.
func NewSite(signer *Signer) *Site {
	s := &Site{files: map[string][]byte{}, asked: map[string]int{}, cut: map[string]int{}, Signer: signer}
	s.Server = httptest.NewServer(s)
	return s
}

// Put publishes a file.
func (s *Site) Put(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = data
}

// File is what is published under a name.
func (s *Site) File(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[name]
}

// Remove takes a file away.
func (s *Site) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, name)
}

// Edit changes the first from in a file to to; "" adds at the end.
func (s *Site) Edit(name, from, to string) {
	data := s.File(name)
	if from == "" {
		s.Put(name, append(bytes.Clone(data), to...))
		return
	}
	s.Put(name, bytes.Replace(data, []byte(from), []byte(to), 1))
}

// Cut ends the next connection for a file after so many bytes.
func (s *Site) Cut(name string, after int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[name] = after
}

// Asked is how often a file was asked for.
func (s *Site) Asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

// ServeHTTP implements http.Handler.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	name := strings.TrimPrefix(r.URL.Path, "/")
	data, ok := s.files[name]
	s.asked[name]++
	cut := s.cut[name]
	delete(s.cut, name)
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf("%q", Sum(data)[:16]))
	if cut > 0 {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:cut])
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, name, time.Unix(1000, 0), bytes.NewReader(data))
}

// Sum is the SHA-256 sum of bytes, in hexadecimal.
func Sum(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// arch is what this machine is called by those who call amd64 x86_64.
func arch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// Alpine publishes a mini root filesystem of a branch as dl-cdn.alpinelinux.org
// does, below /alpine, and returns the tarball's name.
func (s *Site) Alpine(branch, version string, tarball []byte) string {
	file := "alpine-minirootfs-" + version + "-" + arch() + ".tar.gz"
	dir := "alpine/" + branch + "/releases/" + arch() + "/"
	entry := func(title, text, flavor, file string, data []byte) string {
		return fmt.Sprintf("-\n  title: %q\n  desc: |\n%s\n  branch: %s\n  arch: %s\n  version: %s\n  flavor: %s\n  file: %s\n  iso: %s\n  date: 2024-09-06\n  time: 11:21:49\n  size: %d\n  sha256: %s\n  sha512: 00\n",
			title, text, branch, arch(), version, flavor, file, file, len(data), Sum(data))
	}
	index := "---\n" +
		entry("Standard", "    Alpine as it was intended.\n    Just enough to get you started.\n    Network connection is required.", "alpine-standard", "alpine-standard-"+version+"-"+arch()+".iso", nil) +
		entry("Mini root filesystem", "    Minimal root filesystem.\n    For use in containers\n    and minimal chroots.\n    file: in a text, and no field", "alpine-minirootfs", file, tarball)
	s.Put(dir+"latest-releases.yaml", []byte(index))
	s.Put(dir+file, tarball)
	s.Put(dir+file+".sha256", []byte(Sum(tarball)+"  "+file+"\n"))
	s.Put(dir+file+".asc", []byte(Armoured("SIGNATURE", s.Signer.Detached(tarball))))
	return dir + file
}

// Ubuntu publishes a point release of Ubuntu Base as cdimage.ubuntu.com does, below
// /ubuntu-base, and returns the tarball's name.
func (s *Site) Ubuntu(release, version string, tarball []byte) string {
	dir := "ubuntu-base/releases/" + release + "/release/"
	file := "ubuntu-base-" + version + "-base-" + runtime.GOARCH + ".tar.gz"
	sums := string(s.File(dir+"SHA256SUMS")) + Sum(tarball) + " *" + file + "\n"
	if !strings.Contains(sums, "s390x") {
		sums = Sum(nil) + " *ubuntu-base-" + version + "-base-s390x.tar.gz\n" + sums
	}
	s.Put(dir+file, tarball)
	s.Put(dir+"SHA256SUMS", []byte(sums))
	s.Put(dir+"SHA256SUMS.gpg", []byte(Armoured("SIGNATURE", s.Signer.Detached([]byte(sums)))))
	page := string(s.File("ubuntu-base/releases/")) + `<tr><td><a href="` + release + `/">` + release + "/</a></td></tr>\n"
	s.Put("ubuntu-base/releases/", []byte(page))
	return dir + file
}

// Arch publishes a monthly bootstrap tarball as geo.mirror.pkgbuild.com does, below
// /iso, and returns its name.
func (s *Site) Arch(date string, tarball []byte) string {
	file := "archlinux-bootstrap-" + date + "-x86_64.tar.zst"
	for _, dir := range []string{"iso/latest/", "iso/" + date + "/"} {
		s.Put(dir+"sha256sums.txt", []byte(Sum(nil)+"  archlinux-"+date+"-x86_64.iso\n"+Sum(tarball)+"  "+file+"\n"+Sum(tarball)+"  archlinux-bootstrap-x86_64.tar.zst\n"))
		s.Put(dir+file, tarball)
		s.Put(dir+file+".sig", s.Signer.Detached(tarball))
	}
	return "iso/latest/" + file
}

// Build is a root filesystem in an index of simplestreams.
type Build struct {
	OS, Release, Variant, Date string
	Arch                       string // "": this machine's
	Tarball                    []byte
}

// Streams publishes builds as images.linuxcontainers.org does.
func (s *Site) Streams(builds ...Build) {
	var products []string
	for _, b := range builds {
		if b.Arch == "" {
			b.Arch = runtime.GOARCH
		}
		at := strings.ToLower(b.OS) + "/" + b.Release + "/" + b.Arch + "/" + b.Variant
		file := "images/" + at + "/" + b.Date + "/rootfs.tar.xz"
		s.Put(file, b.Tarball)
		products = append(products, fmt.Sprintf(`%q: {"aliases": %q, "arch": %q, "os": %q, "release": %q, "release_title": %q, "variant": %q, "versions": {%q: {"items": {
  "incus.tar.xz": {"ftype": "incus.tar.xz", "path": "images/%s/incus.tar.xz", "sha256": %q, "size": 560},
  "root.squashfs": {"ftype": "squashfs", "path": "images/%s/rootfs.squashfs", "sha256": %q, "size": 4096},
  "root.tar.xz": {"ftype": "root.tar.xz", "path": %q, "sha256": %q, "size": %d}}}}}`,
			strings.ReplaceAll(at, "/", ":"), at, b.Arch, b.OS, b.Release, b.Release, b.Variant, b.Date, at, Sum(nil), at, Sum(nil), file, Sum(b.Tarball), len(b.Tarball)))
	}
	s.Put("streams/v1/images.json", []byte(`{"content_id": "images", "datatype": "image-downloads", "format": "products:1.0", "products": {`+strings.Join(products, ",\n")+"}}\n"))
}
