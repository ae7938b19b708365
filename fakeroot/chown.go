// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"golang.org/x/sys/unix"

	"sbx/overlay"
)

const chownFlags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH

// chown is chown(2), lchown(2), fchown(2) and fchownat(2): the owner is
// remembered, and nothing changes on disk. A change to root of a file of which
// nothing is remembered is the kernel's: the file is root's.
func (w *worker) chown(n *notification, dir int32, path, user, group uint64, flags int) answer {
	if flags&^chownFlags != 0 {
		return natively
	}
	have, errno := w.s.interned.of(n.PID)
	if errno != 0 {
		return natively
	}
	uid, gid := uint32(user), uint32(group)
	p, v := w.locate(&w.at, n.PID, dir, path, flags&unix.AT_SYMLINK_NOFOLLOW != 0, flags&unix.AT_EMPTY_PATH != 0)
	defer p.close()
	if v == outside && have.EUID == 0 && !rootOrNone(uid, gid) {
		return success // the kernel's own files: an ID that it does not know would be refused
	}
	if v != found {
		return natively
	}
	f, errno := w.openFile(&p)
	if errno != 0 {
		return natively
	}
	defer f.close()
	if errno := w.mayChown(n, have, f, uid, gid); errno != 0 {
		return failure(errno)
	}
	if !f.known && rootOrNone(uid, gid) {
		return natively
	}
	return outcome(w.write(f, w.owned(f, uid, gid)))
}

func rootOrNone(uid, gid uint32) bool {
	return (uid == 0 || uid == none) && (gid == 0 || gid == none)
}

// mayChown is the rule of setattr_prepare: root may give away; the owner may
// change the group to one of his own; everybody may change nothing.
func (w *worker) mayChown(n *notification, have *Credentials, f *file, uid, gid uint32) unix.Errno {
	owner := have.FSUID == f.owner.UID
	userKept := uid == none || owner && uid == f.owner.UID
	groupKept := gid == none || owner && (gid == f.owner.GID || have.in(gid))
	if userKept && groupKept || onFiles(n.PID, have, unix.CAP_CHOWN) {
		return 0
	}
	return unix.EPERM
}

// onFiles is privileged for what is done to files.
func onFiles(pid uint32, c *Credentials, capability uint) bool {
	return (c.FSUID == 0 || c.kept) && capable(pid, capability)
}

// owned is what is to be remembered of a file after it changed its owner. The
// bits by which it runs as its owner go, whoever asks (chown(2)): they were
// given for the old one. So do its capabilities.
func (w *worker) owned(f *file, uid, gid uint32) overlay.Owner {
	o := f.owner.Owner
	if uid != none {
		o.UID = uid
	}
	if gid != none {
		o.GID = gid
	}
	if f.isDir() || o.Kind == overlay.Symlink {
		return o
	}
	o.Mode &^= unix.S_ISUID
	if o.Mode&unix.S_IXGRP != 0 {
		o.Mode &^= unix.S_ISGID
	}
	if f.own && f.kind() == unix.S_IFREG && f.st.Mode&0o111 != 0 {
		path := string(f.path[:len(f.path)-1])
		for _, name := range []string{"security.capability", overlay.RecordXattrPrefix + "security.capability"} {
			_ = unix.Removexattr(path, name) // there is none, as a rule
		}
	}
	return o
}
