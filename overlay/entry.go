// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"errors"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// A node is what an entry says its file shall be, apart from content.
type node struct {
	owner  Owner
	xattrs []xattr
	times  timespecs
}

// describe reads a node from a header.
func (u *unpacker) describe(h *tar.Header) (node, error) {
	var n node
	kind, err := kindOfEntry(h)
	if err != nil {
		return n, err
	}
	n.owner.Kind, n.owner.Mode = kind, uint32(h.Mode)&modeBits
	if h.Uid < 0 || int64(h.Uid) > maxID || h.Gid < 0 || int64(h.Gid) > maxID {
		return n, errors.New("no such owner")
	}
	n.owner.UID, n.owner.GID = uint32(h.Uid), uint32(h.Gid)
	switch kind {
	case Char, Block:
		if n.owner.Major, n.owner.Minor, err = deviceNumber(h.Devmajor, h.Devminor); err != nil {
			return n, err
		}
		if kind == Char && h.Devmajor == 0 && h.Devminor == 0 {
			return n, errors.New("the character device 0:0 is a whiteout, not a file")
		}
	case Symlink:
		n.owner.Mode = permBits
	}
	n.times[1] = unix.Timespec{Sec: h.ModTime.Unix(), Nsec: int64(h.ModTime.Nanosecond())}
	n.times[0] = n.times[1]
	if !h.AccessTime.IsZero() {
		n.times[0] = unix.Timespec{Sec: h.AccessTime.Unix(), Nsec: int64(h.AccessTime.Nanosecond())}
	}
	n.xattrs, err = u.limits.xattrsOf(h)
	return n, err
}

func kindOfEntry(h *tar.Header) (Kind, error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		if !strings.HasSuffix(h.Name, "/") {
			return File, nil
		}
		// Old archives say so of a directory.
		if h.Size == 0 {
			return Dir, nil
		}
		return File, errors.New("a directory has no content")
	case tar.TypeLink:
		return File, nil
	case tar.TypeDir:
		return Dir, nil
	case tar.TypeSymlink:
		return Symlink, nil
	case tar.TypeFifo:
		return Pipe, nil
	case tar.TypeChar:
		return Char, nil
	case tar.TypeBlock:
		return Block, nil
	}
	return File, errUnknown
}

// root gives the root directory its metadata. What replaced it would replace
// the descriptor everything is opened beneath (CVE-2021-29136).
func (u *unpacker) root(n node) error {
	if n.owner.Kind != Dir {
		return errors.New("the root can only be a directory")
	}
	if err := u.tree.enter(""); err != nil {
		return err
	}
	if err := clearXattrs(u.tree.root); err != nil {
		return err
	}
	if err := u.writer.apply(u.tree.root, "", n); err != nil {
		return err
	}
	p := &u.tree.parent
	p.times, p.known, p.touched = n.times, true, true
	u.rooted = true
	return nil
}

