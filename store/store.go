// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

const (
	// layoutVersion is the version of what doc.go describes. A store of a later one is
	// refused: its invariants are not known.
	layoutVersion = 1

	versionFile = "version"
	lockFile    = "lock"
	blobsDir    = "blobs"
	layersDir   = "layers"
	tmpDir      = "tmp"
)

// Store is a directory of images. Any number of processes may use one at the same time,
// and any number of goroutines one Store.
type Store struct {
	dir  string
	rung userns.Rung
	key  string
	boot func() bootRecord
	// step is told what was just done, in tests that die there.
	step func(what string)
}

// Open opens the store in dir, and makes one if there is none and dir is empty or of mode
// 0700. The directory must belong to this user. Layers are unpacked for rung. On a store
// that exists this costs three system calls and takes no lock.
func Open(dir string, rung userns.Rung) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{dir: abs, rung: rung, key: rung.Key(), boot: sync.OnceValue(readBoot), step: func(string) {}}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", abs, err)
	}
	return s, nil
}

// Path returns the store's directory.
func (s *Store) Path() string { return s.dir }

// Rung returns the rung that layers are unpacked for.
func (s *Store) Rung() userns.Rung { return s.rung }

func (s *Store) open() error {
	mode, err := checkOwner(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		version, err := readSmall(s.path(versionFile), 64)
		if err == nil {
			return s.admit(version, mode)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return spaceError(s.create(), s.dir, 0)
}

// admit decides whether this program may use the store that calls itself version.
func (s *Store) admit(version []byte, mode uint32) error {
	n, err := strconv.Atoi(string(bytes.TrimSpace(version)))
	switch {
	case err != nil || n < 1:
		return fmt.Errorf("strange version %.20q", version)
	case n > layoutVersion:
		return advise(fmt.Errorf("its version %d is newer than this sbx knows", n), "use the sbx that made it, or another folder (SBX_HOME)")
	}
	// Others could run the setuid programs of its layers as this user.
	if mode&0o077 != 0 {
		return os.Chmod(s.dir, 0o700)
	}
	return nil
}

// checkOwner makes sure that dir is a directory of this user, reached by no link that
// another one could change, and returns its mode.
func checkOwner(dir string) (mode uint32, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return 0, err
	}
	uid := uint32(os.Geteuid())
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if st.Uid != uid && st.Uid != 0 {
			return 0, advise(fmt.Errorf("it is a link of user %d", st.Uid), "choose another folder (SBX_HOME)")
		}
		if err := unix.Stat(dir, &st); err != nil {
			return 0, fmt.Errorf("follow link: %w", err)
		}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return 0, errors.New("not a directory")
	case st.Uid != uid:
		return 0, advise(fmt.Errorf("it belongs to user %d", st.Uid), "choose a folder of your own (SBX_HOME)")
	}
	return st.Mode, nil
}

// create makes the tree. The version comes last, so a store that has one is whole.
func (s *Store) create() error {
	if err := s.createTop(); err != nil {
		return err
	}
	unlock, err := s.lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	if version, err := readSmall(s.path(versionFile), 64); err == nil {
		return s.admit(version, 0)
	}
	for _, d := range []string{blobsDir, blobsDir + "/sha256", layersDir, tmpDir} {
		if err := os.Mkdir(s.path(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := s.checkLinks(); err != nil {
		return err
	}
	if err := s.replace("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	// An index without a version is of a process that died here before it had any image.
	if err := s.replace(indexFile, formatIndex(nil)); err != nil {
		return err
	}
	return s.replace(versionFile, []byte(strconv.Itoa(layoutVersion)+"\n"))
}

// checkLinks makes sure that the filesystem has symbolic links: no root filesystem can be
// unpacked on one that has none, such as a FAT-formatted stick.
func (s *Store) checkLinks() error {
	link := s.path(tmpDir, "link-"+randomName())
	if err := os.Symlink("target", link); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			return advise(errors.New("its filesystem has no symbolic links, which every image needs"), "keep images on a disk that has them: SBX_HOME=/path/to/directory")
		}
		return err
	}
	return os.Remove(link)
}

// createTop makes the store's directory. One that exists is made private only if nothing
// is in it yet: it might be somebody's home that was named by mistake.
func (s *Store) createTop() error {
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(s.dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	mode, err := checkOwner(s.dir)
	if err != nil || mode&0o077 == 0 {
		return err
	}
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return advise(errors.New("it is no store, other users can enter it, and something is in it"),
			"choose an empty folder (SBX_HOME), or make this one private: chmod 700 "+s.dir)
	}
	return os.Chmod(s.dir, 0o700)
}

// replace writes a file of the store's top: a reader sees the old or the new content, and
// the new is durable when replace returns. The caller holds the lock.
func (s *Store) replace(name string, data []byte) error {
	next := s.path(tmpDir, name)
	if err := writeSynced(next, data); err != nil {
		os.Remove(next)
		return err
	}
	s.step("write " + name)
	if err := os.Rename(next, s.path(name)); err != nil {
		os.Remove(next)
		return err
	}
	s.step("rename " + name)
	return syncDir(s.dir)
}

func (s *Store) path(elem ...string) string {
	return s.dir + "/" + strings.Join(elem, "/")
}

// bootRecord tells one boot of one machine from all others.
type bootRecord struct {
	Boot    string `json:"boot"`
	Machine string `json:"machine,omitempty"`
}

func readBoot() bootRecord {
	boot, _ := readSmall("/proc/sys/kernel/random/boot_id", 128)
	machine, _ := readSmall("/etc/machine-id", 128)
	return bootRecord{Boot: string(bytes.TrimSpace(boot)), Machine: string(bytes.TrimSpace(machine))}
}
