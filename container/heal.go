// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Heal removes what commands that were killed have left. Whoever runs a step of a
// build does so now and then: run does it by itself.
func (h *Home) Heal(ctx context.Context) { h.heal(ctx) }

// heal removes what commands that died have left: directories on their way in
// or out, names that are nobody's, and containers that were to remove themselves but whose monitor was
// killed. It is no error when something cannot be removed; the next command
// tries again.
func (h *Home) heal(ctx context.Context) {
	h.discardMakings()
	defer h.clearNames()
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return
		}
		name := e.Name()
		switch {
		case strings.HasPrefix(name, trashPrefix):
			// Its remover may be at work: two can remove one tree at once.
			_ = h.Store.RemoveTree(ctx, filepath.Join(h.dir, name))
		case isID(name):
			c, err := h.load(name)
			if err == nil && (c.Config.AutoRemove && c.State.Status == Exited || c.abandoned()) {
				c.discard(ctx)
			}
		}
	}
}

// discard removes a container whose monitor was killed before it could. Who has
// it locked is at work on it.
func (c *Container) discard(ctx context.Context) {
	fd, err := lockDir(c.dir, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return
	}
	l := lock{fd}
	defer l.release()
	if now, err := c.home.load(c.Config.ID); err == nil && (now.State.Status == Exited || now.abandoned()) {
		_ = c.remove(ctx)
	}
}

// discardMakings turns directories whose maker has died into trash. The lock on
// the home keeps makers for a moment from making one that is not yet locked.
func (h *Home) discardMakings() {
	entries, err := os.ReadDir(h.dir)
	if err != nil || !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), makingPrefix) }) {
		return
	}
	lock, err := lockDir(h.dir, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return // makers are at work; another time
	}
	defer unix.Close(lock)
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name(), makingPrefix)
		if ok && !h.beingMade(id) {
			_ = unix.Rename(filepath.Join(h.dir, e.Name()), filepath.Join(h.dir, trashPrefix+id))
		}
	}
}
