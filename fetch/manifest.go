// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

const (
	maxManifest = 4 << 20
	maxConfig   = 4 << 20
	// maxDescriptors bounds the entries of one document and of all that one pull looks at.
	maxDescriptors = 512

	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
	dockerForeign  = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociForeign     = "application/vnd.oci.image.layer.nondistributable.v1.tar"
)

// manifestTypes is what this package asks registries for.
var manifestTypes = []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, dockerList, dockerManifest}

// document is a manifest or an index, read and found sound.
type document struct {
	mediaType string
	index     *ocispec.Index    // one of the two
	manifest  *ocispec.Manifest // is set
}

// parseDocument reads a manifest or an index of at most maxManifest bytes. What it is
// follows from the body; declared, a Content-Type or a descriptor's media type, may only
// agree. A document that could be read as either is refused, so that nobody else can
// have checked one half of it while we run the other.
func parseDocument(body []byte, declared string) (document, error) {
	if len(body) > maxManifest {
		return document{}, fmt.Errorf("the manifest is larger than %d MiB", maxManifest>>20)
	}
	top, err := members(body)
	if err != nil {
		if looksLikeHTML(body) {
			return document{}, &hinted{text: "the answer is a web page, not a manifest", hint: "a proxy or a login page of this network may be in the way"}
		}
		return document{}, fmt.Errorf("parse manifest: %w", err)
	}
	var head struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return document{}, fmt.Errorf("parse manifest: %w", err)
	}
	hasLayers, hasConfig, hasManifests := top["layers"], top["config"], top["manifests"]
	switch {
	case head.SchemaVersion == 1 || top["fsLayers"]:
		return document{}, &hinted{text: "the manifest has the old schema 1", hint: "push the image again with a current tool; Docker, too, no longer pulls it"}
	case head.SchemaVersion != 2:
		return document{}, fmt.Errorf("parse manifest: schemaVersion is %d, want 2", head.SchemaVersion)
	case (hasLayers || hasConfig) && hasManifests:
		return document{}, errors.New("parse manifest: it is an image and an index at once")
	case !hasManifests && !hasConfig:
		return document{}, errors.New("parse manifest: it is neither an image nor an index")
	}
	d := document{mediaType: head.MediaType}
	declared = bareType(declared)
	for _, said := range []string{head.MediaType, declared} {
		if isImage, isIndex := isImageType(said), isIndexType(said); isImage && hasManifests || isIndex && !hasManifests {
			return document{}, fmt.Errorf("parse manifest: it is called %s, which it is not", said)
		}
	}
	if head.MediaType != "" && !isImageType(head.MediaType) && !isIndexType(head.MediaType) {
		return document{}, fmt.Errorf("parse manifest: unknown media type %q", head.MediaType)
	}
	if hasManifests {
		d.index = new(ocispec.Index)
		err = json.Unmarshal(body, d.index)
	} else {
		d.manifest = new(ocispec.Manifest)
		err = json.Unmarshal(body, d.manifest)
	}
	if err != nil {
		return document{}, fmt.Errorf("parse manifest: %w", err)
	}
	d.mediaType = documentType(head.MediaType, declared, hasManifests)
	if hasManifests {
		return d, checkIndex(d.index)
	}
	return d, checkManifest(d.manifest)
}

