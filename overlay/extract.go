// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ExtractOptions say where an archive goes and whose the files will be.
type ExtractOptions struct {
	// Recorded means what it does in UnpackOptions, but only on the mount of the
	// root and on those at the paths of Own: other filesystems are not ours to
	// write records on.
	Recorded bool
	Own      []string

	// Plain makes every file an ordinary one of the caller's: without the owner,
	// the attributes, the set-ID bits of the archive. Devices are left out.
	Plain bool

	// Dir is the directory in the root, which must exist; "" is the root itself.
	// Links in it are followed within the root.
	Dir string

	// From is the name that every entry begins with, and To what takes its place.
	// An entry outside of From is an error. Both may be "": the directory itself.
	From, To string

	Limits Limits
}

// Extracted is what Extract made.
type Extracted struct {
	Entries int64
	Bytes   int64 // of file contents
	Skipped int64 // devices that could not be made
}

// Extract adds the files of a tar to a directory that other files are in, as cp
// does: a directory merges with the one that is there, anything else replaces
// what has its name, and a directory and a file never replace one another. No
// name is a whiteout.
//
// Parents of an entry are opened beneath the root. Without Plain links in it are
// followed within the root, as in a container; with Plain there are none: every
// parent is a directory beneath the root's descriptor, whoever puts links there
// meanwhile.
//
// Runs in: the caller's namespaces with Plain, else as root of a user namespace.
func Extract(ctx context.Context, root *os.File, r io.Reader, o ExtractOptions) (Extracted, error) {
	defer runtime.KeepAlive(root)
	u := newUnpacker(ctx, noFD, r, UnpackOptions{Recorded: o.Recorded || o.Plain, Limits: o.Limits})
	e := &placer{unpacker: u, options: o, top: int(root.Fd()), dir: openedDir{fd: noFD}}
	defer e.closeDir()
	if o.Recorded {
		if err := e.findOwn(); err != nil {
			return Extracted{}, err
		}
	}
	err := e.run()
	return Extracted{Entries: u.result.Entries, Bytes: u.result.Bytes, Skipped: e.skipped}, err
}

// A placer holds what one Extract needs. Of the unpacker it uses what reads
// the archive.
type placer struct {
	*unpacker
	options ExtractOptions
	top     int
	dir     openedDir
	late    []lateTimes
	own     map[uint64]bool // mounts whose files may carry records
	skipped int64
}

// openedDir is the parent of the last entry.
type openedDir struct {
	name  string
	fd    int
	plain bool // its files are made plain
}

// lateTimes are those of a directory, which every entry in it changes.
type lateTimes struct {
	path  string
	times timespecs
}

// maxLateTimes bounds the directories whose times are remembered.
const maxLateTimes = 1 << 18

func (e *placer) run() error {
	for {
		h, err := e.archive.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = e.framing.check(h)
		}
		if err != nil {
			return e.archiveError(err)
		}
		if e.result.Entries++; e.result.Entries > e.limits.Entries {
			return &LimitError{What: "entries", Max: e.limits.Entries}
		}
		if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == typeVolume {
			continue
		}
		if err := e.entry(h); err != nil {
			var read *ArchiveError
			if errors.As(err, &read) || e.ctx.Err() != nil {
				return err
			}
			return &EntryError{Op: "copy", Name: h.Name, Err: err}
		}
	}
	if err := e.framing.finish(); err != nil {
		return e.archiveError(err)
	}
	for i := len(e.late) - 1; i >= 0; i-- {
		fd, err := e.open(e.late[i].path, openDir)
		if err != nil {
			continue // somebody has just taken it away
		}
		err = setTimes(fd, &e.late[i].times)
		unix.Close(fd)
		if err != nil && !e.options.Plain {
			return named("set times of "+quote(e.late[i].path), err)
		}
	}
	return nil
}

// errOutside says that an entry is not of what was asked for.
var errOutside = errors.New("it does not belong to what is copied")

