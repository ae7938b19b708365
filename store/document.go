// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

const (
	maxManifest = 4 << 20
	maxConfig   = 4 << 20
	// maxLayers is more than Docker's 127 and what overlayfs stacks (500).
	maxLayers = 500

	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// descriptor is an ocispec.Descriptor whose digest was parsed and whose size is possible.
type descriptor struct {
	ocispec.Descriptor
	digest reference.Digest
}

// manifest is what the store needs of an image manifest.
type manifest struct {
	config descriptor
	layers []descriptor
}

func isManifestType(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// parseManifest reads an image manifest that was announced as mediaType ("" if it was
// not). Every digest in it is parsed, every size checked. A document that could be read
// as something else as well is refused (CVE-2021-41190).
func parseManifest(data []byte, mediaType string) (manifest, error) {
	if len(data) > maxManifest {
		return manifest{}, errTooLarge
	}
	if err := checkManifestKind(data, mediaType); err != nil {
		return manifest{}, err
	}
	var doc struct {
		Config  ocispec.Descriptor   `json:"config"`
		Layers  []ocispec.Descriptor `json:"layers"`
		Subject *ocispec.Descriptor  `json:"subject"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return manifest{}, err
	}
	var m manifest
	var err error
	if m.config, err = parseDescriptor(doc.Config); err != nil {
		return manifest{}, fmt.Errorf("config: %w", err)
	}
	switch m.config.MediaType {
	case ocispec.MediaTypeImageConfig, dockerConfig, "", "application/octet-stream":
	default:
		return manifest{}, fmt.Errorf("not an image that can be run: its config is of type %.100q", m.config.MediaType)
	}
	if m.config.Size > maxConfig {
		return manifest{}, fmt.Errorf("config: %w", errTooLarge)
	}
	if doc.Subject != nil {
		if _, err := parseDescriptor(*doc.Subject); err != nil {
			return manifest{}, fmt.Errorf("subject: %w", err)
		}
	}
	if len(doc.Layers) > maxLayers {
		return manifest{}, fmt.Errorf("%d layers are too many", len(doc.Layers))
	}
	for i, l := range doc.Layers {
		d, err := parseDescriptor(l)
		if err == nil {
			err = checkLayerType(d.MediaType)
		}
		if err != nil {
			return manifest{}, fmt.Errorf("layer %d: %w", i, err)
		}
		m.layers = append(m.layers, d)
	}
	return m, nil
}

// checkManifestKind makes sure that the document is an image manifest, and nothing but.
func checkManifestKind(data []byte, mediaType string) error {
	fields, err := topLevel(data)
	if err != nil {
		return err
	}
	var doc struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	switch {
	case doc.SchemaVersion == 1 || fields["fslayers"] != nil:
		return errors.New("schema 1 manifests are not supported: the image has to be pushed again with a current tool")
	case fields["manifests"] != nil && fields["layers"] != nil:
		return errors.New("it is an index and a manifest at the same time")
	case fields["manifests"] != nil:
		return errors.New("it is an index, not a manifest")
	case doc.SchemaVersion != 2:
		return fmt.Errorf("unknown schema version %d", doc.SchemaVersion)
	case fields["config"] == nil || fields["layers"] == nil:
		return errors.New("not an image manifest")
	case doc.MediaType != "" && !isManifestType(doc.MediaType):
		return fmt.Errorf("unknown manifest type %.100q", doc.MediaType)
	case mediaType != "" && !isManifestType(mediaType):
		return fmt.Errorf("unknown manifest type %.100q", mediaType)
	case mediaType != "" && doc.MediaType != "" && mediaType != doc.MediaType:
		return fmt.Errorf("it was announced as %.100q, but says %.100q", mediaType, doc.MediaType)
	}
	return nil
}

// topLevel returns the members of a JSON object by their names in lower case. Two that
// differ in case only, or not at all, mean different things to different readers.
func topLevel(data []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	} else if t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	fields := make(map[string]json.RawMessage)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		name, _ := t.(string) // an object's keys are strings, or Token has failed
		name = strings.ToLower(name)
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("member %.100q stands there twice", name)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		fields[name] = value
	}
	return fields, nil
}

func parseDescriptor(d ocispec.Descriptor) (descriptor, error) {
	digest, err := reference.ParseDigest(string(d.Digest))
	if err != nil {
		return descriptor{}, err
	}
	if d.Size < 0 {
		return descriptor{}, fmt.Errorf("negative size %d", d.Size)
	}
	return descriptor{d, digest}, nil
}

// checkLayerType lets through what can be a layer tar. How it is compressed is seen in
// its first bytes, whatever the type says.
func checkLayerType(mediaType string) error {
	if strings.HasSuffix(mediaType, "+encrypted") {
		return errors.New("encrypted layers are not supported")
	}
	for _, prefix := range []string{"application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."} {
		if strings.HasPrefix(mediaType, prefix) {
			return nil
		}
	}
	return fmt.Errorf("unknown layer type %.100q", mediaType)
}

// parseConfig reads an image's configuration and the diff IDs in it.
func parseConfig(data []byte) (dockerspec.DockerOCIImage, []reference.Digest, error) {
	var c dockerspec.DockerOCIImage
	if len(data) > maxConfig {
		return c, nil, errTooLarge
	}
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte{'{'}) {
		return c, nil, errors.New("not a JSON object")
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return dockerspec.DockerOCIImage{}, nil, err
	}
	if c.RootFS.Type != "" && c.RootFS.Type != "layers" {
		return dockerspec.DockerOCIImage{}, nil, fmt.Errorf("unknown root filesystem type %.100q", c.RootFS.Type)
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return dockerspec.DockerOCIImage{}, nil, fmt.Errorf("%d layers are too many", len(c.RootFS.DiffIDs))
	}
	layers := make([]reference.Digest, 0, len(c.RootFS.DiffIDs))
	for i, id := range c.RootFS.DiffIDs {
		d, err := reference.ParseDigest(string(id))
		if err != nil {
			return dockerspec.DockerOCIImage{}, nil, fmt.Errorf("diff ID %d: %w", i, err)
		}
		layers = append(layers, d)
	}
	return c, layers, nil
}
