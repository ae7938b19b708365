// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"archive/tar"
	"context"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A packer writes files into a tar: the same bytes for the same files, whoever
// packs them where. Times are whole seconds, and PAX records only where the
// header has no room.
type packer struct {
	ctx context.Context
	tar *tar.Writer

	recorded bool // owners are in records
	plain    bool // what is no layer has neither records nor signs, if not recorded

	clamp  time.Time // no time is later; zero: any may be
	limits Limits
	result Packed
	links  map[inode]*linked
	buf    []byte
}

// Packed is what a tar was made of.
type Packed struct {
	Entries int64 // headers in the archive, whiteouts among them
	Bytes   int64 // of file contents
}

// linked is a file with several names, of which one is in the tar.
type linked struct {
	path string
	more uint64 // names that may still come
}

// maxLinked is how many files with several names are remembered. More of them
// come twice.
const maxLinked = 1 << 18

func newPacker(ctx context.Context, w io.Writer, clamp time.Time, limits Limits) *packer {
	return &packer{
		ctx: ctx, tar: tar.NewWriter(w), clamp: clamp, limits: limits,
		links: map[inode]*linked{}, buf: make([]byte, 256<<10),
	}
}

// whole is a time as the tar has it.
func (p *packer) whole(t unix.Timespec) time.Time {
	at := time.Unix(t.Sec, 0)
	if !p.clamp.IsZero() && at.After(p.clamp) {
		return time.Unix(p.clamp.Unix(), 0)
	}
	return at
}

// header makes the header of a file that is called path in the tar.
func (p *packer) header(path string, n *node) *tar.Header {
	o := &n.owner
	h := &tar.Header{
		Name: path, Mode: int64(o.Mode), Uid: int(o.UID), Gid: int(o.GID),
		ModTime: p.whole(n.times[1]),
	}
	switch o.Kind {
	case Dir:
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
	case Symlink:
		h.Typeflag = tar.TypeSymlink
	case Pipe:
		h.Typeflag = tar.TypeFifo
	case Char, Block:
		h.Typeflag = tar.TypeChar
		if o.Kind == Block {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(o.Major), int64(o.Minor)
	default:
		h.Typeflag = tar.TypeReg
	}
	for _, x := range n.xattrs {
		if !isPacked(x.name) {
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+x.name] = x.value
	}
	return h
}

// isPacked reports whether an attribute goes into a tar: those that mean the same
// on every machine and rung. Lists of access rights name users of this machine.
func isPacked(name string) bool {
	if isDropped(name) || strings.ContainsAny(name, "=\x00") {
		return false
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "trusted.")
}

func (p *packer) write(h *tar.Header) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if p.result.Entries++; p.result.Entries > p.limits.Entries {
		return &LimitError{What: "entries", Max: p.limits.Entries}
	}
	return p.tar.WriteHeader(h)
}

// whiteout writes that path has gone.
func (p *packer) whiteout(path string) error {
	dir, base := splitPath(path)
	return p.write(&tar.Header{Typeflag: tar.TypeReg, Name: joinPath(dir, whiteoutPrefix+base), ModTime: time.Unix(0, 0)})
}

// opaque writes that what layers below have in the directory has gone.
func (p *packer) opaque(dir string) error {
	return p.write(&tar.Header{Typeflag: tar.TypeReg, Name: joinPath(dir, opaqueName), ModTime: time.Unix(0, 0)})
}

// dir writes a directory; "" is the root.
func (p *packer) dir(path string, n *node) error {
	if path == "" {
		path = "."
	}
	return p.write(p.header(path, n))
}

// file writes base in the directory dir, which is no directory, as path. The
// table has more to say about it. A socket is left out: it is of no use without
// the program that listens. So is what has gone, or become something else, since
// it was listed.
func (p *packer) file(dir int, base, path string, st *unix.Stat_t, more func(*node)) error {
	kind := kindOf(uint32(st.Mode))
	if kind == Socket {
		return nil
	}
	fd := noFD
	var n node
	if kind == File {
		var err error
		if fd, err = openRegular(dir, base); err == unix.ENOENT || err == unix.ELOOP || err == ErrNotRegular {
			return nil
		} else if err != nil {
			return named("open", err)
		}
		defer unix.Close(fd)
		if err := unix.Fstat(fd, st); err != nil {
			return err
		}
		if n, err = p.node(fd); err != nil {
			return err
		}
	} else {
		n = node{owner: ownerOnDisk(st, p.recorded), times: timesOf(st)}
		n.owner.Major, n.owner.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
	more(&n)
	h := p.header(path, &n)
	if kind == Symlink {
		target, err := readLink(dir, base)
		if err != nil {
			if err == unix.ENOENT || err == unix.EINVAL {
				return nil
			}
			return named("read link", err)
		}
		h.Linkname = target
	}
	if first := p.firstName(st, path); first != "" {
		h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, first, nil
		return p.write(h)
	}
	if h.Typeflag != tar.TypeReg {
		return p.write(h)
	}
	return p.content(fd, h, st.Size)
}

// node reads the metadata of an open file.
func (p *packer) node(fd int) (node, error) {
	n, err := nodeOf(fd, p.recorded)
	if err != nil || !p.plain || p.recorded {
		return n, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	n.owner = ownerOnDisk(&st, false)
	return n, err
}

// firstName returns the path under which a file with several names is in the tar
// already, or remembers that it is now.
func (p *packer) firstName(st *unix.Stat_t, path string) string {
	if st.Nlink < 2 {
		return ""
	}
	id := inodeOf(st)
	l, ok := p.links[id]
	if !ok {
		if len(p.links) < maxLinked {
			p.links[id] = &linked{path, uint64(st.Nlink) - 1}
		}
		return ""
	}
	if l.more--; l.more == 0 {
		delete(p.links, id)
	}
	return l.path
}

// content writes header and content of a regular file. A file that is written to
// meanwhile has the size that it had: it is cut, or filled up with zeros.
func (p *packer) content(fd int, h *tar.Header, size int64) error {
	if p.result.Bytes += size; p.result.Bytes > p.limits.Bytes || p.result.Bytes < 0 {
		return &LimitError{What: "bytes in files", Max: p.limits.Bytes}
	}
	h.Size = size
	if err := p.write(h); err != nil {
		return err
	}
	for off := int64(0); off < size; {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		want := p.buf[:min(int64(len(p.buf)), size-off)]
		n, err := unix.Pread(fd, want, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return named("read", err)
		case n == 0:
			clear(want)
			n = len(want)
		}
		if _, err := p.tar.Write(want[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// close ends the tar.
func (p *packer) close() (Packed, error) {
	if err := p.tar.Close(); err != nil {
		return Packed{}, named("write archive", err)
	}
	return p.result, nil
}
