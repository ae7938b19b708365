// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// A tree is a layer directory while it is being filled.
//
// It keeps one directory open, the parent of the last entry, because the next
// entry is mostly beside it. That descriptor stays the right one for its name,
// because while it is kept nothing changes but entries directly in it, and these
// are not on the way to it: unless a symbolic link leads there, and then it is
// doubted when an entry is removed (CVE-2021-32803).
type tree struct {
	ctx    context.Context
	root   int
	limits Limits
	opener
	parent parent

	steps int64 // components that walk may still look up

	// adopt gives a directory that the archive has not named its metadata.
	adopt func(fd int, path string) error

	// lowerLink reads the symbolic link at path in the layers below, "" if there is
	// none: it is on the way of what this layer has not replaced.
	lowerLink func(path string) (string, error)

	writer    *writer
	noDevices bool  // the filesystem refused whiteouts that are devices
	markers   bool  // so some whiteouts are files
	whiteouts int64 // how many were made
	opaques   int64 // how many directories were marked opaque

	removedADir bool // a directory was removed, with what was in it
}

// parent is the directory that is kept open.
type parent struct {
	name    string // as the archive calls it, clean
	path    string // where it is; differs from name when a link leads there
	fd      int    // noFD when none is open
	times   timespecs
	known   bool // times hold what the directory shall have at last
	touched bool // and it does not have them now
	opaque  bool // it is known to be marked opaque
	covered covering
}

func newTree(ctx context.Context, root int, limits Limits, w *writer) *tree {
	return &tree{ctx: ctx, root: root, limits: limits, writer: w, parent: parent{fd: noFD}, steps: maxSteps}
}

// enter opens the directory called dir, following symbolic links in the tree as
// the kernel would in a container, and makes what is missing of it. Whatever of
// it is no directory is replaced by one.
func (t *tree) enter(dir string) error {
	if t.parent.fd != noFD && t.parent.name == dir {
		return nil
	}
	if err := t.leave(); err != nil {
		return err
	}
	fd, path, err := t.find(dir, true)
	if err != nil {
		return err
	}
	t.parent = parent{name: dir, path: path, fd: fd}
	return nil
}

// find opens a directory and tells where it is. With make it makes it.
func (t *tree) find(dir string, create bool) (fd int, path string, err error) {
	if dir == "" {
		return t.root, "", nil
	}
	fd, err = t.open(t.root, dir, openDir, beneathOnly|unix.RESOLVE_NO_XDEV)
	if err == nil {
		return fd, dir, nil
	}
	if err != unix.ENOENT && err != unix.ENOTDIR && err != unix.ELOOP {
		return noFD, "", err
	}
	return t.walk(dir, create)
}

// leave closes the parent and gives it back its times, which changed with every
// entry that was made in it.
func (t *tree) leave() error {
	p := t.parent
	t.parent = parent{fd: noFD}
	if p.fd == noFD {
		return nil
	}
	var err error
	if p.touched {
		err = named("set times of "+quote(p.path), setTimes(p.fd, &p.times))
	}
	t.close(p.fd)
	return err
}

func (t *tree) close(fd int) {
	if fd != t.root && fd != noFD {
		unix.Close(fd)
	}
}

// touch must be called before an entry is made in the parent or removed from it.
func (t *tree) touch() error {
	if !t.parent.known {
		var st unix.Stat_t
		if err := unix.Fstat(t.parent.fd, &st); err != nil {
			return err
		}
		t.parent.times, t.parent.known = timesOf(&st), true
	}
	t.parent.touched = true
	return nil
}

// makeParent makes fd, a directory that was just made in the parent as base, the
// parent of what follows. It will have these times.
func (t *tree) makeParent(fd int, base string, times timespecs) error {
	path := joinPath(t.parent.path, base)
	name := path
	if t.parent.name != t.parent.path {
		name = unsureName
	}
	err := t.leave()
	t.parent = parent{name: name, path: path, fd: fd, times: times, known: true, touched: true}
	return err
}

// unsureName is no clean name of a directory.
const unsureName = "/"

// doubt makes the next entry look its parent up again, if links lead there: what
// was just removed may have been one of them.
func (t *tree) doubt() {
	if t.parent.name != t.parent.path {
		t.parent.name = unsureName
	}
}

// child is the path of an entry of the parent.
func (t *tree) child(base string) string { return joinPath(t.parent.path, base) }

// vacate removes what is called base in dir, whatever it is. It reports whether
// that hid what lower layers have there, so that a directory in its place must
// hide it too.
func (t *tree) vacate(dir int, base string) (hid bool, err error) {
	var st unix.Stat_t
	err = lstatAt(dir, base, &st)
	switch {
	case err == unix.ENOENT:
	case err != nil:
		return false, err
	case isDir(&st):
		t.removedADir = true
		if err := removeTree(t.ctx, dir, base, &t.opener); err != nil {
			return false, err
		}
	default:
		if err := unix.Unlinkat(dir, base, 0); err != nil {
			return false, err
		}
		hid = true
	}
	had, err := t.dropMarker(dir, base)
	return hid || had, err
}

// dropMarker removes the file that says base is whited out, and reports whether
// there was one. Where whiteouts are devices, base itself is the whiteout.
func (t *tree) dropMarker(dir int, base string) (bool, error) {
	if !t.markers {
		return false, nil
	}
	err := unix.Unlinkat(dir, whiteoutPrefix+base, 0)
	switch err {
	case nil:
		return true, nil
	case unix.ENOENT, unix.ENAMETOOLONG:
		return false, nil
	}
	return false, err
}

