// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// saved connects the table, which knows files by number while the container
// runs, with what is on disk between runs: tables keyed by path, one of each
// layer, and one beside the upper directory.
type saved struct {
	upper   int                      // the upper directory, or noFD
	initial map[string]overlay.Owner // by path, as the merged tree shows them
	volumes []*volume

	mu     sync.Mutex        // for what is saved: one at a time
	missed map[fileID]*entry // was looked for and not found
	last   overlay.Owners    // what was saved last
}

// Layer is a lower directory with the table that was made when it was unpacked.
type Layer struct {
	Dir    string
	Owners overlay.Owners
}

// lookup flags for a path of a table: it leads through directories only.
const literally = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

func openLiterally(dir int, path string) (int, error) {
	return unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: literally,
	})
}

func exists(dir int, path string) bool {
	fd, err := openLiterally(dir, path)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// openSaved finds out which entry of which table holds for which path: that of
// the topmost directory that has the path, and no other.
//
// Runs in: the host's mounts, where the layers' paths mean what they say.
func openSaved(o *Options) (*saved, error) {
	s := &saved{upper: noFD, initial: map[string]overlay.Owner{}, missed: map[fileID]*entry{}, last: o.Owners}
	above := []int{}
	defer func() {
		for _, fd := range above {
			if fd != s.upper {
				unix.Close(fd)
			}
		}
	}()
	open := func(dir string) (int, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return noFD, fmt.Errorf("open %s: %w", dir, err)
		}
		return fd, nil
	}
	if o.Upper != "" {
		fd, err := open(o.Upper)
		if err != nil {
			return nil, err
		}
		s.upper = fd
		above = append(above, fd)
		for path, owner := range o.Owners {
			s.initial[path] = owner
		}
	}
	last := len(o.Layers) - 1
	for last >= 0 && len(o.Layers[last].Owners) == 0 {
		last-- // directories below the last table hide nothing of it
	}
	for _, layer := range o.Layers[:last+1] {
		for path, owner := range layer.Owners {
			if _, ok := s.initial[path]; !ok && !anyHas(above, path) {
				s.initial[path] = owner
			}
		}
		fd, err := open(layer.Dir)
		if err != nil {
			s.close()
			return nil, err
		}
		above = append(above, fd)
	}
	for _, each := range o.Volumes {
		v, err := openVolume(each)
		if err != nil {
			s.close()
			return nil, err
		}
		s.volumes = append(s.volumes, v)
	}
	return s, nil
}

func anyHas(dirs []int, path string) bool {
	for _, fd := range dirs {
		if exists(fd, path) {
			return true
		}
	}
	return false
}

func (s *saved) close() {
	if s.upper != noFD {
		unix.Close(s.upper)
		s.upper = noFD
	}
	for _, v := range s.volumes {
		v.close()
	}
}

// load puts the saved entries in the table, now that the tree is mounted: root is
// its root directory.
func (s *saved) load(t *ownerTable, root int) {
	for path, owner := range s.initial {
		st, ok := look(root, path)
		if !ok {
			continue
		}
		t.keep(&st, entry{owner: owner, path: "/" + path, lower: s.upper == noFD || !exists(s.upper, path)})
	}
	for _, v := range s.volumes {
		v.load(t)
	}
	select {
	case <-t.changed:
	default:
	}
}

// look is statx(2) of a path of a table.
func look(dir int, path string) (st unix.Statx_t, ok bool) {
	fd, err := openLiterally(dir, path)
	if err != nil {
		return st, false
	}
	defer unix.Close(fd)
	return st, unix.Statx(fd, "", unix.AT_EMPTY_PATH, statxMask, &st) == nil
}

// keepUpper also remembers the number that the file has in the upper directory:
// a file that was copied up and cannot carry overlayfs's note of its origin gets
// that one once the kernel has forgotten about it.
func (s *saved) keepUpper(t *ownerTable, st *unix.Statx_t, e entry) {
	if s.upper == noFD || e.path == "" {
		return
	}
	if v, _ := s.volumeOf(e.path); v != nil {
		return
	}
	up, ok := look(s.upper, strings.TrimPrefix(e.path, "/"))
	if !ok || up.Ino == st.Ino {
		return
	}
	up.Dev_major, up.Dev_minor = st.Dev_major, st.Dev_minor
	t.keep(&up, e)
}

// tables are what is to be saved now: of the root's upper directory, and of each
// volume, under the paths that the files have now.
type tables struct {
	upper   overlay.Owners
	volumes []map[string]held // as saved.volumes
}

func (t *tables) put(s *saved, v *volume, path string, h held) {
	if v == nil {
		t.upper[path] = h.entry.owner
		return
	}
	t.volumes[slices.Index(s.volumes, v)][path] = h
}

// tables looks at every file that something is kept of. What was moved since it
// was recorded is looked for, once unless all is asked for: what is not found then
// has been removed.
func (s *saved) tables(ctx context.Context, t *ownerTable, root int, all bool) (tables, error) {
	out := tables{upper: overlay.Owners{}, volumes: make([]map[string]held, len(s.volumes))}
	for i := range out.volumes {
		out.volumes[i] = map[string]held{}
	}
	kept := t.snapshot()
	maps.DeleteFunc(s.missed, func(id fileID, e *entry) bool { return kept[id] != e })
	lost := map[int]map[uint64]*entry{} // by the directory that they are in
	for id, e := range kept {
		v, path := s.volumeOf(e.path)
		dir, home := root, s.upper
		if v != nil {
			dir, home = v.fd, v.fd
		}
		if home == noFD || e.path == "" {
			continue
		}
		if st, ok := look(dir, or(path, ".")); ok && idOf(&st) == id && e.is(&st) {
			if v != nil || exists(s.upper, or(path, ".")) {
				out.put(s, v, or(path, "."), held{e, e})
			}
			continue
		}
		if !e.lower && (all || s.missed[id] != e) {
			if lost[home] == nil {
				lost[home] = map[uint64]*entry{}
			}
			lost[home][id.inode] = e
			s.missed[id] = e
		}
	}
	for home, entries := range lost {
		v := s.volumeAt(home)
		err := find(ctx.Done(), home, func(st *unix.Statx_t, path string) {
			e, ok := entries[st.Ino]
			if !ok || !e.is(st) {
				return
			}
			where := "/" + path
			if v != nil {
				where = v.at + where
			}
			out.put(s, v, path, held{t.moved(e, where), e})
		})
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

func (s *saved) volumeAt(fd int) *volume {
	for _, v := range s.volumes {
		if v.fd == fd {
			return v
		}
	}
	return nil
}

func or(path, otherwise string) string {
	if path == "" {
		return otherwise
	}
	return path
}
