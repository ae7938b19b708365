// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sbx/tests/upstream"
)

// A base's command and environment are those of the distribution's official image: of
// Docker's official ones as docker-library/repo-info recorded them in September 2026 (of
// rockylinux and alt in 2022, the last), of void, gentoo and openeuler as the Dockerfiles
// of void-linux/void-containers, gentoo/gentoo-docker-images and
// openeuler-mirror/openeuler-docker-images say. Of those in noRecord none was at hand.
func TestCatalogConfig(t *testing.T) {
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	noRecord := []string{"centos", "devuan", "kali", "nixos", "opensuse", "openwrt", "slackware"}
	official := map[string]struct{ cmd, env string }{
		"almalinux":   {"/bin/bash", path},
		"alpine":      {"/bin/sh", path},
		"alt":         {"/bin/bash", path},
		"amazonlinux": {"/bin/bash", path},
		"archlinux":   {"/usr/bin/bash", path + " LANG=C.UTF-8"},
		"fedora":      {"/bin/bash", path + " DISTTAG=f44container FGC=f44 FBR=f44"},
		"gentoo":      {"/bin/bash", path},
		"openeuler":   {"bash", path},
		"oraclelinux": {"/bin/bash", path},
		"rockylinux":  {"/bin/bash", path},
		"ubuntu":      {"/bin/bash", path},
		"voidlinux":   {"/bin/sh", "PATH=/usr/local/sbin:/usr/local/bin:/usr/bin"},
	}
	s := newSite(t)
	tarball := rootfs(t, "./", "x")
	s.Alpine("latest-stable", "3.20.3", tarball)
	s.Ubuntu("24.04", "24.04.3", tarball)
	s.Arch("2024.12.01", rootfs(t, "root.x86_64/", "x"))
	var builds []upstream.Build
	for _, d := range Catalog() {
		if d.IsStream() {
			builds = append(builds, upstream.Build{OS: d.stream, Release: or(d.latest, "44"), Variant: "default", Date: "20241201_20:33", Tarball: tarball})
		}
	}
	s.Streams(builds...)
	below := map[string]string{"alpine": "/alpine", "ubuntu": "/ubuntu-base", "archlinux": "/iso"}
	for _, d := range Catalog() {
		want, ok := official[d.Name]
		if d.vendor != "" || slices.Contains(noRecord, d.Name) {
			continue // a suite is configured in Bootstrap.Make
		}
		if !ok {
			t.Errorf("%s is held against no official image", d.Name)
			continue
		}
		p := newPulling(t, s, below[d.Name], d.Name)
		if d.Name == "archlinux" {
			p.Platform.Architecture = "amd64"
		}
		img, _ := p.must()
		got := img.Config.Config
		if strings.Join(got.Cmd, " ") != want.cmd || strings.Join(got.Env, " ") != want.env || len(got.Entrypoint) > 0 {
			t.Errorf("%s: %q %q %q, want %q %q", d.Name, got.Entrypoint, got.Cmd, got.Env, want.cmd, want.env)
		}
	}
}

// A release that has no number, as rawhide, is not told by one.
func TestConfigOfRelease(t *testing.T) {
	fedora, _ := Find("fedora")
	if env := fedora.configOf("rawhide").Env; len(env) > 0 {
		t.Errorf("environment of rawhide: %q", env)
	}
	if env := fedora.configOf("44").Env; !slices.Equal(env, []string{"DISTTAG=f44container", "FGC=f44", "FBR=f44"}) {
		t.Errorf("environment of 44: %q", env)
	}
}

// What Debian has signed is read and proved by the keys that are linked in, and by no
// others: the index of bookworm-security of 29 November 2026, as its mirrors have it.
func TestDebianSample(t *testing.T) {
	data, err := os.ReadFile("testdata/debian-security.InRelease")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := parseKeyring(debianKeys)
	if err != nil {
		t.Fatal(err)
	}
	const suite = "bookworm-security"
	at := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	a := &archive{url: "http://security.debian.org/debian-security", keys: keys, now: at}
	rel, err := a.openRelease(data, suite)
	if err != nil {
		t.Fatal(err)
	}
	if index := rel.files["main/binary-amd64/Packages.xz"]; rel.codename != suite || !rel.byHash || index.digest.IsZero() || index.size == 0 || !slices.Contains(rel.architectures, "arm64") {
		t.Errorf("%+v", rel)
	}
	var signed *signatureError
	var dated *dateError
	if _, err := a.openRelease(bytes.Replace(data, []byte("amd64"), []byte("amd46"), 1), suite); !errors.As(err, &signed) {
		t.Errorf("changed: %v", err)
	}
	if _, err := a.openRelease(data, "bookworm"); err == nil || !strings.Contains(err.Error(), "in place of bookworm") {
		t.Errorf("in place of another: %v", err)
	}
	for _, now := range []time.Time{at.AddDate(0, 0, 8), at.AddDate(0, 0, -8)} {
		a.now = now
		if _, err := a.openRelease(data, suite); !errors.As(err, &dated) {
			t.Errorf("on %v: %v", now, err)
		}
	}
	a.now, a.keys = at, keyring{}
	if _, err := a.openRelease(data, suite); !errors.As(err, &signed) {
		t.Errorf("without keys: %v", err)
	}
}

