// SPDX-License-Identifier: Apache-2.0

package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"sbx/overlay"
)

// packJob is a COPY or ADD as it is handed to whoever may read its sources: what
// to read, and how it is to look. It is plain data and travels in messages.
type packJob struct {
	Target   tree         `json:"target"` // what the layer goes on; nothing for --link
	From     tree         `json:"from"`   // where the paths of sources are
	Mkdir    string       `json:"mkdir,omitempty"`
	Sources  []packSource `json:"sources"`
	Dest     string       `json:"dest"` // absolute, see copyStep.dest
	Owner    *owner       `json:"owner,omitempty"`
	Mode     string       `json:"mode,omitempty"` // --chmod
	Excludes []string     `json:"excludes,omitempty"`
	Parents  bool         `json:"parents,omitempty"`
	Now      int64        `json:"now"`             // time of directories that are made
	Clamp    int64        `json:"clamp,omitempty"` // latest time of a file; 0: any
	Timeless bool         `json:"timeless,omitempty"`
}

// tree is a tree to read: unpacked layers, or a plain directory.
type tree struct {
	Lower    []string `json:"lower,omitempty"`  // topmost first
	Owners   []string `json:"owners,omitempty"` // files of their tables
	Recorded bool     `json:"recorded,omitempty"`
	Plain    bool     `json:"plain,omitempty"`
	Nobody   bool     `json:"nobody,omitempty"` // owners in it mean nothing: 0:0
	Ignore   []string `json:"ignore,omitempty"` // patterns of what is not there
}

