// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// saved connects the table, which knows files by number while the container
// runs, with what is on disk between runs: tables keyed by path, one of each
// layer, and one beside the upper directory.
type saved struct {
	upper   int                      // the upper directory, or noFD
	initial map[string]overlay.Owner // by path, as the merged tree shows them
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
	s := &saved{upper: noFD, initial: map[string]overlay.Owner{}}
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
	t.mu.Lock()
	t.changed = false
	t.mu.Unlock()
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
	up, ok := look(s.upper, strings.TrimPrefix(e.path, "/"))
	if !ok || up.Ino == st.Ino {
		return
	}
	up.Dev_major, up.Dev_minor = st.Dev_major, st.Dev_minor
	t.keep(&up, e)
}

// table is what is to be saved: the entries whose file is in the upper directory,
// under the path that it has now. What was moved since it was recorded is looked
// for; that is done only when something has moved.
func (s *saved) table(ctx context.Context, t *ownerTable, root int) (overlay.Owners, error) {
	out := overlay.Owners{}
	if s.upper == noFD {
		return out, nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	lost := map[uint64]*entry{}
	for id, e := range t.kept {
		path := strings.TrimPrefix(e.path, "/")
		if path == "" {
			path = "."
		}
		if st, ok := look(root, path); ok && idOf(&st) == id && e.is(&st) {
			if exists(s.upper, path) {
				out[path] = e.owner
			}
			continue
		}
		if !e.lower {
			lost[id.inode] = e
		}
	}
	if len(lost) == 0 {
		return out, nil
	}
	return out, s.find(ctx, lost, out)
}

// find walks the upper directory for files that are not where they were. It opens
// nothing but directories, and follows no link.
func (s *saved) find(ctx context.Context, lost map[uint64]*entry, out overlay.Owners) error {
	top := fmt.Sprintf("/proc/self/fd/%d", s.upper)
	return filepath.WalkDir(top+"/.", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var st unix.Statx_t
		if unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, statxMask, &st) != nil {
			return nil
		}
		if e, ok := lost[st.Ino]; ok && e.is(&st) {
			path := strings.TrimPrefix(strings.TrimPrefix(name, top), "/")
			out[strings.TrimPrefix(path, "./")] = e.owner
		}
		return nil
	})
}

// saveOwners writes a table beside the upper directory, or takes it away when it
// is empty. A reader sees the old one or the new one.
func saveOwners(name string, t overlay.Owners) error {
	if len(t) == 0 {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".owners-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err = t.Save(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// LoadOwners reads a table that Save wrote; there is none for most containers.
func LoadOwners(name string) (overlay.Owners, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return overlay.LoadOwners(f)
}
