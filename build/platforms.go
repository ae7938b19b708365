// SPDX-License-Identifier: Apache-2.0

package build

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Index makes the image index of results for several platforms (OCI image-spec,
// image-index.md), and returns its descriptor and the document.
func Index(results []Result) (ocispec.Descriptor, []byte, error) {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, r := range results {
		d := r.Image.Manifest
		platform := r.Image.Config.Platform
		d.Platform = &platform
		index.Manifests = append(index.Manifests, d)
	}
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return ocispec.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data, nil
}
