// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// DiffOptions say what a directory stands on, and how it is packed.
type DiffOptions struct {
	// Recorded means what it does in UnpackOptions: owners are in records.
	Recorded bool

	// Owners is the table of owners that came with the directory, LowerOwners those
	// of Lower.
	Owners      Owners
	LowerOwners []Owners

	// Lower are the layers below, topmost first. With them only real changes are
	// found, and every whiteout names something that is there. Without any, signs
	// are taken for what they say.
	Lower []string

	// Tree says that the directory is a whole tree that began as a copy of Lower,
	// where overlayfs is refused, and not the upper directory of an overlay.
	Tree bool

	// Since is when the copy was made. A file that has changed in any way after it
	// and looks the same is read. Zero: it is taken to be the same.
	Since time.Time

	// Markers says that whiteouts may be files, as in Result.
	Markers bool

	// Stubs are paths on which something was mounted: what is empty there was made
	// for that, and is left out.
	Stubs []string

	// Clamp is the latest time that a file may have, as SOURCE_DATE_EPOCH says.
	Clamp time.Time

	// Settle makes the directory what Unpack would make of the tar: what is left out
	// is removed, and files get the times that they have in the tar. Nothing may use
	// the directory meanwhile.
	Settle bool

	Limits Limits
}

var errReservedName = errors.New("no layer can hold a file of this name: it means that another was removed")

// Diff writes a layer tar of what a container has changed: dir is the upper
// directory of its overlay, or its whole tree (DiffOptions.Tree). The same
// changes give the same bytes on every rung: entries are sorted, whiteouts first,
// owners are the true ones, times whole seconds, and only directories that
// changed or that hold a change are named. Unpack makes the same tree of it.
//
// A file that cannot be read, a name that a layer cannot hold, or one longer than
// Unpack takes, is an *EntryError. Memory holds the names of one directory for
// each level, and files with several names.
//
// Runs in: the caller's namespaces when Recorded and no file is shut to him, else
// as root of a user namespace.
func Diff(ctx context.Context, w io.Writer, dir *os.File, o DiffOptions) (Packed, error) {
	p := newPacker(ctx, w, o.Clamp, o.Limits.filled())
	p.recorded = o.Recorded
	c, err := newComparison(ctx, dir, &o)
	if err != nil {
		return Packed{}, err
	}
	defer c.close()
	c.gone, c.opaque = p.whiteout, p.opaque
	c.entered = func(_ ChangeKind, path string, n *node) error { return p.dir(path, n) }
	c.changed = func(_ ChangeKind, dir int, base, path string, st *unix.Stat_t) error {
		err := p.file(dir, base, path, st, func(n *node) { o.Owners.complete(n, path) })
		if err == nil && o.Settle {
			err = p.settle(dir, base, st)
		}
		return err
	}
	c.left = func(fd int, n *node, told bool) error {
		if !o.Settle {
			return nil
		}
		at := n.times
		if told {
			at = p.timesOf(n.times[1])
		}
		return named("set times", setTimes(fd, &at))
	}
	if err := c.run(); err != nil {
		return Packed{}, err
	}
	return p.close()
}

// settle gives a file the time that it has in the tar.
func (p *packer) settle(dir int, base string, st *unix.Stat_t) error {
	at := p.timesOf(st.Mtim)
	if at[1] == st.Mtim {
		return nil
	}
	err := unix.UtimesNanoAt(dir, base, at[:], unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	return named("set times", err)
}

func (p *packer) timesOf(t unix.Timespec) timespecs {
	at := unix.Timespec{Sec: p.whole(t).Unix()}
	return timespecs{at, at}
}

func timeOf(t unix.Timespec) time.Time { return time.Unix(t.Sec, t.Nsec) }

func newComparison(ctx context.Context, dir *os.File, o *DiffOptions) (*comparison, error) {
	fd, err := openat(int(dir.Fd()), ".", openDir, 0)
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, named("open "+dir.Name(), err)
	}
	c := &comparison{ctx: ctx, options: o, root: fd, stubs: map[string]bool{}}
	for _, path := range o.Stubs {
		clean, err := cleanName(path)
		if err != nil || clean == "" {
			continue
		}
		for ; clean != ""; clean, _ = splitPath(clean) {
			c.stubs[clean] = true // the directories on the way were made for it, too
		}
	}
	if len(o.Lower) > 0 {
		if c.low, err = openStack(o.Lower); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	return c, nil
}

// A Change is one line of what a container has changed.
type Change struct {
	Kind ChangeKind
	Path string // with a leading slash
}

// Changes finds what a container has changed, as docker diff lists it, and tells
// each to report, in the order of paths, a directory before what is in it. It
// runs where Diff does.
func Changes(ctx context.Context, dir *os.File, o DiffOptions, report func(Change) error) error {
	c, err := newComparison(ctx, dir, &o)
	if err != nil {
		return err
	}
	defer c.close()
	c.kinds = true
	tell := func(kind ChangeKind, path string) error {
		if path == "" {
			return nil
		}
		return report(Change{kind, "/" + path})
	}
	c.gone = func(path string) error { return tell(Deleted, path) }
	c.opaque = func(string) error { return nil }
	c.changed = func(kind ChangeKind, _ int, _, path string, _ *unix.Stat_t) error { return tell(kind, path) }
	c.entered = func(kind ChangeKind, path string, _ *node) error { return tell(kind, path) }
	c.left = func(int, *node, bool) error { return nil }
	return c.run()
}
