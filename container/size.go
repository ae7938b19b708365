// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"path/filepath"
)

// Size returns how many bytes the container has written over its image, as far
// as this user may look. It takes a walk over everything that it wrote.
func (c *Container) Size(ctx context.Context) (int64, error) {
	switch c.Config.Root {
	case rootDir:
		return 0, nil // it works on the user's own
	case rootCopy:
		return c.home.Store.TreeSize(ctx, filepath.Join(c.dir, "rootfs"))
	}
	return c.home.Store.TreeSize(ctx, filepath.Join(c.dir, "upper"))
}
