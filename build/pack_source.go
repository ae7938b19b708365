// SPDX-License-Identifier: Apache-2.0

package build

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"sbx/overlay"
)

// reading is a source while it is copied.
type reading struct {
	*packSource
	tree   *tree
	view   *overlay.View
	ignore *filter
}

// header describes an entry of the source.
func (r *reading) header(e overlay.ViewEntry) (*tar.Header, error) {
	h, err := r.view.Header(e)
	if err == nil && r.tree.Nobody {
		h.Uid, h.Gid = 0, 0
	}
	return h, err
}

func (p *packer) source(src *packSource) error {
	if src.Data != nil {
		return p.inline(src)
	}
	from := &p.job.From
	if src.Tree != nil {
		from = src.Tree
	}
	if len(from.Lower) == 0 {
		return missing(src.Path)
	}
	view, err := from.open()
	if err != nil {
		return &SourcePathError{err}
	}
	defer view.Close()
	ignore, err := newFilter(from.Ignore)
	if err != nil {
		return fmt.Errorf("read .dockerignore: %w", err)
	}
	p.links = map[[3]uint64]string{}
	r := &reading{packSource: src, tree: from, view: view, ignore: ignore}
	if p.job.Parents && !src.Exact {
		return p.withParents(r)
	}
	matches := []string{strings.TrimPrefix(path.Clean("/"+src.Path), "/")}
	wild := !src.Exact && hasWildcard(src.Path)
	if wild {
		if matches, err = r.glob(p, matches[0]); err != nil {
			return err
		}
	}
	for _, m := range matches {
		if err := p.match(r, m, wild); err != nil {
			return err
		}
	}
	return nil
}

// match copies one path that a source names. A link there is followed.
func (p *packer) match(r *reading, name string, wild bool) error {
	e, err := r.find(name)
	if wild && errors.Is(err, errMissing) {
		return nil // ignored
	}
	if err != nil {
		return err
	}
	if wild {
		// Of what a pattern matches, some can be excluded by name.
		if drop, err := p.excludes.dropsPath(path.Base(name)); err != nil || drop {
			return err
		}
	}
	dest, err := p.resolve(strings.TrimPrefix(p.job.Dest, "/"))
	if err != nil {
		return err
	}
	if r.Unpack && e.Kind == overlay.File {
		done, err := p.unpackArchive(r, e, dest)
		if done || err != nil {
			return err
		}
	}
	if e.Kind == overlay.Dir {
		if err := p.makeDirs(dest); err != nil {
			return fmt.Errorf("cannot copy to non-directory: %s", path.Join("/", dest))
		}
		return p.contents(r, e, dest, "")
	}
	if dest, err = p.place(dest, path.Base(name)); err != nil {
		return err
	}
	return p.file(r, e, dest)
}

// place decides where a file goes: into dest where that is a directory, or else
// in its place. The directories of the way are made.
func (p *packer) place(dest, base string) (string, error) {
	kind, ok, err := p.existing(dest)
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(p.job.Dest, "/") || ok && kind == overlay.Dir {
		if dest, err = p.resolve(path.Join(dest, base)); err != nil {
			return "", err
		}
	}
	return dest, p.makeDirs(path.Dir(dest))
}

// inline writes a here-document.
func (p *packer) inline(src *packSource) error {
	dest, err := p.resolve(strings.TrimPrefix(p.job.Dest, "/"))
	if err == nil {
		dest, err = p.place(dest, path.Base(src.Name))
	}
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(src.Data)), ModTime: unixTime(p.job.Now)}
	if err := p.write(h, dest, overlay.File); err != nil {
		return err
	}
	_, err = p.tar.Write(src.Data)
	return err
}

// find looks a source up: it must be there, and not ignored.
func (r *reading) find(name string) (overlay.ViewEntry, error) {
	drop, err := r.ignore.dropsPath(name)
	if err != nil {
		return overlay.ViewEntry{}, err
	}
	e, err := r.view.Lookup(name, true)
	if errors.Is(err, fs.ErrNotExist) {
		return e, missing(name)
	}
	if err != nil {
		return e, &SourcePathError{err}
	}
	// A directory that is ignored may hold what is not.
	if drop && (e.Kind != overlay.Dir || !r.ignore.again) {
		return e, missing(name)
	}
	return e, nil
}

