// SPDX-License-Identifier: Apache-2.0

package store

import (
	"strings"

	"sbx/reference"
)

// LayerBlobs returns the digests of an image's layers as they are stored and travel,
// bottom first, as many as img.Layers.
func (s *Store) LayerBlobs(img Image) ([]reference.Digest, error) {
	d, err := reference.ParseDigest(string(img.Manifest.Digest))
	if err != nil {
		return nil, err
	}
	m, err := s.manifest(d, img.Manifest.MediaType)
	if err != nil {
		return nil, err
	}
	var blobs []reference.Digest
	for _, l := range m.layers {
		blobs = append(blobs, l.digest)
	}
	return blobs, nil
}

// IsComplete reports whether all of an image is here: every blob, and its layers unpacked
// for this rung.
func (s *Store) IsComplete(img Image) bool {
	d, err := reference.ParseDigest(string(img.Manifest.Digest))
	if err != nil {
		return false
	}
	m, err := s.manifest(d, img.Manifest.MediaType)
	if err != nil || len(m.layers) != len(img.Layers) || !s.hasBlob(m.config.digest) {
		return false
	}
	for i, l := range m.layers {
		if !s.hasBlob(l.digest) {
			return false
		}
		if _, ok := s.unpackedAs(img.Layers, i); !ok {
			return false
		}
	}
	return true
}

// Holders are the repositories of one registry (docker.io, localhost:5000) by whose names
// images are known here, for each blob of those: where a registry most likely has it.
func (s *Store) Holders(domain string) (map[reference.Digest][]string, error) {
	entries, err := s.entries()
	if err != nil {
		return nil, err
	}
	holders := make(map[reference.Digest][]string)
	for _, e := range entries {
		if !e.isImage() || !strings.HasPrefix(e.Notes.Name, domain+"/") {
			continue
		}
		ref, err := reference.Parse(e.Notes.Name)
		if err != nil || ref.Domain != domain {
			continue
		}
		m, err := s.manifest(e.Digest, e.MediaType)
		if err != nil {
			continue // a damaged image is no help, and no harm
		}
		for _, l := range append([]descriptor{m.config}, m.layers...) {
			if known := holders[l.digest]; len(known) == 0 || known[len(known)-1] != ref.Path {
				holders[l.digest] = append(known, ref.Path)
			}
		}
	}
	return holders, nil
}
