// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// tree is a part of a machine's filesystem: files, the links that lead to them
// and the directories that hold both.
type tree struct {
	root    string
	entries map[string]fs.FileInfo // by path, absolute and clean; "/" is always there
	links   map[string]string      // what the links among them say
}

func newTree(root string) *tree {
	return &tree{root: root, entries: map[string]fs.FileInfo{}, links: map[string]string{}}
}

// host is where the file at a path of the tree lies.
func (t *tree) host(p string) string { return filepath.Join(t.root, p) }

// inside is host's other direction.
func (t *tree) inside(host string) string {
	return path.Join("/", strings.TrimPrefix(host, strings.TrimSuffix(t.root, "/")))
}

// maxLinks is how many links one path may lead through (path_resolution(7)).
const maxLinks = 40

var errLinks = errors.New("too many symbolic links")

// add takes what is at a path, with every link and directory on the way, and
// returns where the links lead to. What the last link names must be there.
func (t *tree) add(p string) (string, error) {
	rest := split(p)
	at := "/"
	for hops := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		fi, err := os.Lstat(t.host(next))
		if err != nil {
			return "", withoutHost(err, next)
		}
		t.entries[next] = fi
		if fi.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if hops++; hops > maxLinks {
			return "", &fs.PathError{Op: "open", Path: p, Err: errLinks}
		}
		target, err := os.Readlink(t.host(next))
		if err != nil {
			return "", withoutHost(err, next)
		}
		t.links[next] = target
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(split(target), rest...)
	}
	return at, nil
}

// addDirectory takes an empty directory.
func (t *tree) addDirectory(p string) error {
	_, err := t.add(p)
	return err
}

func split(p string) []string {
	return strings.FieldsFunc(p, func(c rune) bool { return c == '/' })
}

// withoutHost names a file as the user does.
func withoutHost(err error, p string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return &fs.PathError{Op: "open", Path: p, Err: pe.Err}
	}
	return err
}

// writeTar writes the tree as a tar: every entry once, sorted, owned by root,
// with the times of the files but none later than latest, unless that is zero.
// Set-ID bits stay: in the image they are root's.
func (t *tree) writeTar(w io.Writer, latest time.Time) error {
	out := tar.NewWriter(w)
	for _, d := range rootDirectories {
		if _, there := t.entries["/"+d.name]; there {
			continue
		}
		h := &tar.Header{Typeflag: tar.TypeDir, Name: d.name + "/", Mode: d.mode, ModTime: time.Unix(0, 0)}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(t.entries)) {
		if err := t.writeEntry(out, p, latest); err != nil {
			return err
		}
	}
	return out.Close()
}

func (t *tree) writeEntry(out *tar.Writer, p string, latest time.Time) error {
	fi := t.entries[p]
	h, err := tar.FileInfoHeader(fi, t.links[p])
	if err != nil {
		return fmt.Errorf("read %s: %w", p, err)
	}
	h.Name = strings.TrimPrefix(p, "/")
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	h.Format = tar.FormatUnknown
	h.ModTime = h.ModTime.Truncate(time.Second)
	if !latest.IsZero() && h.ModTime.After(latest) {
		h.ModTime = latest
	}
	switch h.Typeflag {
	case tar.TypeDir:
		h.Name += "/"
		return out.WriteHeader(h)
	case tar.TypeReg:
		return t.writeFile(out, h, p)
	case tar.TypeSymlink:
		return out.WriteHeader(h)
	}
	return fmt.Errorf("read %s: neither a file, a directory nor a link", p)
}

// writeFile writes a regular file. One that changes its length meanwhile is an
// error: half of a program is none.
func (t *tree) writeFile(out *tar.Writer, h *tar.Header, p string) error {
	f, err := os.OpenFile(t.host(p), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return withoutHost(err, p)
	}
	defer f.Close()
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", p, err)
	}
	return nil
}
