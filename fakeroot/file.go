// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// A file is one that the supervisor holds open by O_PATH while it changes what is
// remembered of it: what is decided of it and what is written cannot be two
// different files, however the container renames things meanwhile.
type file struct {
	fd    int
	path  []byte // its descriptor in our procfs, terminated
	st    unix.Statx_t
	known bool // something is remembered
	owner remembered
	own   bool // it is the container's, see mounts
}

// openFile opens the file at a place and recalls what is remembered of it.
func (w *worker) openFile(p *place) (*file, unix.Errno) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if p.nofollow {
		flags |= unix.O_NOFOLLOW
	}
	fd, errno := openPlace(p.path, flags)
	if errno != 0 {
		return nil, errno
	}
	f, errno := w.describe(fd)
	if errno != 0 {
		unix.Close(fd)
	}
	return f, errno
}

// describe takes over a descriptor.
func (w *worker) describe(fd int) (*file, unix.Errno) {
	f := &file{fd: fd, path: append([]byte(w.fdPath(fd)), 0)}
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, statxMask, &f.st); err != nil {
		return nil, number(err)
	}
	f.own = w.s.mounts.has(&f.st, func() string { return w.fdinfo(fd) })
	n, errno := getxattr(f.path, false, recordName, w.value[:maxRecord])
	if errno == 0 {
		if o, err := overlay.ParseRecord(string(w.value[:n])); err == nil {
			f.owner, f.known = remembered{Owner: o}, true
		}
	} else if maybeInTable(errno) {
		f.owner, f.known = w.s.table.get(&f.st)
	}
	if !f.known {
		f.owner.Owner = overlay.Owner{Mode: uint32(f.st.Mode) & modeBits, Kind: kindOf(f.st.Mode)}
		f.owner.foreign = !f.own
	}
	return f, 0
}

func (f *file) close() { unix.Close(f.fd) }

func (f *file) kind() uint32 { return uint32(f.st.Mode) & unix.S_IFMT }

func (f *file) isDir() bool { return f.kind() == unix.S_IFDIR }

// fdinfo is what procfs says of a descriptor of ours.
func (w *worker) fdinfo(fd int) string {
	path := strings.Replace(w.fdPath(fd), "/fd/", "/fdinfo/", 1)
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}

// write remembers an owner of the file: in its record, or in the table.
func (w *worker) write(f *file, o overlay.Owner) unix.Errno {
	if !f.own {
		return w.remember(f, o)
	}
	if f.kind() == unix.S_IFREG || f.isDir() {
		name := string(recordName[:len(recordName)-1])
		path := string(f.path[:len(f.path)-1])
		if !needsRecord(&o) {
			w.s.table.forget(&f.st)
			if !f.known || f.owner.inTable {
				return 0
			}
			return number(unix.Removexattr(path, name))
		}
		errno := number(unix.Setxattr(path, name, []byte(o.Record()), 0))
		if errno != unix.ENOTSUP && errno != unix.EPERM {
			return errno
		}
	}
	return w.keep(f, o)
}

// remember puts the owner of a file that is not ours in memory. A mount that is
// read-only is so for this, too.
func (w *worker) remember(f *file, o overlay.Owner) unix.Errno {
	var fs unix.Statfs_t
	if unix.Fstatfs(f.fd, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0 {
		return unix.EROFS
	}
	placeholder := isDevice(&o) && f.kind() == unix.S_IFREG
	if o.UID == 0 && o.GID == 0 && o.Mode&setIDBits == 0 && !placeholder {
		w.s.table.forget(&f.st)
		return 0
	}
	w.s.table.pass(&f.st, entry{owner: o, foreign: true})
	return 0
}

// keep puts the owner of a file of ours that cannot carry a record in the table.
//
// A change that the kernel makes of nothing has it check what it always checks,
// and brings the file up from a lower layer, so that diff will see it and so
// that its number is settled.
func (w *worker) keep(f *file, o overlay.Owner) unix.Errno {
	if err := unix.Fchownat(f.fd, "", -1, -1, unix.AT_EMPTY_PATH); err != nil {
		return number(err)
	}
	if err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, statxMask, &f.st); err != nil {
		return number(err)
	}
	if !needsRecord(&o) {
		w.s.table.forget(&f.st)
		return 0
	}
	e := entry{owner: o, path: w.pathOf(f.fd)}
	w.s.table.keep(&f.st, e)
	w.s.saved.keepUpper(w.s.table, &f.st, e)
	return 0
}

// pathOf is the path of an open file in the container, "" when it has none.
func (w *worker) pathOf(fd int) string {
	var buf [pathMax]byte
	n, err := unix.Readlink(w.fdPath(fd), buf[:])
	if err != nil || n == len(buf) {
		return ""
	}
	path := string(buf[:n])
	if path[0] != '/' || strings.HasSuffix(path, " (deleted)") {
		return ""
	}
	return path
}
