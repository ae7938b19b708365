// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"cmp"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Flatten copies the merged tree of a stack of layer directories, topmost first,
// into dst, an empty directory on any filesystem, as plain files: what a
// container gets where overlayfs is refused. Whiteouts and opaque directories
// are obeyed and gone, hard links within a layer and holes stay, blocks are
// shared where the filesystem can. Owners of each layer go in beside lower and
// come out for the copy; nil stands for none.
//
// Recorded means what it does in UnpackOptions. Files that their owner may not
// read need a caller with capabilities over them.
func Flatten(ctx context.Context, dst *os.File, lower []string, owners []Owners, recorded bool) (Owners, error) {
	return FlattenAt(ctx, dst, lower, owners, recorded, "")
}

// FlattenAt is Flatten of the directory at a path of the merged tree, which is
// found as a process in it would: what a new volume is filled with. Hard links to
// what lies elsewhere in the tree become files of their own.
func FlattenAt(ctx context.Context, dst *os.File, lower []string, owners []Owners, recorded bool, at string) (Owners, error) {
	s, err := openStack(lower)
	if err != nil {
		return nil, err
	}
	defer s.close()
	fd, err := openat(int(dst.Fd()), ".", openDir, 0)
	runtime.KeepAlive(dst)
	if err != nil {
		return nil, named("open "+dst.Name(), err)
	}
	defer unix.Close(fd)
	f := &flattener{
		ctx: ctx, stack: s, owners: owners, dst: fd,
		writer: &writer{recorded: recorded}, copies: map[fileInLayer]string{},
	}
	from, path, err := s.resolve(at, true)
	if err == nil && !isDir(&from.st) {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, named("look up "+quote(at), err)
	}
	if f.base = path; f.base != "" {
		f.base += "/"
	}
	f.todo = []merged{from.dir}
	if err := f.run(); err != nil {
		return nil, err
	}
	return f.writer.owners.table(), nil
}

type flattener struct {
	ctx    context.Context
	stack  *stack
	owners []Owners
	dst    int
	base   string // the directory in the stack that is copied, with a slash behind, or ""
	opener
	writer *writer
	copies map[fileInLayer]string // where files with several names went first
	todo   []merged
}

// fileInLayer is an inode; two layers may be on two filesystems.
type fileInLayer struct {
	layer int
	id    inode
}

// to is where the copy of a path of the stack is.
func (f *flattener) to(path string) string {
	if path+"/" == f.base {
		return ""
	}
	return strings.TrimPrefix(path, f.base)
}

func (f *flattener) run() error {
	for len(f.todo) > 0 {
		d := f.todo[len(f.todo)-1]
		f.todo = f.todo[:len(f.todo)-1]
		if err := f.ctx.Err(); err != nil {
			return err
		}
		if err := f.directory(d); err != nil {
			return &EntryError{Op: "copy", Name: cmp.Or(d.path, "."), Err: err}
		}
	}
	return nil
}

// directory fills the copy of a merged directory, which is there but empty. The
// directories in it are made, and filled later, so that its times can be set.
func (f *flattener) directory(d merged) error {
	if len(d.layers) == 0 {
		return nil
	}
	dst, err := f.open(f.dst, f.to(d.path), openDir, beneathOnly)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	names, err := f.stack.list(f.ctx, d)
	if err != nil {
		return err
	}
	for _, layer := range d.layers {
		if err := f.layerOf(dst, d, layer, names); err != nil {
			return err
		}
	}
	for name, have := range names {
		if have.dir.layers == nil {
			continue
		}
		if err := unix.Mkdirat(dst, name, ownerBits); err != nil {
			return named("create "+quote(name), err)
		}
		f.todo = append(f.todo, have.dir)
	}
	top := d.layers[0]
	src, err := f.stack.openDir(top, d.path)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	n, err := f.node(src, top, d.path)
	if err != nil {
		return err
	}
	if err := f.writer.apply(dst, f.to(d.path), n); err != nil {
		return err
	}
	return named("set times", setTimes(dst, &n.times))
}

