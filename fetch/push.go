// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"sbx/reference"
)

// maxUploads is how many blobs go out at once.
const maxUploads = 4

// BlobSource holds what is pushed: manifests, configs and layers, by digest. Its files are
// read from several places at once and closed by the caller.
type BlobSource interface {
	Blob(d reference.Digest) (*os.File, error)
}

// What a PushEvent may say, in Docker's words.
const (
	StatusPreparing = "Preparing"
	StatusPushing   = "Pushing"
	StatusPushed    = "Pushed"
	StatusThere     = "Layer already exists"
	StatusForeign   = "Skipped foreign layer"
	statusMounted   = "Mounted from "
)

// PushEvent is a step of one layer.
type PushEvent struct {
	Digest  reference.Digest // of the blob
	Status  string
	Current int64 // while StatusPushing
	Total   int64
}

// PushOptions steer Push.
type PushOptions struct {
	Progress func(PushEvent) // may be nil; is called by several at once
	// Holders are repositories of the same registry that may hold a blob: those are asked
	// before it is uploaded.
	Holders map[reference.Digest][]string
}

// Push uploads the image or index that root describes, with all beneath it, and names it
// as ref says. Children come before their parents, so that nothing incomplete has a name.
// Blobs stay as they are, so every digest stays what it is. What the registry has already
// is not sent. Push goes to the registry itself, not to its mirrors.
func (r *Repository) Push(ctx context.Context, ref reference.Ref, root reference.Digest, src BlobSource, o PushOptions) (ocispec.Descriptor, error) {
	w := r.home()
	p := &delivery{registry: w.registry, src: src, o: o}
	d, err := p.run(ctx, ref, root, func() error { return w.open(ctx, w.domain, r.o, p.scopes()...) })
	if err != nil {
		return ocispec.Descriptor{}, w.explainPush("push "+ref.String(), ref, err)
	}
	return d, nil
}

// explainPush adds to a refusal what pushing needs.
func (r *registry) explainPush(op string, ref reference.Ref, err error) error {
	err = r.explain(op, ref, err)
	var e *Error
	if errors.As(err, &e) && r.unread == nil && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) {
		e.hint = fmt.Sprintf("log in as somebody who may write to %s: sbx login%s", ref.FamiliarName(), loginArgument(ref.Domain))
	}
	return err
}

// delivery is one Push.
type delivery struct {
	*registry
	src BlobSource
	o   PushOptions

	documents []outgoing // children first
	blobs     []ocispec.Descriptor
}

// outgoing is a manifest on its way.
type outgoing struct {
	digest    reference.Digest
	mediaType string
	body      []byte
}

func (p *delivery) run(ctx context.Context, ref reference.Ref, root reference.Digest, open func() error) (ocispec.Descriptor, error) {
	if err := p.collect(root, 0); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := open(); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := p.pushBlobs(ctx); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := p.putDocuments(ctx, ref, func(outgoing) {}); err != nil {
		return ocispec.Descriptor{}, err
	}
	top := p.documents[len(p.documents)-1]
	return ocispec.Descriptor{MediaType: top.mediaType, Digest: wireDigest(top.digest), Size: int64(len(top.body))}, nil
}

// collect reads what is to be pushed, from the top, and sorts it for the way.
func (p *delivery) collect(digest reference.Digest, depth int) error {
	if slices.ContainsFunc(p.documents, func(d outgoing) bool { return d.digest == digest }) {
		return nil
	}
	body, err := p.document(digest)
	if err != nil {
		return err
	}
	doc, err := parseDocument(body, "")
	if err != nil {
		return fmt.Errorf("%s: %w", digest, err)
	}
	if doc.index != nil {
		if depth >= maxDepth || len(p.documents)+len(doc.index.Manifests) > maxDescriptors {
			return errors.New("the image index nests too deep or holds too much")
		}
		for _, child := range doc.index.Manifests {
			d, err := reference.ParseDigest(string(child.Digest))
			if err != nil {
				return err
			}
			if err := p.collect(d, depth+1); err != nil {
				return err
			}
		}
	} else {
		// The topmost layer first, as Docker lists them.
		for _, d := range slices.Backward(append([]ocispec.Descriptor{doc.manifest.Config}, doc.manifest.Layers...)) {
			if !slices.ContainsFunc(p.blobs, func(b ocispec.Descriptor) bool { return b.Digest == d.Digest }) {
				p.blobs = append(p.blobs, d)
			}
		}
	}
	p.documents = append(p.documents, outgoing{digest, doc.mediaType, body})
	return nil
}

func (p *delivery) document(digest reference.Digest) ([]byte, error) {
	f, err := p.src.Blob(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", digest, err)
	}
	if err := verify(body, digest); err != nil {
		return nil, err
	}
	return body, nil
}

// scopes are what a token must be good for: this repository, and reading those that blobs
// may be mounted from.
func (p *delivery) scopes() []string {
	scopes := []string{p.scope("pull,push")}
	for _, d := range p.blobs {
		digest, _ := reference.ParseDigest(string(d.Digest)) // parseDocument has
		for _, from := range p.o.Holders[digest] {
			if scope := "repository:" + from + ":pull"; from != p.path && len(scopes) < maxScopes && !slices.Contains(scopes, scope) {
				scopes = append(scopes, scope)
			}
		}
	}
	return scopes
}

// pushBlobs uploads what is missing, several at once.
func (p *delivery) pushBlobs(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxUploads)
	var uploads []*upload
	for _, d := range p.blobs {
		digest, err := reference.ParseDigest(string(d.Digest))
		if err != nil {
			return err
		}
		u := &upload{delivery: p, d: d, digest: digest, quiet: !isLayerType(d.MediaType)}
		if !u.quiet {
			u.tell(StatusPreparing, 0)
		}
		uploads = append(uploads, u)
	}
	for _, u := range uploads {
		g.Go(func() error {
			if err := u.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", u.digest, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// putDocuments stores the manifests, the last of them under the tag.
func (p *delivery) putDocuments(ctx context.Context, ref reference.Ref, done func(outgoing)) error {
	last := len(p.documents) - 1
	for i, d := range p.documents {
		name := d.digest.String()
		if i == last && ref.Digest.IsZero() {
			name = ref.Tag
		}
		if err := p.putManifest(ctx, name, d); err != nil {
			return err
		}
		if i < last {
			done(d)
		}
	}
	return nil
}

// putManifest stores a manifest under a tag or its digest.
func (p *delivery) putManifest(ctx context.Context, name string, d outgoing) error {
	header := http.Header{"Content-Type": {d.mediaType}}
	resp, err := p.client.send(ctx, http.MethodPut, p.url("manifests", name), header, bytes.NewReader(d.body))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return p.client.readStatus(resp)
	}
	resp.Body.Close()
	if said := resp.Header.Get("Docker-Content-Digest"); said != "" && said != d.digest.String() {
		return fmt.Errorf("PUT %s: the registry has stored %.80q, not %s", publicURL(p.url("manifests", name)), said, d.digest)
	}
	return nil
}
