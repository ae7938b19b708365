// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

const (
	// maxTags bounds a list of tags, maxTagPages the requests for it.
	maxTags     = 100_000
	maxTagPages = 1_000
)

// Repository is a repository of a registry, and the ways to it: the mirrors that are
// configured, then the registry itself. Its methods may be called concurrently. Their
// errors are *Error.
type Repository struct {
	ref  reference.Ref
	o    Options
	ways []way
}

// way is one registry to ask, and what references call it.
type way struct {
	*registry
	domain string
}

// OpenRepository opens the repository that ref names. No request is sent yet.
func OpenRepository(ref reference.Ref, o Options) (*Repository, error) {
	o = o.withDefaults()
	r := &Repository{ref: ref, o: o}
	for _, mirror := range o.Registries[ref.Domain].Mirrors {
		domain, prefix, _ := strings.Cut(mirror, "/")
		path := ref.Path
		if prefix != "" {
			path = prefix + "/" + path
		}
		if err := r.add(domain, path); err != nil {
			return nil, err
		}
	}
	if err := r.add(ref.Domain, ref.Path); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Repository) add(domain, path string) error {
	at, err := reachRegistry(r.ref, domain, path, r.o)
	if err != nil {
		r.Close()
		return &Error{Op: "reach " + domain, Registry: domain, Cause: err}
	}
	r.ways = append(r.ways, way{at, domain})
	return nil
}

// home is the registry itself.
func (r *Repository) home() way { return r.ways[len(r.ways)-1] }

// Close releases connections.
func (r *Repository) Close() error {
	for _, w := range r.ways {
		w.client.close()
	}
	return nil
}

// Registry finds the image that ref names for o.Platform: tag and index are resolved once,
// and everything after goes by digest. Errors are *Error.
func Registry(ctx context.Context, ref reference.Ref, o Options) (*Image, error) {
	r, err := OpenRepository(ref, o)
	if err != nil {
		return nil, err
	}
	image, err := r.Image(ctx, ref)
	if err != nil {
		r.Close()
		return nil, err
	}
	image.owner = r
	return image, nil
}

// Image finds the image that ref, a reference of this repository, names for the platform
// of the options. It lives as long as the repository.
func (r *Repository) Image(ctx context.Context, ref reference.Ref) (*Image, error) {
	var image *Image
	n, err := r.ask(ctx, "pull "+ref.String(), ref, func(at *registry) (err error) {
		image, err = at.image(ctx, which(ref), normalize(r.o.Platform))
		return err
	})
	if err != nil {
		return nil, err
	}
	image.blobs = &pulled{r: r, from: n}
	return image, nil
}

// Resolve asks what a reference of this repository names at the moment, without getting
// it. Only the digest is sure to be set.
func (r *Repository) Resolve(ctx context.Context, ref reference.Ref) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	_, err := r.ask(ctx, "pull "+ref.String(), ref, func(at *registry) (err error) {
		d, err = at.resolve(ctx, which(ref))
		return err
	})
	return d, err
}

// Manifest returns the manifest or index that ref names, as it came, its digest verified.
func (r *Repository) Manifest(ctx context.Context, ref reference.Ref) (ocispec.Descriptor, []byte, error) {
	var d ocispec.Descriptor
	var body []byte
	_, err := r.ask(ctx, "inspect "+ref.String(), ref, func(at *registry) (err error) {
		d, _, body, err = at.root(ctx, which(ref))
		return err
	})
	return d, body, err
}

// Tags lists the tags of the repository, as the registry sorts them.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	var tags []string
	_, err := r.ask(ctx, "list tags of "+r.ref.Name(), r.ref, func(at *registry) (err error) {
		tags, err = at.tags(ctx)
		return err
	})
	return tags, err
}

// ask tries one way after the other, and says at which it got an answer. The error is that
// of the registry itself.
func (r *Repository) ask(ctx context.Context, op string, ref reference.Ref, f func(*registry) error) (int, error) {
	for i := range r.ways {
		err := r.askOne(ctx, i, f)
		if err == nil {
			return i, nil
		}
		w := r.ways[i]
		if i == len(r.ways)-1 || ctx.Err() != nil {
			return 0, w.explain(op, ref, err)
		}
		slog.Debug("mirror does not help", "mirror", w.host, "error", clean(plainCause(err).Error()))
	}
	return 0, nil
}