// contents copies what is in a directory that a source names.
func (p *packer) contents(r *reading, dir overlay.ViewEntry, dest, rel string) error {
	state, err := r.ignore.stateOf(dir.Path)
	if err != nil {
		return err
	}
	return p.children(r, dir, dest, rel, state, nil)
}

// children copies what is in a directory. rel is its path from the source, for
// --exclude; before writes directories that were held back because they might
// have nothing in them that is wanted.
func (p *packer) children(r *reading, dir overlay.ViewEntry, dest, rel string, state filterState, before func() error) error {
	list, err := r.view.List(p.ctx, dir)
	if err != nil {
		return &SourcePathError{err}
	}
	for _, e := range list {
		name := path.Base(e.Path)
		drop, below, err := r.ignore.drops(e.Path, state)
		if err != nil {
			return err
		}
		inner := path.Join(rel, name)
		excluded, err := p.excludes.dropsPath(inner)
		if err != nil {
			return err
		}
		if excluded && !(p.excludes.again && e.Kind == overlay.Dir) || drop && !(r.ignore.again && e.Kind == overlay.Dir) {
			continue
		}
		at := path.Join(dest, name)
		if e.Kind != overlay.Dir {
			if before != nil {
				if err := before(); err != nil {
					return err
				}
				before = nil
			}
			if err := p.file(r, e, at); err != nil {
				return err
			}
			continue
		}
		enter := p.directory(r, e, at, before)
		if !drop && !excluded {
			if err := enter(); err != nil {
				return err
			}
			before, enter = nil, nil
		}
		if err := p.children(r, e, at, inner, below, enter); err != nil {
			return err
		}
	}
	return nil
}

// directory returns what writes a directory, once, and before it those it is in.
func (p *packer) directory(r *reading, e overlay.ViewEntry, at string, before func() error) func() error {
	done := false
	return func() error {
		if done {
			return nil
		}
		done = true
		if before != nil {
			if err := before(); err != nil {
				return err
			}
		}
		kind, ok, err := p.existing(at)
		if err != nil {
			return err
		}
		if ok && kind != overlay.Dir {
			return fmt.Errorf("cannot copy to non-directory: %s", path.Join("/", at))
		}
		h, err := r.header(e)
		if err != nil {
			return &SourcePathError{err}
		}
		return p.write(h, at, overlay.Dir)
	}
}

