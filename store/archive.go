// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/userns"
)

// Tree is a tree of files on this rung: a stack of directories, topmost first, or with
// Plain one directory that is no layer.
type Tree struct {
	Dirs   []string
	Owners []string // of each: the file of its owners; one that is missing, or "", is empty
	Plain  bool
}

// Stack returns the tree that a container with these layers below its upper directory sees.
func (s *Store) Stack(upper, owners string, lower []string) Tree {
	return Tree{Dirs: append([]string{upper}, lower...), Owners: append([]string{owners}, s.ownersOf(lower)...)}
}

// Part is what of a tree is packed.
type Part struct {
	Path   string // looked up as a process in the tree would; "" is all of it
	Follow bool   // if it is a link
	Name   string // what it is called in the tar; "" puts what is in a directory at the top
	Clamp  time.Time
}

// Archive writes a tar of a part of a tree, with the true owners, also of files that shut
// this user out. Nothing outside the tree is read, whatever its links say.
func (s *Store) Archive(ctx context.Context, w io.Writer, t Tree, p Part) error {
	dir, err := os.OpenFile(t.Dirs[0], os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	defer dir.Close()
	q := archiveQuestion{Tree: t, Part: p, Recorded: !s.rung.IsMapped()}
	if _, err := streamFrom[archiveQuestion, diffAnswer](ctx, s.rung, "archive", q, w, dir); err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	return nil
}

// archiveQuestion comes with the first directory and a pipe to write to.
type archiveQuestion struct {
	Tree
	Part
	Recorded bool
}

// ArchiveRole packs a tree of files, as root of the user's IDs.
func ArchiveRole(ctx context.Context, c *userns.Conn) error {
	return userns.Answer(answerArchive)(ctx, c)
}

func answerArchive(ctx context.Context, q archiveQuestion, files []*os.File) (diffAnswer, error) {
	if len(files) != 2 {
		return diffAnswer{}, errors.New("pack files: bad question")
	}
	tables, err := readTables(q.Owners)
	if err != nil {
		return diffAnswer{}, err
	}
	o := overlay.ArchiveOptions{Recorded: q.Recorded, Owners: tables, Path: q.Path, Follow: q.Follow, Name: q.Name, Clamp: q.Clamp}
	var packed overlay.Packed
	w := bufferedPipe(files[1])
	if q.Plain {
		packed, err = overlay.ArchiveDir(ctx, w, files[0], o)
	} else {
		packed, err = overlay.Archive(ctx, w, q.Dirs, o)
	}
	if err == nil {
		err = w.Flush()
	}
	return diffAnswer{packed.Entries, packed.Bytes}, err
}
