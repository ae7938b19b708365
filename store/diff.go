// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sbx/overlay"
	"sbx/userns"
)

// Changes is a directory with what a container, or a step of a build, has changed.
type Changes struct {
	Dir    string   // the upper directory of an overlay, or a whole tree
	Owners string   // the file with its table of owners; one that is missing is empty
	Lower  []string // the layers below, topmost first
	Stubs  []string // paths in it that were made to mount something on

	// Tree says that Dir is a copy of Lower, made before Since, where overlayfs is
	// refused.
	Tree  bool
	Since time.Time
}

// The role "diff" reads what its starter may not: files of subordinate IDs, and files that
// shut their owner out.

// diffQuestion comes with the directory, a pipe to write to, and the table of owners.
type diffQuestion struct {
	Want     string // wantLayer or wantChanges
	Recorded bool
	Lower    []string
	Owners   []string // of each of Lower: the file of its owners, or ""
	Stubs    []string
	Tree     bool
	Since    time.Time
	Clamp    time.Time
	Settle   bool
}

const (
	wantLayer   = "layer"   // a layer tar
	wantChanges = "changes" // "A/path\x00" for each
)

type diffAnswer struct {
	Entries int64
	Bytes   int64
}

// DiffRole packs what was changed in a directory, as root of the user's IDs.
func DiffRole(ctx context.Context, c *userns.Conn) error {
	return userns.Answer(answerDiff)(ctx, c)
}

func answerDiff(ctx context.Context, q diffQuestion, files []*os.File) (diffAnswer, error) {
	if len(files) != 3 {
		return diffAnswer{}, errors.New("pack changes: bad question")
	}
	o := overlay.DiffOptions{
		Recorded: q.Recorded, Lower: q.Lower, Tree: q.Tree, Since: q.Since, Stubs: q.Stubs, Clamp: q.Clamp, Settle: q.Settle,
	}
	var err error
	if o.LowerOwners, err = readTables(q.Owners); err != nil {
		return diffAnswer{}, err
	}
	if o.Owners, err = readTable(files[2]); err != nil {
		return diffAnswer{}, err
	}
	w := bufferedPipe(files[1])
	if q.Want == wantChanges {
		err = overlay.Changes(ctx, files[0], o, func(c overlay.Change) error {
			_, err := w.WriteString(string(c.Kind) + c.Path + "\x00")
			return err
		})
		return diffAnswer{}, errors.Join(err, w.Flush())
	}
	packed, err := overlay.Diff(ctx, w, files[0], o)
	if err == nil {
		err = w.Flush()
	}
	return diffAnswer{packed.Entries, packed.Bytes}, err
}

// bufferedPipe writes to a pipe in large pieces.
func bufferedPipe(f *os.File) *bufio.Writer { return bufio.NewWriterSize(onlyWriter{f}, copyBuffer) }

// readTable reads a table of owners; an empty file is none.
func readTable(f *os.File) (overlay.Owners, error) {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
		return nil, err
	}
	return overlay.LoadOwners(f)
}

func readTables(paths []string) ([]overlay.Owners, error) {
	tables := make([]overlay.Owners, len(paths))
	for i, path := range paths {
		if path == "" {
			continue
		}
		var err error
		if tables[i], err = overlay.ReadOwners(path); err != nil {
			return nil, fmt.Errorf("read owners of a layer: %w", err)
		}
	}
	return tables, nil
}

// diff lets the role "diff" write to w what q wants of the changes.
func (s *Store) diff(ctx context.Context, ch Changes, q diffQuestion, w io.Writer) (diffAnswer, error) {
	dir, err := os.OpenFile(ch.Dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return diffAnswer{}, err
	}
	defer dir.Close()
	owners, err := os.Open(ch.Owners)
	if ch.Owners == "" || errors.Is(err, os.ErrNotExist) {
		owners, err = os.Open(os.DevNull)
	}
	if err != nil {
		return diffAnswer{}, err
	}
	defer owners.Close()
	q.Recorded = !s.rung.IsMapped()
	q.Lower, q.Owners, q.Stubs, q.Tree, q.Since = ch.Lower, s.ownersOf(ch.Lower), ch.Stubs, ch.Tree, ch.Since
	return streamFrom[diffQuestion, diffAnswer](ctx, s.rung, "diff", q, w, dir, owners)
}

// streamFrom asks a role that writes to the pipe it is given after the first of files, and
// copies what it writes to w.
func streamFrom[Q, A any](ctx context.Context, rung userns.Rung, role string, q Q, w io.Writer, first *os.File, rest ...*os.File) (A, error) {
	var answer A
	pipeR, pipeW, err := os.Pipe()
	if err != nil {
		return answer, err
	}
	setPipeSize(pipeW)
	copied := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(onlyWriter{w}, onlyReader{pipeR}, make([]byte, copyBuffer))
		// Who cannot be told more ends, and says that the pipe is broken.
		pipeR.Close()
		copied <- err
	}()
	answer, err = userns.Call[Q, A](ctx, rung, role, q, append([]*os.File{first, pipeW}, rest...)...)
	// The role's own copy of the writing end went with it: now the pipe ends.
	pipeW.Close()
	if copyErr := <-copied; copyErr != nil && ctx.Err() == nil {
		err = copyErr
	}
	return answer, err
}

// onlyReader hides WriteTo.
type onlyReader struct{ io.Reader }

// ListChanges returns what was changed, as docker diff lists it, sorted by path.
func (s *Store) ListChanges(ctx context.Context, ch Changes) ([]overlay.Change, error) {
	var b bytes.Buffer
	if _, err := s.diff(ctx, ch, diffQuestion{Want: wantChanges}, &b); err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	var list []overlay.Change
	for line := range strings.SplitSeq(strings.TrimSuffix(b.String(), "\x00"), "\x00") {
		if line != "" {
			list = append(list, overlay.Change{Kind: overlay.ChangeKind(line[0]), Path: line[1:]})
		}
	}
	return list, nil
}
