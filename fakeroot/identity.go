// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// identity answers what a process asks of its own IDs, and changes them.
//
// getuid(2), getgid(2), getresuid(2), getgroups(2), setuid(2), setreuid(2),
// setresuid(2), setfsuid(2), setgroups(2) and their twins.
func (w *worker) identity(n *notification, c call) answer {
	have, errno := w.s.interned.of(n.PID)
	if errno != 0 {
		return natively
	}
	a := &n.Args
	switch c {
	case callGetuid:
		return result(int64(have.RUID))
	case callGeteuid:
		return result(int64(have.EUID))
	case callGetgid:
		return result(int64(have.RGID))
	case callGetegid:
		return result(int64(have.EGID))
	case callGetresuid:
		return outcome(writeUint32s(n.PID, a[:3], []uint32{have.RUID, have.EUID, have.SUID}))
	case callGetresgid:
		return outcome(writeUint32s(n.PID, a[:3], []uint32{have.RGID, have.EGID, have.SGID}))
	case callGetgroups:
		return w.getgroups(n, have)
	case callSetgroups:
		return w.setgroups(n, have)
	case callSetuid, callSetreuid, callSetresuid, callSetfsuid:
		s, value, errno := change(c, have.users(), a, privileged(n.PID, have, unix.CAP_SETUID))
		return w.become(n, have, have.withUsers(s), value, errno)
	default:
		s, value, errno := change(c, have.groups(), a, privileged(n.PID, have, unix.CAP_SETGID))
		return w.become(n, have, have.withGroups(s), value, errno)
	}
}

// change applies one of the set*id calls to the IDs of one kind. The value is
// what the call returns when it succeeds.
func change(c call, s set, a *[6]uint64, privileged bool) (set, int64, unix.Errno) {
	x, y, z := uint32(a[0]), uint32(a[1]), uint32(a[2])
	var errno unix.Errno
	switch c {
	case callSetuid, callSetgid:
		s, errno = s.one(x, privileged)
	case callSetreuid, callSetregid:
		s, errno = s.two(x, y, privileged)
	case callSetresuid, callSetresgid:
		s, errno = s.three(x, y, z, privileged)
	default: // setfsuid and setfsgid return what was, whether it changed or not
		return s.onFiles(x, privileged), int64(s.file), 0
	}
	return s, 0, errno
}

// privileged reports whether a process may do what a capability is for: its
// virtual user is root, or was and kept its capabilities; and the container's
// root has the capability.
func privileged(pid uint32, c *Credentials, capability uint) bool {
	return (c.EUID == 0 || c.kept) && capable(pid, capability)
}

// keepCaps is prctl(2), PR_SET_KEEPCAPS. The process has the flag for itself, too.
func (w *worker) keepCaps(n *notification) answer {
	if have, errno := w.s.interned.of(n.PID); errno == 0 && n.Args[1] <= 1 {
		c := *have
		c.keepCaps = n.Args[1] == 1
		w.become(n, have, c, 0, 0)
	}
	return natively
}

// become gives a process its new credentials, and the call its answer.
func (w *worker) become(n *notification, have *Credentials, c Credentials, value int64, errno unix.Errno) answer {
	if errno != 0 {
		return failure(errno)
	}
	if !c.equal(have) {
		// Another process could have got the pid meanwhile, and must not get this.
		if w.v != nil && !w.v.listener.alive(n.ID) {
			return natively
		}
		if errno := w.s.interned.give(n.PID, &c); errno != 0 {
			return failure(errno)
		}
	}
	return result(value)
}

func (w *worker) getgroups(n *notification, have *Credentials) answer {
	size, count := int32(uint32(n.Args[0])), len(have.Groups)
	switch {
	case size < 0, size > 0 && int(size) < count:
		return failure(unix.EINVAL)
	case size > 0 && count > 0:
		data := make([]byte, 0, 4*count)
		for _, g := range have.Groups {
			data = binary.NativeEndian.AppendUint32(data, g)
		}
		if errno := writeMemory(n.PID, n.Args[1], data); errno != 0 {
			return failure(errno)
		}
	}
	return result(int64(count))
}

func (w *worker) setgroups(n *notification, have *Credentials) answer {
	if !privileged(n.PID, have, unix.CAP_SETGID) {
		return failure(unix.EPERM)
	}
	count := uint32(n.Args[0])
	if count > maxGroups {
		return failure(unix.EINVAL)
	}
	data := make([]byte, 4*count)
	if errno := readMemory(n.PID, n.Args[1], data); errno != 0 {
		return failure(errno)
	}
	c := *have
	c.Groups = make([]uint32, count)
	for i := range c.Groups {
		if c.Groups[i] = binary.NativeEndian.Uint32(data[4*i:]); c.Groups[i] == none {
			return failure(unix.EINVAL)
		}
	}
	slices.Sort(c.Groups)
	return w.become(n, have, c, 0, 0)
}