// layerOf copies the files that one layer shows in a merged directory.
func (f *flattener) layerOf(dst int, d merged, layer int, names map[string]*found) error {
	src, err := f.stack.openDir(layer, d.path)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	for name, have := range names {
		if have.layer != layer || have.dir.layers != nil {
			continue
		}
		if err := f.ctx.Err(); err != nil {
			return err
		}
		if err := f.copy(dst, src, layer, joinPath(d.path, name), name, &have.st); err != nil {
			return named(quote(name), err)
		}
	}
	return nil
}

// node is the metadata of a file in a layer, with what its table says.
func (f *flattener) node(fd, layer int, path string) (node, error) {
	n, err := nodeOf(fd, f.writer.recorded)
	if err != nil {
		return n, err
	}
	f.fromTable(&n, layer, path)
	return n, nil
}

func (f *flattener) fromTable(n *node, layer int, path string) {
	if layer < len(f.owners) {
		f.owners[layer].complete(n, path)
	}
}

// copy copies what is no directory.
func (f *flattener) copy(dst, src, layer int, path, name string, st *unix.Stat_t) error {
	if st.Nlink > 1 {
		id := fileInLayer{layer, inodeOf(st)}
		if first, ok := f.copies[id]; ok {
			return f.link(first, dst, name, path)
		}
		f.copies[id] = path
	}
	switch kindBits(st) {
	case unix.S_IFREG:
		return f.file(dst, src, layer, path, name)
	case unix.S_IFLNK:
		target, err := readLink(src, name)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, dst, name); err != nil {
			return err
		}
	case unix.S_IFIFO, unix.S_IFSOCK:
		if err := unix.Mknodat(dst, name, uint32(st.Mode), 0); err != nil {
			return err
		}
	default:
		return errors.New("a device in a layer") // no layer of ours has one
	}
	return f.special(dst, layer, path, name, st)
}

func (f *flattener) file(dst, src, layer int, path, name string) (err error) {
	in, err := openat(src, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	out, err := openat(dst, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := unix.Close(out); err == nil {
			err = closeErr
		}
	}()
	if _, err := copyData(f.ctx, out, in); err != nil {
		return err
	}
	n, err := f.node(in, layer, path)
	if err != nil {
		return err
	}
	if err := f.writer.apply(out, f.to(path), n); err != nil {
		return err
	}
	return setTimes(out, &n.times)
}

// special gives a symbolic link, pipe or socket its metadata. Its attributes stay
// behind: none that an image may have can be on such a file.
func (f *flattener) special(dst, layer int, path, name string, st *unix.Stat_t) error {
	n := node{owner: ownerOnDisk(st, f.writer.recorded), times: timesOf(st)}
	f.fromTable(&n, layer, path)
	if f.writer.recorded {
		if err := f.writer.owners.set(f.to(path), n.owner); err != nil {
			return err
		}
	} else if err := unix.Fchownat(dst, name, int(n.owner.UID), int(n.owner.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return chownError(n.owner.UID, n.owner.GID, err)
	}
	if kindBits(st) != unix.S_IFLNK {
		fd, err := openat(dst, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := reopenedChmod(fd, uint32(st.Mode)&modeBits); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(dst, name, n.times[:], unix.AT_SYMLINK_NOFOLLOW)
}

// link makes name a second name of a file that was copied to the path first.
func (f *flattener) link(first string, dst int, name, path string) error {
	dir, base := splitPath(f.to(first))
	fd, err := f.open(f.dst, dir, openDir, beneathOnly)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Linkat(fd, base, dst, name, 0); err != nil {
		return err
	}
	if o, ok := f.writer.owners.owners[f.to(first)]; ok {
		return f.writer.owners.set(f.to(path), o)
	}
	return nil
}