// target is the path of an entry below Dir.
func (e *placer) target(name string) (string, error) {
	clean, err := cleanName(name)
	if err == nil {
		err = e.limits.checkPath(clean)
	}
	if err != nil {
		return "", err
	}
	if from := e.options.From; from != "" {
		if clean != from && !strings.HasPrefix(clean, from+"/") {
			return "", errOutside
		}
		clean = strings.TrimPrefix(clean[len(from):], "/")
	}
	switch {
	case e.options.To == "":
		return clean, nil
	case clean == "":
		return e.options.To, nil
	}
	return joinPath(e.options.To, clean), nil
}

func (e *placer) entry(h *tar.Header) error {
	path, err := e.target(h.Name)
	if err != nil || path == "" {
		return err // the directory that everything goes into stays as it is
	}
	n, err := e.describe(h)
	if err != nil {
		return err
	}
	dir, base := splitPath(path)
	if err := e.enter(dir); err != nil {
		return err
	}
	if e.dir.plain {
		n.plain()
	}
	if h.Typeflag == tar.TypeLink {
		return e.hardLink(h.Linkname, base, path)
	}
	busy, err := e.makeWay(base, n.owner.Kind == Dir, path)
	if err != nil {
		return err
	}
	fd := e.dir.fd
	switch n.owner.Kind {
	case Dir:
		return e.directory(n, base, path)
	case Symlink:
		if err := unix.Symlinkat(h.Linkname, fd, base); err != nil {
			return named("create", err)
		}
		if !e.writer.recorded {
			if err := unix.Fchownat(fd, base, int(n.owner.UID), int(n.owner.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return chownError(n.owner.UID, n.owner.GID, err)
			}
		}
		return named("set times", unix.UtimesNanoAt(fd, base, n.times[:], unix.AT_SYMLINK_NOFOLLOW))
	case Pipe:
		if err := unix.Mknodat(fd, base, unix.S_IFIFO|n.owner.Mode&permBits, 0); err != nil {
			return named("create", err)
		}
		return named("set times", unix.UtimesNanoAt(fd, base, n.times[:], unix.AT_SYMLINK_NOFOLLOW))
	case Char, Block:
		if e.dir.plain || !e.writer.recorded {
			e.skipped++
			return nil
		}
	}
	if busy {
		return e.overwrite(base, h)
	}
	return e.regular(n, base, h)
}

// plain takes away what makes a file more than an ordinary one of the caller's.
func (n *node) plain() {
	n.owner.UID, n.owner.GID, n.xattrs = 0, 0, nil
	n.owner.Mode &= permBits
	if n.owner.Kind == Dir {
		n.owner.Mode |= ownerBits
	}
}

// makeWay removes what base is, unless a directory is to merge with it. busy says
// that something is mounted on the file.
func (e *placer) makeWay(base string, directory bool, path string) (busy bool, err error) {
	var st unix.Stat_t
	switch err := lstatAt(e.dir.fd, base, &st); {
	case err == unix.ENOENT:
		return false, nil
	case err != nil:
		return false, err
	case isDir(&st) && directory:
		return false, nil
	case isDir(&st):
		return false, fmt.Errorf("cannot overwrite directory %s with non-directory", quote(path))
	case directory:
		return false, fmt.Errorf("cannot overwrite non-directory %s with directory", quote(path))
	}
	err = unix.Unlinkat(e.dir.fd, base, 0)
	if err == unix.EBUSY && kindBits(&st) == unix.S_IFREG {
		return true, nil
	}
	return false, named("replace", err)
}

func (e *placer) directory(n node, base, path string) error {
	err := unix.Mkdirat(e.dir.fd, base, ownerBits)
	if err != nil && err != unix.EEXIST {
		return named("create", err)
	}
	fd, err := openat(e.dir.fd, base, openDir, 0)
	if err != nil {
		return named("open", err)
	}
	defer unix.Close(fd)
	if err := e.apply(fd, n); err != nil {
		return err
	}
	if len(e.late) < maxLateTimes {
		e.late = append(e.late, lateTimes{path, n.times})
	}
	return nil
}

func (e *placer) regular(n node, base string, h *tar.Header) (err error) {
	fd, err := openat(e.dir.fd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return named("create", err)
	}
	defer func() {
		if closeErr := unix.Close(fd); err == nil {
			err = named("close", closeErr)
		}
	}()
	if err := e.content(fd, h); err != nil {
		return err
	}
	if err := e.apply(fd, n); err != nil {
		return err
	}
	return named("set times", setTimes(fd, &n.times))
}

// overwrite writes into a file that something is mounted on, such as
// /etc/hosts: it cannot be replaced.
func (e *placer) overwrite(base string, h *tar.Header) error {
	fd, err := openat(e.dir.fd, base, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return named("open", err)
	}
	defer unix.Close(fd)
	return e.content(fd, h)
}

// apply gives a file its metadata. What only a table could hold is let go: there
// is none beside a tree that others work in.
func (e *placer) apply(fd int, n node) error {
	err := e.writer.apply(fd, "x", n)
	e.writer.owners.forget("x")
	return err
}

func (e *placer) hardLink(linkname, base, path string) error {
	target, err := e.target(linkname)
	if err != nil || target == "" {
		return named("link to "+quote(linkname), errOutside)
	}
	if target == path {
		return nil
	}
	if _, err := e.makeWay(base, false, path); err != nil {
		return err
	}
	dir, name := splitPath(target)
	from, err := e.open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err == nil {
		err = unix.Linkat(from, name, e.dir.fd, base, 0)
		unix.Close(from)
	}
	return named("link to "+quote(linkname), err)
}

// open opens a path below Dir.
func (e *placer) open(path string, flags int) (int, error) {
	resolve := uint64(unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS)
	if e.options.Plain {
		resolve = beneathOnly
	}
	whole := joinPath(e.options.Dir, path)
	if path == "" {
		whole = e.options.Dir
	}
	if whole == "" {
		whole = "."
	}
	return Openat2(e.top, whole, &unix.OpenHow{Flags: uint64(flags), Resolve: resolve})
}

// enter opens the parent of an entry, and makes what is missing of it.
func (e *placer) enter(dir string) error {
	if e.dir.fd != noFD && e.dir.name == dir {
		return nil
	}
	e.closeDir()
	fd, err := e.open(dir, openDir&^unix.O_NOFOLLOW)
	if err == unix.ENOENT && dir != "" {
		up, base := splitPath(dir)
		if err := e.enter(up); err != nil {
			return err
		}
		n := node{owner: Owner{Kind: Dir, Mode: 0o755}}
		if err := unix.Mkdirat(e.dir.fd, base, ownerBits); err != nil && err != unix.EEXIST {
			return named("create "+quote(dir), err)
		}
		e.closeDir()
		if fd, err = e.open(dir, openDir&^unix.O_NOFOLLOW); err == nil {
			if err = e.apply(fd, n); err != nil {
				unix.Close(fd)
			}
		}
	}
	if err != nil {
		return named("open "+quote(dir), err)
	}
	e.dir = openedDir{name: dir, fd: fd, plain: e.options.Plain}
	if e.options.Recorded && !e.dir.plain {
		id, err := mountID(fd)
		if err != nil {
			return err
		}
		e.dir.plain = !e.own[id]
	}
	return nil
}

func (e *placer) closeDir() {
	if e.dir.fd != noFD {
		unix.Close(e.dir.fd)
	}
	e.dir = openedDir{fd: noFD}
}

// findOwn finds the mounts whose files may carry records.
func (e *placer) findOwn() error {
	e.own = map[uint64]bool{}
	for _, path := range append([]string{"."}, e.options.Own...) {
		fd, err := Openat2(e.top, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return named("open "+quote(path), err)
		}
		id, err := mountID(fd)
		unix.Close(fd)
		if err != nil {
			return err
		}
		e.own[id] = true
	}
	return nil
}

// mountID is the ID of the mount that an open file is on (statx(2), Linux 5.8).
func mountID(fd int) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, named("look up mount", err)
}
