// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"golang.org/x/sys/unix"
)

// exec is execve(2) and execveat(2). The kernel makes the call; here the process
// gets the credentials that it will have after it: the owner's where the file is
// set-user-ID, and saved IDs equal to effective ones.
//
// They are given before the kernel executes, and would stay if it then refused;
// so only a file that it will take is looked at: a regular one that may be
// executed, and no script, for which Linux ignores the bits.
func (w *worker) exec(n *notification, dir int32, path uint64, flags int) answer {
	have, errno := w.s.interned.of(n.PID)
	if errno != 0 || flags&^chownFlags != 0 {
		return natively
	}
	p, v := w.locate(&w.at, n.PID, dir, path, flags&unix.AT_SYMLINK_NOFOLLOW != 0, flags&unix.AT_EMPTY_PATH != 0)
	if v != found {
		p, v = w.announced(n, path)
	}
	defer p.close()
	if v != found {
		return natively
	}
	setuid, setgid := none, none
	if r, ok := w.recall(&p); ok && !w.s.options.NoNewPrivileges {
		if r.Mode&unix.S_ISUID != 0 {
			setuid = r.UID
		}
		if r.Mode&unix.S_ISGID != 0 && r.Mode&unix.S_IXGRP != 0 {
			setgid = r.GID
		}
	}
	c := have.afterExec(setuid, setgid)
	if c.equal(have) {
		return natively
	}
	f, errno := w.openFile(&p)
	if errno != 0 {
		return natively
	}
	defer f.close()
	if f.kind() != unix.S_IFREG || f.st.Mode&0o111 == 0 {
		return natively
	}
	if (setuid != none || setgid != none) && (w.isScript(f) || ignoresSetID(f)) {
		c = have.afterExec(none, none)
	}
	if a := w.become(n, have, c, 0, 0); a.errno != 0 {
		return a
	}
	return natively
}

// announced is the place of the next path that a program was said to be started
// by (Listener.Paths), if it is one that is about to start: its memory is then
// still that of who started it, and not for us to read.
func (w *worker) announced(n *notification, path uint64) (place, verdict) {
	none := place{held: noFD}
	if w.v == nil || len(w.v.paths) == 0 {
		return none, unclear
	}
	if !isHidden(n.PID, path) {
		return none, unclear
	}
	i := int(w.v.tried.Add(1)) - 1
	if i >= len(w.v.paths) || len(w.v.paths[i]) >= pathMax {
		return none, unclear
	}
	length := copy(w.at[prefixMax:], w.v.paths[i])
	w.at[prefixMax+length] = 0
	return w.locateRead(&w.at, n.PID, unix.AT_FDCWD, length, false)
}

// isScript reports whether a file names its interpreter.
func (w *worker) isScript(f *file) bool {
	fd, errno := openPlace(f.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return false // mode 0111: it can be executed and not read
	}
	defer unix.Close(fd)
	var head [2]byte
	n, err := unix.Pread(fd, head[:], 0)
	return err == nil && n == 2 && head[0] == '#' && head[1] == '!'
}

// ignoresSetID reports whether a file is on a mount of the user's that was made
// nosuid. The container's own root always is, for the machine's sake.
func ignoresSetID(f *file) bool {
	var fs unix.Statfs_t
	return !f.own && unix.Fstatfs(f.fd, &fs) == nil && fs.Flags&unix.ST_NOSUID != 0
}
