// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Request says what Collect is to gather.
type Request struct {
	Programs []string // names looked up in Path, or paths
	Files    []string // paths taken as they are, directories with all they hold
	Path     string   // where programs are looked up, as PATH has it
}

// Taken is a file of the collection, and what brought it in.
type Taken struct {
	Path string // in the image and on this machine
	Why  string // "program ls", "interpreter of /usr/bin/ls", ..
}

// Collection is a set of this machine's files that can run by themselves: the
// first chapter of every course on containers, a chroot of programs and the
// libraries they need.
type Collection struct {
	Taken   []Taken // in the order in which they were found
	Command []string

	tree *tree
}

// Collect gathers programs with their interpreters and libraries, found as the
// dynamic linker would find them: RPATH, RUNPATH, ld.so.cache and the standard
// directories (ld.so(8)); of scripts, the interpreter that the first line names.
// Links on the way to a file are kept as links. What a program opens only at run
// time (plug-ins, locales) is not found: ask for it by Files.
//
// Only files that this user may read can be taken. Nothing is run: an ELF file
// is read, never executed, as ldd(1) would.
func Collect(ctx context.Context, r Request) (*Collection, error) {
	return collect(ctx, "/", r)
}

// collect is Collect for the machine whose root directory is root.
func collect(ctx context.Context, root string, r Request) (*Collection, error) {
	c := &collector{ctx: ctx, tree: newTree(root), seen: map[string]bool{}, path: r.Path}
	if err := c.readLinkerFiles(); err != nil {
		return nil, err
	}
	for _, name := range r.Programs {
		path, err := c.lookUp(name)
		if err == nil {
			err = c.program(path, "program "+name, nil)
		}
		if err != nil {
			return nil, fmt.Errorf("collect %s: %w", name, err)
		}
		if len(c.command) == 0 || isShell(path) && !isShell(c.command[0]) {
			c.command = []string{path}
		}
	}
	for _, name := range r.Files {
		if err := c.files(name); err != nil {
			return nil, fmt.Errorf("collect %s: %w", name, err)
		}
	}
	if err := c.mergedLinks(); err != nil {
		return nil, err
	}
	return &Collection{Taken: c.taken, Command: c.command, tree: c.tree}, nil
}

// isShell tells the programs that a container is most likely to be entered by.
func isShell(path string) bool {
	return slices.Contains([]string{"bash", "sh", "dash", "zsh", "busybox"}, filepath.Base(path))
}

// collector is a collection in the making.
type collector struct {
	ctx     context.Context
	tree    *tree
	path    string
	cache   linkerCache
	dirs    []string // of the dynamic linker, after the cache
	seen    map[string]bool
	taken   []Taken
	command []string
}

// lookUp finds a program as a shell does.
func (c *collector) lookUp(name string) (string, error) {
	if strings.Contains(name, "/") {
		return filepath.Abs(name)
	}
	for _, dir := range filepath.SplitList(c.path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, name)
		fi, err := os.Stat(c.tree.host(path))
		if err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &notFoundError{name}
}

// notFoundError says that no directory of PATH has a program.
type notFoundError struct{ name string }

func (e *notFoundError) Error() string { return "no such program in PATH" }

// Hint says how else to name one.
func (e *notFoundError) Hint() string { return "name it by its path, or install it first" }

// take adds the file at path, once, and reports whether it is new. real is the
// path without links.
func (c *collector) take(path, why string) (real string, isNew bool, err error) {
	if err := c.ctx.Err(); err != nil {
		return "", false, err
	}
	real, err = c.tree.add(path)
	if err != nil {
		return "", false, err
	}
	if c.seen[real] {
		return real, false, nil
	}
	c.seen[real] = true
	c.taken = append(c.taken, Taken{Path: real, Why: why})
	return real, true, nil
}

// files takes a file, or a directory with everything in it, as it is.
func (c *collector) files(name string) error {
	path, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	return filepath.WalkDir(c.tree.host(path), func(at string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		in := c.tree.inside(at)
		if d.IsDir() {
			return c.tree.addDirectory(in)
		}
		_, _, err = c.take(in, "asked for by --file "+name)
		return err
	})
}

// mergedLinks takes the links by which /bin and the like lead into /usr, where
// the collection has what they lead to: scripts name their interpreter /bin/sh.
func (c *collector) mergedLinks() error {
	for _, name := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		target, err := os.Readlink(c.tree.host(name))
		if err != nil {
			continue
		}
		if _, there := c.tree.entries[filepath.Join("/", target)]; !there {
			continue
		}
		if _, err := c.tree.add(name); err != nil {
			return err
		}
	}
	return nil
}

// rootDirectories are in every collection: the kernel's filesystems are mounted
// on three, and programs take the fourth for granted.
var rootDirectories = []struct {
	name string
	mode int64
}{{"dev", 0o755}, {"proc", 0o555}, {"sys", 0o555}, {"tmp", 0o1777}}

// Date is the time of the newest file of the collection, and not later than
// latest, unless that is zero.
func (c *Collection) Date(latest time.Time) time.Time {
	var date time.Time
	for _, fi := range c.tree.entries {
		if t := fi.ModTime(); fi.Mode().IsRegular() && t.After(date) {
			date = t
		}
	}
	if !latest.IsZero() && date.After(latest) {
		date = latest
	}
	return date.UTC().Truncate(time.Second)
}

// WriteTar writes the collection as the tar of a root filesystem, owned by root,
// with every entry once and in order. No time is later than latest, unless that
// is zero. Two collections of the same files are the same bytes.
func (c *Collection) WriteTar(w io.Writer, latest time.Time) error {
	return c.tree.writeTar(w, latest)
}