func (r *Repository) askOne(ctx context.Context, i int, f func(*registry) error) error {
	w := r.ways[i]
	if err := w.open(ctx, w.domain, r.o, w.scope("pull")); err != nil {
		return err
	}
	return f(w.registry)
}

// explain makes the *Error; a refusal may be due to a credential that could not be read.
func (r *registry) explain(op string, ref reference.Ref, err error) error {
	var e *Error
	err = explain(op, r.host, ref, err)
	if r.unread != nil && errors.As(err, &e) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) {
		e.hint = r.unread.Error()
	}
	return err
}

// which is the tag or the digest of a reference, as it stands in a path.
func which(ref reference.Ref) string {
	if !ref.Digest.IsZero() {
		return ref.Digest.String()
	}
	return ref.Tag
}

// resolve asks by HEAD, which costs nothing where pulls are counted, and by GET where the
// answer does not name the digest.
func (r *registry) resolve(ctx context.Context, which string) (ocispec.Descriptor, error) {
	resp, err := r.client.send(ctx, http.MethodHead, r.url("manifests", which), acceptManifests(), nil)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if status := resp.StatusCode; status != http.StatusOK && status != http.StatusMethodNotAllowed {
		return ocispec.Descriptor{}, r.client.readStatus(resp)
	}
	resp.Body.Close()
	digest, err := reference.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	if resp.StatusCode != http.StatusOK || err != nil {
		d, _, _, err := r.root(ctx, which)
		return d, err
	}
	return ocispec.Descriptor{MediaType: bareType(resp.Header.Get("Content-Type")), Digest: wireDigest(digest), Size: resp.ContentLength}, nil
}

// tags lists all tags, page after page.
func (r *registry) tags(ctx context.Context) ([]string, error) {
	var all []string
	for at, pages := r.url("tags", "list"), 0; at != nil; pages++ {
		if pages == maxTagPages || len(all) > maxTags {
			return nil, fmt.Errorf("the list of tags has more than %d pages or %d tags", maxTagPages, maxTags)
		}
		resp, err := r.client.get(ctx, at, http.Header{})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, r.client.readStatus(resp)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		var page struct{ Tags []string }
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, fmt.Errorf("GET %s: the answer is no list of tags: %w", publicURL(at), err)
		}
		all = append(all, page.Tags...)
		at = nextPage(at, resp.Header.Get("Link"))
	}
	return all, nil
}

// nextPage reads a Link header (RFC 8288). Only the same host continues a list.
func nextPage(at *url.URL, link string) *url.URL {
	target, params, ok := strings.Cut(link, ">")
	target, begins := strings.CutPrefix(strings.TrimSpace(target), "<")
	if !ok || !begins || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
		return nil
	}
	next, err := at.Parse(target)
	if err != nil || next.Scheme != at.Scheme || next.Host != at.Host || next.String() == at.String() {
		return nil
	}
	return next
}

func acceptManifests() http.Header {
	return http.Header{"Accept": {strings.Join(manifestTypes, ", ")}}
}

// pulled is where the blobs of an image lie: at the registry that had its manifest, and at
// those behind it.
type pulled struct {
	r    *Repository
	from int
}

func (p *pulled) open(ctx context.Context, d ocispec.Descriptor, digest reference.Digest, offset int64) (io.ReadCloser, error) {
	var body io.ReadCloser
	for i := p.from; i < len(p.r.ways); i++ {
		err := p.r.askOne(ctx, i, func(at *registry) (err error) {
			body, err = at.blob(ctx, d, digest, offset)
			return err
		})
		if err == nil || i == len(p.r.ways)-1 || ctx.Err() != nil {
			return body, err
		}
	}
	return nil, errors.New("nobody to ask")
}

func (p *pulled) fail(op string, err error) error {
	return p.r.home().explain(op, p.r.ref, err)
}

func (p *pulled) close() error { return nil }