func (u *unpacker) directory(n node, base string) error {
	if err := u.tree.touch(); err != nil {
		return err
	}
	fd, made, err := u.tree.makeDir(u.tree.parent.fd, base)
	if err != nil {
		return named("create directory", err)
	}
	if !made {
		err = clearXattrs(fd)
	}
	if err == nil {
		err = u.writer.apply(fd, u.tree.child(base), n)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	return u.tree.makeParent(fd, base, n.times)
}

// put makes something called base in the parent, in the place of what has that
// name. The function must refuse to make it where something is.
func (u *unpacker) put(base string, create func(dir int) error) error {
	dir := u.tree.parent.fd
	err := create(dir)
	if err == unix.EEXIST {
		if _, err = u.tree.vacate(dir, base); err != nil {
			return named("replace", err)
		}
		u.tree.doubt()
		err = create(dir)
	} else if err == nil {
		_, err = u.tree.dropMarker(dir, base)
	}
	return named("create", err)
}

// file makes a regular file, or the placeholder of a device, with what fill
// writes into it.
func (u *unpacker) file(n node, base string, fill func(fd int) error) (err error) {
	fd := noFD
	err = u.put(base, func(dir int) (err error) {
		fd, err = openat(dir, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		// NFS says only here that the disk is full.
		if closeErr := unix.Close(fd); err == nil {
			err = named("close", closeErr)
		}
	}()
	if err := fill(fd); err != nil {
		return err
	}
	if err := u.writer.apply(fd, u.tree.child(base), n); err != nil {
		return err
	}
	return named("set times", setTimes(fd, &n.times))
}

// content writes what a regular file holds.
func (u *unpacker) content(fd int, h *tar.Header) error {
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		return nil
	}
	sparse := isSparse(h)
	if sparse && h.Size > maxSparse {
		return errSparse
	}
	if u.result.Bytes += h.Size; u.result.Bytes > u.limits.Bytes || u.result.Bytes < 0 {
		return &LimitError{What: "bytes in files", Max: u.limits.Bytes}
	}
	for off := int64(0); off < h.Size; {
		n, err := u.archive.Read(u.buf[:min(int64(len(u.buf)), h.Size-off)])
		if n > 0 && !(sparse && isZero(u.buf[:n])) {
			if err := writeAt(fd, u.buf[:n], off); err != nil {
				return named("write", err)
			}
		}
		off += int64(n)
		if err == io.EOF && off == h.Size {
			break
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return u.archiveError(err)
		}
	}
	if !sparse {
		return nil
	}
	return named("set size", unix.Ftruncate(fd, h.Size))
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

func (u *unpacker) symlink(n node, base, target string) error {
	err := u.put(base, func(dir int) error { return unix.Symlinkat(target, dir, base) })
	if err != nil {
		return err
	}
	dir := u.tree.parent.fd
	if u.writer.recorded {
		if err := u.writer.owners.set(u.tree.child(base), n.owner); err != nil {
			return err
		}
	} else if err := unix.Fchownat(dir, base, int(n.owner.UID), int(n.owner.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return chownError(n.owner.UID, n.owner.GID, err)
	}
	return named("set times", unix.UtimesNanoAt(dir, base, n.times[:], unix.AT_SYMLINK_NOFOLLOW))
}

func (u *unpacker) pipe(n node, base string) error {
	err := u.put(base, func(dir int) error { return unix.Mknodat(dir, base, unix.S_IFIFO|0o600, 0) })
	if err != nil {
		return err
	}
	// Opened for both, a pipe does not wait for the other end.
	fd, err := openat(u.tree.parent.fd, base, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return named("open", err)
	}
	defer unix.Close(fd)
	if err := u.writer.apply(fd, u.tree.child(base), n); err != nil {
		return err
	}
	return named("set times", setTimes(fd, &n.times))
}

// link makes a hard link to another entry of the archive. The target is what the
// name itself says: a link to a symbolic link is a second name of that link.
func (u *unpacker) link(linkname, dir, base string) error {
	target, err := cleanName(linkname)
	if err == nil && target == "" {
		err = unix.EISDIR
	}
	if err == nil {
		err = u.limits.checkPath(target)
	}
	if err != nil {
		return named("link to "+quote(linkname), err)
	}
	targetDir, name := splitPath(target)
	if isReserved(name) {
		return named("link to "+quote(linkname), errReserved)
	}
	err = u.linkTo(targetDir, name, base)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		err = u.copyUp(target, dir, base)
	}
	return named("link to "+quote(linkname), err)
}

// linkTo makes base in the parent a second name of name in the directory dir.
func (u *unpacker) linkTo(dir, name, base string) error {
	p := &u.tree.parent
	fd, path := p.fd, p.path
	if dir != p.name {
		var err error
		if fd, path, err = u.tree.find(dir, false); err != nil {
			return err
		}
		defer u.tree.close(fd)
	}
	var st unix.Stat_t
	if err := lstatAt(fd, name, &st); err != nil {
		return err
	}
	from, to := joinPath(path, name), u.tree.child(base)
	switch {
	case isDir(&st):
		return unix.EISDIR
	case isWhiteout(&st):
		return unix.ENOENT
	case from == to:
		return nil
	}
	if err := u.tree.touch(); err != nil {
		return err
	}
	owner := u.writer.owners.owners[from]
	err := u.put(base, func(dir int) error { return unix.Linkat(fd, name, dir, base, 0) })
	if err != nil {
		return err
	}
	return u.writer.owners.set(to, owner)
}