// file copies what is no directory.
func (p *packer) file(r *reading, e overlay.ViewEntry, at string) error {
	if kind, ok, err := p.existing(at); err != nil {
		return err
	} else if ok && kind == overlay.Dir {
		return fmt.Errorf("cannot replace to directory %s with file", path.Join("/", at))
	}
	h, err := r.header(e)
	if errors.Is(err, overlay.ErrSocket) {
		return nil // is of no use without the program that listens
	}
	if err != nil {
		return &SourcePathError{err}
	}
	if r.Mode != 0 {
		h.Mode = int64(r.Mode)
	}
	if r.Time != 0 {
		h.ModTime = unixTime(r.Time)
	}
	if id := e.Identity(); id != [3]uint64{} && e.Kind == overlay.File {
		if first, ok := p.links[id]; ok {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
			return p.write(h, at, e.Kind)
		}
		p.links[id] = at
	}
	if h.Typeflag != tar.TypeReg {
		return p.write(h, at, e.Kind)
	}
	f, err := r.view.Open(e)
	if err != nil {
		return &SourcePathError{err}
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil {
		h.Size = st.Size()
	}
	if err := p.write(h, at, e.Kind); err != nil {
		return err
	}
	return p.content(f, h.Size)
}

// content writes size bytes of a file. One that is cut meanwhile is filled up
// with zeros: its header is written.
func (p *packer) content(f *os.File, size int64) error {
	for off := int64(0); off < size; {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		want := p.buf[:min(int64(len(p.buf)), size-off)]
		n, err := f.ReadAt(want, off)
		if n == 0 && errors.Is(err, io.EOF) {
			clear(want)
			n = len(want)
		} else if err != nil && !errors.Is(err, io.EOF) {
			return &SourcePathError{err}
		}
		if _, err := p.tar.Write(want[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// withParents copies for --parents: what matches keeps its path, from the pivot
// "/./" on if there is one.
func (p *packer) withParents(r *reading) error {
	root, pattern, pivot := strings.Cut(r.Path, "/./")
	if !pivot {
		root, pattern = "", r.Path
	}
	root = strings.TrimPrefix(path.Clean("/"+root), "/")
	pattern = strings.TrimPrefix(path.Clean("/"+pattern), "/")
	full := path.Join(root, pattern)
	matches := []string{full}
	if hasWildcard(full) {
		var err error
		if matches, err = r.glob(p, full); err != nil {
			return err
		}
	}
	dest, err := p.resolve(strings.TrimPrefix(p.job.Dest, "/"))
	if err != nil {
		return err
	}
	depth := 0
	if root != "" {
		depth = strings.Count(root, "/") + 1
	}
	for _, m := range matches {
		parts := strings.Split(m, "/")
		rel := strings.Join(parts[min(depth, len(parts)):], "/")
		if err := p.oneWithParents(r, m, rel, dest); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) oneWithParents(r *reading, name, rel, dest string) error {
	e, err := r.find(name)
	if err != nil {
		return err
	}
	if drop, err := p.excludes.dropsPath(rel); err != nil || drop {
		return err
	}
	if err := p.makeDirs(dest); err != nil {
		return err
	}
	// The directories on the way look as they do in the source.
	parts := strings.Split(rel, "/")
	above := strings.TrimSuffix(strings.TrimSuffix(name, rel), "/")
	for i := 1; i < len(parts); i++ {
		dir := path.Join(parts[:i]...)
		at := path.Join(dest, dir)
		if _, written := p.made[at]; written {
			continue
		}
		parent, err := r.view.Lookup(path.Join(above, dir), true)
		if err != nil {
			return &SourcePathError{err}
		}
		if err := p.directory(r, parent, at, nil)(); err != nil {
			return err
		}
	}
	at := path.Join(dest, rel)
	if e.Kind != overlay.Dir {
		if link, err := r.view.Lookup(name, false); err == nil {
			e = link
		}
		return p.file(r, e, at)
	}
	if rel == "" {
		return p.contents(r, e, dest, "")
	}
	if err := p.directory(r, e, at, nil)(); err != nil {
		return err
	}
	return p.contents(r, e, at, rel)
}

func hasWildcard(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// glob finds what a pattern matches, sorted: filepath.Match for each part, and
// ** for any number of directories.
func (r *reading) glob(p *packer, pattern string) ([]string, error) {
	var found []string
	var walk func(dir string, parts []string) error
	walk = func(dir string, parts []string) error {
		if len(parts) == 0 {
			if drop, err := r.ignore.dropsPath(dir); err != nil || drop && !r.ignore.again {
				return err
			}
			found = append(found, dir)
			return nil
		}
		part, rest := parts[0], parts[1:]
		if !hasWildcard(part) {
			name := path.Join(dir, strings.ReplaceAll(part, `\`, ""))
			if _, err := r.view.Lookup(name, true); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return &SourcePathError{err}
			}
			return walk(name, rest)
		}
		e, err := r.view.Lookup(dir, true)
		if err != nil || e.Kind != overlay.Dir {
			return nil
		}
		list, err := r.view.List(p.ctx, e)
		if err != nil {
			return &SourcePathError{err}
		}
		if part == "**" {
			if len(rest) > 0 {
				if err := walk(dir, rest); err != nil {
					return err
				}
			}
			for _, c := range list {
				name := path.Join(dir, path.Base(c.Path))
				if len(rest) == 0 {
					found = append(found, name)
				} else if c.Kind == overlay.Dir {
					if err := walk(name, parts); err != nil {
						return err
					}
				}
			}
			return nil
		}
		for _, c := range list {
			name := path.Base(c.Path)
			ok, err := path.Match(part, name)
			if err != nil {
				return fmt.Errorf("%q: %w", pattern, err)
			}
			if ok {
				if err := walk(path.Join(dir, name), rest); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := walk("", strings.Split(pattern, "/"))
	kept := found[:0]
	for _, name := range found {
		drop, dropErr := r.ignore.dropsPath(name)
		if dropErr != nil {
			return nil, dropErr
		}
		if !drop || r.ignore.again {
			kept = append(kept, name)
		}
	}
	slices.Sort(kept)
	return slices.Compact(kept), err
}
