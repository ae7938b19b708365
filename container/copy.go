// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// CopyOptions are the flags of cp.
type CopyOptions struct {
	Follow  bool // -L: what the source's link leads to
	Archive bool // -a: the owners of the source, not the copier's
}

// Copied is what a copy has done.
type Copied struct {
	Bytes int64 // of the files' contents
	Left  int64 // devices that were left out, since nobody here may make them
}

// CopyOut copies a path of the container to one of this machine, by the rules of
// docker cp. The files are the user's, without set-ID bits. What the container
// does meanwhile cannot make it write anywhere else.
func (c *Container) CopyOut(ctx context.Context, from, to string, o CopyOptions) (Copied, error) {
	done, err := c.copyOut(ctx, from, o, func(stat FileStat, r io.Reader) (Copied, error) {
		dst, err := localDestination(to, nameOf(from), stat.Mode.IsDir())
		if err != nil {
			return Copied{}, err
		}
		defer dst.dir.Close()
		got, err := overlay.Extract(ctx, dst.dir, r, overlay.ExtractOptions{Plain: true, From: nameOf(from), To: dst.name, Limits: copyLimits})
		return Copied{Bytes: got.Bytes, Left: got.Skipped}, err
	})
	return done, c.copyError(from, err)
}

// CopyOutTar writes a path of the container as a tar, with its true owners.
func (c *Container) CopyOutTar(ctx context.Context, from string, w io.Writer, o CopyOptions) (Copied, error) {
	done, err := c.copyOut(ctx, from, o, func(_ FileStat, r io.Reader) (Copied, error) {
		n, err := io.Copy(w, r)
		return Copied{Bytes: n}, err
	})
	return done, c.copyError(from, err)
}

func (c *Container) copyError(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("copy %s:%s: %w", c.Config.Name, path, err)
}

func (c *Container) copyOut(ctx context.Context, from string, o CopyOptions, take func(FileStat, io.Reader) (Copied, error)) (Copied, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return Copied{}, err
	}
	defer r.Close()
	owners, err := c.recordedOwners(ctx)
	if err != nil {
		w.Close()
		return Copied{}, err
	}
	role, first, err := c.ask(ctx, archiveQuestion{Path: from, Follow: o.Follow}, w, owners...)
	if err != nil {
		return Copied{}, err
	}
	defer role.close()
	done, takeErr := take(first.Stat, r)
	// Whoever still writes sees that nobody reads.
	r.Close()
	last, err := role.reply(ctx)
	// An error of the role explains an archive that ends too early, but not one of
	// ours, which made the role end.
	if takeErr != nil && (err == nil || errors.Is(err, unix.EPIPE)) {
		return done, takeErr
	}
	done.Bytes = max(done.Bytes, last.Bytes)
	return done, err
}

// CopyIn copies a path of this machine to one of the container, by the rules of
// docker cp. The files are root's there, or with Archive whose they are here, as
// far as the container has such a user.
func (c *Container) CopyIn(ctx context.Context, from, to string, o CopyOptions) (Copied, error) {
	src, err := localSource(from, o.Follow)
	if err != nil {
		return Copied{}, err
	}
	defer src.dir.Close()
	owner := func(uint32, uint32) (uint32, uint32) { return 0, 0 }
	if o.Archive {
		owner = func(uid, gid uint32) (uint32, uint32) {
			return c.Config.Rung.InsideUID(uid), c.Config.Rung.InsideGID(gid)
		}
	}
	done, err := c.copyIn(ctx, to, incoming{Name: src.as, Dir: src.isDir}, func(w io.Writer) error {
		_, err := overlay.ArchiveDir(ctx, w, src.dir, overlay.ArchiveOptions{Path: src.base, Name: src.as, Owner: owner})
		return err
	})
	return done, c.copyError(to, err)
}

// CopyInTar unpacks a tar, compressed or not, into a directory of the container.
// Its owners hold.
func (c *Container) CopyInTar(ctx context.Context, r io.Reader, to string) (Copied, error) {
	done, err := c.copyIn(ctx, to, incoming{Stream: true, Dir: true}, func(w io.Writer) error {
		plain, _, err := overlay.Decompress(r)
		if err != nil {
			return err
		}
		defer plain.Close()
		_, err = io.Copy(w, plain)
		return err
	})
	return done, c.copyError(to, err)
}

