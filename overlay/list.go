// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"
)

// hidden is what list holds, while it works, for a name that has gone.
var hidden = &found{}

// list reads what a merged directory shows, by name. It costs one reading of the
// directory in each layer that has it, and memory for its names.
func (s *stack) list(ctx context.Context, d merged) (map[string]*found, error) {
	names := map[string]*found{}
	for _, layer := range d.layers {
		if err := s.listLayer(ctx, d, layer, names); err != nil {
			return nil, err
		}
	}
	for name, f := range names {
		if f == hidden {
			delete(names, name)
		}
	}
	return names, nil
}

// listLayer adds what one layer has to what those above it have. The layer of an
// entry is where it was found first; closed directories merge with nothing more.
func (s *stack) listLayer(ctx context.Context, d merged, layer int, names map[string]*found) error {
	fd, err := s.openDir(layer, d.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var gone []string
	var read dirReader
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		list, err := read.next(fd)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			if !s.plain && isReserved(e.name) {
				if e.name != opaqueName {
					gone = append(gone, e.name[len(whiteoutPrefix):])
				}
				continue
			}
			if err := s.listEntry(fd, d, layer, e.name, names); err != nil {
				return named(quote(e.name), err)
			}
		}
	}
	for _, name := range gone {
		if have, seen := names[name]; !seen {
			names[name] = hidden
		} else if have != hidden {
			have.closed = true
		}
	}
	return nil
}

func (s *stack) listEntry(fd int, d merged, layer int, name string, names map[string]*found) error {
	have, seen := names[name]
	if seen && (have == hidden || have.closed) {
		return nil
	}
	var st unix.Stat_t
	if err := lstatAt(fd, name, &st); err == unix.ENOENT {
		return nil // it has just been removed
	} else if err != nil {
		return err
	}
	switch {
	case !s.plain && isWhiteout(&st):
		if seen {
			have.closed = true
			return nil
		}
		names[name] = hidden
		return nil
	case !isDir(&st):
		if seen {
			have.closed = true
			return nil
		}
		names[name] = &found{st: st, layer: layer, closed: true}
		return nil
	case !seen:
		have = &found{st: st, layer: layer, dir: merged{path: joinPath(d.path, name)}}
		names[name] = have
	}
	have.dir.layers = append(have.dir.layers, layer)
	if s.plain || layer == d.layers[len(d.layers)-1] {
		return nil // nothing is below
	}
	sub, err := openat(fd, name, openDir, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		have.closed = true
		return nil
	}
	if err != nil {
		return err
	}
	have.closed = isOpaque(sub)
	unix.Close(sub)
	return nil
}

func sortedNames[V any](names map[string]V) []string {
	list := make([]string, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// nodeAt reads the metadata of what lookup or list has found at path.
func (s *stack) nodeAt(f *found, path string, recorded bool, tables []Owners) (node, error) {
	var n node
	at := path
	if f.dir.layers != nil {
		fd, err := s.openDir(f.layer, at)
		if err != nil {
			return n, err
		}
		defer unix.Close(fd)
		if n, err = nodeOf(fd, recorded); err != nil {
			return n, err
		}
	} else {
		dir, base := splitPath(at)
		fd, err := s.openDir(f.layer, dir)
		if err != nil {
			return n, err
		}
		defer unix.Close(fd)
		if n, err = nodeIn(fd, base, &f.st, recorded); err != nil {
			return n, err
		}
	}
	if f.layer < len(tables) {
		tables[f.layer].complete(&n, path)
	}
	return n, nil
}

// nodeIn reads the metadata of a file that is no directory, without what a table
// says of it.
func nodeIn(dir int, base string, st *unix.Stat_t, recorded bool) (node, error) {
	if kindBits(st) != unix.S_IFREG {
		return node{owner: ownerOnDisk(st, recorded), times: timesOf(st)}, nil
	}
	fd, err := openRegular(dir, base)
	if err != nil {
		return node{}, err
	}
	defer unix.Close(fd)
	return nodeOf(fd, recorded)
}

// openRegular opens a regular file to read it. Whatever has come in its place is
// not waited for, and is ErrNotRegular.
func openRegular(dir int, base string) (int, error) {
	fd, err := openat(dir, base, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return noFD, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && kindBits(&st) != unix.S_IFREG {
		err = ErrNotRegular
	}
	if err != nil {
		unix.Close(fd)
		return noFD, err
	}
	return fd, nil
}

// complete adds to a node what the table says of the file at path.
func (t Owners) complete(n *node, path string) {
	if len(t) == 0 {
		return
	}
	if path == "" {
		path = "."
	}
	o, ok := t[path]
	if !ok {
		return
	}
	for name, value := range o.Xattrs {
		n.xattrs = append(n.xattrs, xattr{name, value})
	}
	o.Xattrs = nil
	n.owner = o
}
