// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ChangeKind is how a path of a container differs from its image.
type ChangeKind byte

// The kinds of changes, by the letters that docker diff prints.
const (
	Added   ChangeKind = 'A'
	Changed ChangeKind = 'C'
	Deleted ChangeKind = 'D'
)

// A comparison walks a directory and finds what in it differs from the layers
// below. The directory is the upper of an overlay, or a whole tree that began as
// a copy of the layers. It keeps one directory's names in memory for each level.
type comparison struct {
	ctx     context.Context
	options *DiffOptions
	root    int
	opener
	low   *stack // nil: nothing is known of what is below
	kinds bool   // whoever asks wants to know what is new
	stubs map[string]bool
	read  dirReader

	way  []*step // to the directory that is worked on
	told int     // so many of them were reported

	// gone reports that path is no more, opaque that nothing below shows in it,
	// changed that what is base in the directory dir differs, and left that a
	// directory is finished, told if it was reported. Directories come before what
	// is in them.
	gone    func(path string) error
	opaque  func(path string) error
	changed func(kind ChangeKind, dir int, base, path string, st *unix.Stat_t) error
	entered func(kind ChangeKind, path string, n *node) error
	left    func(dir int, n *node, told bool) error
}

// step is one directory on the way.
type step struct {
	path    string
	fd      int // noFD when it is closed for a while
	node    node
	low     merged // what is below; no layers: nothing
	hides   bool   // what is below and not in it has gone
	differs bool   // the directory itself has changed
	kind    ChangeKind
	stubbed bool // something in it was made for a mount
	listed  bool // what is below was asked for
	todo    []item
}

// item is a name in a directory that is yet to be looked at.
type item struct {
	name string
	gone bool
	low  *found // what is below; nil: nothing, or it was not asked for
}

// maxStepFDs is how many directories on the way are kept open.
const maxStepFDs = 64

func (c *comparison) close() {
	for _, s := range c.way {
		if s.fd != noFD {
			unix.Close(s.fd)
		}
	}
	if c.low != nil {
		c.low.close()
	}
	unix.Close(c.root)
}

func (c *comparison) run() error {
	low := merged{}
	if c.low != nil {
		low = c.low.root()
	}
	if err := c.enter(c.root, ".", "", low, false, Changed); err != nil {
		return entryError("", err)
	}
	for len(c.way) > 0 {
		s := c.way[len(c.way)-1]
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if len(s.todo) == 0 {
			if err := c.leave(); err != nil {
				return entryError(s.path, err)
			}
			continue
		}
		next := s.todo[0]
		s.todo = s.todo[1:]
		path := joinPath(s.path, next.name)
		if err := c.item(s, next, path); err != nil {
			return entryError(path, err)
		}
	}
	return nil
}

func entryError(path string, err error) error {
	if path == "" {
		path = "."
	}
	return &EntryError{Op: "archive", Name: path, Err: err}
}

// enter makes the directory base in dir the one that is worked on.
func (c *comparison) enter(dir int, base, path string, low merged, hides bool, kind ChangeKind) error {
	fd, err := openat(dir, base, openDir, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // it has gone meanwhile
	}
	if err != nil {
		return named("open", err)
	}
	s := &step{path: path, fd: fd, low: low, hides: hides || c.options.Tree, kind: kind}
	c.way = append(c.way, s)
	if n := len(c.way) - 1 - maxStepFDs; n >= 0 {
		unix.Close(c.way[n].fd)
		c.way[n].fd = noFD
	}
	if s.node, err = nodeOf(fd, c.options.Recorded); err != nil {
		return err
	}
	c.options.Owners.complete(&s.node, path)
	opaque := isOpaque(fd)
	s.hides = s.hides || opaque
	if err := c.names(s); err != nil {
		return err
	}
	s.differs = kind == Added
	switch {
	case len(low.layers) > 0:
		f := &found{layer: low.layers[0], dir: low}
		below, err := c.low.nodeAt(f, path, c.options.Recorded, c.options.LowerOwners)
		if err != nil {
			return err
		}
		s.differs = s.differs || !sameNode(&s.node, &below, path != "" && !s.stubbed)
		if s.stubbed && !altered(s) {
			s.node.times = below.times
		}
	case path == "":
		s.differs = !s.node.isOrdinary()
	case c.low == nil:
		s.differs = true
	}
	if c.low == nil && opaque {
		return c.openOpaque()
	}
	if path != "" {
		return nil
	}
	if s.differs {
		return c.tell()
	}
	c.told = 1 // the root is reported for its own sake only
	return nil
}

