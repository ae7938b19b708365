// SPDX-License-Identifier: Apache-2.0

package store

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
	"sbx/userns"
)

// The roles of this package are one question and one answer each; userns/doc.go draws it.

// unpackQuestion comes with the layer's root, a pipe of the tar, and a file for owners.
type unpackQuestion struct {
	Lower []string `json:"lower"` // unpacked layers below, topmost first
}

type unpackAnswer struct {
	Entries   int64 `json:"entries"`
	Bytes     int64 `json:"bytes"`
	Markers   bool  `json:"markers"`
	UsedLower bool  `json:"usedLower"`
	Owners    int   `json:"owners"` // how many were written
}

// UnpackRole unpacks a layer tar beneath a descriptor, as root of the user's IDs.
func UnpackRole(ctx context.Context, c *userns.Conn) error {
	return userns.Answer(answerUnpack)(ctx, c)
}

func answerUnpack(ctx context.Context, q unpackQuestion, files []*os.File) (unpackAnswer, error) {
	if len(files) != 3 {
		return unpackAnswer{}, errors.New("unpack layer: bad question")
	}
	result, err := overlay.Unpack(ctx, files[0], files[1], overlay.UnpackOptions{Lower: q.Lower})
	if err != nil {
		return unpackAnswer{}, err
	}
	if len(result.Owners) > 0 {
		if err := result.Owners.Save(files[2]); err != nil {
			return unpackAnswer{}, err
		}
	}
	return unpackAnswer{result.Entries, result.Bytes, result.Markers, result.UsedLower, len(result.Owners)}, nil
}

// removeQuestion comes with the directory that the names are in.
type removeQuestion struct {
	Names []string `json:"names"`
}

// RemoveRole removes trees beneath a descriptor, as root of the user's IDs.
func RemoveRole(ctx context.Context, c *userns.Conn) error {
	return userns.Answer(answerRemove)(ctx, c)
}

func answerRemove(ctx context.Context, q removeQuestion, files []*os.File) (struct{}, error) {
	if len(files) != 1 {
		return struct{}{}, errors.New("remove tree: bad question")
	}
	for _, name := range q.Names {
		if !isName(name) {
			return struct{}{}, fmt.Errorf("remove tree: strange name %.100q", name)
		}
		if err := overlay.RemoveAll(ctx, files[0], name); err != nil {
			return struct{}{}, err
		}
	}
	return struct{}{}, nil
}

// copyQuestion comes with the directory to fill and a file for its owners.
type copyQuestion struct {
	Lower    []string `json:"lower"`  // topmost first
	Owners   []string `json:"owners"` // of each: the file of its owners, or ""
	Recorded bool     `json:"recorded"`
	At       string   `json:"at,omitempty"` // the directory of the merged tree that is copied
}

type copyAnswer struct {
	Owners int `json:"owners"`
}

// CopyRole merges directories into one, as root of the user's IDs.
func CopyRole(ctx context.Context, c *userns.Conn) error {
	return userns.Answer(answerCopy)(ctx, c)
}

func answerCopy(ctx context.Context, q copyQuestion, files []*os.File) (copyAnswer, error) {
	if len(files) != 2 {
		return copyAnswer{}, errors.New("copy tree: bad question")
	}
	if q.At != "" {
		if there, err := overlay.IsMergedDir(q.Lower, q.At); err != nil || !there {
			return copyAnswer{}, err
		}
	}
	tables, err := readTables(q.Owners)
	if err != nil {
		return copyAnswer{}, fmt.Errorf("copy tree: %w", err)
	}
	owners, err := overlay.FlattenAt(ctx, files[0], q.Lower, tables, q.Recorded, q.At)
	if err == nil && len(owners) > 0 {
		err = owners.Save(files[1])
	}
	return copyAnswer{len(owners)}, err
}

// Flatten fills dst, a directory that does not exist or is empty, with what overlayfs
// would show of the directories in lower, topmost first. The owners of files that cannot
// carry a record are saved beside it, in dst.owners.json. What a failure leaves in dst is
// the caller's to remove, with RemoveTree.
func (s *Store) Flatten(ctx context.Context, lower []string, dst string) error {
	if err := s.flatten(ctx, lower, dst, ""); err != nil {
		return spaceError(fmt.Errorf("copy image to %s: %w", dst, err), filepath.Dir(dst), 0)
	}
	return nil
}

func (s *Store) flatten(ctx context.Context, lower []string, dst, at string) error {
	if err := os.Mkdir(dst, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return bare(err)
	}
	dir, err := os.OpenFile(dst, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return bare(err)
	}
	defer dir.Close()
	owners, err := os.OpenFile(TableOf(dst), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer owners.Close()
	q := copyQuestion{Lower: lower, Owners: s.ownersOf(lower), Recorded: !s.rung.IsMapped(), At: at}
	answer, err := userns.Call[copyQuestion, copyAnswer](ctx, s.rung, "copy", q, dir, owners)
	if err != nil || answer.Owners == 0 {
		os.Remove(owners.Name())
	}
	return err
}

// ownersOf returns where the owners of each directory are kept: next to a layer's root. A
// directory from elsewhere has none, whatever its neighbours are called.
func (s *Store) ownersOf(dirs []string) []string {
	paths := make([]string, len(dirs))
	for i, dir := range dirs {
		if strings.HasPrefix(dir, s.path(layersDir)+"/") && filepath.Base(dir) == rootDir {
			paths[i] = filepath.Join(filepath.Dir(dir), ownersFile)
		}
	}
	return paths
}

// RemoveTree removes the tree at path, or does nothing if there is none. Files that belong
// to the user's subordinate IDs, or that shut the user out, are removed by the role
// "remove".
func (s *Store) RemoveTree(ctx context.Context, path string) error {
	path = filepath.Clean(path)
	return s.removeTree(ctx, filepath.Dir(path), filepath.Base(path))
}

func (s *Store) removeTree(ctx context.Context, parent, name string) error {
	if !isName(name) {
		return fmt.Errorf("remove tree: strange name %.100q", name)
	}
	dir, err := os.OpenFile(parent, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove tree: %w", err)
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
		return nil
	}
	err = overlay.RemoveAll(ctx, dir, name)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		_, err = userns.Call[removeQuestion, struct{}](ctx, s.rung, "remove", removeQuestion{[]string{name}}, dir)
	}
	if err != nil {
		return fmt.Errorf("remove %s/%s: %w", parent, name, err)
	}
	return nil
}

// isName reports whether name is one component of a path, and not a dot directory.
func isName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
