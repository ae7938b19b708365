// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

const (
	// maxDepth is how deep indexes may nest: an index, and indexes in it.
	maxDepth = 2
	// maxNested bounds the requests that one index can cause.
	maxNested = 16
)

// chooser finds the manifest of one platform beneath a document.
type chooser struct {
	want ocispec.Platform // normalized
	// load returns the document of a descriptor and its bytes, digest and size verified.
	load func(ctx context.Context, d ocispec.Descriptor) (document, []byte, error)

	seen    map[reference.Digest]bool
	entries int
	nested  int
	have    []string // the platforms met, for the message
}

// choose returns the descriptor and the bytes of the image in doc for the platform. root
// describes doc. An image that stands alone is taken whatever its platform: only its
// config tells, and the caller reads that.
func (c *chooser) choose(ctx context.Context, root ocispec.Descriptor, doc document, body []byte) (ocispec.Descriptor, []byte, error) {
	if doc.manifest != nil {
		return root, body, nil
	}
	c.seen = map[reference.Digest]bool{}
	best, err := c.walk(ctx, doc.index, 1)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	if best == nil {
		return ocispec.Descriptor{}, nil, c.nothing()
	}
	found, body, err := c.load(ctx, *best)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	if found.manifest == nil {
		return ocispec.Descriptor{}, nil, fmt.Errorf("%s is an index, its descriptor says an image", best.Digest)
	}
	d := ocispec.Descriptor{MediaType: found.mediaType, Digest: best.Digest, Size: int64(len(body)), Platform: best.Platform, Annotations: best.Annotations}
	return d, body, nil
}

// walk returns the best descriptor of an image beneath index, nil if there is none.
func (c *chooser) walk(ctx context.Context, index *ocispec.Index, depth int) (*ocispec.Descriptor, error) {
	if c.entries += len(index.Manifests); c.entries > maxDescriptors {
		return nil, fmt.Errorf("the image index has more than %d entries", maxDescriptors)
	}
	var best *ocispec.Descriptor
	var unnamed, nested []ocispec.Descriptor
	bestRank := 0
	for _, d := range index.Manifests {
		switch {
		case isIndexType(d.MediaType):
			if d.Platform == nil || rank(c.want, normalize(*d.Platform)) > 0 {
				nested = append(nested, d)
			} else {
				c.note(d)
			}
		case !isImageType(d.MediaType):
			// Something else that travels with images.
		case d.Platform == nil || d.Platform.OS == "":
			unnamed = append(unnamed, d)
		default:
			c.note(d)
			if r := rank(c.want, normalize(*d.Platform)); r > bestRank {
				best, bestRank = &d, r
			}
		}
	}
	if best != nil {
		return best, nil
	}
	for _, d := range nested {
		if found, err := c.descend(ctx, d, depth); found != nil || err != nil {
			return found, err
		}
	}
	if len(unnamed) == 1 {
		return &unnamed[0], nil
	}
	return nil, nil
}

// descend walks the index that d describes, once.
func (c *chooser) descend(ctx context.Context, d ocispec.Descriptor, depth int) (*ocispec.Descriptor, error) {
	digest, err := reference.ParseDigest(string(d.Digest))
	if err != nil {
		return nil, err
	}
	if c.seen[digest] {
		return nil, nil
	}
	c.seen[digest] = true
	if depth >= maxDepth {
		return nil, fmt.Errorf("the image index nests deeper than %d levels", maxDepth)
	}
	if c.nested++; c.nested > maxNested {
		return nil, fmt.Errorf("the image index holds more than %d others", maxNested)
	}
	doc, _, err := c.load(ctx, d)
	if err != nil {
		return nil, err
	}
	if doc.index == nil {
		return nil, fmt.Errorf("%s is an image, its descriptor says an index", digest)
	}
	return c.walk(ctx, doc.index, depth+1)
}

// note remembers a platform for the message that none fits. Attestations stand in
// indexes as platform unknown/unknown.
func (c *chooser) note(d ocispec.Descriptor) {
	s := platformString(normalize(*d.Platform))
	if !slices.Contains(c.have, s) && s != "unknown/unknown" {
		c.have = append(c.have, s)
	}
}

func (c *chooser) nothing() error {
	text := "no image for " + platformString(c.want)
	if len(c.have) == 0 {
		return &hinted{text: text + ": the index names no platform that could run"}
	}
	const most = 20
	list := c.have
	if len(list) > most {
		list = append(slices.Clone(list[:most]), "...")
	}
	return &hinted{
		text: text + ": there is only " + strings.Join(list, ", "),
		hint: "another platform is asked for as --platform " + c.have[0] + "; its programs run only where the machine can execute them",
	}
}
