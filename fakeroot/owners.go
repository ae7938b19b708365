// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"maps"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// Bounds of the tables. The kept one is as large as a table on disk may be; of
// the passing one some entry goes when another comes.
const (
	maxKept    = 1 << 17
	maxPassing = 1 << 16
)

// fileID is how a file is known while the container runs.
type fileID struct {
	device, inode uint64
}

// entry is the owner of a file that carries no record.
type entry struct {
	owner   overlay.Owner
	born    unix.StatxTimestamp // a file that comes later may get the same inode
	changed unix.StatxTimestamp // for terminals, which have no birth
	path    string              // in the container when it was recorded; "" is not saved
	lower   bool                // of a lower layer: it keeps its inode, and gets a new birth when copied up
	foreign bool
}

// ownerTable remembers owners of files that cannot carry a record, and of files
// that must not get one: those of bind mounts are the user's own. Several
// supervisor threads share it.
type ownerTable struct {
	mu      sync.RWMutex
	kept    map[fileID]*entry // files of the root, which are saved
	passing map[fileID]*entry // all others, forgotten at the end
	size    atomic.Int64
	changed chan struct{} // has something in it since kept has changed
}

func newOwnerTable() *ownerTable {
	return &ownerTable{kept: map[fileID]*entry{}, passing: map[fileID]*entry{}, changed: make(chan struct{}, 1)}
}

func (t *ownerTable) empty() bool { return t.size.Load() == 0 }

func idOf(st *unix.Statx_t) fileID {
	return fileID{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
}

// get finds the owner of a file.
func (t *ownerTable) get(st *unix.Statx_t) (remembered, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	id := idOf(st)
	e, ok := t.kept[id]
	if !ok {
		e, ok = t.passing[id]
	}
	if !ok || !e.is(st) {
		return remembered{}, false
	}
	return remembered{Owner: e.owner, inTable: true, foreign: e.foreign}, true
}

// is reports whether a file with the entry's numbers is still that file.
func (e *entry) is(st *unix.Statx_t) bool {
	if e.owner.Kind != kindOf(st.Mode) && !(isDevice(&e.owner) && kindOf(st.Mode) == overlay.File) {
		return false
	}
	switch {
	case e.lower:
		return true
	case st.Mask&unix.STATX_BTIME != 0:
		return e.born == st.Btime
	case isTerminal(st):
		return e.changed == st.Ctime
	}
	return true
}

// isTerminal reports whether a file is a pseudoterminal, whose number is given to
// the next one that is opened.
func isTerminal(st *unix.Statx_t) bool {
	const firstPts, lastPts = 136, 143
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev_major >= firstPts && st.Rdev_major <= lastPts
}

// keep remembers the owner of a file of the root, as long as there is room, and
// returns the entry.
func (t *ownerTable) keep(st *unix.Statx_t, e entry) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := idOf(st)
	if old, ok := t.kept[id]; ok {
		if old.is(st) {
			e.owner.Xattrs = old.owner.Xattrs // the tar's, for the next one
			if e.path == "" {
				e.path = old.path
			}
		}
	} else if len(t.kept) >= maxKept {
		return &e
	}
	e.born, e.changed = st.Btime, st.Ctime
	t.kept[id] = &e
	t.tell()
	t.count()
	return &e
}

// tell says that there is something to save.
func (t *ownerTable) tell() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// snapshot is what is kept. Entries never change; a new one takes their place.
func (t *ownerTable) snapshot() map[fileID]*entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return maps.Clone(t.kept)
}

// moved notes where the file of an entry is now, and returns the entry that stands
// for it from then on.
func (t *ownerTable) moved(e *entry, path string) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, now := range t.kept {
		if now == e && e.path != path {
			next := *e
			next.path = path
			t.kept[id] = &next
			return &next
		}
	}
	return e
}

// pass remembers the owner of a file for as long as the container runs.
func (t *ownerTable) pass(st *unix.Statx_t, e entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := idOf(st)
	if _, ok := t.passing[id]; !ok && len(t.passing) >= maxPassing {
		for victim := range t.passing {
			delete(t.passing, victim)
			break
		}
	}
	e.born, e.changed = st.Btime, st.Ctime
	t.passing[id] = &e
	t.count()
}

// forget drops what is remembered of a file.
func (t *ownerTable) forget(st *unix.Statx_t) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := idOf(st)
	if _, ok := t.kept[id]; ok {
		delete(t.kept, id)
		t.tell()
	}
	delete(t.passing, id)
	t.count()
}

func (t *ownerTable) count() { t.size.Store(int64(len(t.kept) + len(t.passing))) }
