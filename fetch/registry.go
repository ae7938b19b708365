// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// The hub's registry does not live at the name of the hub.
const (
	hubDomain   = "docker.io"
	hubRegistry = "registry-1.docker.io"
)

// registry is one repository of one registry: the one that a reference names, or a
// mirror of it.
type registry struct {
	client  *client
	session *session
	host    string
	path    string // of the repository there
	ref     reference.Ref

	opening sync.Mutex
	opened  bool
	// unread is why the credential could not be had.
	unread error
}

// reachRegistry is the way to ref's repository at host, which references call domain.
func reachRegistry(ref reference.Ref, domain, path string, o Options) (*registry, error) {
	host := registryHost(domain)
	o = o.at(domain)
	c, err := newClient(host, false, o)
	if err != nil {
		return nil, err
	}
	return &registry{client: c, host: host, path: path, ref: ref}, nil
}

// open makes the session, once, with the credential for domain.
func (r *registry) open(ctx context.Context, domain string, o Options, scopes ...string) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.opened {
		return nil
	}
	credential, err := o.credential(ctx, domain, r.path)
	r.unread = err
	r.session = r.client.newSession(r.host, credential, o.at(domain))
	if err := r.session.open(ctx, scopes...); err != nil {
		return err
	}
	r.opened = true
	return nil
}

// scope is what a token for the repository is asked for (distribution's token
// specification); actions is "pull" or "pull,push".
func (r *registry) scope(actions string) string { return "repository:" + r.path + ":" + actions }

func (r *registry) image(ctx context.Context, which string, want ocispec.Platform) (*Image, error) {
	root, doc, body, err := r.root(ctx, which)
	if err != nil {
		return nil, err
	}
	c := chooser{want: want, load: r.load}
	d, body, err := c.choose(ctx, root, doc, body)
	if err != nil {
		return nil, err
	}
	return &Image{root: root, manifest: d, body: body}, nil
}

// root gets what a tag or a digest names.
func (r *registry) root(ctx context.Context, which string) (ocispec.Descriptor, document, []byte, error) {
	body, header, err := r.manifest(ctx, which)
	if err != nil {
		return ocispec.Descriptor{}, document{}, nil, err
	}
	digest, err := reference.ParseDigest(which)
	if err != nil {
		digest = reference.Digest{}
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
	resp, err := r.client.get(ctx, r.url("manifests", which), acceptManifests())
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

func (r *registry) url(kind, which string) *url.URL {
	return &url.URL{Scheme: r.session.scheme, Host: r.host, Path: "/v2/" + r.path + "/" + kind + "/" + which}
}

// blob reads a blob from offset on.
func (r *registry) blob(ctx context.Context, d ocispec.Descriptor, digest reference.Digest, offset int64) (io.ReadCloser, error) {
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