// packSource is one source path of the instruction, in a tree.
type packSource struct {
	Tree   *tree  `json:"tree,omitempty"` // not that of the job: a download
	Data   []byte `json:"data,omitempty"` // of a here-document; Name is its name then
	Path   string `json:"path"`           // may hold wildcards, unless Exact
	Exact  bool   `json:"exact"`          // a path of ours, of a download
	Unpack bool   `json:"unpack"`         // a tar archive is unpacked
	Name   string `json:"name,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
	Time   int64  `json:"time,omitempty"`
}

// hasLayers reports whether files of an image are looked at.
func (j *packJob) hasLayers() bool {
	return len(j.Target.Lower) > 0 && !j.Target.Plain || j.fromLayers()
}

// fromLayers reports whether files of an image are read.
func (j *packJob) fromLayers() bool {
	return len(j.From.Lower) > 0 && !j.From.Plain && !j.From.Nobody
}

// owner is what --chown names.
type owner struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// SourcePathError says that something a COPY names is not there, or cannot be read.
type SourcePathError struct{ Err error }

func (e *SourcePathError) Error() string { return e.Err.Error() }

func (e *SourcePathError) Unwrap() error { return e.Err }

// missing is BuildKit's word for a source that is not there.
func missing(name string) error {
	return &SourcePathError{fmt.Errorf("%q: %w", path.Join("/", name), errMissing)}
}

var errMissing = errors.New("not found")

// packer writes the tar of one job.
type packer struct {
	ctx      context.Context
	job      *packJob
	tar      *tar.Writer
	target   *overlay.View // nil: nothing
	made     map[string]overlay.Kind
	links    map[[3]uint64]string // of the source that is being copied
	excludes *filter
	buf      []byte
}

// pack writes the layer tar of a job to w: the same files give the same bytes.
// With Timeless no file has a time, so that the bytes tell whether anything else
// has changed. The error is a *SourcePathError when a source is at fault.
//
// Runs in: the caller's namespaces, or those of the role "pack".
func pack(ctx context.Context, w io.Writer, job *packJob) error {
	p := &packer{ctx: ctx, job: job, tar: tar.NewWriter(w), made: map[string]overlay.Kind{"": overlay.Dir}, buf: make([]byte, 256<<10)}
	var err error
	if len(job.Target.Lower) > 0 {
		if p.target, err = job.Target.open(); err != nil {
			return err
		}
		defer p.target.Close()
	}
	if p.excludes, err = newFilter(job.Excludes); err != nil {
		return fmt.Errorf("exclude: %w", err)
	}
	if job.Mkdir != "" {
		dir, err := p.resolve(strings.TrimPrefix(job.Mkdir, "/"))
		if err == nil {
			err = p.makeDirs(dir)
		}
		if err != nil {
			return err
		}
	}
	for i := range job.Sources {
		if err := p.source(&job.Sources[i]); err != nil {
			return err
		}
	}
	return p.tar.Close()
}

// open opens a tree for reading.
func (t *tree) open() (*overlay.View, error) {
	o := overlay.ViewOptions{Recorded: t.Recorded, Plain: t.Plain}
	for _, name := range t.Owners {
		table, err := readOwners(name)
		if err != nil {
			return nil, err
		}
		o.Owners = append(o.Owners, table)
	}
	return overlay.OpenView(t.Lower, o)
}

func readOwners(name string) (overlay.Owners, error) {
	if name == "" {
		return nil, nil
	}
	return overlay.ReadOwners(name)
}

// time is a time as the tar has it.
func (p *packer) time(t time.Time) time.Time {
	if p.job.Timeless {
		return time.Unix(0, 0)
	}
	if p.job.Clamp != 0 && t.Unix() > p.job.Clamp {
		return time.Unix(p.job.Clamp, 0)
	}
	return time.Unix(t.Unix(), 0)
}

// write writes a header at a path of the target, with the owner and mode that
// the job asks for.
func (p *packer) write(h *tar.Header, at string, kind overlay.Kind) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	for part := range strings.SplitSeq(at, "/") {
		if strings.HasPrefix(part, ".wh.") {
			return &SourcePathError{fmt.Errorf("copy %q: no layer can hold a file of this name: it means that another was removed", path.Join("/", at))}
		}
	}
	h.Name = at
	if h.Typeflag == tar.TypeDir {
		h.Name = at + "/"
		if at == "" {
			h.Name = "./"
		}
	}
	h.ModTime, h.AccessTime, h.ChangeTime = p.time(h.ModTime), time.Time{}, time.Time{}
	h.Uname, h.Gname = "", ""
	if o := p.job.Owner; o != nil {
		h.Uid, h.Gid = o.UID, o.GID
	}
	if p.job.Mode != "" && h.Typeflag != tar.TypeSymlink && h.Typeflag != tar.TypeLink {
		h.Mode = int64(changeMode(p.job.Mode, uint32(h.Mode), h.Typeflag == tar.TypeDir))
	}
	p.made[at] = kind
	return p.tar.WriteHeader(h)
}

// existing tells what the target, with what was written so far, has at a path
// whose directories hold no link.
func (p *packer) existing(at string) (overlay.Kind, bool, error) {
	if kind, ok := p.made[at]; ok {
		return kind, true, nil
	}
	if p.target == nil {
		return 0, false, nil
	}
	e, err := p.target.Lookup(at, false)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	return e.Kind, err == nil, err
}

// maxLinks is the kernel's limit on links in one path.
const maxLinks = 40

// resolve follows the links on the way to a path of the target, and its own.
// What is not there is taken as it is written, as a program that makes it would.
func (p *packer) resolve(name string) (string, error) {
	at, links := "", 0
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			if at = path.Dir(at); at == "." || at == "/" {
				at = ""
			}
			continue
		}
		next := path.Join(at, part)
		kind, ok, err := p.existing(next)
		if err != nil {
			return "", err
		}
		if !ok || kind != overlay.Symlink || p.target == nil {
			at = next
			continue
		}
		if _, written := p.made[next]; written {
			at = next
			continue
		}
		e, err := p.target.Lookup(next, false)
		if err != nil {
			return "", err
		}
		to, err := p.target.Link(e)
		if err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("copy to %s: too many levels of symbolic links", path.Join("/", name))
		}
		if path.IsAbs(to) {
			at = ""
		}
		rest = to + "/" + rest
	}
	return at, nil
}

// makeDirs writes the directories of a path that are not there, the path itself
// included, as mkdir -p would.
func (p *packer) makeDirs(at string) error {
	if at == "" || at == "." {
		return nil
	}
	kind, ok, err := p.existing(at)
	if err != nil {
		return err
	}
	if ok {
		if kind != overlay.Dir {
			return fmt.Errorf("mkdir %s: not a directory", path.Join("/", at))
		}
		return nil
	}
	if err := p.makeDirs(path.Dir(at)); err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(p.job.Now, 0)}
	mode := p.job.Mode
	p.job.Mode = "" // is for what is copied
	err = p.write(h, at, overlay.Dir)
	p.job.Mode = mode
	return err
}
