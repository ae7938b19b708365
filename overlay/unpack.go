// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// UnpackOptions say for whom a layer is unpacked.
type UnpackOptions struct {
	// Recorded is for a caller with one ID: every file is the caller's, and its
	// true owner goes into a record. Without it owners are real: the caller is
	// root of a user namespace over all of them.
	Recorded bool

	// Lower are the unpacked directories of the layers below, topmost first. They
	// are asked where the archive takes them for granted: for the target of a hard
	// link that is not in this layer, which is copied up, and for a directory, the
	// root among them, that has no entry of its own: for its metadata, and whether
	// it is a link to another one. They may be left out.
	Lower []string

	Limits Limits
}

// Result is what an unpack made.
type Result struct {
	Entries int64  // headers in the archive
	Bytes   int64  // of file contents
	Owners  Owners // of files that cannot carry a record; nil if there are none

	// Markers says that the filesystem refused whiteouts or opaque directories, so
	// that they are files. Overlayfs does not understand these; Flatten does.
	Markers bool

	// UsedLower says that the layer holds something of the layers below it, so that
	// above others it would be different, in more than times of directories.
	UsedLower bool
}

// Unpack reads the layer tar r into root, an empty directory, and then reads r to
// its end, so that a hash around r has seen everything. Where it fails, what it
// made so far stays, for the caller to remove.
//
// It runs as the caller when Recorded, else as root of a user namespace.
func Unpack(ctx context.Context, root *os.File, r io.Reader, o UnpackOptions) (Result, error) {
	fd, err := openat(int(root.Fd()), ".", openDir, 0)
	runtime.KeepAlive(root)
	if err != nil {
		return Result{}, named("open "+root.Name(), err)
	}
	defer unix.Close(fd)
	list, err := new(dirReader).next(fd)
	if err != nil {
		return Result{}, named("read "+root.Name(), err)
	}
	if len(list) > 0 {
		return Result{}, named("unpack into "+root.Name(), unix.ENOTEMPTY)
	}
	u := newUnpacker(ctx, fd, r, o)
	defer u.close()
	if err := u.run(); err != nil {
		return Result{}, err
	}
	return u.result, nil
}

// An unpacker holds what one Unpack needs.
type unpacker struct {
	ctx     context.Context
	options UnpackOptions
	limits  Limits
	framing *framing
	archive *tar.Reader
	tree    *tree
	lower   *stack // nil without lower layers
	writer  *writer
	buf     []byte
	implied int64 // directories that were made without an entry
	rooted  bool  // the archive has an entry for the root
	result  Result
}

func newUnpacker(ctx context.Context, fd int, r io.Reader, o UnpackOptions) *unpacker {
	limits := o.Limits.filled()
	u := &unpacker{
		ctx: ctx, options: o, limits: limits,
		framing: newFraming(ctx, r, limits.Bytes),
		writer:  &writer{recorded: o.Recorded},
		buf:     make([]byte, 256<<10),
	}
	u.archive = tar.NewReader(u.framing)
	u.tree = newTree(ctx, fd, limits, u.writer)
	u.tree.adopt, u.tree.lowerLink = u.adopt, u.lowerLink
	return u
}

func (u *unpacker) close() {
	_ = u.tree.leave()
	if u.lower != nil {
		u.lower.close()
	}
}

func (u *unpacker) run() error {
	for {
		h, err := u.archive.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = u.framing.check(h)
		}
		if err != nil {
			return u.archiveError(err)
		}
		if err := u.entry(h); err != nil {
			return err
		}
	}
	if err := u.framing.finish(); err != nil {
		return u.archiveError(err)
	}
	if err := u.tree.leave(); err != nil {
		return err
	}
	if !u.rooted {
		if err := u.imply(u.tree.root, ""); err != nil {
			return err
		}
	}
	if err := u.forgetRemoved(); err != nil {
		return err
	}
	for {
		if _, err := u.framing.Read(u.buf); err == io.EOF {
			break
		} else if err != nil {
			return u.archiveError(err)
		}
	}
	u.result.Owners, u.result.Markers = u.writer.owners.table(), u.tree.markers
	return nil
}

// archiveError explains an error of reading. That of the source itself, such as
// a wrong checksum, and that of the context pass as they are.
func (u *unpacker) archiveError(err error) error {
	var limit *LimitError
	switch {
	case u.ctx.Err() != nil:
		return u.ctx.Err()
	case errors.As(err, &limit):
		return err
	case u.result.Entries == 0 && (errors.Is(err, tar.ErrHeader) || u.framing.read < blockSize):
		err = errNotTar
	case errors.Is(err, tar.ErrHeader):
		err = errDamaged
	}
	return &ArchiveError{Entries: u.result.Entries, Err: err}
}

var (
	errNotTar  = errors.New("not a tar archive")
	errDamaged = errors.New("damaged tar header")
	errSparse  = errors.New("a sparse file this large is not unpacked")
	errUnknown = errors.New("entry of a kind that is not known")
)

// entry unpacks one entry.
func (u *unpacker) entry(h *tar.Header) error {
	u.result.Entries++
	if u.result.Entries > u.limits.Entries {
		return &LimitError{What: "entries", Max: u.limits.Entries}
	}
	u.tree.steps += stepsPerEntry
	if err := u.ctx.Err(); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == typeVolume {
		return nil
	}
	name, err := cleanName(h.Name)
	if err == nil {
		err = u.limits.checkPath(name)
	}
	if err == nil {
		err = u.place(h, name)
	}
	if err == nil || u.ctx.Err() != nil {
		return err
	}
	var read *ArchiveError
	if errors.As(err, &read) {
		return err
	}
	return &EntryError{Op: "unpack", Name: h.Name, Err: err}
}

// typeVolume is GNU tar's label of the archive as a whole.
const typeVolume = 'V'

// place makes what the header says at its place.
func (u *unpacker) place(h *tar.Header, name string) error {
	n, err := u.describe(h)
	if err != nil {
		return err
	}
	if name == "" {
		return u.root(n)
	}
	dir, base := splitPath(name)
	mark, gone, err := markOf(dir, base)
	if err != nil || mark == ignored {
		return err
	}
	if err := u.tree.enter(dir); err != nil {
		return err
	}
	switch mark {
	case whiteout:
		return u.tree.whiteOut(gone)
	case opaque:
		return u.opaque()
	}
	if h.Typeflag == tar.TypeLink {
		return u.link(h.Linkname, dir, base)
	}
	if n.owner.Kind == Dir {
		return u.directory(n, base)
	}
	if err := u.tree.touch(); err != nil {
		return err
	}
	switch n.owner.Kind {
	case Symlink:
		return u.symlink(n, base, h.Linkname)
	case Pipe:
		return u.pipe(n, base)
	}
	return u.file(n, base, func(fd int) error { return u.content(fd, h) })
}

// opaque marks the parent.
func (u *unpacker) opaque() error {
	p := &u.tree.parent
	if p.opaque {
		return nil
	}
	if err := u.tree.setOpaque(p.fd); err != nil {
		return err
	}
	p.opaque, p.covered = true, isCovered
	return nil
}

// forgetRemoved takes the owners of files out of the table that were removed
// together with a directory.
func (u *unpacker) forgetRemoved() error {
	if !u.tree.removedADir {
		return nil
	}
	for path := range u.writer.owners.owners {
		if path == "." {
			continue
		}
		fd, err := u.tree.open(u.tree.root, path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, beneathOnly)
		switch err {
		case nil:
			unix.Close(fd)
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
			u.writer.owners.forget(path)
		default:
			return named("look up "+quote(path), err)
		}
	}
	return nil
}
