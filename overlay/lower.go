// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"golang.org/x/sys/unix"
)

// below opens the layers below, when they are first needed.
func (u *unpacker) below() (*stack, error) {
	if u.lower == nil {
		s, err := openStack(u.options.Lower)
		if err != nil {
			return nil, err
		}
		s.steps = maxSteps
		u.lower = s
	}
	return u.lower, nil
}

// adopt gives a directory that no entry has named the metadata it has in the
// layers below, else that of an ordinary directory of root's. It counts as an
// entry: a short name can stand for a thousand of them.
func (u *unpacker) adopt(fd int, path string) error {
	u.implied++
	if u.result.Entries+u.implied > u.limits.Entries {
		return &LimitError{What: "entries", Max: u.limits.Entries}
	}
	return u.imply(fd, path)
}

// imply gives a directory the metadata of one that the archive does not name.
func (u *unpacker) imply(fd int, path string) error {
	n := node{owner: Owner{Kind: Dir, Mode: 0o755}}
	inherited := false
	if len(u.options.Lower) > 0 {
		below, found, err := u.inherit(path)
		if err != nil {
			return err
		}
		if found {
			if !below.isOrdinary() {
				u.result.UsedLower = true
			}
			n, inherited = below, true
		}
	}
	if err := u.writer.apply(fd, path, n); err != nil {
		return err
	}
	if inherited {
		return setTimes(fd, &n.times)
	}
	return nil
}

// isOrdinary reports whether a directory is as it would be without layers below.
func (n node) isOrdinary() bool {
	o := n.owner
	return o.UID == 0 && o.GID == 0 && o.Mode == 0o755 && len(n.xattrs) == 0
}

// atPath finds what the layers below have at the very path, without following
// links. What this layer hides there is not found.
func (u *unpacker) atPath(path string) (f found, ok bool, err error) {
	s, err := u.below()
	if err != nil {
		return f, false, err
	}
	s.steps += int64(stepsPerEntry * len(s.roots))
	up, _ := splitPath(path)
	if covered, err := u.tree.opaqueAbove(up); err != nil || covered {
		return f, false, err
	}
	f, real, err := s.resolve(path, false)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return f, false, nil
	}
	return f, err == nil && real == path, err
}

// lowerLink is what tree.lowerLink says. An entry below a link of the layers
// below goes where that leads, as on a merged tree: bin/tool is /usr/bin/tool
// where bin is a link, unless the layer has a directory bin of its own.
func (u *unpacker) lowerLink(path string) (string, error) {
	if len(u.options.Lower) == 0 {
		return "", nil
	}
	f, found, err := u.atPath(path)
	if err != nil || !found || kindBits(&f.st) != unix.S_IFLNK {
		return "", err
	}
	dir, base := splitPath(path)
	target, err := u.lower.readLink(f.layer, dir, base)
	u.result.UsedLower = true
	return target, err
}

// inherit reads the metadata of the directory at path in the layers below.
func (u *unpacker) inherit(path string) (n node, found bool, err error) {
	f, found, err := u.atPath(path)
	if err != nil || !found || !isDir(&f.st) {
		return n, false, err
	}
	fd, err := u.lower.openDir(f.dir.layers[0], path)
	if err != nil {
		return n, false, err
	}
	defer unix.Close(fd)
	n, err = nodeOf(fd, u.writer.recorded)
	return n, err == nil, err
}

// copyUp brings the file target, which only the layers below have, into this one,
// so that base in the directory dir can be a second name of it.
func (u *unpacker) copyUp(target, dir, base string) error {
	s, err := u.below()
	if err != nil {
		return err
	}
	f, path, err := s.resolve(target, false)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return errNotHere
	}
	if err != nil {
		return err
	}
	if kindBits(&f.st) != unix.S_IFREG {
		return ErrNotRegular
	}
	src, err := s.openFound(f, path)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	n, err := nodeOf(src, u.writer.recorded)
	if err != nil {
		return err
	}
	u.result.UsedLower = true
	toDir, name := splitPath(path)
	if err := u.tree.enter(toDir); err != nil {
		return err
	}
	if err := u.tree.touch(); err != nil {
		return err
	}
	if u.result.Bytes += f.st.Size; u.result.Bytes > u.limits.Bytes {
		return &LimitError{What: "bytes in files", Max: u.limits.Bytes}
	}
	err = u.file(n, name, func(dst int) error {
		_, err := copyData(u.ctx, dst, src)
		return named("copy", err)
	})
	if err != nil {
		return err
	}
	if err := u.tree.enter(dir); err != nil {
		return err
	}
	return u.linkTo(toDir, name, base)
}
