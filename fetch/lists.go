// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// ListEntry is an image of a manifest list.
type ListEntry struct {
	Ref        reference.Ref      // where it was found
	Descriptor ocispec.Descriptor // with its platform
	Body       []byte             // its manifest
}

// Entry looks up the image that ref, a reference of this repository, names, to put it into
// a manifest list. Its platform is what its config says.
func (r *Repository) Entry(ctx context.Context, ref reference.Ref) (ListEntry, error) {
	e := ListEntry{Ref: ref}
	_, err := r.ask(ctx, "inspect "+ref.String(), ref, func(at *registry) error {
		d, doc, body, err := at.root(ctx, which(ref))
		if err != nil {
			return err
		}
		if doc.manifest == nil {
			return errors.New("it is a manifest list itself")
		}
		e.Descriptor, e.Body = d, body
		e.Descriptor.Platform, err = at.platform(ctx, doc.manifest.Config)
		return err
	})
	return e, err
}

// platform reads an image's platform from its config.
func (r *registry) platform(ctx context.Context, config ocispec.Descriptor) (*ocispec.Platform, error) {
	digest, err := reference.ParseDigest(string(config.Digest))
	if err != nil {
		return nil, err
	}
	body, err := r.blob(ctx, config, digest, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if digestOf(data, digest) != digest {
		return nil, fmt.Errorf("the config %s has the wrong content", digest)
	}
	var image ocispec.Image
	if err := json.Unmarshal(data, &image); err != nil {
		return nil, fmt.Errorf("read config %s: %w", digest, err)
	}
	return &image.Platform, nil
}

// Images are the manifests that the index or image of ref consists of, in its order.
func (r *Repository) Images(ctx context.Context, ref reference.Ref) ([]ListEntry, error) {
	var entries []ListEntry
	_, err := r.ask(ctx, "inspect "+ref.String(), ref, func(at *registry) error {
		d, doc, body, err := at.root(ctx, which(ref))
		if err != nil {
			return err
		}
		if doc.manifest != nil {
			d.Platform, err = at.platform(ctx, doc.manifest.Config)
			entries = []ListEntry{{ref, d, body}}
			return err
		}
		for _, child := range doc.index.Manifests {
			_, body, err := at.load(ctx, child)
			if err != nil {
				return err
			}
			one := ref
			one.Tag = ""
			if one.Digest, err = reference.ParseDigest(string(child.Digest)); err != nil {
				return err
			}
			entries = append(entries, ListEntry{one, child, body})
		}
		return nil
	})
	return entries, err
}

// FormatList writes the manifest list of entries: Docker's if all are Docker's, else an OCI
// index.
func FormatList(entries []ListEntry) ([]byte, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: dockerList, Manifests: []ocispec.Descriptor{}}
	for _, e := range entries {
		if e.Descriptor.MediaType != dockerManifest {
			index.MediaType = ocispec.MediaTypeImageIndex
		}
		index.Manifests = append(index.Manifests, e.Descriptor)
	}
	return json.MarshalIndent(index, "", "   ")
}

// PushList names a manifest list of entries as ref says. Images of other repositories of
// the same registry are made part of this one: their blobs are mounted, not sent.
func (r *Repository) PushList(ctx context.Context, ref reference.Ref, entries []ListEntry, pushed func(ref, digest string)) (ocispec.Descriptor, error) {
	op := "push " + ref.String()
	w := r.home()
	body, err := FormatList(entries)
	if err != nil {
		return ocispec.Descriptor{}, &Error{Op: op, Cause: err}
	}
	p := &delivery{registry: w.registry, src: nothing{}, o: PushOptions{Holders: map[reference.Digest][]string{}}}
	for _, e := range entries {
		if e.Ref.Domain != ref.Domain {
			return ocispec.Descriptor{}, &Error{Op: op, Cause: fmt.Errorf("%s is of another registry", e.Ref)}
		}
		if err := p.borrow(e); err != nil {
			return ocispec.Descriptor{}, &Error{Op: op, Cause: err}
		}
	}
	root := digestOf(body, reference.Digest{})
	doc, err := parseDocument(body, "")
	if err == nil {
		p.documents = append(p.documents, outgoing{root, doc.mediaType, body})
		err = w.open(ctx, w.domain, r.o, p.scopes()...)
	}
	if err == nil {
		err = p.pushBlobs(ctx)
	}
	if err == nil {
		err = p.putDocuments(ctx, ref, func(d outgoing) { pushed(ref.Name()+"@"+d.digest.String(), d.digest.String()) })
	}
	if err != nil {
		return ocispec.Descriptor{}, w.explainPush(op, ref, err)
	}
	return ocispec.Descriptor{MediaType: doc.mediaType, Digest: wireDigest(root), Size: int64(len(body))}, nil
}

// borrow adds an image to what is pushed, its blobs to be taken from its own repository.
func (p *delivery) borrow(e ListEntry) error {
	digest, err := reference.ParseDigest(string(e.Descriptor.Digest))
	if err != nil {
		return err
	}
	if err := verify(e.Body, digest); err != nil {
		return err
	}
	doc, err := parseDocument(e.Body, e.Descriptor.MediaType)
	if err != nil {
		return err
	}
	p.documents = append(p.documents, outgoing{digest, doc.mediaType, e.Body})
	if e.Ref.Path == p.path {
		return nil
	}
	for _, b := range append([]ocispec.Descriptor{doc.manifest.Config}, doc.manifest.Layers...) {
		d, err := reference.ParseDigest(string(b.Digest))
		if err != nil {
			return err
		}
		p.blobs = append(p.blobs, b)
		p.o.Holders[d] = append(p.o.Holders[d], e.Ref.Path)
	}
	return nil
}

// nothing is the source of a push that only mounts.
type nothing struct{}

// Blob implements BlobSource.
func (nothing) Blob(reference.Digest) (*os.File, error) {
	return nil, errors.New("the registry does not take it from the repository that it is in; pull the image, and push it to this one")
}
