// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"sbx/reference"
)

// streamIndex is an index of simplestreams' format products:1.0
// (https://launchpad.net/simplestreams), as far as it is read here.
type streamIndex struct {
	Format   string                   `json:"format"`
	Products map[string]streamProduct `json:"products"`
}

type streamProduct struct {
	Aliases  string                   `json:"aliases"`
	Arch     string                   `json:"arch"`
	OS       string                   `json:"os"`
	Release  string                   `json:"release"`
	Title    string                   `json:"release_title"`
	Variant  string                   `json:"variant"`
	Versions map[string]streamVersion `json:"versions"`
}

type streamVersion struct {
	Items map[string]streamItem `json:"items"`
}

type streamItem struct {
	Type   string `json:"ftype"`
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// streamIndexFile is where an index stands, and streamRootfs what it calls a root
// filesystem.
const (
	streamIndexFile = "streams/v1/images.json"
	streamRootfs    = "root.tar.xz"
)

// findStream finds a distribution in an index of many. A tag is a release, a
// release and a variant (3.22-cloud), or a variant of the newest release.
func findStream(ctx context.Context, s *site, tag string) (*published, error) {
	data, err := s.read(ctx, streamIndexFile)
	if err != nil {
		return nil, err
	}
	p, err := findIn(data, s.name, DebianArch(s.arch), tag, s.last)
	var missing *missingError
	switch {
	case errors.As(err, &missing):
		return nil, s.missing(missing.what, missing.have...)
	case err != nil:
		return nil, s.fail(streamIndexFile, err)
	}
	p.url = s.url + "/" + p.url
	return p, nil
}

// findIn finds a tag of a distribution in an index; its URL is but a path there.
func findIn(data []byte, name, arch, tag, last string) (*published, error) {
	var index streamIndex
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	if index.Format != "products:1.0" {
		return nil, fmt.Errorf("strange format %.40q", index.Format)
	}
	products := index.of(name, arch)
	if len(products) == 0 {
		return nil, &missingError{what: name}
	}
	product, ok := chooseProduct(products, tag, last)
	if !ok {
		return nil, &missingError{tag, releasesOf(products)}
	}
	p, err := product.newest()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", product.OS, product.Release, err)
	}
	return p, nil
}

// of are a distribution's products for an architecture. A product's variant may
// stand in its key alone: OS:RELEASE:ARCH:VARIANT.
func (x streamIndex) of(name, arch string) []streamProduct {
	var list []streamProduct
	for _, key := range slices.Sorted(maps.Keys(x.Products)) {
		p := x.Products[key]
		if f := strings.Split(key, ":"); p.Variant == "" && len(f) == 4 {
			p.Variant = f[3]
		}
		if strings.EqualFold(p.OS, name) && p.Arch == arch {
			list = append(list, p)
		}
	}
	return list
}

func releasesOf(products []streamProduct) []string {
	var names []string
	for _, p := range products {
		if !slices.Contains(names, p.Release) {
			names = append(names, p.Release)
		}
	}
	slices.SortFunc(names, compareVersions)
	return names
}

// chooseProduct finds the product of a tag. last is the release that the tag
// latest stands for, where it is not the highest number.
func chooseProduct(products []streamProduct, tag, last string) (streamProduct, bool) {
	if last == "" {
		for _, r := range releasesOf(products) {
			if r != "" && r[0] >= '0' && r[0] <= '9' {
				last = r
			}
		}
	}
	if tag == "latest" {
		return productOf(products, last, "")
	}
	if p, ok := productOf(products, tag, ""); ok {
		return p, true
	}
	for _, p := range products {
		if strings.EqualFold(p.Release+"-"+p.Variant, tag) {
			return p, true
		}
	}
	return productOf(products, last, tag)
}

// productOf finds a release's variant; "" is the default, or else the first.
func productOf(products []streamProduct, release, variant string) (streamProduct, bool) {
	var of []streamProduct
	for _, p := range products {
		if strings.EqualFold(p.Release, release) || strings.EqualFold(p.Title, release) {
			of = append(of, p)
		}
	}
	i := slices.IndexFunc(of, func(p streamProduct) bool { return strings.EqualFold(p.Variant, or(variant, "default")) })
	if i < 0 && variant == "" && len(of) > 0 {
		i = 0
	}
	if i < 0 {
		return streamProduct{}, false
	}
	return of[i], true
}

// newest is the last build of a product that has a root filesystem. Builds are
// called by their date.
func (p streamProduct) newest() (*published, error) {
	builds := slices.Sorted(maps.Keys(p.Versions))
	slices.Reverse(builds)
	for _, build := range builds {
		for _, item := range p.Versions[build].Items {
			if item.Type != streamRootfs {
				continue
			}
			digest, err := reference.ParseDigest("sha256:" + item.SHA256)
			if err != nil {
				return nil, err
			}
			if item.Size < 0 || path.Clean("/"+item.Path) != "/"+item.Path || strings.ContainsAny(item.Path, "?#%\\") {
				return nil, fmt.Errorf("strange file %.200q of %d bytes", item.Path, item.Size)
			}
			return &published{url: item.Path, version: p.Release + " " + build, digest: digest, size: item.Size}, nil
		}
	}
	return nil, errors.New("no build has a root filesystem")
}
