// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// Volume is a mount whose files' owners outlive the container: those that the
// files cannot carry stand in a table of its own, which several containers may
// use, one after the other or at once.
type Volume struct {
	Target string `json:"target"`        // in the container
	Dir    string `json:"dir"`           // on the host
	Sub    string `json:"sub,omitempty"` // what of Dir is mounted; paths of the table are of Dir
	Table  string `json:"table"`         // a file, which need not be there
}

// volume is a Volume while the container runs.
type volume struct {
	Volume
	fd   int               // what is mounted
	at   string            // the mount point, without links
	mine map[string]*entry // what of the table we have read from it or written to it
	read overlay.Owners
}

// openVolume reads a volume's table. One whose part is reached through links has
// none: its paths could not be told.
func openVolume(o Volume) (*volume, error) {
	v := &volume{Volume: o, fd: noFD, at: o.Target, mine: map[string]*entry{}}
	dir, err := unix.Open(o.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return v, nil // the container cannot start, and says why
	}
	v.fd = dir
	if v.Sub = path.Clean("/" + o.Sub)[1:]; v.Sub != "" {
		v.fd, err = openLiterally(dir, v.Sub)
		unix.Close(dir)
		if err != nil {
			v.fd = noFD
			return v, nil
		}
	}
	v.read, err = overlay.ReadOwners(o.Table)
	if err != nil {
		v.close()
	}
	return v, err
}

func (v *volume) close() {
	if v.fd != noFD {
		unix.Close(v.fd)
		v.fd = noFD
	}
}

// load puts what the volume's table says in that of the running container.
func (v *volume) load(t *ownerTable) {
	for name, owner := range v.read {
		rel, ok := v.inside(name)
		if !ok {
			continue
		}
		if st, ok := look(v.fd, rel); ok {
			v.mine[name] = t.keep(&st, entry{owner: owner, path: path.Join(v.at, rel)})
		}
	}
	v.read = nil
}

// inside is a path of the volume's table as one of what is mounted.
func (v *volume) inside(name string) (string, bool) {
	if v.Sub == "" {
		return name, true
	}
	if name == v.Sub {
		return ".", true
	}
	return strings.CutPrefix(name, v.Sub+"/")
}

// held is an entry that is to be saved; was is the one that it had before its file
// was found to have moved.
type held struct{ entry, was *entry }

// save brings the volume's table up to date with ours, whose paths are of what is
// mounted. What another container has said since we looked last stands, unless we
// know better: by something that was done here since then.
func (v *volume) save(ours map[string]held) error {
	if len(ours) == 0 && len(v.mine) == 0 {
		return nil
	}
	lock, err := os.Open(filepath.Dir(v.Table))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return os.NewSyscallError("flock", err)
	}
	had, err := overlay.ReadOwners(v.Table)
	if err != nil {
		return err
	}
	next := overlay.Owners{}
	for name, owner := range had {
		if rel, ok := v.inside(name); v.mine[name] == nil && (!ok || exists(v.fd, rel)) {
			next[name] = owner
		}
	}
	known := map[*entry]bool{}
	for _, e := range v.mine {
		known[e] = true
	}
	mine := map[string]*entry{}
	for rel, h := range ours {
		name := path.Join(v.Sub, rel)
		theirs, have := had[name]
		switch {
		case !known[h.was]:
			next[name] = h.entry.owner
		case have:
			next[name] = theirs
		case v.mine[name] == h.was:
			// Another has given it to root, and that stands the next time, too.
			mine[name] = h.entry
			continue
		default:
			next[name] = h.entry.owner
		}
		mine[name] = h.entry
	}
	v.mine = mine
	if maps.EqualFunc(had, next, sameOwner) {
		return nil
	}
	return saveOwners(v.Table, next)
}

func sameOwner(a, b overlay.Owner) bool {
	return a.Record() == b.Record() && maps.Equal(a.Xattrs, b.Xattrs)
}

// volumeOf is the innermost volume that a path of the container is in, and the
// path in it; nil for one of the root.
func (s *saved) volumeOf(name string) (*volume, string) {
	var in *volume
	for _, v := range s.volumes {
		if v.fd != noFD && within([]byte(name), v.at) && (in == nil || len(v.at) > len(in.at)) {
			in = v
		}
	}
	if in == nil {
		return nil, strings.TrimPrefix(name, "/")
	}
	return in, strings.TrimPrefix(name[len(in.at):], "/")
}

// find walks a directory for files that are not where they were, and calls took
// for each. It opens nothing but directories, and follows no link.
func find(done <-chan struct{}, dir int, took func(st *unix.Statx_t, path string)) error {
	top := "/proc/self/fd/" + strconv.Itoa(dir)
	return filepath.WalkDir(top+"/.", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		select {
		case <-done:
			return errStopped
		default:
		}
		var st unix.Statx_t
		if unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, statxMask, &st) == nil {
			took(&st, strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(name, top), "/"), "./"))
		}
		return nil
	})
}

var errStopped = errors.New("stopped")
