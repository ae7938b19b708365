// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Volumes are directories that outlive the containers they are mounted in. Each is a
// directory of its name: volume.json says what it is, _data is what is mounted.
//
// Whoever is about to use volumes holds a shared lock on their directory (Hold), and who
// removes one the exclusive one: nothing is removed between the look at its users and the
// removal.
type Volumes struct {
	dir   string
	store *Store
}

// Volume is the record of one.
type Volume struct {
	Name      string            `json:"name"`
	Created   time.Time         `json:"created"`
	Labels    map[string]string `json:"labels,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	Anonymous bool              `json:"anonymous,omitempty"` // nobody gave it a name
	Dir       string            `json:"-"`                   // what is mounted
}

const (
	volumeRecord = "volume.json"
	volumeData   = "_data"
	seedingMark  = "seeding" // there while the data is being filled from an image

	volumeMaking = ".making-"
	volumeTrash  = ".trash-"

	maxVolumeRecord = 1 << 20
)

// VolumeNotFoundError says that no volume has a name.
type VolumeNotFoundError struct{ Name string }

func (e *VolumeNotFoundError) Error() string { return "no such volume: " + e.Name }

// Hint says where to look.
func (e *VolumeNotFoundError) Hint() string { return "list them with: sbx volume ls" }

// Volumes returns the volumes in dir, which need not exist yet.
func (s *Store) Volumes(dir string) *Volumes { return &Volumes{dir: dir, store: s} }

// Hold keeps volumes from being removed until release is called.
func (v *Volumes) Hold(ctx context.Context) (release func(), err error) {
	return v.lock(ctx, unix.LOCK_SH)
}

func (v *Volumes) lock(ctx context.Context, how int) (release func(), err error) {
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock volumes: %w", err)
	}
	f, err := os.Open(v.dir)
	if err != nil {
		return nil, fmt.Errorf("lock volumes: %w", err)
	}
	if err := LockFile(ctx, f, how); err != nil {
		return nil, fmt.Errorf("lock volumes: %w", err)
	}
	return func() { f.Close() }, nil
}

// Create makes a volume, and returns the one that is there if its name is taken. It is
// durable when Create returns.
func (v *Volumes) Create(ctx context.Context, want Volume) (vol Volume, made bool, err error) {
	vol, made, err = v.create(want, true)
	if err != nil {
		return vol, made, spaceError(fmt.Errorf("create volume %s: %w", want.Name, err), v.dir, 0)
	}
	return vol, made, ctx.Err()
}

// Ensure is Create for a container that is about to start with it: the volume is as
// durable as the container.
func (v *Volumes) Ensure(want Volume) (Volume, error) {
	vol, _, err := v.create(want, false)
	if err != nil {
		return vol, spaceError(fmt.Errorf("create volume %s: %w", want.Name, err), v.dir, 0)
	}
	return vol, nil
}

func (v *Volumes) create(want Volume, durable bool) (Volume, bool, error) {
	if !ValidVolumeName(want.Name) {
		return want, false, advise(errors.New("only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed, two characters at least"),
			"for a directory of this machine write its absolute path")
	}
	if vol, err := v.Get(want.Name); err == nil {
		return vol, false, nil
	}
	want.Created, want.Dir = time.Now().UTC(), v.path(want.Name, volumeData)
	record, err := json.Marshal(want)
	if err != nil {
		return want, false, err
	}
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return want, false, err
	}
	// Under a name of its own first: whoever sees the volume sees all of it.
	making, err := os.MkdirTemp(v.dir, volumeMaking)
	if err != nil {
		return want, false, err
	}
	err = os.Mkdir(making+"/"+volumeData, 0o700)
	if err == nil {
		err = os.Chmod(making+"/"+volumeData, 0o755) // whatever the umask is
	}
	if err == nil {
		if durable {
			err = writeSynced(making+"/"+volumeRecord, record)
		} else {
			err = os.WriteFile(making+"/"+volumeRecord, record, 0o600)
		}
	}
	if err == nil {
		err = os.Rename(making, v.path(want.Name))
	}
	if err != nil {
		_ = os.RemoveAll(making)
		if vol, getErr := v.Get(want.Name); getErr == nil { // another was faster
			return vol, false, nil
		}
		return want, false, err
	}
	if durable {
		err = syncDir(v.dir)
	}
	return want, true, err
}

// Get returns the volume of a name. The error is a *VolumeNotFoundError if there is none.
func (v *Volumes) Get(name string) (Volume, error) {
	vol := Volume{Name: name, Dir: v.path(name, volumeData)}
	if !ValidVolumeName(name) {
		return vol, &VolumeNotFoundError{name}
	}
	data, err := readSmall(v.path(name, volumeRecord), maxVolumeRecord)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return v.unrecorded(vol)
	}
	if err == nil {
		err = json.Unmarshal(data, &vol)
	}
	if err != nil {
		return vol, fmt.Errorf("read volume %s: %w", name, err)
	}
	vol.Name, vol.Dir = name, v.path(name, volumeData)
	return vol, nil
}

// unrecorded is a volume without a record: version 0.1 wrote none.
func (v *Volumes) unrecorded(vol Volume) (Volume, error) {
	fi, err := os.Stat(vol.Dir)
	if err != nil {
		return vol, &VolumeNotFoundError{vol.Name}
	}
	vol.Created = fi.ModTime().UTC()
	return vol, nil
}

// List returns all volumes, by name.
func (v *Volumes) List() ([]Volume, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var list []Volume
	for _, e := range entries {
		vol, err := v.Get(e.Name())
		var missing *VolumeNotFoundError
		if errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, vol)
	}
	slices.SortFunc(list, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Remove removes a volume and what is in it, unless unused, which is asked while nobody
// can begin to use it, returns an error.
func (v *Volumes) Remove(ctx context.Context, name string, unused func() error) error {
	if _, err := v.Get(name); err != nil {
		return err
	}
	release, err := v.lock(ctx, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer release()
	if err := unused(); err != nil {
		return err
	}
	trash := v.path(volumeTrash + name)
	if err := v.store.RemoveTree(ctx, trash); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := os.Rename(v.path(name), trash); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return &VolumeNotFoundError{name}
		}
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := v.store.RemoveTree(ctx, trash); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// Seed fills an empty volume with what a stack of image layers, topmost first, has at a
// path, its owner and mode included. One that holds anything stays as it is; one whose
// filling was cut short is filled anew.
func (v *Volumes) Seed(ctx context.Context, vol Volume, lower []string, at string) error {
	own, err := os.Open(v.path(vol.Name))
	if err != nil {
		return fmt.Errorf("fill volume %s: %w", vol.Name, err)
	}
	defer own.Close()
	if err := LockFile(ctx, own, unix.LOCK_EX); err != nil {
		return fmt.Errorf("fill volume %s: %w", vol.Name, err)
	}
	if err := v.seed(ctx, vol, lower, at); err != nil {
		return spaceError(fmt.Errorf("fill volume %s: %w", vol.Name, err), v.dir, 0)
	}
	return nil
}

func (v *Volumes) seed(ctx context.Context, vol Volume, lower []string, at string) error {
	mark := v.path(vol.Name, seedingMark)
	if _, err := os.Lstat(mark); err == nil {
		if err := v.store.RemoveTree(ctx, vol.Dir); err != nil {
			return err
		}
	} else if empty, err := isEmpty(vol.Dir); err != nil || !empty {
		return err
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if err := v.store.flatten(ctx, lower, vol.Dir, at); err != nil {
		return err
	}
	return os.Remove(mark)
}

// isEmpty reports whether a directory is empty. One that this user may not read is not.
func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0, nil
}

// Heal removes what removals and makers that died have left.
func (v *Volumes) Heal(ctx context.Context) {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, volumeTrash):
			_ = v.store.RemoveTree(ctx, v.path(name))
		case strings.HasPrefix(name, volumeMaking):
			if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > time.Hour {
				_ = v.store.RemoveTree(ctx, v.path(name))
			}
		}
	}
}

func (v *Volumes) path(elem ...string) string {
	return filepath.Join(append([]string{v.dir}, elem...)...)
}

// ValidVolumeName reports whether a volume may have a name, by Docker's grammar.
func ValidVolumeName(name string) bool {
	if len(name) < 2 || len(name) > 255 {
		return false
	}
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return true
}
