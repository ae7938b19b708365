// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"strings"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// A process that called chroot(2), or went to a mount namespace of its own, has
// another root than the supervisor: its absolute paths, and absolute symbolic links
// on the way of others, must be followed there. Telling such processes costs a
// system call for each path, so it is done from the first such call in a container
// on; that is why those calls are trapped.

// wander is clone3(2) and what goes to another root: chroot(2), pivot_root(2),
// setns(2), unshare(2) and clone(2) where they do.
func (w *worker) wander(n *notification, c call) answer {
	if c == callClone3 {
		var flags uint64
		if readMemory(n.PID, n.Args[0], bytesOf(&flags)) == 0 && flags&unix.CLONE_NEWNS == 0 {
			return natively
		}
	}
	w.s.wandered.Store(true)
	return natively
}

// elsewhere reports whether a process's root is not the container's.
func (w *worker) elsewhere(pid uint32) bool {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, pidPath(pid, "/root"), 0, unix.STATX_INO|unix.STATX_MNT_ID, &st) != nil {
		return false
	}
	return st.Ino != w.s.root.Ino || st.Mnt_id != w.s.root.Mnt_id || st.Dev_major != w.s.root.Dev_major || st.Dev_minor != w.s.root.Dev_minor
}

func pidPath(pid uint32, rest string) string {
	var buf [16]byte
	return string(buf[decimal(buf[:], pid):]) + rest
}

// locateInRoot finds a place as the process itself would, in its own root. A
// relative path is taken from the directory's path in that root; where it has
// none, it is looked up from the directory, absolute links in the wrong root.
func (w *worker) locateInRoot(at *room, pid uint32, dir int32, said []byte, nofollow bool) (place, verdict) {
	name := string(said)
	if said[0] != '/' {
		prefix, ok := w.pathInRoot(pid, dir)
		if !ok {
			start := at.prefix(pid, dir)
			end := prefixMax + len(said) + 1
			if end-start > pathMax {
				return place{held: noFD}, unclear
			}
			return place{path: at[start:end], name: prefixMax - start, nofollow: nofollow, held: noFD}, found
		}
		name = prefix + "/" + name
	}
	base, errno := openAt(unix.AT_FDCWD, pidPath(pid, "/root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errno != 0 {
		return place{held: noFD}, unclear
	}
	defer unix.Close(base)
	// The directory is what is opened, so that a name that is yet to be created
	// has a place, too; a last component that is to be followed is opened itself.
	directory, last := splitPath(name)
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	if !nofollow {
		if fd, err := overlay.Openat2(base, name, how); err == nil {
			path := w.fdPath(fd)
			n := copy(at[:], path)
			at[n] = 0
			return place{path: at[:n+1], name: n, held: fd}, found
		}
	}
	how.Flags |= unix.O_DIRECTORY
	held, err := overlay.Openat2(base, directory, how)
	if err != nil {
		return place{held: noFD}, unclear
	}
	return w.through(at, held, last, true), found
}

// pathInRoot is the path of a process's directory in its own root.
func (w *worker) pathInRoot(pid uint32, dir int32) (string, bool) {
	var buf [pathMax]byte
	n, err := unix.Readlink(pidPath(pid, "/root"), buf[:])
	if err != nil || n == len(buf) {
		return "", false
	}
	rootPath := strings.TrimSuffix(string(buf[:n]), "/")
	link := "/cwd"
	if dir != unix.AT_FDCWD {
		var number [16]byte
		link = "/fd/" + string(number[decimal(number[:], uint32(dir)):])
	}
	n, err = unix.Readlink(pidPath(pid, link), buf[:])
	if err != nil || n == len(buf) {
		return "", false
	}
	rest, ok := strings.CutPrefix(string(buf[:n]), rootPath)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return rest, true
}

// splitPath parts a path at its last component. Slashes at the end stay with it.
func splitPath(name string) (directory, last string) {
	trimmed := strings.TrimRight(name, "/")
	i := strings.LastIndexByte(trimmed, '/')
	switch {
	case trimmed == "":
		return "/", "."
	case i < 0:
		return ".", name
	case i == 0:
		return "/", name[1:]
	}
	return name[:i], name[i+1:]
}
