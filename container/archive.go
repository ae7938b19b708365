// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/userns"
)

// The role that packs and unpacks files of a container, whose root is its own.
//
//	client                                transfer
//	 question + a pipe ──────────────────►
//	                    ◄───────────────── what the path is, or the error
//	 tar through the pipe, either way
//	                    ◄───────────────── what was copied, or the error
//	                                       exit
const transferRole = "transfer"

// archiveQuestion says what is copied.
type archiveQuestion struct {
	Container string    `json:"container"` // its name, for errors
	Path      string    `json:"path"`
	Follow    bool      `json:"follow,omitempty"` // out: what a link leads to
	Recorded  bool      `json:"recorded,omitempty"`
	Own       []string  `json:"own,omitempty"` // where volumes are mounted
	In        *incoming `json:"in,omitempty"`  // nil: out
}

// incoming describes what comes through the pipe.
type incoming struct {
	Name   string `json:"name,omitempty"` // of the file or directory in the tar; "" for what a directory holds
	Dir    bool   `json:"dir,omitempty"`
	Stream bool   `json:"stream,omitempty"` // the user's own tar, which takes a directory
}

// archiveReply is said twice, unless the first is an error.
type archiveReply struct {
	Error *userns.RemoteError `json:"error,omitempty"`
	Stat  FileStat            `json:"stat,omitzero"`
	Bytes int64               `json:"bytes,omitempty"`
	Left  int64               `json:"left,omitempty"` // devices that could not be made
}

// FileStat is what a path of a container is.
type FileStat struct {
	Name       string      `json:"name"`
	Size       int64       `json:"size"`
	Mode       os.FileMode `json:"mode"`
	ModTime    time.Time   `json:"mtime"`
	LinkTarget string      `json:"linkTarget,omitempty"`
}

// Transfer is the role. Its errors are the client's to print.
//
// Runs in: a container's mounts as its root, as uid 0 of its user namespace; its
// pids are the host's.
func Transfer(ctx context.Context, control *userns.Conn) error {
	var q archiveQuestion
	files, err := control.Receive(ctx, &q)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("copy: bad question")
	}
	unix.Umask(0)
	a := &archive{archiveQuestion: q, control: control, pipe: files[0]}
	var reply archiveReply
	for _, f := range files[1:] {
		if err == nil {
			a.owners, err = overlay.LoadOwners(f)
		}
		f.Close()
	}
	if err == nil {
		reply, err = a.run(ctx)
	}
	a.pipe.Close()
	if err != nil {
		reply.Error = userns.Remote(err)
	}
	return control.Send(reply)
}

type archive struct {
	archiveQuestion
	control *userns.Conn
	pipe    *os.File
	root    *os.File
	owners  overlay.Owners // of what cannot carry a record, by path
}

func (a *archive) run(ctx context.Context) (archiveReply, error) {
	var err error
	if a.root, err = os.Open("/"); err != nil {
		return archiveReply{}, err
	}
	defer a.root.Close()
	if a.In != nil {
		return a.in(ctx)
	}
	return a.out(ctx)
}

// Errors of a copy, in Docker's words.
var (
	errCannotCopyDir = errors.New("cannot copy directory")
	errDirNotExists  = errors.New("no such directory")
	errNotDirectory  = errors.New("not a directory")

	errRootReadOnly   = errors.New("container rootfs is marked read-only")
	errVolumeReadOnly = errors.New("mounted volume is marked read-only")
)

// PathError says that a container has no such path.
type PathError struct{ Path, Container string }

func (e *PathError) Error() string {
	return fmt.Sprintf("could not find the file %s in container %s", e.Path, e.Container)
}

func (a *archive) missing() error { return &PathError{Path: a.Path, Container: a.Container} }

func (a *archive) out(ctx context.Context) (archiveReply, error) {
	at, err := a.find(a.Path, a.Follow)
	if err != nil {
		return archiveReply{}, err
	}
	if !at.exists {
		return archiveReply{}, a.missing()
	}
	if err := a.control.Send(archiveReply{Stat: at.describe(a.Path)}); err != nil {
		return archiveReply{}, err
	}
	dir, err := a.open(at.dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return archiveReply{}, err
	}
	defer dir.Close()
	packed, err := overlay.ArchiveDir(ctx, a.pipe, dir, overlay.ArchiveOptions{
		Recorded: a.Recorded, Owners: []overlay.Owners{below(a.owners, at.dir)}, Path: at.base, Name: nameOf(a.Path),
	})
	return archiveReply{Bytes: packed.Bytes}, err
}

// below is the part of a table that is of a directory.
func below(t overlay.Owners, dir string) overlay.Owners {
	dir = path.Clean("/" + dir)
	if dir == "/" {
		return t
	}
	part := overlay.Owners{}
	for name, owner := range t {
		if rel, ok := strings.CutPrefix("/"+name, dir+"/"); ok {
			part[rel] = owner
		}
	}
	return part
}

// copyLimits are those of a user's own files: what fits the disk.
var copyLimits = overlay.Limits{Bytes: 1 << 50, Entries: 1 << 40}

