// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"

	"sbx/container"
	"sbx/fetch"
	"sbx/store"
	"sbx/tests/upstream"
	"sbx/userns"
)

// pulling is a pull of the catalog's from servers of the test's.
type pulling struct {
	*testing.T
	Pull
	home *container.Home
	said []string
}

// newPulling makes a pull of name:tag, whose distribution's own server is site.
func newPulling(t *testing.T, site *upstream.Site, below, typed string) *pulling {
	t.Helper()
	name, tag, _ := strings.Cut(typed, ":")
	d, ok := Find(name)
	if !ok {
		t.Fatalf("no distribution %s", name)
	}
	d.URL, d.keyring, d.keys = site.URL+below, "", nil
	st, err := store.Open(t.TempDir(), userns.SingleRung())
	if err != nil {
		t.Fatal(err)
	}
	p := &pulling{T: t, home: &container.Home{Store: st}}
	p.Pull = Pull{
		Distribution: d, Tag: or(tag, "latest"), Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Progress: func(text string) { p.said = append(p.said, text) }, Event: func(store.Event) {},
	}
	return p
}

// trust has a key sign what is published.
func (p *pulling) trust(s *upstream.Signer) {
	p.Keyring = filepath.Join(p.TempDir(), "keys")
	if err := os.WriteFile(p.Keyring, s.Packet, 0o600); err != nil {
		p.Fatal(err)
	}
}

func (p *pulling) pull() (store.Image, bool, error) {
	p.said = nil
	return p.Make(p.Context(), p.home, CatalogDomain+"/x:latest")
}

// must pulls and reports what was said.
func (p *pulling) must() (store.Image, string) {
	p.Helper()
	img, _, err := p.pull()
	if err != nil {
		p.Fatalf("%s:%s: %v", p.Distribution.Name, p.Tag, err)
	}
	return img, strings.Join(p.said, "\n")
}

func newSite(t *testing.T) *upstream.Site {
	s := upstream.NewSite(upstream.NewSigner(1))
	t.Cleanup(s.Close)
	return s
}

