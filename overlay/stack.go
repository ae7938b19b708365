// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"math"
	"strings"

	"golang.org/x/sys/unix"
)

// A stack is layer directories as one merged tree, by the rules of overlayfs,
// without a mount.
type stack struct {
	roots []int // topmost first
	plain bool  // the only one is any directory: no name and no file in it is a sign
	opener

	// steps is how many directories of layers may still be opened.
	steps int64
}

// merged is a directory of the merged tree: the layers whose directories at path
// show in it, topmost first.
type merged struct {
	path   string
	layers []int
}

// found is what the merged tree has under a name.
type found struct {
	st    unix.Stat_t
	layer int    // the topmost that has it
	dir   merged // if it is a directory

	closed bool // layers below add nothing to it; only list says so
}

// openStack opens layer directories, topmost first. Those below one whose root
// is opaque are not seen, so they are left out.
func openStack(lower []string) (*stack, error) {
	s := &stack{steps: math.MaxInt64}
	for _, dir := range lower {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			s.close()
			return nil, named("open layer "+dir, err)
		}
		s.roots = append(s.roots, fd)
		if isOpaque(fd) {
			break
		}
	}
	return s, nil
}

// Visible returns those of a stack of layer directories, topmost first, that can
// be seen: an image layer may hide everything below it, by an opaque root. The
// kernel's overlayfs pays no attention to that on a root, so whoever mounts a
// stack must leave the hidden ones out.
func Visible(lower []string) ([]string, error) {
	s, err := openStack(lower)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return lower[:len(s.roots)], nil
}

func (s *stack) close() {
	for _, fd := range s.roots {
		unix.Close(fd)
	}
}

func (s *stack) root() merged {
	m := merged{}
	for i := range s.roots {
		m.layers = append(m.layers, i)
	}
	return m
}

// openDir opens the directory of one layer.
func (s *stack) openDir(layer int, path string) (int, error) {
	if s.steps--; s.steps < 0 {
		return noFD, &LimitError{What: "steps to look up its paths in the layers below", Max: maxSteps}
	}
	return s.open(s.roots[layer], path, openDir, beneathOnly)
}

// lookup finds name in a merged directory; ENOENT says that there is none.
func (s *stack) lookup(d merged, name string) (found, error) {
	f := found{layer: -1}
	if isReserved(name) && !s.plain {
		return f, unix.ENOENT
	}
	for _, layer := range d.layers {
		stop, err := s.lookupIn(layer, d.path, name, &f)
		if err != nil {
			return f, err
		}
		if stop {
			break
		}
	}
	if f.layer < 0 {
		return f, unix.ENOENT
	}
	return f, nil
}

// lookupIn adds what one layer has under name to what those above it have. It
// reports whether the layers below can add nothing.
func (s *stack) lookupIn(layer int, path, name string, f *found) (stop bool, err error) {
	fd, err := s.openDir(layer, path)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := lstatAt(fd, name, &st); err == unix.ENOENT {
		if s.plain {
			return true, nil
		}
		err := lstatAt(fd, whiteoutPrefix+name, &st)
		return err == nil && kindBits(&st) == unix.S_IFREG, nil
	} else if err != nil {
		return false, err
	}
	switch {
	case isWhiteout(&st) && !s.plain:
		return true, nil
	case !isDir(&st):
		if f.layer < 0 {
			f.st, f.layer = st, layer
		}
		return true, nil
	}
	if f.layer < 0 {
		f.st, f.layer, f.dir.path = st, layer, joinPath(path, name)
	}
	f.dir.layers = append(f.dir.layers, layer)
	sub, err := openat(fd, name, openDir, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(sub)
	return isOpaque(sub), nil
}

// readLink reads a symbolic link that lookup found in the directory path.
func (s *stack) readLink(layer int, path, name string) (string, error) {
	fd, err := s.openDir(layer, path)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return readLink(fd, name)
}

// maxMergedLinks is the kernel's own limit on links in one path.
const maxMergedLinks = 40

// resolve finds a path of the merged tree, as a process in a container would.
// The last component is followed too unless it is to be taken as it is.
func (s *stack) resolve(name string, follow bool) (found, string, error) {
	way := []merged{s.root()}
	f := found{dir: way[0]}
	f.st.Mode = unix.S_IFDIR
	links := 0
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			way = way[:max(1, len(way)-1)]
			f = found{dir: way[len(way)-1]}
			f.st.Mode = unix.S_IFDIR
			continue
		}
		here := way[len(way)-1]
		var err error
		if f, err = s.lookup(here, part); err != nil {
			return f, "", err
		}
		switch kindBits(&f.st) {
		case unix.S_IFDIR:
			way = append(way, f.dir)
			continue
		case unix.S_IFLNK:
			if rest == "" && !follow {
				return f, joinPath(here.path, part), nil
			}
		default:
			if rest != "" {
				return f, "", unix.ENOTDIR
			}
			return f, joinPath(here.path, part), nil
		}
		target, err := s.readLink(f.layer, here.path, part)
		if err != nil {
			return f, "", err
		}
		if links++; links > maxMergedLinks || len(target)+len(rest) > 1<<16 {
			return f, "", unix.ELOOP
		}
		if target == "" {
			return f, "", unix.ENOENT
		}
		if target[0] == '/' {
			way = way[:1]
		}
		rest = target + "/" + rest
	}
	return f, way[len(way)-1].path, nil
}

// errNotHere says that a hard link's target is nowhere.
var errNotHere = errors.New("no such file in this layer or those below it")
