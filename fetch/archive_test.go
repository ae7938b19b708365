// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Names that are none, or that a load must not give, are left out.
func TestCanonicalNames(t *testing.T) {
	got := canonicalNames([]string{"app:1", "docker.io/library/app:1", "../../etc/passwd:x", "localhost/a", "UPPER:1", "", "a@sha256:" + digest.FromString("x").Encoded(), "a\x1b[2J:1"})
	if d := cmp.Diff(got, []string{"docker.io/library/app:1", "localhost/a:latest"}); d != "" {
		t.Error(d)
	}
}

// Entries of one name are one image if they are for different platforms, and two
// images if not.
func TestImagesOfLayout(t *testing.T) {
	entry := func(name, content, arch string) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(content), Size: 1}
		if name != "" {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		}
		if arch != "" {
			d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		}
		return d
	}
	groups := images([]ocispec.Descriptor{entry("a:1", "1", "amd64"), entry("b:1", "2", ""), entry("a:1", "3", "arm64"), entry("a:1", "4", "arm64"), entry("", "5", ""), entry("", "6", "")})
	var sizes []int
	for _, g := range groups {
		sizes = append(sizes, len(g))
	}
	if d := cmp.Diff(sizes, []int{2, 1, 1, 1, 1}); d != "" {
		t.Error(d)
	}
}
