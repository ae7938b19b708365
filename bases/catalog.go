// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CatalogDomain begins the names of images that the catalog brought. No registry
// has that name.
const CatalogDomain = "base.sbx"

// Distribution is one of the catalog: whose root filesystem can be had by name,
// without a registry.
type Distribution struct {
	Name    string   // what users type
	Aliases []string // and what else
	Title   string
	URL     string // of its own server, below which everything is
	Proof   string // what is checked, in words
	Tags    string // which there are, in words

	find   finder
	config ocispec.ImageConfig // the official image's
	// ofRelease is what of the environment tells the release's number, which %s stands for.
	ofRelease []string
	latest    string // what the tag latest stands for; "": the newest
	stream    string // its name in an index of many
	inside    string // the directory of the tarball that is the root; "": the tarball
	vendor    string // of a Debian archive, which is bootstrapped
	// keyring is where a machine of the distribution's keeps the keys that sign, and
	// keys are those that are linked in. Without either nothing is signed.
	keyring string
	keys    []byte
}

// finder finds what a site publishes as a tag.
type finder func(ctx context.Context, s *site, tag string) (*published, error)

// Where distributions publish.
const (
	alpineURL  = "https://dl-cdn.alpinelinux.org/alpine"
	ubuntuURL  = "https://cdimage.ubuntu.com/ubuntu-base"
	archURL    = "https://geo.mirror.pkgbuild.com/iso"
	streamsURL = "https://images.linuxcontainers.org"
)

// Catalog lists what there is, by name.
func Catalog() []Distribution {
	sh, bash := ocispec.ImageConfig{Cmd: []string{"/bin/sh"}}, ocispec.ImageConfig{Cmd: []string{"/bin/bash"}}
	list := []Distribution{
		{
			Name: "alpine", Title: "Alpine Linux, its mini root filesystem", URL: alpineURL, find: findAlpine, config: ocispec.ImageConfig{Cmd: sh.Cmd, WorkingDir: "/"},
			Proof: "SHA-256 sum over https; the signature where bases.keys has a key", Tags: "latest, edge, 3.X, 3.X.Y",
		},
		{
			Name: "archlinux", Aliases: []string{"arch"}, Title: "Arch Linux, its bootstrap tarball", URL: archURL, find: findArch,
			config: ocispec.ImageConfig{Cmd: []string{"/usr/bin/bash"}, Env: []string{"LANG=C.UTF-8"}}, inside: "root.x86_64", keys: archKeys,
			Proof: "SHA-256 sum and OpenPGP signature", Tags: "latest, YYYY.MM.DD",
		},
		{
			Name: "debian", Title: "Debian, bootstrapped from its archive", URL: vendors()[0].mirror, vendor: "debian",
			Proof: "OpenPGP signature of the suite, SHA-256 sum of each package", Tags: "latest, stable, bookworm, 12, ..",
		},
		{
			Name: "ubuntu", Title: "Ubuntu Base", URL: ubuntuURL, find: findUbuntu, config: bash,
			keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
			Proof:   "SHA-256 sum over https; its signature where this machine or bases.keys has Ubuntu's keys", Tags: "latest, noble, 24.04, ..",
		},
	}
	for _, d := range []Distribution{
		{Name: "almalinux", Title: "AlmaLinux"},
		{Name: "alt", Title: "ALT Linux"},
		{Name: "amazonlinux", Title: "Amazon Linux"},
		{Name: "centos", Title: "CentOS Stream"},
		{Name: "devuan", Title: "Devuan"},
		{Name: "fedora", Title: "Fedora", ofRelease: []string{"DISTTAG=f%scontainer", "FGC=f%s", "FBR=f%s"}},
		{Name: "gentoo", Title: "Gentoo", latest: "current"},
		{Name: "kali", Title: "Kali Linux", latest: "current"},
		{Name: "nixos", Title: "NixOS", config: sh},
		{Name: "openeuler", Title: "openEuler", config: ocispec.ImageConfig{Cmd: []string{"bash"}}},
		{Name: "opensuse", Title: "openSUSE"},
		{Name: "openwrt", Title: "OpenWrt", config: sh},
		{Name: "oraclelinux", Title: "Oracle Linux", stream: "oracle"},
		{Name: "rockylinux", Aliases: []string{"rocky"}, Title: "Rocky Linux"},
		{Name: "slackware", Title: "Slackware"},
		{Name: "voidlinux", Aliases: []string{"void"}, Title: "Void Linux", latest: "current", config: ocispec.ImageConfig{Cmd: sh.Cmd, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/bin"}}},
	} {
		d.Title += ", as Linux Containers builds it"
		d.URL, d.find, d.stream = streamsURL, findStream, or(d.stream, d.Name)
		d.Proof, d.Tags = "SHA-256 sum over https", "latest, and the index's releases"
		if len(d.config.Cmd) == 0 {
			d.config = bash
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Distribution) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// StreamMirrors is what the mirrors are called of all that Linux Containers builds.
const StreamMirrors = "linuxcontainers"

// configOf is the configuration of the image of a release.
func (d Distribution) configOf(release string) ocispec.ImageConfig {
	config := d.config
	config.Env = slices.Clone(config.Env)
	if strings.Trim(release, "0123456789") != "" {
		return config
	}
	for _, e := range d.ofRelease {
		config.Env = append(config.Env, strings.ReplaceAll(e, "%s", release))
	}
	return config
}

// IsStream reports whether a distribution comes from the index of many.
func (d Distribution) IsStream() bool { return d.stream != "" }

// Find finds a distribution by a name or an alias.
func Find(name string) (Distribution, bool) {
	for _, d := range Catalog() {
		if d.Name == name || slices.Contains(d.Aliases, name) {
			return d, true
		}
	}
	return Distribution{}, false
}

// ElsewhereError says that the catalog cannot give what was asked for and a
// registry may: no server of the distribution's is reached, or none has that tag.
type ElsewhereError struct{ err error }

func (e *ElsewhereError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *ElsewhereError) Unwrap() error { return e.err }

// missingError says that a site has no such tag, or not for such a machine.
type missingError struct {
	what string
	have []string
}

func (e *missingError) Error() string { return e.what }

// Hint lists what there is.
func (e *missingError) Hint() string {
	if len(e.have) == 0 {
		return ""
	}
	const most = 20
	list := e.have[:min(len(e.have), most)]
	text := "there is " + strings.Join(list, ", ")
	if len(e.have) > most {
		text += fmt.Sprintf(" and %d more", len(e.have)-most)
	}
	return text
}
