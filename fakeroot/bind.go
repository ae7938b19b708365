// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// A local socket gets its file in bind(2), which the kernel must make: a bind by
// the supervisor would show another address. So the file is recorded afterwards,
// before the next call of anybody is answered: the process itself can do nothing
// with the file any sooner.
type sockets struct {
	count atomic.Int32
	mu    sync.Mutex
	list  []*awaited
}

// awaited is a socket's file that will soon be there.
type awaited struct {
	creation *creation
	looks    int
}

// Bounds: how many sockets are waited for, and how often each is looked for. A
// bind that failed leaves one behind that never comes.
const (
	maxAwaited = 64
	maxLooks   = 1000
)

// bind is bind(2) of a local socket to a path.
func (w *worker) bind(n *notification, address, size uint64) answer {
	const familySize, maxPath = 2, 108
	if size <= familySize || size > familySize+maxPath {
		return natively
	}
	var raw [familySize + maxPath]byte
	data := raw[:size]
	if readMemory(n.PID, address, data) != 0 || binary.NativeEndian.Uint16(data) != unix.AF_UNIX || data[familySize] == 0 {
		return natively
	}
	have, errno := w.s.interned.of(n.PID)
	if errno != 0 {
		return natively
	}
	said := 0
	for _, b := range data[familySize:] {
		if b == 0 {
			break
		}
		w.at[prefixMax+said] = b
		said++
	}
	w.at[prefixMax+said] = 0
	p, v := w.locateRead(&w.at, n.PID, unix.AT_FDCWD, said, true)
	defer p.close()
	if v != found {
		return natively
	}
	c, ok := w.create(&p, have, overlay.Socket, 0)
	if !ok {
		return natively
	}
	// What is there already is somebody's, and bind will refuse it.
	if _, errno := openNothing(c.dir, c.name); errno != unix.ENOENT || !c.settle(n.PID) || !w.s.sockets.await(c) {
		c.close()
	}
	return natively
}

// openNothing reports what opening a file would say.
func openNothing(dir int, name string) (int, unix.Errno) {
	fd, errno := openAt(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errno == 0 {
		unix.Close(fd)
	}
	return fd, errno
}

// await keeps the creation until its file is there.
func (s *sockets) await(c *creation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) >= maxAwaited {
		return false
	}
	s.list = append(s.list, &awaited{creation: c})
	s.count.Store(int32(len(s.list)))
	return true
}

// record records those that have come.
func (s *sockets) record(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.list[:0]
	for _, a := range s.list {
		if a.looks++; !a.come(w) && a.looks < maxLooks {
			kept = append(kept, a)
			continue
		}
		a.creation.close()
	}
	clear(s.list[len(kept):])
	s.list = kept
	s.count.Store(int32(len(kept)))
}

func (a *awaited) come(w *worker) bool {
	c := a.creation
	fd, errno := openAt(c.dir, c.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errno != 0 {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		c.w, c.owner.Mode = w, uint32(st.Mode)&modeBits
		c.record(fd)
	}
	return true
}

func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.list {
		a.creation.close()
	}
	s.list = nil
	s.count.Store(0)
}
