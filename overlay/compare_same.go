// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// altered reports whether anything but the making of stubs may have changed the
// times of a directory.
func altered(s *step) bool {
	return slices.ContainsFunc(s.todo, func(i item) bool { return i.gone || i.low == nil || i.low.dir.layers == nil })
}

// sameNode compares metadata, of directories without looking at their size.
func sameNode(a, b *node, times bool) bool {
	if times && a.times[1] != b.times[1] {
		return false
	}
	ao, bo := a.owner, b.owner
	ao.Xattrs, bo.Xattrs = nil, nil
	if ao.UID != bo.UID || ao.GID != bo.GID || ao.Mode != bo.Mode || ao.Kind != bo.Kind || ao.Major != bo.Major || ao.Minor != bo.Minor {
		return false
	}
	return slices.Equal(packedXattrs(a), packedXattrs(b))
}

func packedXattrs(n *node) []xattr {
	list := slices.DeleteFunc(slices.Clone(n.xattrs), func(x xattr) bool { return !isPacked(x.name) })
	slices.SortFunc(list, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return list
}

// isSame compares a file of a whole tree with what it was copied from. Content is
// read only where the metadata tell nothing: of two files with one size and one
// time, when the copy was touched after it was made.
func (c *comparison) isSame(dir int, base, path string, st *unix.Stat_t, low *found) (bool, error) {
	if kindBits(st) != kindBits(&low.st) || kindBits(st) == unix.S_IFREG && (st.Size != low.st.Size || st.Mtim != low.st.Mtim) {
		return false, nil
	}
	n, err := nodeIn(dir, base, st, c.options.Recorded)
	if err != nil {
		return err == unix.ENOENT, nil
	}
	c.options.Owners.complete(&n, path)
	below, err := c.low.nodeAt(low, path, c.options.Recorded, c.options.LowerOwners)
	if err != nil {
		return false, err
	}
	if !sameNode(&n, &below, true) {
		return false, nil
	}
	switch kindBits(st) {
	case unix.S_IFREG:
		since := c.options.Since
		if since.IsZero() || st.Size == 0 || !timeOf(st.Ctim).After(since) {
			return true, nil
		}
		return c.sameContent(dir, base, path, low)
	case unix.S_IFLNK:
		a, err := readLink(dir, base)
		if err != nil {
			return false, nil
		}
		up, name := splitPath(path)
		b, err := c.low.readLink(low.layer, up, name)
		return a == b, err
	}
	return true, nil
}

func (c *comparison) sameContent(dir int, base, path string, low *found) (bool, error) {
	a, err := openRegular(dir, base)
	if err != nil {
		return false, nil
	}
	defer unix.Close(a)
	b, err := c.low.openFound(*low, path)
	if err != nil {
		return false, err
	}
	defer unix.Close(b)
	var one, two [32 << 10]byte
	for off := int64(0); ; {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		n, err := unix.Pread(a, one[:], off)
		if err != nil {
			return false, err
		}
		m, err := unix.Pread(b, two[:], off)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(one[:n], two[:m]) {
			return false, nil
		}
		if n == 0 {
			return true, nil
		}
		off += int64(n)
	}
}
