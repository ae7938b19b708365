// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A View reads a tree without mounting it: the merged tree of layer directories,
// or a plain directory. Symbolic links are followed in the tree; none leads out of it.
type View struct {
	stack   *stack
	options ViewOptions
}

// ViewOptions say what the directories of a view are.
type ViewOptions struct {
	// Recorded means what it does in UnpackOptions.
	Recorded bool

	// Owners are the tables of the directories; nil stands for none.
	Owners []Owners

	// Plain is for one directory that is no layer. No name in it is a sign, owners
	// and attributes are left out: everything is 0:0.
	Plain bool
}

// ViewEntry is a file of a view.
type ViewEntry struct {
	Path string // from the root, without a leading slash, links resolved but for the last; "" is the root
	Kind Kind   // as on disk: an entry that stands for a device is a File
	Size int64
	at   found
}

// Identity tells entries that are the same file apart from others. It is zero for
// a file with one name.
func (e *ViewEntry) Identity() [3]uint64 {
	if e.at.st.Nlink < 2 || e.Kind == Dir {
		return [3]uint64{}
	}
	return [3]uint64{uint64(e.at.layer) + 1, uint64(e.at.st.Dev), e.at.st.Ino}
}

// OpenView opens directories, topmost first.
func OpenView(lower []string, o ViewOptions) (*View, error) {
	s, err := openStack(lower)
	if err != nil {
		return nil, err
	}
	s.plain = o.Plain
	return &View{stack: s, options: o}, nil
}

// Close closes the directories.
func (v *View) Close() { v.stack.close() }

// Lookup finds a path. The error is fs.ErrNotExist when there is no such thing.
// The last component is followed only if it is to be.
func (v *View) Lookup(name string, follow bool) (ViewEntry, error) {
	f, at, err := v.stack.resolve(name, follow)
	if err != nil {
		if err == unix.ENOENT || err == unix.ENOTDIR {
			err = fs.ErrNotExist
		}
		return ViewEntry{}, &fs.PathError{Op: "lstat", Path: path.Join("/", name), Err: err}
	}
	return newViewEntry(at, f), nil
}

func newViewEntry(path string, f found) ViewEntry {
	if len(f.dir.layers) > 0 {
		f.layer = f.dir.layers[0]
	}
	e := ViewEntry{Path: path, Kind: kindOf(uint32(f.st.Mode)), at: f}
	if e.Kind == File {
		e.Size = f.st.Size
	}
	return e
}

// List lists a directory, sorted by name.
func (v *View) List(ctx context.Context, dir ViewEntry) ([]ViewEntry, error) {
	names, err := v.stack.list(ctx, dir.at.dir)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + dir.Path, Err: err}
	}
	list := make([]ViewEntry, 0, len(names))
	for _, name := range sortedNames(names) {
		list = append(list, newViewEntry(joinPath(dir.Path, name), *names[name]))
	}
	return list, nil
}

// Link reads a symbolic link.
func (v *View) Link(e ViewEntry) (string, error) {
	dir, base := splitPath(e.Path)
	target, err := v.stack.readLink(e.at.layer, dir, base)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: "/" + e.Path, Err: err}
	}
	return target, nil
}

// Open opens a regular file for reading.
func (v *View) Open(e ViewEntry) (*os.File, error) {
	fd, err := v.stack.openFound(e.at, e.Path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + e.Path, Err: err}
	}
	return os.NewFile(uintptr(fd), "/"+e.Path), nil
}

// Header describes an entry as a layer's tar does, but for its name. The time is
// in whole seconds.
func (v *View) Header(e ViewEntry) (*tar.Header, error) {
	var n node
	var err error
	if v.options.Plain {
		n = node{owner: ownerOnDisk(&e.at.st, true), times: timesOf(&e.at.st)}
	} else if e.Path == "" {
		n, err = v.rootNode()
	} else {
		n, err = v.stack.nodeAt(&e.at, e.Path, v.options.Recorded, v.options.Owners)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + e.Path, Err: err}
	}
	p := packer{}
	h := p.header(strings.TrimSuffix(e.Path, "/"), &n)
	h.ModTime = time.Unix(n.times[1].Sec, 0)
	switch h.Typeflag {
	case tar.TypeSymlink:
		if h.Linkname, err = v.Link(e); err != nil {
			return nil, err
		}
	case tar.TypeReg:
		h.Size = e.Size
	}
	if n.owner.Kind == Socket {
		return nil, ErrSocket
	}
	return h, nil
}

func (v *View) rootNode() (node, error) {
	fd, err := v.stack.openDir(0, "")
	if err != nil {
		return node{}, err
	}
	defer unix.Close(fd)
	return nodeOf(fd, v.options.Recorded)
}

// ErrSocket says that a file is a socket, which no layer holds.
var ErrSocket = errors.New("is a socket")
