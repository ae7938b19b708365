// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sbx/reference"
	"sbx/store"
)

// Home is where a user's images and containers live, with what the host allows.
type Home struct {
	Store    *store.Store
	Features Features
	dir      string  // of containers: in the store, or on local scratch
	here     process // this boot, machine and pid namespace
}

// Open opens the store in dir on the highest rung that this host allows, or on
// the one that is named. What the host allows is found by trying and remembered
// until the next boot.
func Open(ctx context.Context, dir, rung string) (*Home, error) {
	at := here()
	f, err := features(ctx, dir, rung, at)
	if err != nil {
		return nil, err
	}
	st, err := store.Open(dir, f.Rung)
	if err != nil {
		return nil, err
	}
	h := &Home{Store: st, Features: f, here: at, dir: filepath.Join(dir, "containers")}
	if f.Scratch != "" {
		h.dir = filepath.Join(f.Scratch, "containers")
	}
	if err := os.Mkdir(filepath.Join(h.dir, namesDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		if err := os.MkdirAll(filepath.Join(h.dir, namesDir), 0o700); err != nil {
			return nil, fmt.Errorf("create container directory: %w", err)
		}
	}
	return h, nil
}

// Container is one container: its record and what is known of its last run.
type Container struct {
	Config Config
	State  State
	home   *Home
	dir    string
	fresh  bool     // just made by this process, so that the record is what is here
	step   *Step    // of a build
	maker  *os.File // held as long as the maker of a step lives
}

// ID is the container's identifier, 64 hexadecimal digits.
func (c *Container) ID() string { return c.Config.ID }

// ShortID is what ps prints.
func (c *Container) ShortID() string { return c.Config.ID[:shortID] }

const shortID = 12

// NotFoundError says that no container has a name or ID.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return "no such container: " + e.Name }

// Hint says where to look.
func (e *NotFoundError) Hint() string { return "list them with: sbx ps -a" }

// AmbiguousError says that several IDs begin so.
type AmbiguousError struct{ Prefix string }

func (e *AmbiguousError) Error() string {
	return "several containers have an ID that begins with " + e.Prefix
}

// Hint says what helps.
func (e *AmbiguousError) Hint() string { return "give more of its digits, or its name" }

// load reads the container in a directory of the home.
func (h *Home) load(id string) (*Container, error) {
	c := &Container{home: h, dir: filepath.Join(h.dir, id)}
	if err := readJSON(filepath.Join(c.dir, "config.json"), &c.Config); err != nil {
		return nil, err
	}
	if c.Config.ID != id {
		return nil, fmt.Errorf("read container %s: its record says %q", id, c.Config.ID)
	}
	var err error
	c.State, err = loadState(c.dir, h.here)
	return c, err
}

// List returns the containers, the newest first. What a command that died has
// left half-made is not among them.
func (h *Home) List() ([]*Container, error) {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var list []*Container
	for _, e := range entries {
		if !isID(e.Name()) {
			continue
		}
		c, err := h.load(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list containers: %w", err)
		}
		if c.Config.Step {
			continue
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *Container) int { return b.Config.Created.Compare(a.Config.Created) })
	return list, nil
}

// Find returns the container of a name, an ID, or the beginning of one. The
// error is a *NotFoundError or an *AmbiguousError when that names not just one.
func (h *Home) Find(name string) (*Container, error) {
	if isID(name) {
		c, err := h.load(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return c, err
		}
	}
	if id, err := h.named(name); err == nil {
		c, err := h.load(id)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return c, err
		}
	}
	var found string
	if name != "" && strings.Trim(name, "0123456789abcdef") == "" {
		entries, err := os.ReadDir(h.dir)
		if err != nil {
			return nil, fmt.Errorf("find container: %w", err)
		}
		for _, e := range entries {
			if !isID(e.Name()) || !strings.HasPrefix(e.Name(), name) {
				continue
			}
			if found != "" {
				return nil, &AmbiguousError{name}
			}
			found = e.Name()
		}
	}
	if found == "" {
		return nil, &NotFoundError{name}
	}
	c, err := h.load(found)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{name}
	}
	return c, err
}

func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// Collect removes what no image and no container needs, such as what killed
// processes have left.
func (h *Home) Collect(ctx context.Context) error {
	keep, err := h.Roots()
	if err != nil {
		return err
	}
	return h.Store.Collect(ctx, keep)
}

// Roots are the images and layers that containers need: garbage collection
// keeps them.
func (h *Home) Roots() (store.Roots, error) {
	var roots store.Roots
	list, err := h.List()
	if err != nil {
		return roots, err
	}
	for _, c := range list {
		if id, err := reference.ParseDigest(c.Config.ImageID); err == nil {
			roots.Images = append(roots.Images, id)
		}
		for _, l := range c.Config.Layers {
			if id, err := reference.ParseDigest(l); err == nil {
				roots.Layers = append(roots.Layers, id)
			}
		}
	}
	return roots, nil
}
