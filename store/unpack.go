// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/reference"
	"sbx/userns"
)

// layerSource is a compressed layer tar and what it is expected to be.
type layerSource struct {
	blob    reference.Digest   // recorded with the layer
	diffIDs []reference.Digest // of the image, bottom first
	at      int                // which of them this layer is
	r       io.Reader
	// arrived returns when all of r was found right; nil if it is known to be.
	arrived func() error
}

func (src *layerSource) diffID() reference.Digest { return src.diffIDs[src.at] }

// unpack unpacks a layer unless it is there; those below it are. It reports whether it has
// read the source, and so found out that its diff ID is right. Nothing is left of a layer
// whose diff ID is another, or whose blob turns out wrong.
func (s *Store) unpack(ctx context.Context, src layerSource) (read bool, err error) {
	if _, ok := s.unpackedAs(src.diffIDs, src.at); ok {
		return false, nil
	}
	st, err := s.openStage(ctx, src.diffID().Hex())
	if err != nil {
		return false, err
	}
	if _, ok := s.unpackedAs(src.diffIDs, src.at); ok {
		return false, st.discard(ctx, s)
	}
	if err = s.unpackIn(ctx, st, src); err != nil {
		// What cannot be removed now is healed by a later command.
		_ = st.discard(ctx, s)
	}
	return err == nil, err
}

func (s *Store) unpackIn(ctx context.Context, st *stage, src layerSource) error {
	lower, err := s.layersBelow(src.diffIDs[:src.at])
	if err != nil {
		return err
	}
	r, _, err := s.unpackStage(ctx, st, src.r, src.diffID(), lower)
	if err == nil && src.arrived != nil {
		err = src.arrived()
	}
	if err == nil && r.DiffID != src.diffID() {
		err = wrongDiffID(src.diffID(), r.DiffID)
	}
	if err != nil {
		return err
	}
	id := r.DiffID
	if r.UsedLower {
		id = chainIDs(src.diffIDs[:src.at+1])[src.at]
	}
	r.Blob = src.blob
	return st.publish(ctx, s, id, r)
}

// wrongDiffID says that a layer is not the one that the image's config means.
func wrongDiffID(want, got reference.Digest) error {
	return fmt.Errorf("the config has another diff ID for it: %w", &DigestError{Want: want, Got: got})
}

// unpackStage unpacks a compressed tar into the stage and hashes it on the way, by the
// algorithm of like, or by SHA-256. It returns the time of the first entry, too. lower are
// the layers below, topmost first.
func (s *Store) unpackStage(ctx context.Context, st *stage, r io.Reader, like reference.Digest, lower []string) (layerRecord, time.Time, error) {
	root, err := os.Open(st.dir + "/" + rootDir)
	if err != nil {
		return layerRecord{}, time.Time{}, err
	}
	defer root.Close()
	tar, err := openTar(r, like)
	if err != nil {
		return layerRecord{}, time.Time{}, err
	}
	defer tar.close()
	var result overlay.Result
	if s.rung.IsMapped() {
		result, err = s.unpackByRole(ctx, st.dir+"/"+ownersFile, root, tar, lower)
	} else {
		result, err = overlay.Unpack(ctx, root, tar, overlay.UnpackOptions{Recorded: true, Lower: lower})
		if err == nil {
			err = saveOwners(st.dir+"/"+ownersFile, result.Owners)
		}
	}
	if err == nil {
		// Padding after the end of the archive belongs to the diff ID.
		_, err = io.CopyBuffer(io.Discard, io.LimitReader(tar, maxPadding), make([]byte, copyBuffer))
	}
	if err == nil && !tar.ended {
		err = errors.New("read archive: too much follows its end")
	}
	if err != nil {
		return layerRecord{}, time.Time{}, spaceError(err, s.dir, tar.size)
	}
	s.step("unpack layer")
	return layerRecord{
		DiffID:     sum(tar.hash, like),
		Entries:    result.Entries,
		Bytes:      result.Bytes,
		Markers:    result.Markers,
		UsedLower:  result.UsedLower,
		bootRecord: s.boot(),
	}, firstModified(tar.head), nil
}

// maxPadding is more than any block size that tar programs fill their last record to.
const maxPadding = 64 << 20

