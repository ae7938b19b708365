// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// Bits of a mode.
const (
	permBits  = 0o777
	modeBits  = 0o7777
	setIDBits = unix.S_ISUID | unix.S_ISGID
	ownerBits = 0o700
)

// maxRecord is longer than any record: three numbers, a kind and a device.
const maxRecord = 96

// A remembered owner is what a record or the table says of a file.
type remembered struct {
	overlay.Owner
	inTable bool
	foreign bool // the file is not ours: its permission bits are those on disk
}

// recall finds what is remembered of the file at a place. There is nothing for
// most files, and one system call tells.
func (w *worker) recall(p *place) (remembered, bool) {
	n, errno := getxattr(p.path, p.nofollow, recordName, w.value[:maxRecord])
	if errno == 0 {
		o, err := overlay.ParseRecord(string(w.value[:n]))
		return remembered{Owner: o}, err == nil
	}
	if w.s.table.empty() || !maybeInTable(errno) {
		return remembered{}, false
	}
	var st unix.Statx_t
	if statxAt(p.path, p.statFlags(), statxMask, &st) != 0 {
		return remembered{}, false
	}
	return w.s.table.get(&st)
}

func (p *place) statFlags() int {
	if p.nofollow {
		return unix.AT_SYMLINK_NOFOLLOW
	}
	return 0
}

// statxMask is what the table needs to know a file again.
const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID

// maybeInTable reports whether a file whose record could not be read may stand in
// the table: it has none, or cannot have any.
func maybeInTable(errno unix.Errno) bool {
	return errno == unix.ENODATA || errno == unix.ENOTSUP || errno == unix.EPERM
}

// kindOf is the kind that the type bits of a mode stand for.
func kindOf(mode uint16) overlay.Kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return overlay.Dir
	case unix.S_IFLNK:
		return overlay.Symlink
	case unix.S_IFIFO:
		return overlay.Pipe
	case unix.S_IFSOCK:
		return overlay.Socket
	case unix.S_IFCHR:
		return overlay.Char
	case unix.S_IFBLK:
		return overlay.Block
	}
	return overlay.File
}

// isDevice reports whether the record makes a device of a file.
func isDevice(o *overlay.Owner) bool { return o.Kind == overlay.Char || o.Kind == overlay.Block }

// seenMode is the mode that a file with this one on disk is to show.
func (r *remembered) seenMode(disk uint32) uint32 {
	kind, bits := disk&unix.S_IFMT, r.Mode
	if kind == unix.S_IFLNK {
		return disk
	}
	if r.foreign {
		bits = disk&modeBits | r.Mode&setIDBits
	}
	if kind == unix.S_IFREG {
		switch r.Kind {
		case overlay.Char:
			kind = unix.S_IFCHR
		case overlay.Block:
			kind = unix.S_IFBLK
		}
	}
	return kind | bits&modeBits
}

// seenDevice is the device number that a file is to show, if its record has one.
func (r *remembered) seenDevice(disk uint32) (major, minor uint32, ok bool) {
	return r.Major, r.Minor, disk&unix.S_IFMT == unix.S_IFREG && isDevice(&r.Owner)
}

// needsRecord reports whether the disk alone would tell something else: it is the
// rule by which the unpacker writes records (overlay), so that a file has the
// same one whoever made it.
func needsRecord(o *overlay.Owner) bool {
	if o.UID != 0 || o.GID != 0 || isDevice(o) || len(o.Xattrs) > 0 {
		return true
	}
	return o.Kind != overlay.Symlink && needsMode(o.Mode, o.Kind == overlay.Dir)
}

// needsMode reports whether a mode cannot stand on disk as it is. The sticky bit
// can, it gives nobody anything.
func needsMode(mode uint32, dir bool) bool {
	return mode&setIDBits != 0 || dir && mode&ownerBits != ownerBits
}

// diskMode is the mode that a file of ours gets on disk: no bits by which another
// user of the machine could run it as us, and directories that we can remove.
func diskMode(mode uint32, dir bool) uint32 {
	if dir {
		return mode&(permBits|unix.S_ISVTX) | ownerBits
	}
	return mode & permBits
}
