// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Credentials are the user and group IDs that a process sees of itself
// (credentials(7)). The zero value is root without supplementary groups.
//
// The methods are the rules of Linux with one simplification: CAP_SETUID and
// CAP_SETGID are held where the effective user ID is 0 and the process's real
// capabilities, as the container was given them, hold them too.
type Credentials struct {
	RUID, EUID, SUID, FSUID uint32
	RGID, EGID, SGID, FSGID uint32
	Groups                  []uint32 // supplementary, sorted

	// keepCaps is set by prctl(2), PR_SET_KEEPCAPS; kept is what comes of it: a
	// process that gave up its last ID of root still has its capabilities.
	keepCaps, kept bool
}

// User are the credentials of a process that starts as a user.
func User(uid, gid uint32, groups []uint32) Credentials {
	g := slices.Clone(groups)
	slices.Sort(g)
	return Credentials{RUID: uid, EUID: uid, SUID: uid, FSUID: uid, RGID: gid, EGID: gid, SGID: gid, FSGID: gid, Groups: g}
}

// none is -1: "leave it as it is", and no ID.
const none = ^uint32(0)

// maxGroups is NGROUPS_MAX.
const maxGroups = 1 << 16

// isFileRoot reports whether files that the process creates need no record.
func (c *Credentials) isFileRoot() bool { return c.FSUID == 0 && c.FSGID == 0 }

// in reports whether the process is in a group, for access to files.
func (c *Credentials) in(gid uint32) bool {
	if c.FSGID == gid {
		return true
	}
	_, found := slices.BinarySearch(c.Groups, gid)
	return found
}

// set is the three or four IDs of one kind, users or groups: the rules for both
// are the same.
type set struct{ real, effective, saved, file uint32 }

func (c Credentials) users() set  { return set{c.RUID, c.EUID, c.SUID, c.FSUID} }
func (c Credentials) groups() set { return set{c.RGID, c.EGID, c.SGID, c.FSGID} }

func (c Credentials) withUsers(s set) Credentials {
	had := c.RUID == 0 || c.EUID == 0 || c.SUID == 0
	if had && s.real != 0 && s.effective != 0 && s.saved != 0 {
		c.kept = c.keepCaps
	}
	c.RUID, c.EUID, c.SUID, c.FSUID = s.real, s.effective, s.saved, s.file
	return c
}

func (c Credentials) withGroups(s set) Credentials {
	c.RGID, c.EGID, c.SGID, c.FSGID = s.real, s.effective, s.saved, s.file
	return c
}

// one is setuid(2) and setgid(2).
func (s set) one(id uint32, privileged bool) (set, unix.Errno) {
	switch {
	case id == none:
		return s, unix.EINVAL
	case privileged:
		return set{id, id, id, id}, 0
	case id == s.real || id == s.saved:
		s.effective, s.file = id, id
		return s, 0
	}
	return s, unix.EPERM
}

// two is setreuid(2) and setregid(2).
func (s set) two(r, e uint32, privileged bool) (set, unix.Errno) {
	if !privileged {
		if r != none && r != s.real && r != s.effective ||
			e != none && e != s.real && e != s.effective && e != s.saved {
			return s, unix.EPERM
		}
	}
	was := s.real
	if r != none {
		s.real = r
	}
	if e != none {
		s.effective = e
	}
	if r != none || e != none && e != was {
		s.saved = s.effective
	}
	s.file = s.effective
	return s, 0
}

// three is setresuid(2) and setresgid(2).
func (s set) three(r, e, v uint32, privileged bool) (set, unix.Errno) {
	if !privileged {
		for _, id := range []uint32{r, e, v} {
			if id != none && id != s.real && id != s.effective && id != s.saved {
				return s, unix.EPERM
			}
		}
	}
	// A call that changes nothing leaves the file ID alone, too.
	if (r == none || r == s.real) && (e == none || e == s.effective && e == s.file) && (v == none || v == s.saved) {
		return s, 0
	}
	if r != none {
		s.real = r
	}
	if e != none {
		s.effective = e
	}
	if v != none {
		s.saved = v
	}
	s.file = s.effective
	return s, 0
}

// onFiles is setfsuid(2) and setfsgid(2), which have no errors.
func (s set) onFiles(id uint32, privileged bool) set {
	if id != none && (privileged || id == s.real || id == s.effective || id == s.saved || id == s.file) {
		s.file = id
	}
	return s
}

// afterExec are the credentials after execve(2) of a file: setuid and setgid are
// its owner and group where the bits say so, or none.
func (c Credentials) afterExec(setuid, setgid uint32) Credentials {
	if setuid != none {
		c.EUID = setuid
	}
	if setgid != none {
		c.EGID = setgid
	}
	c.SUID, c.FSUID = c.EUID, c.EUID
	c.SGID, c.FSGID = c.EGID, c.EGID
	c.keepCaps, c.kept = false, false
	return c
}

// equal compares everything.
func (c *Credentials) equal(d *Credentials) bool {
	return c.users() == d.users() && c.groups() == d.groups() && slices.Equal(c.Groups, d.Groups) &&
		c.keepCaps == d.keepCaps && c.kept == d.kept
}