func (c *Container) copyIn(ctx context.Context, to string, from incoming, give func(io.Writer) error) (Copied, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return Copied{}, err
	}
	defer w.Close()
	role, _, err := c.ask(ctx, archiveQuestion{Path: to, In: &from}, r)
	if err != nil {
		return Copied{}, err
	}
	defer role.close()
	giveErr := give(w)
	if giveErr != nil && !errors.Is(giveErr, syscall.EPIPE) {
		// Half an archive is not to be taken for a whole one.
		return Copied{}, giveErr
	}
	w.Close()
	last, err := role.reply(ctx)
	return Copied{Bytes: last.Bytes, Left: last.Left}, err
}

// ask starts the role and asks it. The files are the role's from then on: the end
// of the pipe, and the table of owners if there is one.
func (c *Container) ask(ctx context.Context, q archiveQuestion, pipe *os.File, owners ...*os.File) (*insider, archiveReply, error) {
	files := append([]*os.File{pipe}, owners...)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	q.Container, q.Recorded = c.Config.Name, !c.Config.Rung.IsMapped()
	for _, m := range c.Config.Mounts {
		if m.Type == Volume {
			q.Own = append(q.Own, strings.TrimLeft(m.Target, "/"))
		}
	}
	role, err := c.enter(ctx, transferRole)
	if err != nil {
		return nil, archiveReply{}, err
	}
	if err = role.conn.Send(q, files...); err == nil {
		var first archiveReply
		if first, err = role.reply(ctx); err == nil {
			return role, first, nil
		}
	}
	role.close()
	return nil, archiveReply{}, err
}

func (i *insider) reply(ctx context.Context) (archiveReply, error) {
	var r archiveReply
	if _, err := i.conn.Receive(ctx, &r); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the copier was killed")
		}
		return r, err
	}
	if r.Error != nil {
		return r, r.Error
	}
	return r, nil
}

// local is a path of this machine: base in dir. as is its name in the tar.
type local struct {
	dir      *os.File
	base, as string
	isDir    bool
}

// localSource opens the parent of what is copied, by the rules of docker cp: a
// link is copied as one, unless it is to be followed or a slash stands behind it.
func localSource(name string, follow bool) (local, error) {
	l := local{as: nameOf(absolute(name))}
	if l.as != "" && strings.HasSuffix(name, "/.") {
		l.as = ""
	}
	if follow || assertsDirectory(name) {
		resolved, err := filepath.EvalSymlinks(name)
		if err != nil {
			return l, bareError(err)
		}
		if fi, err := os.Stat(resolved); err == nil && assertsDirectory(name) && !fi.IsDir() {
			return l, fmt.Errorf("%s: %w", name, errNotDirectory)
		}
		name = resolved
	}
	fi, err := os.Lstat(name)
	if err != nil {
		return l, bareError(err)
	}
	l.isDir = fi.IsDir()
	at := name
	if !l.isDir {
		at, l.base = filepath.Dir(name), filepath.Base(name)
	}
	l.dir, err = os.Open(at)
	return l, bareError(err)
}

// absolute makes a path absolute and leaves what its end says.
func absolute(name string) string {
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	if strings.HasSuffix(name, "/.") || name == "." {
		return abs + "/."
	}
	return abs
}

// target is where a copy goes on this machine.
type target struct {
	dir  *os.File
	name string // in dir; "" for dir itself
}

func localDestination(to, name string, isDir bool) (target, error) {
	fi, err := os.Stat(to)
	switch {
	case err == nil && fi.IsDir():
		dir, err := os.Open(to)
		return target{dir, name}, bareError(err)
	case err == nil && isDir:
		return target{}, errCannotCopyDir
	case err == nil:
		if to, err = filepath.EvalSymlinks(to); err != nil {
			return target{}, bareError(err)
		}
	case errors.Is(err, syscall.ENOTDIR):
		return target{}, errNotDirectory
	case !errors.Is(err, os.ErrNotExist):
		return target{}, bareError(err)
	case !isDir && assertsDirectory(to):
		return target{}, errDirNotExists
	}
	to = filepath.Clean(to)
	// A link that leads nowhere is where the file comes to be.
	if link, err := os.Readlink(to); err == nil {
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(to), link)
		}
		to = link
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return target{}, fmt.Errorf("invalid output path: directory %q does not exist", filepath.Dir(to))
	}
	if fi, err := dir.Stat(); err != nil || !fi.IsDir() {
		dir.Close()
		return target{}, errNotDirectory
	}
	return target{dir, filepath.Base(to)}, nil
}

// bareError is an error of a path in our words.
func bareError(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s %s: %w", p.Op, p.Path, p.Err)
	}
	return err
}
