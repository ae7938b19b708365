// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// openDir opens a directory to work in. It never follows a link and never
	// blocks: what is no directory is ENOTDIR before it is opened.
	openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

	// beneathOnly makes openat2 refuse every symbolic link and every way out.
	beneathOnly = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

	noFD = -1
)

// An opener opens paths that hold no symbolic link beneath a directory.
type opener struct {
	// stepwise is set once openat2 was refused: the kernel is older than 5.6, or
	// the seccomp filter of an outer container does not know the call.
	stepwise bool
}

// open opens path, which is relative and clean, beneath root; "" is root itself,
// opened again. A symbolic link anywhere in it is ELOOP or ENOTDIR.
func (o *opener) open(root int, path string, flags int, resolve uint64) (int, error) {
	if path == "" {
		return openat(root, ".", flags, 0)
	}
	if !o.stepwise {
		fd, err := Openat2(root, path, &unix.OpenHow{Flags: uint64(flags), Resolve: resolve})
		if err != unix.ENOSYS && err != unix.EPERM {
			return fd, err
		}
		o.stepwise = true
	}
	dir := root
	for {
		name, rest, more := strings.Cut(path, "/")
		step := flags | unix.O_NOFOLLOW
		if more {
			step = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := openat(dir, name, step, 0)
		if dir != root {
			unix.Close(dir)
		}
		if err != nil || !more {
			return fd, err
		}
		dir, path = fd, rest
	}
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// resolveTries bounds how often a path is resolved anew: whoever renames all the
// time must not hold us up for ever.
const resolveTries = 10_000

// Openat2 is openat2(2), which has to be called again when somebody anywhere has
// renamed or mounted something while a path with ".." in it, or in a link on its way,
// was resolved: the kernel cannot tell then that it led nowhere outside.
func Openat2(dir int, name string, how *unix.OpenHow) (fd int, err error) {
	for range resolveTries {
		if fd, err = unix.Openat2(dir, name, how); err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	return fd, err
}

func lstatAt(dir int, name string, st *unix.Stat_t) error {
	return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

func kindBits(st *unix.Stat_t) uint32 { return uint32(st.Mode) & unix.S_IFMT }

func isDir(st *unix.Stat_t) bool { return kindBits(st) == unix.S_IFDIR }

// isWhiteout reports whether st is overlayfs's sign that a name is gone.
func isWhiteout(st *unix.Stat_t) bool { return kindBits(st) == unix.S_IFCHR && st.Rdev == 0 }

// timespecs are access and modification time, as utimensat wants them.
type timespecs [2]unix.Timespec

func timesOf(st *unix.Stat_t) timespecs { return timespecs{st.Atim, st.Mtim} }

// setTimes is futimens(3), which the unix package lacks.
func setTimes(fd int, ts *timespecs) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// writeAt writes all of p at offset off.
func writeAt(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readLink reads the symbolic link name in dir; EINVAL says that it is none.
func readLink(dir int, name string) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// reopenedChmod changes the mode of what an O_PATH descriptor stands for. fchmod
// refuses those; fchmodat2 came with Linux 6.6, the way through /proc is older.
func reopenedChmod(fd int, mode uint32) error {
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if err == nil || (err != unix.ENOSYS && err != unix.EOPNOTSUPP && err != unix.EINVAL && err != unix.EPERM) {
		return err
	}
	return unix.Fchmodat(unix.AT_FDCWD, procFD(fd), mode, 0)
}

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// A dirent is a directory entry as getdents64 gives it.
type dirent struct {
	name string
	kind byte // DT_DIR, DT_CHR ..; DT_UNKNOWN where the filesystem does not say
}

// A dirReader reads a directory in pieces. os.File.ReadDir is not used: it asks
// for a kind that the filesystem did not tell by path.
type dirReader struct{ buf []byte }

// next returns the next piece of the directory behind fd, nothing at its end.
func (d *dirReader) next(fd int) ([]dirent, error) {
	if d.buf == nil {
		d.buf = make([]byte, 32<<10)
	}
	for {
		n, err := unix.Getdents(fd, d.buf)
		if err == unix.EINTR {
			continue
		}
		if err == unix.ENOENT { // the directory itself was removed
			return nil, nil
		}
		if err != nil || n <= 0 {
			return nil, err
		}
		if list := parseDirents(d.buf[:n]); len(list) > 0 {
			return list, nil
		}
	}
}

// The layout of struct linux_dirent64: d_ino, d_off, d_reclen, d_type, d_name.
const (
	direntLen  = 16
	direntKind = 18
	direntName = 19
)

func parseDirents(buf []byte) []dirent {
	var list []dirent
	for len(buf) >= direntName {
		size := int(*(*uint16)(unsafe.Pointer(&buf[direntLen])))
		if size < direntName || size > len(buf) {
			return list
		}
		name := string(buf[direntName:size])
		if i := strings.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if name != "." && name != ".." {
			list = append(list, dirent{name: name, kind: buf[direntKind]})
		}
		buf = buf[size:]
	}
	return list
}

// inode tells two files apart while both exist.
type inode struct{ dev, ino uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{dev: uint64(st.Dev), ino: st.Ino} }

// isRefused reports whether err says that the filesystem, the kernel or a filter
// around us does not do such a thing at all, as opposed to a failure of it.
func isRefused(err error) bool {
	for _, e := range []unix.Errno{unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