// rootfs is a tarball with one file.
func rootfs(t *testing.T, prefix, content string) []byte {
	t.Helper()
	return upstream.ZippedTar([]tar.Header{
		{Typeflag: tar.TypeDir, Name: prefix + "etc/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: prefix + "etc/which", Mode: 0o644},
		{Typeflag: tar.TypeLink, Name: prefix + "etc/same", Linkname: prefix + "etc/which"},
		{Typeflag: tar.TypeSymlink, Name: prefix + "etc/link", Linkname: "which"},
	}, map[string]string{prefix + "etc/which": content})
}

// xzOf compresses a gzipped tar otherwise.
func xzOf(t *testing.T, data []byte) []byte {
	t.Helper()
	plain, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err == nil {
		_, err = io.Copy(w, plain)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// which reads the file of rootfs from an image.
func (p *pulling) which(img store.Image) string {
	p.Helper()
	dirs, err := p.home.Store.ChainDirs(p.Context(), img, nil)
	if err != nil || len(dirs) != 1 {
		p.Fatal(dirs, err)
	}
	data, err := os.ReadFile(filepath.Join(dirs[0], "etc/which"))
	if err != nil {
		p.Fatal(err)
	}
	if same, err := os.ReadFile(filepath.Join(dirs[0], "etc/same")); err != nil || !bytes.Equal(same, data) {
		p.Fatal("hard link: ", err)
	}
	return string(data)
}

// Each distribution's index is read in its own form, each tag as its users write it.
func TestCatalogTags(t *testing.T) {
	s := newSite(t)
	s.Alpine("latest-stable", "3.20.3", rootfs(t, "./", "alpine 3.20.3"))
	s.Alpine("v3.20", "3.20.1", rootfs(t, "./", "alpine 3.20.1"))
	s.Alpine("v3.20", "3.20.3", rootfs(t, "./", "alpine 3.20.3"))
	s.Alpine("edge", "20250108", rootfs(t, "./", "alpine edge"))
	for _, r := range []string{"22.04", "24.04", "25.04", "25.10", "noble"} {
		s.Ubuntu(r, "24.04.9", rootfs(t, "", "ubuntu "+r+" old"))
		s.Ubuntu(r, "24.04.10", rootfs(t, "", "ubuntu "+r))
	}
	s.Streams(
		upstream.Build{OS: "Fedora", Release: "9", Variant: "default", Date: "20241201_20:33", Tarball: xzOf(t, rootfs(t, "./", "fedora 9"))},
		upstream.Build{OS: "Fedora", Release: "41", Variant: "default", Date: "20241201_20:33", Tarball: rootfs(t, "./", "fedora 41")},
		upstream.Build{OS: "Fedora", Release: "41", Variant: "cloud", Date: "20241201_20:33", Tarball: rootfs(t, "./", "fedora 41 cloud")},
		upstream.Build{OS: "Fedora", Release: "99", Variant: "default", Date: "20241201_20:33", Arch: "s390x"},
		upstream.Build{OS: "Voidlinux", Release: "current", Variant: "default", Date: "20241201_17:10", Tarball: rootfs(t, "./", "void")},
		upstream.Build{OS: "Voidlinux", Release: "current", Variant: "musl", Date: "20241201_17:10", Tarball: rootfs(t, "./", "void musl")},
		upstream.Build{OS: "Rockylinux", Release: "9", Variant: "default", Date: "20241201_02:06", Tarball: rootfs(t, "./", "rocky 9")},
		upstream.Build{OS: "Gentoo", Release: "current", Variant: "openrc", Date: "20241201_16:07", Tarball: rootfs(t, "./", "gentoo openrc")},
		upstream.Build{OS: "Devuan", Release: "daedalus", Variant: "default", Date: "20241201_11:50", Tarball: rootfs(t, "./", "devuan")},
	)
	for _, test := range []struct{ below, typed, want string }{
		{"/alpine", "alpine", "alpine 3.20.3"},
		{"/alpine", "alpine:3", "alpine 3.20.3"},
		{"/alpine", "alpine:3.20", "alpine 3.20.3"},
		{"/alpine", "alpine:3.20.1", "alpine 3.20.1"},
		{"/alpine", "alpine:edge", "alpine edge"},
		{"/ubuntu-base", "ubuntu", "ubuntu 24.04"},
		{"/ubuntu-base", "ubuntu:22.04", "ubuntu 22.04"},
		{"/ubuntu-base", "ubuntu:noble", "ubuntu noble"},
		{"", "fedora", "fedora 41"},
		{"", "fedora:9", "fedora 9"},
		{"", "fedora:41-cloud", "fedora 41 cloud"},
		{"", "fedora:cloud", "fedora 41 cloud"},
		{"", "void", "void"},
		{"", "voidlinux:musl", "void musl"},
		{"", "rocky:9", "rocky 9"},
		{"", "gentoo", "gentoo openrc"},
		{"", "devuan:daedalus", "devuan"},
	} {
		p := newPulling(t, s, test.below, test.typed)
		img, said := p.must()
		if got := p.which(img); got != test.want {
			t.Errorf("%s is %q, want %q", test.typed, got, test.want)
		}
		if !strings.Contains(said, "Pulling from "+s.URL+test.below) || !strings.Contains(said, "Digest: sha256:") {
			t.Errorf("%s: said %q", test.typed, said)
		}
		if again, fresh, err := p.pull(); err != nil || fresh || again.ID != img.ID {
			t.Errorf("%s: the second time it is fresh: %v, error %v", test.typed, fresh, err)
		}
	}
	for typed, want := range map[string]string{
		"alpine:3.19": "/alpine has no 3.19", "alpine:3.20.9": "has no 3.20.9", "alpine:3.20-slim": "has no 3.20-slim",
		"ubuntu:23.10": "has no 23.10", "fedora:99": "has no 99", "kali": "has no kali", "devuan": "has no latest",
	} {
		below := map[string]string{"alpine": "/alpine", "ubuntu": "/ubuntu-base"}[strings.SplitN(typed, ":", 2)[0]]
		_, _, err := newPulling(t, s, below, typed).pull()
		var elsewhere *ElsewhereError
		if !errors.As(err, &elsewhere) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want that it may be elsewhere: %s", typed, err, want)
		}
	}
}

// Arch Linux is for one machine only, and its root a directory of the tarball.
func TestCatalogArch(t *testing.T) {
	s := newSite(t)
	tarball := rootfs(t, "root.x86_64/", "arch")
	s.Arch("2024.12.01", tarball)
	for _, typed := range []string{"archlinux", "arch:2024.12.01", "archlinux:base"} {
		p := newPulling(t, s, "/iso", typed)
		p.Platform.Architecture = "amd64"
		p.trust(s.Signer)
		img, said := p.must()
		if got := p.which(img); got != "arch" {
			t.Errorf("%s is %q", typed, got)
		}
		if !strings.Contains(said, "signature of key ") {
			t.Errorf("%s: said %q", typed, said)
		}
		if cfg := img.Config.Config; strings.Join(cfg.Cmd, " ") != "/usr/bin/bash" || !strings.Contains(strings.Join(cfg.Env, " "), "LANG=C.UTF-8") {
			t.Errorf("%s: config %+v", typed, cfg)
		}
	}
	p := newPulling(t, s, "/iso", "archlinux")
	p.Platform.Architecture = "arm64"
	if _, _, err := p.pull(); err == nil || !strings.Contains(err.Error(), "has no latest for arm64") {
		t.Errorf("for arm64: %v", err)
	}
}

// What a server sends wrong ends the pull: nothing is kept, and no other is asked.
func TestCatalogRefuses(t *testing.T) {
	other := upstream.NewSigner(2)
	for name, test := range map[string]struct {
		typed, below string
		signed       bool
		change       func(s *upstream.Site, alpine, ubuntu, arch, stream string)
		want         string
	}{
		"alpine, another tarball": {"alpine", "/alpine", false, func(s *upstream.Site, a, _, _, _ string) { s.Put(a, bytes.Repeat([]byte("x"), len(s.File(a)))) }, "its SHA-256 sum is "},
		"alpine, a longer one":    {"alpine", "/alpine", false, func(s *upstream.Site, a, _, _, _ string) { s.Edit(a, "", "more") }, " bytes, the index says "},
		"alpine, another signer":  {"alpine", "/alpine", true, func(s *upstream.Site, a, _, _, _ string) { s.Put(a+".asc", other.Detached(s.File(a))) }, "no good signature of a key that is trusted, signed by "},
		"alpine, of another file": {"alpine", "/alpine", true, func(s *upstream.Site, a, _, _, _ string) { s.Put(a+".asc", s.Signer.Detached([]byte("x"))) }, "no good signature"},
		"alpine, no index":        {"alpine", "/alpine", false, func(s *upstream.Site, a, _, _, _ string) { s.Put(indexOf(a), []byte("<html>")) }, "lists no mini root filesystem"},
		"alpine, a path":          {"alpine", "/alpine", false, func(s *upstream.Site, a, _, _, _ string) { s.Edit(indexOf(a), "file: alpine-mini", "file: ../x/mini") }, `strange file name`},
		"alpine, a short sum": {"alpine", "/alpine", false, func(s *upstream.Site, a, _, _, _ string) {
			s.Edit(indexOf(a), "flavor: alpine-minirootfs", "flavor: alpine-minirootfs\n  sha256: 12")
			s.Edit(indexOf(a), "sha256: "+upstream.Sum(s.File(a)), "")
		}, "digest"},
		"ubuntu, changed sums":    {"ubuntu:24.04", "/ubuntu-base", true, func(s *upstream.Site, _, u, _, _ string) { s.Edit(sumsOf(u), "", "\n") }, "SHA256SUMS: no good signature"},
		"ubuntu, another signer":  {"ubuntu:24.04", "/ubuntu-base", true, func(s *upstream.Site, _, u, _, _ string) { s.Put(sumsOf(u)+".gpg", other.Detached(s.File(sumsOf(u)))) }, "no good signature"},
		"ubuntu, damaged":         {"ubuntu:24.04", "/ubuntu-base", true, func(s *upstream.Site, _, u, _, _ string) { s.Put(sumsOf(u)+".gpg", []byte("<html>")) }, "damaged OpenPGP data"},
		"ubuntu, strange sums":    {"ubuntu:24.04", "/ubuntu-base", false, func(s *upstream.Site, _, u, _, _ string) { s.Put(sumsOf(u), []byte("<html>")) }, `strange line "<html>"`},
		"ubuntu, another tarball": {"ubuntu:24.04", "/ubuntu-base", true, func(s *upstream.Site, _, u, _, _ string) { s.Edit(u, "", "more") }, "its SHA-256 sum is "},
		"arch, another signer":    {"archlinux", "/iso", true, func(s *upstream.Site, _, _, a, _ string) { s.Put(a+".sig", other.Detached(s.File(a))) }, "no good signature"},
		"arch, not its root": {"archlinux", "/iso", true, func(s *upstream.Site, _, _, _, _ string) {
			s.Arch("2024.12.01", upstream.ZippedTar([]tar.Header{{Name: "x/", Typeflag: tar.TypeDir}}, nil))
		}, "no directory root.x86_64"},
		"arch, a link out": {"archlinux", "/iso", true, func(s *upstream.Site, _, _, _, _ string) {
			s.Arch("2024.12.01", upstream.ZippedTar([]tar.Header{{Name: "root.x86_64/x", Typeflag: tar.TypeLink, Linkname: "root.x86_64/../y"}}, nil))
		}, "leads out of root.x86_64"},
		"stream, another tarball": {"fedora", "", false, func(s *upstream.Site, _, _, _, f string) { s.Edit(f, "", "more") }, " bytes, the index says "},
		"stream, a path": {"fedora", "", false, func(s *upstream.Site, _, _, _, _ string) {
			s.Edit("streams/v1/images.json", `"path": "images/fedora/41/`+runtime.GOARCH+`/default/20241201_20:33`, `"path": "images/../..`)
		}, "strange file"},
		"stream, no json": {"fedora", "", false, func(s *upstream.Site, _, _, _, _ string) { s.Put("streams/v1/images.json", []byte("{")) }, "streams/v1/images.json: unexpected end"},
		"stream, another format": {"fedora", "", false, func(s *upstream.Site, _, _, _, _ string) {
			s.Edit("streams/v1/images.json", "products:1.0", "products:9")
		}, `strange format "products:9"`},
		"no tarball": {"fedora", "", false, func(s *upstream.Site, _, _, _, f string) {
			s.Put(f, []byte("x"))
			s.Streams(upstream.Build{OS: "Fedora", Release: "41", Variant: "default", Date: "1", Tarball: []byte("no tar")})
		}, "import base.sbx/x:latest: "},
		"escaping": {"fedora", "", false, func(s *upstream.Site, _, _, _, _ string) {
			s.Streams(upstream.Build{OS: "Fedora", Release: "41", Variant: "default", Date: "1", Tarball: upstream.ZippedTar([]tar.Header{{Name: "../../x", Typeflag: tar.TypeReg}}, nil)})
		}, "../../x"},
		"escaping, a link": {"fedora", "", false, func(s *upstream.Site, _, _, _, _ string) {
			s.Streams(upstream.Build{OS: "Fedora", Release: "41", Variant: "default", Date: "1", Tarball: upstream.ZippedTar([]tar.Header{{Name: "x", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}}, nil)})
		}, "../../etc/passwd"},
	} {
		s := newSite(t)
		alpine := s.Alpine("latest-stable", "3.20.3", rootfs(t, "./", "alpine"))
		ubuntu := s.Ubuntu("24.04", "24.04.3", rootfs(t, "./", "ubuntu"))
		arch := s.Arch("2024.12.01", rootfs(t, "root.x86_64/", "arch"))
		s.Streams(upstream.Build{OS: "Fedora", Release: "41", Variant: "default", Date: "20241201_20:33", Tarball: rootfs(t, "./", "fedora")})
		test.change(s, alpine, ubuntu, arch, "images/fedora/41/"+runtime.GOARCH+"/default/20241201_20:33/rootfs.tar.xz")
		good := newSite(t)
		p := newPulling(t, good, test.below, test.typed)
		p.Mirrors = []string{s.URL + test.below}
		if strings.HasPrefix(test.typed, "arch") {
			p.Platform.Architecture = "amd64"
		}
		if test.signed {
			p.trust(s.Signer)
		}
		_, _, err := p.pull()
		if err == nil || !strings.Contains(err.Error(), test.want) || mayBeElsewhere(err) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
		if list, err := p.home.Store.Images(); err != nil || len(list) > 0 {
			t.Errorf("%s: images %v, error %v", name, list, err)
		}
		if left, _ := filepath.Glob(filepath.Join(p.home.Store.Path(), "cache/archive/*[0-9a-f]")); len(left) > 0 && !strings.Contains(test.want, "import") && !strings.HasPrefix(name, "escaping") && !strings.Contains(name, "arch") {
			t.Errorf("%s: left: %v", name, left)
		}
	}
}

// What goes through a link of the tarball's own stays in the image.
func TestCatalogStaysInside(t *testing.T) {
	outside := t.TempDir()
	for typed, root := range map[string]string{"fedora": "", "archlinux": "root.x86_64/"} {
		tarball := upstream.ZippedTar([]tar.Header{
			{Typeflag: tar.TypeSymlink, Name: root + "out", Linkname: outside},
			{Typeflag: tar.TypeReg, Name: root + "out/evil", Mode: 0o644},
			{Typeflag: tar.TypeSymlink, Name: root + "up", Linkname: "../../../../../../../.." + outside},
			{Typeflag: tar.TypeReg, Name: root + "up/evil", Mode: 0o644},
		}, nil)
		s := newSite(t)
		s.Arch("2024.12.01", tarball)
		s.Streams(upstream.Build{OS: "Fedora", Release: "41", Variant: "default", Date: "1", Tarball: tarball})
		p := newPulling(t, s, map[string]string{"archlinux": "/iso"}[typed], typed)
		if typed == "archlinux" {
			p.Platform.Architecture = "amd64"
		}
		img, _ := p.must()
		dirs, err := p.home.Store.ChainDirs(t.Context(), img, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(dirs[0], outside, "evil")); err != nil {
			t.Errorf("%s: %v", typed, err)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Fatalf("%s: outside there is %v, error %v", typed, left, err)
		}
	}
}

func indexOf(tarball string) string {
	return filepath.Dir(tarball) + "/latest-releases.yaml"
}

func sumsOf(tarball string) string { return filepath.Dir(tarball) + "/SHA256SUMS" }

// A mirror that is not there, or has not all, is passed over; one that dies in the
// middle is gone on from, by the next or by the next attempt.
func TestCatalogMirrors(t *testing.T) {
	own, partial, dead := newSite(t), newSite(t), newSite(t)
	dead.Close()
	tarball := upstream.ZippedTar([]tar.Header{{Typeflag: tar.TypeReg, Name: "etc/which", Mode: 0o644}}, map[string]string{"etc/which": noise(1 << 20)})
	file := own.Alpine("latest-stable", "3.20.3", tarball)
	partial.Alpine("latest-stable", "3.20.3", tarball)
	partial.Remove(file)
	p := newPulling(t, own, "/alpine", "alpine")
	p.Mirrors = []string{dead.URL + "/alpine", partial.URL + "/alpine/"}
	own.Cut(file, 700_000)
	_, said := p.must()
	for _, want := range []string{"connection refused; asking " + partial.Listener.Addr().String(), "404 page not found; asking " + own.Listener.Addr().String(), "Pulling from " + own.URL} {
		if !strings.Contains(said, want) {
			t.Errorf("said %q, want %q", said, want)
		}
	}
	if n := own.Asked(file); n != 2 {
		t.Errorf("asked %d times for what was cut once, want 2", n)
	}
	// What an attempt that died has left is gone on with, and removed in the end.
	p = newPulling(t, own, "/alpine", "alpine")
	files, err := openCache(t.Context(), p.home.Store, fetch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(files.dir, upstream.Sum(tarball)+".part")
	if err := os.WriteFile(part, tarball[:900_000], 0o600); err != nil {
		t.Fatal(err)
	}
	var first int64 = -1
	p.Event = func(e store.Event) {
		if e.Status == store.StatusDownloading && first < 0 {
			first = e.Current
		}
	}
	if p.must(); first < 900_000 {
		t.Errorf("the download began at %d", first)
	}
	if left, _ := os.ReadDir(files.dir); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
	// Nobody answers: another source may.
	p = newPulling(t, dead, "/alpine", "alpine")
	var elsewhere *ElsewhereError
	if _, _, err := p.pull(); !errors.As(err, &elsewhere) {
		t.Errorf("error %v, want that it may be elsewhere", err)
	}
}

// noise is text that does not compress.
func noise(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return string(b)
}

// The key that is linked in is read, and is the one that it says.
func TestArchKeys(t *testing.T) {
	keys, err := parseKeyring(archKeys)
	if err != nil || len(keys) != 1 || keys[0].id != 0x76A5EF9054449A5C || keys[0].ed25519 == nil {
		t.Errorf("%v, error %v", keys, err)
	}
}

// Every name is found once, and by no other's alias.
func TestCatalogNames(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Catalog() {
		for _, name := range append([]string{d.Name}, d.Aliases...) {
			if got, ok := Find(name); !ok || got.Name != d.Name || seen[name] || name == HostName {
				t.Errorf("%s is %s", name, got.Name)
			}
			seen[name] = true
		}
		if !strings.HasPrefix(d.URL, "https://") && d.vendor == "" {
			t.Errorf("%s comes from %s, unprotected", d.Name, d.URL)
		}
	}
}

func FuzzAlpineIndex(f *testing.F) {
	s := upstream.NewSite(upstream.NewSigner(1))
	defer s.Close()
	f.Add(s.File(indexOf(s.Alpine("edge", "1", []byte("x")))))
	f.Add([]byte("-\n  flavor: alpine-minirootfs\n  file: a\n  sha256: " + strings.Repeat("0", 64)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := alpineRootfs(data); err == nil && (strings.Contains(r.file, "/") || r.digest.IsZero()) {
			t.Errorf("accepted %+v", r)
		}
		_, _ = parseSums(data)
	})
}

func FuzzStreams(f *testing.F) {
	s := upstream.NewSite(upstream.NewSigner(1))
	defer s.Close()
	s.Streams(upstream.Build{OS: "Fedora", Release: "41", Variant: "default", Date: "1"})
	f.Add(s.File(streamIndexFile), "41")
	f.Add(s.File(streamIndexFile), "latest")
	f.Fuzz(func(t *testing.T, data []byte, tag string) {
		p, err := findIn(data, "fedora", runtime.GOARCH, tag, "")
		if err == nil && (strings.Contains("/"+p.url+"/", "/../") || p.digest.IsZero()) {
			t.Errorf("found %+v", p)
		}
	})
}

// A root filesystem that lies deeper is moved up whole: attributes and all.
func TestBeneath(t *testing.T) {
	var in bytes.Buffer
	w := tar.NewWriter(&in)
	for _, h := range []tar.Header{
		{Name: "version", Typeflag: tar.TypeReg},
		{Name: "root/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "root/bin/ping", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}},
		{Name: "root/bin/hard", Typeflag: tar.TypeLink, Linkname: "root/bin/ping"},
		{Name: "root/bin/soft", Typeflag: tar.TypeSymlink, Linkname: "root/x"},
		{Name: "rooted/x", Typeflag: tar.TypeReg},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	r := beneath(&in, "root")
	defer r.Close()
	var got []string
	for out := tar.NewReader(r); ; {
		h, err := out.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimSpace(h.Name+" "+h.Linkname))
		if h.Name == "bin/ping" && (h.PAXRecords["SCHILY.xattr.security.capability"] != "\x01\x00\x00\x02" || h.Mode != 0o4755 || h.Uid != 7) {
			t.Errorf("%+v", h)
		}
	}
	if want := "./, bin/ping, bin/hard bin/ping, bin/soft root/x"; strings.Join(got, ", ") != want {
		t.Errorf("%q, want %q", got, want)
	}
}