// openOpaque reports an opaque directory of which it is not known what it hides.
func (c *comparison) openOpaque() error {
	if err := c.tell(); err != nil {
		return err
	}
	return c.opaque(c.way[len(c.way)-1].path)
}

// names fills the list of a directory: what has gone first, then the rest, each
// sorted.
func (c *comparison) names(s *step) error {
	have := map[string]bool{}
	var gone []string
	for {
		list, err := c.read.next(s.fd)
		if err != nil {
			return named("read", err)
		}
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			name, isGone, err := c.sign(s, e)
			switch {
			case err != nil:
				return err
			case name == "":
			case isGone:
				gone = append(gone, name)
			default:
				have[name] = true
			}
		}
	}
	low := map[string]*found{}
	s.listed = s.hides || c.kinds || s.stubbed
	if len(s.low.layers) > 0 && s.listed {
		var err error
		if low, err = c.low.list(c.ctx, s.low); err != nil {
			return err
		}
		if s.hides {
			gone = nil
			for name := range low {
				if !have[name] {
					gone = append(gone, name)
				}
			}
		}
	}
	for _, name := range gone {
		f := low[name]
		if c.low != nil && f == nil {
			var err error
			if f, err = c.below(s, name); err != nil {
				return err
			}
			if f == nil {
				continue
			}
		}
		s.todo = append(s.todo, item{name: name, gone: true, low: f})
	}
	for name := range have {
		s.todo = append(s.todo, item{name: name, low: low[name]})
	}
	slices.SortFunc(s.todo, func(a, b item) int {
		if a.gone != b.gone {
			if a.gone {
				return -1
			}
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	return nil
}

// sign tells an entry from the sign that a name has gone, and from what was made
// to mount something on. It returns no name for what is not to be seen.
func (c *comparison) sign(s *step, e dirent) (name string, gone bool, err error) {
	if isReserved(e.name) && (c.options.Markers || !c.kinds) {
		if !c.options.Markers {
			return "", false, named(quote(e.name), errReservedName)
		}
		if e.name == opaqueName {
			return "", false, nil
		}
		return e.name[len(whiteoutPrefix):], true, nil
	}
	path := joinPath(s.path, e.name)
	if c.stubs[path] {
		stub, err := c.isStub(s.fd, e.name, path)
		if err != nil || stub {
			s.stubbed = s.stubbed || stub
			if err == nil && c.options.Settle {
				err = removeTree(c.ctx, s.fd, e.name, &c.opener)
			}
			return "", false, err
		}
	}
	if e.kind != unix.DT_CHR && e.kind != unix.DT_UNKNOWN {
		return e.name, false, nil
	}
	var st unix.Stat_t
	if err := lstatAt(s.fd, e.name, &st); err == unix.ENOENT {
		return "", false, nil
	} else if err != nil {
		return "", false, err
	}
	return e.name, isWhiteout(&st), nil
}

// isStub reports whether path, on which something was mounted, is only there for
// that: an empty file, or a directory with nothing but others of the kind.
func (c *comparison) isStub(dir int, base, path string) (bool, error) {
	var st unix.Stat_t
	if err := lstatAt(dir, base, &st); err != nil {
		return err == unix.ENOENT, nil
	}
	if c.low != nil {
		if _, _, err := c.low.resolve(path, false); err == nil {
			return false, nil // the layers below have it: it was changed
		}
	}
	if kindBits(&st) == unix.S_IFREG {
		return st.Size == 0, nil
	}
	if !isDir(&st) {
		return false, nil
	}
	fd, err := openat(dir, base, openDir, 0)
	if err != nil {
		return err == unix.ENOENT, nil
	}
	defer unix.Close(fd)
	var read dirReader
	for {
		list, err := read.next(fd)
		if err != nil || len(list) == 0 {
			return err == nil, err
		}
		for _, e := range list {
			inside := joinPath(path, e.name)
			if !c.stubs[inside] {
				return false, nil
			}
			if stub, err := c.isStub(fd, e.name, inside); err != nil || !stub {
				return false, err
			}
		}
	}
}

// below looks a name up in the layers below a directory; nil if it is not there.
func (c *comparison) below(s *step, name string) (*found, error) {
	if len(s.low.layers) == 0 {
		return nil, nil
	}
	f, err := c.low.lookup(s.low, name)
	if err == unix.ENOENT {
		return nil, nil
	}
	return &f, err
}

// item looks at one name.
func (c *comparison) item(s *step, i item, path string) error {
	if i.gone {
		if err := c.tell(); err != nil {
			return err
		}
		return c.gone(path)
	}
	if len(path) > defaultPathBytes || len(c.way) > defaultDepth {
		return unix.ENAMETOOLONG
	}
	if err := c.reopen(s); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := lstatAt(s.fd, i.name, &st); err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return err
	}
	if i.low == nil && !s.listed && isDir(&st) {
		var err error
		if i.low, err = c.below(s, i.name); err != nil {
			return err
		}
	}
	kind := Changed
	if i.low == nil && (s.listed || isDir(&st)) {
		kind = Added
	}
	if isDir(&st) {
		low := merged{}
		if i.low != nil && i.low.dir.layers != nil {
			low = i.low.dir
		}
		changed := kind
		if i.low != nil && low.layers == nil {
			changed = Changed
		}
		return c.directory(s, i.name, path, low, changed, i.low != nil && low.layers == nil)
	}
	if kindOf(uint32(st.Mode)) == Socket {
		if c.options.Settle {
			return unix.Unlinkat(s.fd, i.name, 0)
		}
		return nil
	}
	if c.options.Tree && i.low != nil {
		if same, err := c.isSame(s.fd, i.name, path, &st, i.low); err != nil || same {
			return err
		}
	}
	if err := c.tell(); err != nil {
		return err
	}
	return c.changed(kind, s.fd, i.name, path, &st)
}

// directory goes down. A directory in the place of a file has changed as such.
func (c *comparison) directory(s *step, base, path string, low merged, kind ChangeKind, replaced bool) error {
	depth := len(c.way)
	if err := c.enter(s.fd, base, path, low, s.hides, kind); err != nil {
		return err
	}
	if len(c.way) > depth && replaced {
		c.way[depth].differs = true
	}
	return nil
}

// tell reports the directories on the way that were not.
func (c *comparison) tell() error {
	for c.told < len(c.way) {
		s := c.way[c.told]
		c.told++
		if err := c.entered(s.kind, s.path, &s.node); err != nil {
			return err
		}
	}
	return nil
}

// leave goes back up. A directory in which nothing has changed is reported if it
// has changed itself.
func (c *comparison) leave() error {
	s := c.way[len(c.way)-1]
	if s.differs {
		if err := c.tell(); err != nil {
			return err
		}
	}
	told := c.told >= len(c.way)
	if told {
		c.told = len(c.way) - 1
	}
	if err := c.reopen(s); err != nil {
		return err
	}
	if err := c.left(s.fd, &s.node, told && (s.path != "" || s.differs)); err != nil {
		return err
	}
	c.way = c.way[:len(c.way)-1]
	if s.fd != noFD {
		unix.Close(s.fd)
	}
	return nil
}

// reopen opens a directory that was closed to save descriptors.
func (c *comparison) reopen(s *step) error {
	if s.fd != noFD {
		return nil
	}
	fd, err := c.open(c.root, s.path, openDir, beneathOnly)
	if err != nil {
		return named("open", err)
	}
	s.fd = fd
	return nil
}
