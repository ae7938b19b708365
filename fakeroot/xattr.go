// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// maxXattrName is XATTR_NAME_MAX with the NUL.
const maxXattrName = 256

// attribute is what becomes of a change to an attribute, by its name.
type attribute uint8

const (
	ordinary attribute = iota
	hidden             // ours: a program that copies all attributes must not copy records
	refused            // one that root may set and a user namespace may not
	aclAccess
	aclDefault
)

func (w *worker) attribute(n *notification, address uint64) attribute {
	size, errno := readString(n.PID, address, w.value[:maxXattrName])
	if errno != 0 {
		return ordinary
	}
	name := w.value[:size]
	switch {
	case bytes.HasPrefix(name, []byte("user.containers.")):
		return hidden
	case string(name) == "system.posix_acl_access":
		return aclAccess
	case string(name) == "system.posix_acl_default":
		return aclDefault
	case bytes.HasPrefix(name, []byte("trusted.")):
		return refused
	case bytes.HasPrefix(name, []byte("security.")) && string(name) != "security.capability":
		return refused
	}
	return ordinary
}

// setxattr is setxattr(2), lsetxattr(2) and fsetxattr(2). What only the machine's
// root could set is said to have been set; programs that copy or restore
// attributes would otherwise fail. File capabilities the kernel stores for a user
// namespace by itself (capabilities(7), "Version 3").
func (w *worker) setxattr(n *notification, dir int32, path uint64, flags int, name, value, size uint64) answer {
	kind := w.attribute(n, name)
	switch kind {
	case hidden, refused:
		return success
	case aclAccess, aclDefault:
	default:
		return natively
	}
	list, ok := w.readACL(n, value, size)
	switch {
	case !ok:
		return natively
	case list.namesOthers:
		return success
	case kind == aclDefault:
		return natively
	}
	// A list says the permission bits, too: programs that copy a mode do it so
	// (acl(5), "Correspondence between ACL entries and file permission bits").
	a := w.changeMode(n, dir, path, flags, func(f *file) (uint32, bool) {
		return f.owner.Mode&^permBits | list.mode, f.known
	})
	if a == success && list.extended {
		return natively
	}
	return a
}

// xattrArgs is struct xattr_args of setxattrat(2).
type xattrArgs struct {
	Value uint64
	Size  uint32
	Flags uint32
}

// setxattrat is setxattrat(2).
func (w *worker) setxattrat(n *notification, a *[6]uint64) answer {
	var x xattrArgs
	if a[5] < uint64(len(bytesOf(&x))) || readMemory(n.PID, a[4], bytesOf(&x)) != 0 {
		return natively
	}
	return w.setxattr(n, fdArg(a[0]), a[1], int(int32(a[2])), a[3], x.Value, uint64(x.Size))
}

// removexattr is removexattr(2) and its twins.
func (w *worker) removexattr(n *notification, name uint64) answer {
	switch w.attribute(n, name) {
	case hidden, refused:
		return failure(unix.ENODATA)
	}
	return natively
}

// aclList is what matters of an access control list.
type aclList struct {
	namesOthers bool   // a user or group that the user namespace does not map: any but 0
	extended    bool   // more than a mode can say
	mode        uint32 // the permission bits that it gives the file
}

// readACL reads the list that a process wants to set (acl(5),
// linux/posix_acl_xattr.h).
func (w *worker) readACL(n *notification, value, size uint64) (l aclList, ok bool) {
	const (
		header, entrySize        = 4, 8
		maxEntries        uint64 = 512

		userObject, user, groupObject, group, mask, other = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
	)
	if size < header || size > header+entrySize*maxEntries {
		return l, false
	}
	data := make([]byte, size)
	if readMemory(n.PID, value, data) != 0 {
		return l, false
	}
	for data = data[header:]; len(data) >= entrySize; data = data[entrySize:] {
		tag, bits := binary.LittleEndian.Uint16(data), uint32(binary.LittleEndian.Uint16(data[2:]))&0o7
		switch tag {
		case userObject:
			l.mode = l.mode&^0o700 | bits<<6
		case groupObject:
			if !l.extended {
				l.mode = l.mode&^0o070 | bits<<3
			}
		case mask:
			l.extended = true
			l.mode = l.mode&^0o070 | bits<<3
		case other:
			l.mode = l.mode&^0o007 | bits
		case user, group:
			l.namesOthers = l.namesOthers || binary.LittleEndian.Uint32(data[4:]) != 0
		default:
			return l, false
		}
	}
	return l, true
}
