// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"sbx/reference"
)

// Source is where an image is pulled from. Its readers need not verify anything: the
// store does.
type Source interface {
	// Manifest returns the manifest of the platform that was chosen, as it came.
	Manifest(ctx context.Context) (ocispec.Descriptor, []byte, error)
	// Blob returns the bytes of a blob from offset on, as they are stored there. A later
	// pull calls it again, to go on after a read error. Reads end when ctx does.
	Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// errStale says that a partial file which an earlier process left was not the beginning
// of the blob. It has been removed, and the download can begin again.
var errStale = errors.New("an earlier partial download was damaged")

const copyBuffer = 256 << 10

// download is a blob on its way from a Source to blobs/. The partial file is locked for
// as long as it lives, so no two processes fetch one blob.
type download struct {
	s      *Store
	d      descriptor
	spool  *spool
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of the whole; valid when done is closed
}

// fetch starts to download a blob, or returns nil if it is there. It waits while another
// process downloads it.
func (s *Store) fetch(ctx context.Context, src Source, d descriptor, p *progress) (*download, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if there, err := s.present(ctx, d); there || err != nil {
		return nil, err
	}
	f, err := s.lockPartial(ctx, d.digest)
	if err != nil {
		return nil, spaceError(err, s.dir, d.Size)
	}
	if there, err := s.present(ctx, d); there || err != nil {
		os.Remove(f.Name())
		f.Close()
		return nil, err
	}
	s.step("lock partial")
	ctx, cancel := context.WithCancel(ctx)
	w := &download{s: s, d: d, spool: newSpool(f), cancel: cancel, done: make(chan struct{})}
	go func() {
		w.err = w.run(ctx, src, p)
		w.spool.end(w.err)
		close(w.done)
	}()
	return w, nil
}

// present reports whether the blob is stored, and refuses a descriptor that lies about its
// size. A blob that a failing disk has cut is removed.
func (s *Store) present(ctx context.Context, d descriptor) (bool, error) {
	fi, err := os.Lstat(s.blobPath(d.digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || fi.Size() == d.Size {
		return err == nil, err
	}
	err = s.verifyBlob(ctx, d.digest)
	var wrong *DigestError
	if errors.As(err, &wrong) {
		return false, os.Remove(s.blobPath(d.digest))
	}
	if err != nil {
		return false, err
	}
	return false, &SizeError{Want: d.Size, Got: fi.Size()}
}

// wait returns when the blob has its final name, or why it has not.
func (w *download) wait() error {
	<-w.done
	return w.err
}

// isDone reports whether the download has ended.
func (w *download) isDone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// close ends the download if it still runs. The partial file stays, for the next one who
// wants the blob.
func (w *download) close() {
	w.cancel()
	<-w.done
	w.spool.f.Close()
}

// discard ends the download and leaves nothing of it, unless it is whole.
func (w *download) discard() {
	w.cancel()
	<-w.done
	if name := w.spool.f.Name(); w.err != nil && isAt(w.spool.f, name) {
		os.Remove(name)
	}
	w.spool.f.Close()
}

// run downloads, verifies and publishes. What it leaves in tmp is always something that
// a later download can begin with.
func (w *download) run(ctx context.Context, src Source, p *progress) error {
	had, err := w.resume()
	if err != nil {
		return err
	}
	h := newHash(w.d.digest)
	if err := w.receive(ctx, src, h, had, p); err != nil {
		return w.abandon(err)
	}
	p.tell(Event{Digest: w.d.digest, Status: StatusVerifying})
	if got := sum(h, w.d.digest); got != w.d.digest {
		os.Remove(w.spool.f.Name())
		if had > 0 {
			return errStale
		}
		return &DigestError{Want: w.d.digest, Got: got, advice: "what was sent is not the image that was asked for: try again, or ask who runs the registry"}
	}
	// Those who unpack need not wait for the disk.
	w.spool.end(nil)
	w.s.step("download blob")
	if err := w.spool.f.Sync(); err != nil {
		return w.abandon(err)
	}
	w.s.step("sync blob")
	if err := w.s.publishBlob(w.spool.f.Name(), w.d.digest); err != nil {
		return err
	}
	// The partial file is a blob now; whoever waits for it need not wait for the unpacking.
	_ = unix.Flock(int(w.spool.f.Fd()), unix.LOCK_UN)
	p.tell(Event{Digest: w.d.digest, Status: StatusDownloaded})
	return nil
}

// resume returns how much of the blob an earlier process has left.
func (w *download) resume() (int64, error) {
	fi, err := w.spool.f.Stat()
	if err != nil {
		return 0, err
	}
	had := fi.Size()
	if had > w.d.Size {
		had = 0
		if err := w.spool.f.Truncate(0); err != nil {
			return 0, err
		}
	}
	w.spool.extend(had)
	return had, nil
}

// receive hashes the had bytes that are there, then reads, hashes and keeps the rest.
func (w *download) receive(ctx context.Context, src Source, h hash.Hash, had int64, p *progress) error {
	buf := make([]byte, copyBuffer)
	if _, err := io.CopyBuffer(h, &contextReader{ctx, io.NewSectionReader(w.spool.f, 0, had)}, buf); err != nil {
		return err
	}
	if had == w.d.Size {
		return nil
	}
	body, err := src.Blob(ctx, w.d.Descriptor, had)
	if err != nil {
		return err
	}
	defer body.Close()
	for size := had; ; {
		n, err := body.Read(buf)
		if int64(n) > w.d.Size-size {
			os.Remove(w.spool.f.Name())
			return &SizeError{Want: w.d.Size, Got: -1}
		}
		h.Write(buf[:n])
		if _, err := w.spool.Write(buf[:n]); err != nil {
			return err
		}
		size += int64(n)
		p.tell(Event{Digest: w.d.digest, Status: StatusDownloading, Current: size, Total: w.d.Size})
		switch {
		case errors.Is(err, io.EOF) && size == w.d.Size:
			return nil
		case errors.Is(err, io.EOF):
			return &SizeError{Want: w.d.Size, Got: size}
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// abandon removes the partial file of a full disk, and an empty one, and keeps others.
func (w *download) abandon(err error) error {
	if !isSpace(err) {
		if w.spool.length() == 0 {
			os.Remove(w.spool.f.Name())
		}
		return err
	}
	os.Remove(w.spool.f.Name())
	// The file still takes its room: those who follow it have it open.
	_ = w.spool.f.Truncate(0)
	return spaceError(err, w.s.dir, w.d.Size)
}

// fetchDocument downloads a blob that is read in whole.
func (s *Store) fetchDocument(ctx context.Context, src Source, d descriptor) ([]byte, error) {
	for retry := false; ; retry = true {
		w, err := s.fetch(ctx, src, d, newProgress(nil))
		if err != nil {
			return nil, err
		}
		if w != nil {
			err = w.wait()
			w.close()
		}
		if errors.Is(err, errStale) && !retry {
			continue
		}
		if err != nil {
			return nil, err
		}
		data, err := s.document(d.digest, maxConfig)
		if err == nil && int64(len(data)) != d.Size {
			return nil, &SizeError{Want: d.Size, Got: int64(len(data))}
		}
		var wrong *DigestError
		if errors.As(err, &wrong) && !retry {
			os.Remove(s.blobPath(d.digest))
			continue
		}
		return data, err
	}
}

// checkSpace refuses a download that the disk cannot hold.
func (s *Store) checkSpace(layers []descriptor) error {
	free := freeSpace(s.dir)
	var needed int64
	counted := make(map[reference.Digest]bool)
	for _, l := range layers {
		if counted[l.digest] || s.hasBlob(l.digest) {
			continue
		}
		counted[l.digest] = true
		needed += l.Size
		if fi, err := os.Lstat(s.partialPath(l.digest)); err == nil {
			needed -= min(fi.Size(), l.Size)
		}
		if needed < 0 {
			return errors.New("its layers claim to be larger than any disk")
		}
	}
	if free >= 0 && needed > free {
		return &SpaceError{Needed: needed, Free: free, Err: unix.ENOSPC}
	}
	return nil
}
