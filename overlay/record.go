// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// RecordXattr holds a file's true owner, mode and kind where the disk cannot:
	// "uid:gid:mode:kind", the form that containers/storage and fuse-overlayfs read.
	RecordXattr = "user.containers.override_stat"

	// RecordXattrPrefix stands before the name of an attribute that only a
	// privileged process could set, such as security.capability.
	RecordXattrPrefix = "user.containers.override_xattr."

	opaqueXattr = "user.overlay.opaque"
)

// Permission bits, and the three special bits with them.
const (
	permBits    = 0o777
	modeBits    = 0o7777
	specialBits = modeBits &^ permBits
	ownerBits   = 0o700 // what the owner of a directory needs to work in it
)

const (
	maxID    = 1<<32 - 2 // the largest ID is taken: -1 means "leave it" to chown(2)
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// Kind is what a file is.
type Kind uint8

// The kinds of files, with the words of a record.
const (
	File    Kind = iota // file
	Dir                 // dir
	Symlink             // symlink
	Pipe                // pipe
	Socket              // socket
	Char                // char-MAJOR-MINOR
	Block               // block-MAJOR-MINOR
)

var kindWords = [...]string{"file", "dir", "symlink", "pipe", "socket", "char", "block"}

func (k Kind) String() string {
	if int(k) < len(kindWords) {
		return kindWords[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// kindOf is the kind that the type bits of a mode stand for.
func kindOf(mode uint32) Kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return Dir
	case unix.S_IFLNK:
		return Symlink
	case unix.S_IFIFO:
		return Pipe
	case unix.S_IFSOCK:
		return Socket
	case unix.S_IFCHR:
		return Char
	case unix.S_IFBLK:
		return Block
	}
	return File
}

// Owner is what the image says of a file and the disk does not.
type Owner struct {
	UID, GID     uint32
	Mode         uint32 // permission, set-ID and sticky bits
	Kind         Kind
	Major, Minor uint32 // of Char and Block

	// Xattrs are attributes that the file cannot carry. Only a table has them.
	Xattrs map[string]string
}

// Record is the value of RecordXattr, without the attributes.
func (o Owner) Record() string {
	s := fmt.Sprintf("%d:%d:%04o:%s", o.UID, o.GID, o.Mode, o.Kind)
	if o.Kind == Char || o.Kind == Block {
		s += fmt.Sprintf("-%d-%d", o.Major, o.Minor)
	}
	return s
}

// ParseRecord reads a record. The kind may be missing, as in records that older
// tools wrote; it then says File.
func ParseRecord(s string) (Owner, error) {
	o, ok := parseRecord(s)
	if !ok {
		return Owner{}, fmt.Errorf("parse owner record %.64q: %w", s, errRecord)
	}
	return o, nil
}

var errRecord = errors.New("not uid:gid:mode:kind")

func parseRecord(s string) (o Owner, ok bool) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 && len(parts) != 4 {
		return o, false
	}
	fields := []struct {
		to   *uint32
		base int
		max  uint64
	}{{&o.UID, 10, maxID}, {&o.GID, 10, maxID}, {&o.Mode, 8, modeBits}}
	for i, f := range fields {
		n, err := strconv.ParseUint(parts[i], f.base, 32)
		if err != nil || n > f.max {
			return o, false
		}
		*f.to = uint32(n)
	}
	if len(parts) == 3 {
		return o, true
	}
	word, number, numbered := strings.Cut(parts[3], "-")
	for k, w := range kindWords {
		if w != word {
			continue
		}
		o.Kind = Kind(k)
		if o.Kind != Char && o.Kind != Block {
			return o, !numbered
		}
		major, minor, _ := strings.Cut(number, "-")
		ma, err1 := strconv.ParseUint(major, 10, 32)
		mi, err2 := strconv.ParseUint(minor, 10, 32)
		o.Major, o.Minor = uint32(ma), uint32(mi)
		return o, err1 == nil && err2 == nil && ma <= maxMajor && mi <= maxMinor
	}
	return o, false
}

// needsRecord reports whether the disk alone would tell something else than o,
// when the file belongs to the caller.
func (o Owner) needsRecord() bool {
	switch {
	case o.UID != 0 || o.GID != 0 || o.Kind == Char || o.Kind == Block || len(o.Xattrs) > 0:
		return true
	case o.Kind == Symlink: // its mode means nothing
		return false
	}
	return o.Mode&specialBits != 0 || o.Kind == Dir && o.Mode&ownerBits != ownerBits
}

// diskMode is the mode that the file gets when it belongs to the caller: no bits
// by which another user could run it as the caller, and directories that the
// caller can remove.
func (o Owner) diskMode() uint32 {
	if o.Kind == Dir {
		return o.Mode&(permBits|unix.S_ISVTX) | ownerBits
	}
	return o.Mode & permBits
}