func (a *archive) in(ctx context.Context) (archiveReply, error) {
	o, at, err := a.destination()
	if err != nil {
		return archiveReply{}, err
	}
	if err := a.control.Send(archiveReply{Stat: at.describe(a.Path)}); err != nil {
		return archiveReply{}, err
	}
	got, err := overlay.Extract(ctx, a.root, a.pipe, o)
	return archiveReply{Bytes: got.Bytes, Left: got.Skipped}, err
}

// destination applies the rules of docker cp to what the path is, which follow
// those of cp(1).
func (a *archive) destination() (o overlay.ExtractOptions, at place, err error) {
	o = overlay.ExtractOptions{Recorded: a.Recorded, Own: a.Own, From: a.In.Name, Limits: copyLimits}
	if at, err = a.find(a.Path, true); err != nil {
		return o, at, err
	}
	isDir := at.exists && at.st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case isDir:
		o.Dir, o.To = path.Join(at.dir, at.base), a.In.Name
		if at.base == "" {
			o.Dir = at.dir
		}
		return o, at, a.writable(o.Dir)
	case a.In.Stream && at.exists:
		return o, at, errNotDirectory
	case a.In.Stream:
		return o, at, a.missing()
	case at.exists && a.In.Dir:
		return o, at, errCannotCopyDir
	case !at.exists && !a.In.Dir && assertsDirectory(a.Path):
		return o, at, errDirNotExists
	}
	o.Dir, o.To = at.dir, at.base
	return o, at, a.writable(at.dir)
}

// writable makes sure that a directory is there and on no read-only mount.
func (a *archive) writable(dir string) error {
	fd, err := a.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return &PathError{Path: path.Clean(dir), Container: a.Container}
	}
	defer fd.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(fd.Fd()), &fs); err != nil || fs.Flags&unix.ST_RDONLY == 0 {
		return err
	}
	var there, root unix.Statx_t
	if unix.Statx(int(fd.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &there) == nil &&
		unix.Statx(int(a.root.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &root) == nil && there.Mnt_id != root.Mnt_id {
		return errVolumeReadOnly
	}
	return errRootReadOnly
}

// place is where a path leads: a name in a directory, which links lead to as the
// kernel says. Without a name it is the directory.
type place struct {
	dir, base string
	st        unix.Stat_t
	link      string // the target, if it is a link that was not followed
	exists    bool
}

// find looks a path up within the root. The last component is followed if it is a
// link and follow says so, or a slash stands behind it.
func (a *archive) find(name string, follow bool) (place, error) {
	asserted := assertsDirectory(name)
	rest := "/" + strings.Trim(strings.TrimSuffix(name, "/."), "/")
	for range 40 {
		dir, base := path.Split(rest)
		p := place{dir: dir, base: base}
		if base == "" || base == "." || base == ".." {
			p.dir, p.base = rest, ""
		}
		fd, err := a.open(p.dir, unix.O_PATH|unix.O_DIRECTORY)
		switch {
		case errors.Is(err, unix.ENOENT):
			return p, nil
		case errors.Is(err, unix.ENOTDIR):
			return p, errNotDirectory
		case err != nil:
			return p, err
		}
		flags := unix.AT_SYMLINK_NOFOLLOW
		if p.base == "" {
			flags |= unix.AT_EMPTY_PATH
		}
		err = unix.Fstatat(int(fd.Fd()), p.base, &p.st, flags)
		if err == nil && p.st.Mode&unix.S_IFMT == unix.S_IFLNK {
			p.link, err = readlinkAt(int(fd.Fd()), p.base)
		}
		fd.Close()
		if errors.Is(err, unix.ENOENT) {
			return p, nil
		}
		if err != nil {
			return p, err
		}
		p.exists = true
		isLink := p.st.Mode&unix.S_IFMT == unix.S_IFLNK
		switch {
		case isLink && (follow || asserted):
			if path.IsAbs(p.link) {
				rest = p.link
			} else {
				rest = p.dir + p.link
			}
			rest = "/" + strings.Trim(rest, "/")
			continue
		case asserted && p.st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return p, errNotDirectory
		}
		return p, nil
	}
	return place{}, unix.ELOOP
}

func (a *archive) open(name string, flags int) (*os.File, error) {
	name = strings.TrimLeft(name, "/")
	if name == "" {
		name = "."
	}
	fd, err := overlay.Openat2(int(a.root.Fd()), name, &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/"+name), nil
}

func readlinkAt(fd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (p *place) describe(name string) FileStat {
	s := FileStat{Name: nameOf(name), Size: p.st.Size, ModTime: time.Unix(p.st.Mtim.Unix()), LinkTarget: p.link, Mode: os.FileMode(p.st.Mode & 0o777)}
	switch p.st.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		s.Mode |= os.ModeDir
	case syscall.S_IFLNK:
		s.Mode |= os.ModeSymlink
	}
	return s
}

// assertsDirectory reports whether a path says that it is a directory.
func assertsDirectory(name string) bool {
	return strings.HasSuffix(name, "/") || name == "." || strings.HasSuffix(name, "/.")
}

// nameOf is the name that a path gives to what is copied; "" means what is in it.
func nameOf(name string) string {
	if name == "." || name == ".." || strings.HasSuffix(name, "/.") || strings.HasSuffix(name, "/..") {
		return ""
	}
	base := path.Base(path.Clean("/" + name))
	if base == "/" {
		return ""
	}
	return base
}
