// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// The hub's registry does not live at the name of the hub.
const (
	hubDomain   = "docker.io"
	hubRegistry = "registry-1.docker.io"
)

// Registry finds the image that ref names for o.Platform: it asks anonymously, resolves
// tag and index once, and everything after goes by digest. Errors are *Error.
func Registry(ctx context.Context, ref reference.Ref, o Options) (*Image, error) {
	o = o.withDefaults()
	host := ref.Domain
	if host == hubDomain {
		host = hubRegistry
	}
	r := &registry{client: newClient(host, false, o), host: host, ref: ref}
	image, err := r.image(ctx, normalize(o.Platform))
	if err != nil {
		r.client.close()
		return nil, r.fail("pull "+ref.String(), err)
	}
	return image, nil
}

// registry is one repository of one registry.
type registry struct {
	client *client
	host   string
	ref    reference.Ref
}

func (r *registry) image(ctx context.Context, want ocispec.Platform) (*Image, error) {
	if err := r.authenticate(ctx); err != nil {
		return nil, err
	}
	root, doc, body, err := r.root(ctx)
	if err != nil {
		return nil, err
	}
	c := chooser{want: want, load: r.load}
	d, body, err := c.choose(ctx, root, doc, body)
	if err != nil {
		return nil, err
	}
	return &Image{manifest: d, body: body, blobs: r}, nil
}

// authenticate asks the registry how it wants to be talked to and gets an anonymous
// token where it wants one.
func (r *registry) authenticate(ctx context.Context) error {
	options := []name.Option{name.StrictValidation}
	if isLoopback(hostOf(r.host)) {
		options = append(options, name.Insecure) // https first, then http
	}
	host, err := name.NewRegistry(r.host, options...)
	if err != nil {
		return err
	}
	scopes := []string{host.Repo(r.ref.Path).Scope(transport.PullScope)}
	through, err := transport.NewWithContext(ctx, host, authn.Anonymous, r.client.guard, scopes)
	if err != nil {
		return err
	}
	r.client.through = through
	return nil
}

// root gets what the reference names.
func (r *registry) root(ctx context.Context) (ocispec.Descriptor, document, []byte, error) {
	which := r.ref.Tag
	if !r.ref.Digest.IsZero() {
		which = r.ref.Digest.String()
	}
	body, header, err := r.manifest(ctx, which)
	if err != nil {
		return ocispec.Descriptor{}, document{}, nil, err
	}
	digest := r.ref.Digest
	if digest.IsZero() {
		if said := header.Get("Docker-Content-Digest"); said != "" {
			if digest, err = reference.ParseDigest(said); err != nil {
				return ocispec.Descriptor{}, document{}, nil, fmt.Errorf("read the manifest's Docker-Content-Digest: %w", err)
			}
		} else {
			digest = digestOf(body, digest)
		}
	}
	if err := verify(body, digest); err != nil {
		return ocispec.Descriptor{}, document{}, nil, err
	}
	doc, err := parseDocument(body, header.Get("Content-Type"))
	d := ocispec.Descriptor{MediaType: doc.mediaType, Digest: wireDigest(digest), Size: int64(len(body))}
	return d, doc, body, err
}

// load gets a manifest by its descriptor.
func (r *registry) load(ctx context.Context, d ocispec.Descriptor) (document, []byte, error) {
	digest, err := reference.ParseDigest(string(d.Digest))
	if err != nil {
		return document{}, nil, err
	}
	body, header, err := r.manifest(ctx, digest.String())
	if err != nil {
		return document{}, nil, err
	}
	if int64(len(body)) != d.Size {
		return document{}, nil, fmt.Errorf("the manifest %s has %d bytes, its descriptor says %d", digest, len(body), d.Size)
	}
	if err := verify(body, digest); err != nil {
		return document{}, nil, err
	}
	doc, err := parseDocument(body, header.Get("Content-Type"))
	return doc, body, err
}

// manifest gets the manifest of a tag or a digest.
func (r *registry) manifest(ctx context.Context, which string) ([]byte, http.Header, error) {
	resp, err := r.client.get(ctx, r.url("manifests", which), http.Header{"Accept": {strings.Join(manifestTypes, ", ")}})
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, r.client.readStatus(resp)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return nil, nil, fmt.Errorf("GET %s: %w", publicURL(resp.Request.URL), err)
	}
	if len(body) > maxManifest {
		return nil, nil, fmt.Errorf("GET %s: the manifest is larger than %d MiB", publicURL(resp.Request.URL), maxManifest>>20)
	}
	return body, resp.Header, nil
}

// url leaves the scheme to the authenticated transport, which knows what the registry
// speaks.
func (r *registry) url(kind, which string) *url.URL {
	return &url.URL{Scheme: "https", Host: r.host, Path: "/v2/" + r.ref.Path + "/" + kind + "/" + which}
}

func (r *registry) open(ctx context.Context, d ocispec.Descriptor, digest reference.Digest, offset int64) (io.ReadCloser, error) {
	if offset == d.Size {
		return http.NoBody, nil
	}
	s := &stream{ctx: ctx, client: r.client, url: r.url("blobs", digest.String()), size: d.Size, strict: true, at: offset}
	err := s.start()
	if status := (*statusError)(nil); errors.As(err, &status) && status.status == http.StatusNotFound && len(d.URLs) > 0 {
		return nil, &hinted{
			text: "the registry does not hold it and names another place for it",
			hint: "layers at foreign addresses are not followed: they are a way to make you send requests for someone else",
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (r *registry) fail(op string, err error) error {
	return explain(op, r.host, r.ref, err)
}

func (r *registry) close() error {
	r.client.close()
	return nil
}
