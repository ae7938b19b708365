// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

type xattr struct{ name, value string }

// The record of pax that holds an extended attribute.
const paxXattr = "SCHILY.xattr."

// xattrsOf are the attributes of an entry that are unpacked, sorted by name.
func (l Limits) xattrsOf(h *tar.Header) ([]xattr, error) {
	var list []xattr
	total := 0
	for key, value := range h.PAXRecords {
		name, found := strings.CutPrefix(key, paxXattr)
		if !found {
			continue
		}
		if err := checkXattrName(name); err != nil {
			return nil, err
		}
		if len(value) > maxXattrValue {
			return nil, named("set attribute "+quote(name), unix.E2BIG)
		}
		if total += len(name) + len(value); total > l.XattrBytes {
			return nil, &LimitError{What: "bytes of attributes", Max: int64(l.XattrBytes)}
		}
		if !isDropped(name) {
			list = append(list, xattr{name, value})
		}
	}
	slices.SortFunc(list, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// isDropped reports whether an attribute of an image would speak to the host:
// our own records and overlayfs's are not the image's to write, and labels of
// SELinux mean something only where they were given.
func isDropped(name string) bool {
	return strings.HasPrefix(name, "user.containers.") ||
		strings.HasPrefix(name, "user.overlay.") ||
		strings.HasPrefix(name, "trusted.overlay.") ||
		name == "security.selinux"
}

const capability = "security.capability"

// A writer gives files their metadata, on the disk or in the table.
type writer struct {
	recorded bool // every file is the caller's
	noXattrs bool // the filesystem refused user attributes
	owners   ownerTable
}

// apply gives what was just created, or an existing directory, its metadata, by
// descriptor. The order is the kernel's: a change of owner clears capabilities
// and set-ID bits, and attributes need a file that may be written.
func (w *writer) apply(fd int, path string, n node) error {
	o := n.owner
	mode := o.diskMode()
	if !w.recorded {
		if err := unix.Fchown(fd, int(o.UID), int(o.GID)); err != nil {
			return chownError(o.UID, o.GID, err)
		}
		if mode = o.Mode; o.Kind == Char || o.Kind == Block {
			mode &= permBits
		}
	}
	if err := w.record(fd, path, n); err != nil {
		return err
	}
	return named("change mode", unix.Fchmod(fd, mode))
}

// record writes down what the file cannot be, on the file or in the table.
func (w *writer) record(fd int, path string, n node) error {
	o := n.owner
	device := o.Kind == Char || o.Kind == Block
	needed := device || w.recorded && o.needsRecord()
	if o.Kind == Pipe {
		if needed {
			return w.owners.set(path, o)
		}
		w.owners.forget(path)
		return nil
	}
	if needed {
		if kept, err := w.setXattr(fd, RecordXattr, o.Record()); err != nil {
			return err
		} else if kept {
			needed = false
		}
	}
	for _, x := range n.xattrs {
		kept, err := w.carry(fd, x)
		if err != nil {
			return err
		}
		if !kept {
			if o.Xattrs == nil {
				o.Xattrs = map[string]string{}
			}
			o.Xattrs[x.name] = x.value
			needed = true
		}
	}
	if needed {
		return w.owners.set(path, o)
	}
	w.owners.forget(path)
	return nil
}

// carry sets an attribute of the image, under another name if only a privileged
// process may set this one. It reports whether the file carries it now.
func (w *writer) carry(fd int, x xattr) (bool, error) {
	if strings.HasPrefix(x.name, "user.") {
		return w.setXattr(fd, x.name, x.value)
	}
	if !w.recorded {
		err := unix.Fsetxattr(fd, x.name, []byte(x.value), 0)
		if err == nil {
			return true, nil
		}
		if x.name == capability || !isXattrRefused(err) && err != unix.EINVAL {
			return false, named("set attribute "+quote(x.name), err)
		}
	}
	name := RecordXattrPrefix + x.name
	if err := checkXattrName(name); err != nil {
		return false, err
	}
	return w.setXattr(fd, name, x.value)
}

// setXattr sets a user attribute. It reports false where the filesystem keeps none.
func (w *writer) setXattr(fd int, name, value string) (bool, error) {
	if w.noXattrs {
		return false, nil
	}
	err := unix.Fsetxattr(fd, name, []byte(value), 0)
	switch {
	case err == nil:
		return true, nil
	case isXattrRefused(err):
		w.noXattrs = true
		return false, nil
	case (err == unix.ENOSPC || err == unix.E2BIG) && hasSpace(fd):
		// ext4 says so when the attributes of one file do not fit its block.
		return false, fmt.Errorf("set attribute %s: the filesystem cannot keep %d bytes with a file", quote(name), len(value))
	}
	return false, named("set attribute "+quote(name), err)
}

// hasSpace reports whether the filesystem is far from full.
func hasSpace(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Bavail > 256
}

// clearXattrs takes away the attributes that an earlier entry gave a directory;
// the last one wins. That the directory is opaque is no attribute of an entry.
func clearXattrs(fd int) error {
	names, err := listXattrs(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == opaqueXattr || !strings.HasPrefix(name, "user.") && name != capability {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && err != unix.ENODATA {
			return named("remove attribute "+quote(name), err)
		}
	}
	return nil
}

// listXattrs lists the names of a file's attributes; none where there can be none.
func listXattrs(fd int) ([]string, error) {
	buf := make([]byte, 1024)
	for {
		n, err := unix.Flistxattr(fd, buf)
		switch {
		case err == unix.ERANGE && len(buf) < 1<<17:
			buf = make([]byte, 4*len(buf))
			continue
		case err == unix.EOPNOTSUPP || err == unix.ENOSYS:
			return nil, nil
		case err != nil:
			return nil, named("list attributes", err)
		case n == 0:
			return nil, nil
		}
		return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
	}
}

// nodeOf reads from a layer on disk what an archive would say of a file.
func nodeOf(fd int, recorded bool) (node, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return node{}, err
	}
	n := node{owner: ownerOnDisk(&st, recorded), times: timesOf(&st)}
	names, err := listXattrs(fd)
	if err != nil {
		return n, err
	}
	for _, name := range names {
		own := strings.HasPrefix(name, RecordXattrPrefix)
		if name != RecordXattr && !own && isDropped(name) {
			continue
		}
		value, err := getXattr(fd, name)
		switch {
		case err == unix.ENODATA: // listed, but not to be had from here
			continue
		case err != nil:
			return n, named("read attribute "+quote(name), err)
		case name == RecordXattr:
			n.owner = n.owner.as(value, recorded)
		case own:
			n.xattrs = append(n.xattrs, xattr{strings.TrimPrefix(name, RecordXattrPrefix), value})
		case strings.HasPrefix(name, "user.") || !recorded:
			n.xattrs = append(n.xattrs, xattr{name, value})
		}
	}
	return n, nil
}

// ownerOnDisk is the owner of a file without a record.
func ownerOnDisk(st *unix.Stat_t, recorded bool) Owner {
	o := Owner{Kind: kindOf(uint32(st.Mode)), Mode: uint32(st.Mode) & modeBits}
	if !recorded {
		o.UID, o.GID = st.Uid, st.Gid
	}
	if o.Kind == Symlink {
		o.Mode = permBits
	}
	return o
}

// as applies a record to what the disk says. Where owners are real, the record
// is that of a device, and says only which.
func (o Owner) as(record string, recorded bool) Owner {
	r, ok := parseRecord(record)
	switch {
	case !ok:
		return o
	case recorded:
		if r.Kind == File {
			r.Kind = o.Kind // older records do not say
		}
		return r
	}
	o.Kind, o.Major, o.Minor = r.Kind, r.Major, r.Minor
	return o
}

func getXattr(fd int, name string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Fgetxattr(fd, name, buf)
		if err == unix.ERANGE && len(buf) < maxXattrValue {
			buf = make([]byte, maxXattrValue)
			continue
		}
		if err != nil {
			return "", err
		}
		return string(buf[:n]), nil
	}
}