// Indexes in the words of the distributions' own: Arch Linux's whole sha256sums.txt of
// April 2026, lines of Ubuntu's SHA256SUMS of 24.04 and entries of Alpine's
// latest-releases.yaml of v3.24, as public repositories quote them.
func TestCatalogSamples(t *testing.T) {
	const archSums = `f14bf46afbe782d28835aed99bfa2fe447903872cb9f4b21153196d6ed1d48ae  archlinux-2026.04.01-x86_64.iso
f14bf46afbe782d28835aed99bfa2fe447903872cb9f4b21153196d6ed1d48ae  archlinux-x86_64.iso
128ea3cf9fe0f6a76b006623c48a38147c31fcb973999a621f79c66624394866  archlinux-bootstrap-2026.04.01-x86_64.tar.zst
128ea3cf9fe0f6a76b006623c48a38147c31fcb973999a621f79c66624394866  archlinux-bootstrap-x86_64.tar.zst
`
	const ubuntuSums = `6bc2cde3930ad088b3bb46fa45279e96d25bc3810f209850ecbe4722711874f9 *ubuntu-base-24.04.3-base-amd64.tar.gz
7b2dced6dd56ad5e4a813fa25c8de307b655fdabc6ea9213175a92c48dabb048 *ubuntu-base-24.04.3-base-arm64.tar.gz
04207713ece899c3740823d33690441ad3a7f0ded1101aca744e2b0f37ac7ff2 *ubuntu-base-24.04.4-base-arm64.tar.gz
991520b47f6586f38a78505cf016e300b6191bb8ff86a0723481ec23a37ab7f4 *ubuntu-base-24.04.4-base-armhf.tar.gz
`
	const alpineIndex = `---
-
  title: "Netboot"
  branch: v3.24
  arch: x86_64
  version: 3.24.1
  flavor: alpine-netboot
  file: alpine-netboot-3.24.1-x86_64.tar.gz
  sha256: 9a7769ea8fa1737b1b49d82f1bdd53d0a17338d6d3b7cfc6f2c3ec5158596d8b
-
  title: "Mini root filesystem"
  desc: |
    Minimal root filesystem.
  branch: v3.24
  arch: x86_64
  version: 3.24.1
  flavor: alpine-minirootfs
  file: alpine-minirootfs-3.24.1-x86_64.tar.gz
  sha256: 41f73e3cf5fa919b8aa5ca6b30dc48f0da2720776d7423e2a7748211456fe081
`
	s := newSite(t)
	s.Put("latest/sha256sums.txt", []byte(archSums))
	s.Put("releases/24.04/release/SHA256SUMS", []byte(ubuntuSums))
	s.Put("v3.24/releases/x86_64/latest-releases.yaml", []byte(alpineIndex))
	for _, test := range []struct {
		find            finder
		arch, tag, want string
	}{
		{findArch, "amd64", "latest", "2026.04.01 128ea3cf9fe0 /latest/archlinux-bootstrap-2026.04.01-x86_64.tar.zst"},
		{findUbuntu, "arm64", "24.04", "24.04.4 04207713ece8 /releases/24.04/release/ubuntu-base-24.04.4-base-arm64.tar.gz"},
		{findUbuntu, "amd64", "24.04", "24.04.3 6bc2cde3930a /releases/24.04/release/ubuntu-base-24.04.3-base-amd64.tar.gz"},
		{findAlpine, "amd64", "3.24", "3.24.1 41f73e3cf5fa /v3.24/releases/x86_64/alpine-minirootfs-3.24.1-x86_64.tar.gz"},
	} {
		p, err := test.find(t.Context(), &site{url: s.URL, arch: test.arch}, test.tag)
		if err != nil {
			t.Errorf("%s: %v", test.want, err)
			continue
		}
		if got := p.version + " " + p.digest.Hex()[:12] + " " + strings.TrimPrefix(p.url, s.URL); got != test.want {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}