// hashDiffID computes the diff ID of a compressed layer without unpacking it.
func hashDiffID(r io.Reader, like reference.Digest) (reference.Digest, error) {
	tar, err := openTar(r, like)
	if err != nil {
		return reference.Digest{}, err
	}
	defer tar.close()
	if _, err := io.CopyBuffer(io.Discard, tar, make([]byte, copyBuffer)); err != nil {
		return reference.Digest{}, err
	}
	return sum(tar.hash, like), nil
}

// tarReader is a layer's decompressed tar, hashed as it is read.
type tarReader struct {
	source  io.Reader
	decoder io.ReadCloser
	hash    hash.Hash // complete when ended
	size    int64
	ended   bool
	head    []byte // the first tar header
}

const tarBlock = 512

// openTar opens a layer whose diff ID is of the algorithm of like.
func openTar(r io.Reader, like reference.Digest) (*tarReader, error) {
	decoder, _, err := overlay.Decompress(r)
	if err != nil {
		return nil, err
	}
	return &tarReader{source: r, decoder: decoder, hash: newHash(like)}, nil
}

// Read implements io.Reader.
func (t *tarReader) Read(p []byte) (int, error) {
	n, err := t.decoder.Read(p)
	t.hash.Write(p[:n])
	if len(t.head) < tarBlock {
		t.head = append(t.head, p[:min(n, tarBlock-len(t.head))]...)
	}
	t.size += int64(n)
	t.ended = t.ended || errors.Is(err, io.EOF)
	return n, err
}

// close ends the decompression. A source that can be closed is, so that nobody waits for
// data that is not wanted.
func (t *tarReader) close() {
	if c, ok := t.source.(io.Closer); ok {
		c.Close()
	}
	t.decoder.Close()
}

// unpackByRole lets the role "unpack", who may give files to the user's subordinate IDs,
// do the unpacking. It gets the tar through a pipe: whatever is wrong with compression or
// digests is found here, by the process that no image can harm by owning a file.
func (s *Store) unpackByRole(ctx context.Context, table string, root *os.File, tar io.Reader, lower []string) (overlay.Result, error) {
	owners, err := os.OpenFile(table, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return overlay.Result{}, err
	}
	defer owners.Close()
	pipeR, pipeW, err := os.Pipe()
	if err != nil {
		return overlay.Result{}, err
	}
	setPipeSize(pipeW)
	fed := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(onlyWriter{pipeW}, tar, make([]byte, copyBuffer))
		pipeW.Close()
		fed <- err
	}()
	answer, err := userns.Call[unpackQuestion, unpackAnswer](ctx, s.rung, "unpack", unpackQuestion{lower}, root, pipeR, owners)
	// A role that has ended early reads no more: this ends the feeding, too.
	pipeR.Close()
	pipeW.Close()
	feedErr := <-fed
	if feedErr != nil && !isBrokenPipe(feedErr) {
		err = &overlay.ArchiveError{Err: feedErr} // the role saw it end, and thinks something of that
	}
	if err != nil {
		return overlay.Result{}, err
	}
	if answer.Owners == 0 {
		os.Remove(owners.Name())
	}
	return overlay.Result{Entries: answer.Entries, Bytes: answer.Bytes, Markers: answer.Markers, UsedLower: answer.UsedLower}, nil
}

// UnpackTree unpacks a tar into an empty directory. Owners are kept as the rung keeps
// them: those of files that cannot carry a record are saved in TableOf the directory.
func (s *Store) UnpackTree(ctx context.Context, dir string, tar io.Reader) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if s.rung.IsMapped() {
		_, err = s.unpackByRole(ctx, TableOf(dir), root, tar, nil)
	} else {
		var result overlay.Result
		if result, err = overlay.Unpack(ctx, root, tar, overlay.UnpackOptions{Recorded: true}); err == nil {
			err = saveOwners(TableOf(dir), result.Owners)
		}
	}
	return spaceError(err, dir, 0)
}

// TableOf is where UnpackTree and Flatten save the owners of a directory's files.
func TableOf(dir string) string { return dir + "." + ownersFile }

// onlyWriter hides ReadFrom, which would try splice on what is no descriptor.
type onlyWriter struct{ io.Writer }

// setPipeSize asks for as much room as users may have; less works as well.
func setPipeSize(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20)
	})
}

func isBrokenPipe(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, os.ErrClosed)
}
