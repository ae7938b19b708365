// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"sbx/reference"
)

// maxDownloads is how many layers come at once.
const maxDownloads = 4

// pullLayers downloads and unpacks what is missing of the layers, and returns how large
// they are unpacked. Downloads run side by side. Layers are unpacked from the bottom, each
// while it comes: one may need what is below it, and no more than one decompressor's window
// is in memory.
func (s *Store) pullLayers(ctx context.Context, src Source, layers []descriptor, diffIDs []reference.Digest, p *progress) (int64, error) {
	if err := s.checkSpace(layers); err != nil {
		return 0, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxDownloads + 1)
	jobs := make([]*layerJob, len(layers))
	for i, l := range layers {
		jobs[i] = &layerJob{s: s, src: src, d: l, diffIDs: diffIDs, at: i, p: p, started: make(chan struct{})}
		if !jobs[i].isDone() {
			p.tell(Event{Digest: l.digest, Status: StatusWaiting})
		}
	}
	var size int64
	g.Go(func() error {
		for _, j := range jobs {
			if err := j.unpackInTurn(ctx); err != nil {
				return fmt.Errorf("layer %s: %w", j.d.digest, err)
			}
			size += j.size
			j.close()
		}
		return nil
	})
	for _, j := range jobs {
		g.Go(func() error { return j.download(ctx) })
	}
	err := g.Wait()
	for _, j := range jobs {
		if j.w != nil && isSpace(err) {
			j.w.discard()
		}
		j.close()
	}
	return size, err
}

// layerJob brings one layer into the store.
type layerJob struct {
	s       *Store
	src     Source
	d       descriptor
	diffIDs []reference.Digest
	at      int
	p       *progress

	started chan struct{} // closed when w and err are known
	w       *download     // nil: the blob is there
	err     error
	size    int64 // unpacked
}

// isDone reports whether there is nothing to do: the blob is there, and the layer was
// unpacked from this very blob.
func (j *layerJob) isDone() bool { return j.s.hasBlob(j.d.digest) && j.isUnpacked() }

// isUnpacked reports whether the layer is there and was unpacked from this very blob.
func (j *layerJob) isUnpacked() bool {
	id, ok := j.s.unpackedAs(j.diffIDs, j.at)
	if !ok {
		return false
	}
	r, err := j.s.layerRecord(id)
	j.size = r.Bytes
	return err == nil && r.Blob == j.d.digest
}

// download brings the blob. Its failure ends the pull at once, unless whoever unpacks the
// layer has a way round.
func (j *layerJob) download(ctx context.Context) error {
	w, err := j.s.fetch(ctx, j.src, j.d, j.p)
	j.w, j.err = w, err
	close(j.started) // from here on they are the unpacker's
	if w != nil {
		err = w.wait()
	}
	if err == nil || errors.Is(err, errStale) {
		return nil
	}
	return fmt.Errorf("layer %s: %w", j.d.digest, err)
}

// unpackInTurn unpacks the layer once its download has begun. It tries again, once, when
// what stood in its way was damage on this disk.
func (j *layerJob) unpackInTurn(ctx context.Context) error {
	select {
	case <-j.started:
	case <-ctx.Done():
		return ctx.Err()
	}
	if j.err == nil && j.w == nil && j.isUnpacked() {
		j.p.tell(Event{Digest: j.d.digest, Status: StatusExists})
		return nil
	}
	err := j.err
	if err == nil {
		err = j.unpackFrom(ctx, j.w)
	}
	if errors.Is(err, errStale) || (err != nil && j.dropDamaged(ctx)) {
		err = j.again(ctx)
	}
	if err != nil {
		return err
	}
	j.isUnpacked() // for its size
	j.p.tell(Event{Digest: j.d.digest, Status: StatusDone})
	return nil
}

// close ends the download.
func (j *layerJob) close() {
	if j.w != nil {
		j.w.close()
	}
}

// dropDamaged removes the stored blob if it is not what its name says.
func (j *layerJob) dropDamaged(ctx context.Context) bool {
	if !j.s.hasBlob(j.d.digest) {
		return false
	}
	var wrong *DigestError
	err := j.s.verifyBlob(ctx, j.d.digest)
	return errors.As(err, &wrong) && os.Remove(j.s.blobPath(j.d.digest)) == nil
}

// again downloads and unpacks from the beginning.
func (j *layerJob) again(ctx context.Context) error {
	j.close()
	if j.w, j.err = j.s.fetch(ctx, j.src, j.d, j.p); j.err != nil {
		return j.err
	}
	return j.unpackFrom(ctx, j.w)
}

// unpackFrom unpacks the layer from a download, as it comes, or else from its blob.
func (j *layerJob) unpackFrom(ctx context.Context, w *download) error {
	src := layerSource{blob: j.d.digest, diffIDs: j.diffIDs, at: j.at}
	if w == nil {
		f, err := j.s.Blob(j.d.digest)
		if err != nil {
			return err
		}
		defer f.Close()
		j.p.tell(Event{Digest: j.d.digest, Status: StatusExtracting, Total: j.d.Size})
		src.r = &contextReader{ctx, f}
		return j.unpack(ctx, src)
	}
	src.arrived = w.wait
	src.r = w.spool.follow(func(n int64) {
		if w.isDone() {
			j.p.tell(Event{Digest: j.d.digest, Status: StatusExtracting, Current: n, Total: j.d.Size})
		}
	})
	unpackErr := j.unpack(ctx, src)
	if isSpace(unpackErr) {
		return unpackErr
	}
	// A blob that is not what was asked for is the better explanation of whatever went
	// wrong with unpacking it.
	if err := w.wait(); err != nil {
		return err
	}
	return unpackErr
}

// unpack unpacks the layer. One that is there, but from another blob, proves nothing about
// this blob: its diff ID is computed all the same.
func (j *layerJob) unpack(ctx context.Context, src layerSource) error {
	if read, err := j.s.unpack(ctx, src); read || err != nil || j.isUnpacked() {
		return err
	}
	got, err := hashDiffID(src.r, src.diffID())
	if err == nil && got != src.diffID() {
		err = wrongDiffID(src.diffID(), got)
	}
	return err
}