// makeDir makes the directory base in dir, or opens the one that is there.
func (t *tree) makeDir(dir int, base string) (fd int, made bool, err error) {
	hid := false
	err = unix.Mkdirat(dir, base, ownerBits)
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err := lstatAt(dir, base, &st); err != nil {
			return noFD, false, err
		}
		if isDir(&st) {
			fd, err = openat(dir, base, openDir, 0)
			return fd, false, err
		}
		if hid, err = t.vacate(dir, base); err == nil {
			err = unix.Mkdirat(dir, base, ownerBits)
		}
	} else if err == nil {
		hid, err = t.dropMarker(dir, base)
	}
	if err != nil {
		return noFD, false, err
	}
	if fd, err = openat(dir, base, openDir, 0); err != nil {
		return noFD, false, err
	}
	if hid {
		if err = t.setOpaque(fd); err != nil {
			unix.Close(fd)
			return noFD, false, err
		}
	}
	return fd, true, nil
}

func errSteps() error {
	return &LimitError{What: "steps to look up its paths", Max: maxSteps}
}

var (
	errManyLinks = errors.New("too many levels of symbolic links")
	errReserved  = errors.New("a link leads to the name of a whiteout")
)

// A walk looks a path up component by component, in the tree as a root.
type walk struct {
	t      *tree
	create bool
	fd     int
	path   []string // where fd is, without links
	ids    []inode  // of the directories on the way, to go back safely
	bytes  int      // of path, with slashes
	links  int
}

// walk is find for paths that hold a symbolic link, or are not there.
func (t *tree) walk(dir string, create bool) (fd int, path string, err error) {
	w := walk{t: t, create: create, fd: t.root}
	defer func() {
		if err != nil {
			t.close(w.fd)
		}
	}()
	for rest := dir; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if t.steps--; t.steps < 0 {
			return noFD, "", errSteps()
		}
		target, err := w.step(name)
		if err != nil {
			return noFD, "", err
		}
		if target == "" {
			continue
		}
		if w.links++; w.links > maxLinks || len(target)+len(rest) > 1<<16 {
			return noFD, "", errManyLinks
		}
		if target[0] == '/' {
			w.toRoot()
		}
		rest = target + "/" + rest
	}
	return w.fd, strings.Join(w.path, "/"), nil
}

// step goes on to one name. If that is a symbolic link, it returns its target
// and stays.
func (w *walk) step(name string) (target string, err error) {
	switch name {
	case "", ".":
		return "", nil
	case "..":
		return "", w.up()
	}
	fd, err := openat(w.fd, name, openDir, 0)
	switch err {
	case nil:
		return "", w.down(fd, name)
	case unix.ENOTDIR, unix.ELOOP:
		target, linkErr := readLink(w.fd, name)
		if linkErr == nil {
			return target, nil
		}
		if linkErr != unix.EINVAL || !w.create {
			return "", err
		}
	case unix.ENOENT:
		target, linkErr := w.t.lowerLink(w.child(name))
		if target != "" || linkErr != nil {
			return target, linkErr
		}
		if !w.create {
			return "", err
		}
	default:
		return "", err
	}
	return "", w.make(name)
}

func (w *walk) child(name string) string { return joinPath(strings.Join(w.path, "/"), name) }

// make makes the directory called name, in the place of what is there, and
// enters it.
func (w *walk) make(name string) error {
	if isReserved(name) {
		return errReserved
	}
	if len(w.path) >= w.t.limits.Depth {
		return &LimitError{What: "directories in a path", Max: int64(w.t.limits.Depth)}
	}
	if w.bytes+len(name) > w.t.limits.PathBytes {
		return &LimitError{What: "bytes in a path", Max: int64(w.t.limits.PathBytes)}
	}
	fd, err := w.t.makeMissing(w.fd, name, w.child(name))
	if err != nil {
		return err
	}
	return w.down(fd, name)
}

// down enters the directory fd, which is called name.
func (w *walk) down(fd int, name string) error {
	w.t.close(w.fd)
	w.fd = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	w.path, w.ids, w.bytes = append(w.path, name), append(w.ids, inodeOf(&st)), w.bytes+len(name)+1
	return nil
}

// up goes to the directory above, and nowhere from the root. That it is the very
// directory from which it came down is checked: a directory that somebody moved
// away meanwhile would lead out.
func (w *walk) up() error {
	n := len(w.path)
	if n <= 1 {
		w.toRoot()
		return nil
	}
	fd, err := openat(w.fd, "..", openDir, 0)
	if err != nil {
		return err
	}
	w.t.close(w.fd)
	w.fd = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if inodeOf(&st) != w.ids[n-2] {
		return errors.New("the directory was moved while it was being filled")
	}
	w.bytes -= len(w.path[n-1]) + 1
	w.path, w.ids = w.path[:n-1], w.ids[:n-1]
	return nil
}

func (w *walk) toRoot() {
	w.t.close(w.fd)
	w.fd, w.path, w.ids, w.bytes = w.t.root, w.path[:0], w.ids[:0], 0
}

// makeMissing makes a directory that no entry has named yet, without leaving a
// trace in the times of the one it is in.
func (t *tree) makeMissing(dir int, name, path string) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return noFD, err
	}
	fd, made, err := t.makeDir(dir, name)
	if err != nil {
		return noFD, err
	}
	if made {
		err = t.adopt(fd, path)
	}
	if err == nil {
		times := timesOf(&st)
		err = setTimes(dir, &times)
	}
	if err != nil {
		unix.Close(fd)
		return noFD, err
	}
	return fd, nil
}
