// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// heal removes what commands that died have left: directories on their way in
// or out, and containers that were to remove themselves but whose monitor was
// killed. It is no error when something cannot be removed; the next command
// tries again.
func (h *Home) heal(ctx context.Context) {
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
		case strings.HasPrefix(name, makingPrefix):
			if !h.beingMade(strings.TrimPrefix(name, makingPrefix)) {
				_ = h.Store.RemoveTree(ctx, filepath.Join(h.dir, name))
			}
		case isID(name):
			c, err := h.load(name)
			if err == nil && c.Config.AutoRemove && c.State.Status == Exited {
				_ = c.remove(ctx)
			}
		}
	}
}