// documentType is the body's word, else the registry's, else OCI's for what it is.
func documentType(own, declared string, index bool) string {
	for _, said := range []string{own, declared} {
		if isImageType(said) || isIndexType(said) {
			return said
		}
	}
	if index {
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}

// members returns the names in the JSON object body. Two names that differ in case
// alone, or not at all, are an error: encoding/json would take either.
func members(body []byte) (map[string]bool, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil {
		return nil, err
	} else if t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	names, folded := map[string]bool{}, map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := t.(string)
		if fold := strings.ToLower(name); folded[fold] {
			return nil, fmt.Errorf("%q stands in it twice", name)
		} else {
			folded[fold] = true
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		if known := canonicalMember(name); known != name {
			return nil, fmt.Errorf("%q is not how %s is spelled", name, known)
		}
		names[name] = string(value) != "null"
	}
	_, err := dec.Token()
	return names, err
}

// canonicalMember returns the right spelling of a member that encoding/json would match.
func canonicalMember(name string) string {
	for _, known := range []string{"schemaVersion", "mediaType", "manifests", "layers", "config", "fsLayers"} {
		if strings.EqualFold(name, known) {
			return known
		}
	}
	return name
}

func checkIndex(index *ocispec.Index) error {
	if n := len(index.Manifests); n > maxDescriptors {
		return fmt.Errorf("parse manifest: an index of %d entries, the limit is %d", n, maxDescriptors)
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor(d, maxManifest); err != nil {
			return fmt.Errorf("parse manifest: %w", err)
		}
	}
	return nil
}

func checkManifest(m *ocispec.Manifest) error {
	if n := len(m.Layers); n > maxDescriptors {
		return fmt.Errorf("parse manifest: an image of %d layers, the limit is %d", n, maxDescriptors)
	}
	if t := m.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerConfig {
		return &hinted{text: fmt.Sprintf("not a container image: its config is %q", t), hint: "registries also hold charts, signatures and other artifacts; those cannot run"}
	}
	if err := checkDescriptor(m.Config, maxConfig); err != nil {
		return fmt.Errorf("parse manifest: config: %w", err)
	}
	for i, d := range m.Layers {
		if err := checkDescriptor(d, -1); err != nil {
			return fmt.Errorf("parse manifest: layer %d: %w", i, err)
		}
		if !isLayerType(d.MediaType) {
			return fmt.Errorf("not a container image: layer %d is %q", i, d.MediaType)
		}
	}
	return nil
}

// checkDescriptor checks digest and size; most < 0 means no limit.
func checkDescriptor(d ocispec.Descriptor, most int64) error {
	digest, err := reference.ParseDigest(string(d.Digest))
	if err != nil {
		return err
	}
	if d.Size < 0 || (most >= 0 && d.Size > most) {
		return fmt.Errorf("%s: size %d is out of range", digest, d.Size)
	}
	return nil
}

func isImageType(t string) bool { return t == ocispec.MediaTypeImageManifest || t == dockerManifest }
func isIndexType(t string) bool { return t == ocispec.MediaTypeImageIndex || t == dockerList }

func isLayerType(t string) bool {
	for _, base := range []string{ocispec.MediaTypeImageLayer, ociForeign} {
		if rest, ok := strings.CutPrefix(t, base); ok {
			return rest == "" || rest == "+gzip" || rest == "+zstd"
		}
	}
	for _, base := range []string{dockerLayer, dockerForeign} {
		if rest, ok := strings.CutPrefix(t, base); ok {
			return rest == "" || rest == ".gzip" || rest == ".zstd"
		}
	}
	return false
}

// isForeignType reports whether a layer lies somewhere else by its nature.
func isForeignType(t string) bool {
	return strings.HasPrefix(t, ociForeign) || strings.HasPrefix(t, dockerForeign)
}

// bareType strips a media type of its parameters.
func bareType(s string) string {
	t, _, err := mime.ParseMediaType(s)
	if err != nil {
		return ""
	}
	return t
}

// digestOf hashes body by the algorithm of like, sha256 if like is zero.
func digestOf(body []byte, like reference.Digest) reference.Digest {
	if like.Algorithm() == "sha512" {
		sum := sha512.Sum512(body)
		d, _ := reference.ParseDigest("sha512:" + hex.EncodeToString(sum[:]))
		return d
	}
	return reference.SHA256(sha256.Sum256(body))
}

// verify compares body with the digest it was asked for.
func verify(body []byte, want reference.Digest) error {
	if got := digestOf(body, want); got != want {
		return fmt.Errorf("the manifest %s has the wrong content: its digest is %s", want, got)
	}
	return nil
}
