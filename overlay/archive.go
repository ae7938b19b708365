// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"context"
	"io"
	"math"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// ArchiveOptions say what of a tree is packed, and how it is called.
type ArchiveOptions struct {
	// Recorded means what it does in UnpackOptions: owners are in records.
	Recorded bool

	// Owners is the table of owners of each directory.
	Owners []Owners

	// Path is where in the tree to begin, "" for all of it. It is looked up as a
	// process would that has the tree for its root. Follow is for its last
	// component, too.
	Path   string
	Follow bool

	// Name is what that is called in the tar. "" leaves the top directory out: what
	// is in it stands at the top of the tar.
	Name string

	// Select chooses what is packed by its path below the beginning, and whether a
	// directory is entered. nil chooses everything.
	Select func(path string, dir bool) (pack, enter bool)

	// Clamp is the latest time that a file may have; zero: any.
	Clamp time.Time

	// Owner changes who owns a file; nil leaves it as it is.
	Owner func(uid, gid uint32) (uint32, uint32)
}

// Archive writes a tar of the merged tree of a stack of layer directories, topmost
// first, or of a part of it: a container's files. Entries are sorted, and are as
// Diff has them. Sockets are left out. What has gone when its turn comes is left
// out; a file that cannot be read is an *EntryError. Nothing outside the tree is
// opened, whatever its links say and however it changes meanwhile.
//
// Runs in: the caller's namespaces when no file is shut to him, else as root of a
// user namespace.
func Archive(ctx context.Context, w io.Writer, lower []string, o ArchiveOptions) (Packed, error) {
	s, err := openStack(lower)
	if err != nil {
		return Packed{}, err
	}
	return archiveOf(ctx, w, s, &o)
}

// ArchiveDir is Archive of one directory that is no layer: no file in it is a sign,
// and every name is allowed. The table of owners is the first of o.Owners.
func ArchiveDir(ctx context.Context, w io.Writer, dir *os.File, o ArchiveOptions) (Packed, error) {
	fd, err := openat(int(dir.Fd()), ".", openDir, 0)
	runtime.KeepAlive(dir)
	if err != nil {
		return Packed{}, named("open "+dir.Name(), err)
	}
	return archiveOf(ctx, w, &stack{roots: []int{fd}, steps: math.MaxInt64, plain: true}, &o)
}

func archiveOf(ctx context.Context, w io.Writer, s *stack, o *ArchiveOptions) (Packed, error) {
	defer s.close()
	endless := Limits{Bytes: math.MaxInt64, Entries: math.MaxInt64}
	a := &archiver{ctx: ctx, options: o, stack: s, packer: newPacker(ctx, w, o.Clamp, endless.filled())}
	a.packer.recorded, a.packer.plain = o.Recorded, s.plain
	defer a.closeFDs()
	if err := a.run(); err != nil {
		return Packed{}, err
	}
	return a.packer.close()
}

// An archiver walks a merged tree, and holds the names of one directory for each
// level.
type archiver struct {
	ctx     context.Context
	options *ArchiveOptions
	stack   *stack
	packer  *packer

	way []*archived
	fds map[int]int // of the directory that is worked on, by layer
}

// archived is a directory on the way.
type archived struct {
	dir   merged
	below string // its path below the beginning
	name  string // what it is called in the tar
	names map[string]*found
	todo  []string
}

func (a *archiver) run() error {
	o := a.options
	f, path, err := a.stack.resolve(o.Path, o.Follow)
	if err != nil {
		return named("look up "+quote("/"+o.Path), err)
	}
	if f.dir.layers == nil {
		up, base := splitPath(path)
		a.way = []*archived{{dir: merged{path: up}}}
		name := o.Name
		if name == "" {
			name = base
		}
		return a.pack(base, path, name, &f)
	}
	if err := a.enter(f.dir, "", o.Name, o.Name != ""); err != nil {
		return entryError(path, err)
	}
	for len(a.way) > 0 {
		d := a.way[len(a.way)-1]
		if len(d.todo) == 0 {
			a.closeFDs()
			a.way = a.way[:len(a.way)-1]
			continue
		}
		base := d.todo[0]
		d.todo = d.todo[1:]
		if err := a.entry(d, base); err != nil {
			return entryError(joinPath(d.dir.path, base), err)
		}
	}
	return nil
}

// entry packs what has a name in a directory.
func (a *archiver) entry(d *archived, base string) error {
	f := d.names[base]
	delete(d.names, base)
	below, name := joinPath(d.below, base), joinPath(d.name, base)
	isDir := f.dir.layers != nil
	pack, enter := true, true
	if a.options.Select != nil {
		pack, enter = a.options.Select(below, isDir)
	}
	switch {
	case isDir && enter:
		return a.enter(f.dir, below, name, pack)
	case !pack:
		return nil
	case isDir:
		return a.directory(f.dir, name)
	}
	return a.pack(base, joinPath(d.dir.path, base), name, f)
}

// enter makes a directory the one that is worked on.
func (a *archiver) enter(dir merged, below, name string, pack bool) error {
	if pack {
		if err := a.directory(dir, name); err != nil {
			return gone(err)
		}
	}
	names, err := a.stack.list(a.ctx, dir)
	if err != nil {
		return gone(err)
	}
	a.closeFDs()
	a.way = append(a.way, &archived{dir: dir, below: below, name: name, names: names, todo: sortedNames(names)})
	return nil
}

// gone takes it for no error that a file was removed, or became another.
func gone(err error) error {
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP || err == ErrNotRegular {
		return nil
	}
	return err
}

func (a *archiver) directory(dir merged, name string) error {
	top := dir.layers[0]
	fd, err := a.stack.openDir(top, dir.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := a.packer.node(fd)
	if err != nil {
		return err
	}
	a.complete(&n, top, dir.path)
	return a.packer.dir(name, &n)
}

func (a *archiver) complete(n *node, layer int, path string) {
	if a.options.Owner != nil {
		n.owner.UID, n.owner.GID = a.options.Owner(n.owner.UID, n.owner.GID)
	}
	if layer < len(a.options.Owners) {
		a.options.Owners[layer].complete(n, path)
	}
}

// pack packs a file that is no directory.
func (a *archiver) pack(base, path, name string, f *found) error {
	fd, ok := a.fds[f.layer]
	if !ok {
		up, _ := splitPath(path)
		var err error
		if fd, err = a.stack.openDir(f.layer, up); err != nil {
			return gone(err)
		}
		if a.fds == nil {
			a.fds = map[int]int{}
		}
		a.fds[f.layer] = fd
	}
	return a.packer.file(fd, base, name, &f.st, func(n *node) { a.complete(n, f.layer, path) })
}

func (a *archiver) closeFDs() {
	for layer, fd := range a.fds {
		unix.Close(fd)
		delete(a.fds, layer)
	}
}
