// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"encoding/binary"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of the table: a hostile program can make up sets of IDs without end.
// Past them a change of IDs fails as if the kernel had no memory for it.
const (
	maxCredentials    = 1 << 16
	maxInternedGroups = 1 << 20
)

// interned numbers the credentials that processes have, or had.
//
// The number of a process's credentials is the soft limit RLIMIT_LOCKS of the
// process, which Linux has not enforced since 2.4: the kernel copies it at fork,
// keeps it over execve and drops it with the process, so there is no table of
// processes to keep, and none to race with. A soft limit equal to the hard one,
// as most processes have from the start, means root.
type interned struct {
	hard   uint64 // RLIMIT_LOCKS, hard
	mu     sync.RWMutex
	list   []*Credentials
	number map[string]uint64
	groups int // in all of the list
}

var root = &Credentials{}

func newInterned() (*interned, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_LOCKS, &limit); err != nil {
		return nil, err
	}
	return &interned{hard: limit.Max, number: map[string]uint64{}}, nil
}

// at is the credentials with a number; what is no number of ours is root.
func (t *interned) at(number uint64) *Credentials {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if number < uint64(len(t.list)) && number < t.hard {
		return t.list[number]
	}
	return root
}

// numberOf interns credentials. It fails with EAGAIN when the table is full, and
// where the hard limit leaves no number below it.
func (t *interned) numberOf(c *Credentials) (uint64, unix.Errno) {
	if c.equal(root) {
		return t.hard, 0
	}
	key := make([]byte, 0, 34+4*len(c.Groups))
	for _, id := range [...]uint32{c.RUID, c.EUID, c.SUID, c.FSUID, c.RGID, c.EGID, c.SGID, c.FSGID} {
		key = binary.NativeEndian.AppendUint32(key, id)
	}
	for _, flag := range [...]bool{c.keepCaps, c.kept} {
		bit := byte(0)
		if flag {
			bit = 1
		}
		key = append(key, bit)
	}
	for _, id := range c.Groups {
		key = binary.NativeEndian.AppendUint32(key, id)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.number[string(key)]; ok {
		return n, 0
	}
	n := uint64(len(t.list))
	if n >= maxCredentials || n >= t.hard || t.groups+len(c.Groups) > maxInternedGroups {
		return 0, unix.EAGAIN
	}
	kept := *c
	t.list = append(t.list, &kept)
	t.number[string(key)] = n
	t.groups += len(c.Groups)
	return n, 0
}

// of reads the credentials of the process that a thread belongs to.
func (t *interned) of(pid uint32) (*Credentials, unix.Errno) {
	var limit unix.Rlimit
	_, _, errno := syscall.RawSyscall6(unix.SYS_PRLIMIT64, uintptr(pid), unix.RLIMIT_LOCKS, 0, uintptr(unsafe.Pointer(&limit)), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return t.at(limit.Cur), 0
}

// give writes the credentials of the process that a thread belongs to.
func (t *interned) give(pid uint32, c *Credentials) unix.Errno {
	n, errno := t.numberOf(c)
	if errno != 0 {
		return errno
	}
	limit := unix.Rlimit{Cur: n, Max: t.hard}
	_, _, errno = syscall.RawSyscall6(unix.SYS_PRLIMIT64, uintptr(pid), unix.RLIMIT_LOCKS, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return errno
}
