// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// wireDigest is d as the wire structs spell it.
func wireDigest(d reference.Digest) digest.Digest { return digest.Digest(d.String()) }

// Image is the image of one platform, its manifest read and verified. It is the Source
// that the store pulls from.
type Image struct {
	root     ocispec.Descriptor // what the name stands for: manifest, or an index with it
	manifest ocispec.Descriptor
	body     []byte
	blobs    blobSource
	owner    io.Closer // closed with the image; may be nil
}

// Root is the digest that the image's name stood for when it was asked for: that of the
// index which the image was chosen in, or of the image itself. It is zero for images that
// come from no registry.
func (i *Image) Root() reference.Digest {
	d, err := reference.ParseDigest(string(i.root.Digest))
	if err != nil {
		return reference.Digest{}
	}
	return d
}

// blobSource is where an Image's blobs lie.
type blobSource interface {
	// open returns the bytes of d from offset on, 0 <= offset <= d.Size. It may return
	// more of them than d.Size tells: Image refuses those.
	open(ctx context.Context, d ocispec.Descriptor, digest reference.Digest, offset int64) (io.ReadCloser, error)
	fail(op string, err error) error
	close() error
}

// Manifest returns the manifest's descriptor and bytes. Digest and size agree; for an
// index they are those of the image chosen in it.
func (i *Image) Manifest(context.Context) (ocispec.Descriptor, []byte, error) {
	return i.manifest, i.body, nil
}

// Blob returns the bytes of d from offset on, as they lie at the source, compressed. It
// reads at most up to d.Size and reports a longer blob as an error; a shorter one, too.
// The digest is the caller's to verify. The reader lives as long as ctx; a connection
// that is cut is taken up again unseen. Blob may be called concurrently.
func (i *Image) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	digest, err := reference.ParseDigest(string(d.Digest))
	if err != nil {
		return nil, i.blobs.fail("read blob", err)
	}
	op := "read blob " + digest.String()
	if d.Size < 0 || offset < 0 || offset > d.Size {
		return nil, i.blobs.fail(op, fmt.Errorf("offset %d in a blob of %d bytes", offset, d.Size))
	}
	r, err := i.blobs.open(ctx, d, digest, offset)
	if err != nil {
		return nil, i.blobs.fail(op, err)
	}
	return &exactReader{inner: r, left: d.Size - offset, size: d.Size, fail: func(err error) error { return i.blobs.fail(op, err) }}, nil
}

// Close releases connections and files. Close the readers that Blob returned before.
func (i *Image) Close() error {
	err := i.blobs.close()
	if i.owner != nil {
		err = errors.Join(err, i.owner.Close())
	}
	return err
}

// exactReader yields exactly left bytes and then EOF, or an error.
type exactReader struct {
	inner io.ReadCloser
	left  int64
	size  int64
	err   error
	fail  func(error) error
}

// Read implements io.Reader.
func (r *exactReader) Read(p []byte) (int, error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	if r.left == 0 {
		r.err = r.end()
		return 0, r.err
	}
	n, err := r.inner.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && r.left > 0:
		r.err = r.fail(fmt.Errorf("it ends after %d of %d bytes: %w", r.size-r.left, r.size, io.ErrUnexpectedEOF))
	case err != nil && !errors.Is(err, io.EOF):
		r.err = r.fail(err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// end looks for bytes beyond the last. Only their presence matters: that the source
// fails behind the last byte changes nothing in what was read.
func (r *exactReader) end() error {
	var beyond [1]byte
	if n, _ := r.inner.Read(beyond[:]); n > 0 {
		return r.fail(fmt.Errorf("it is longer than the %d bytes that its descriptor says", r.size))
	}
	return io.EOF
}

// Close implements io.Closer.
func (r *exactReader) Close() error {
	if r.err == nil {
		r.err = r.fail(errors.New("read after close"))
	}
	return r.inner.Close()
}
