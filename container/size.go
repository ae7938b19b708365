// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"path/filepath"
	"strings"

	"sbx/reference"
)

// GraphDriver says how the root filesystem is made, and of what, in the words of
// Docker's API. What it is mounted on only the container sees.
func (c *Container) GraphDriver() (name string, data map[string]string) {
	switch c.Config.Root {
	case rootDir:
		return c.Config.Root, map[string]string{"RootDir": c.Config.RootDir}
	case rootCopy:
		return c.Config.Root, map[string]string{"RootDir": filepath.Join(c.dir, "rootfs")}
	}
	return c.Config.Root, map[string]string{
		"LowerDir": strings.Join(c.Config.Lower, ":"), "UpperDir": filepath.Join(c.dir, "upper"), "WorkDir": filepath.Join(c.dir, "work"),
	}
}

// LogPath is the directory of the container's log, if any is kept.
func (c *Container) LogPath() string {
	if c.Config.Log.Driver == LogNone {
		return ""
	}
	return filepath.Join(c.dir, logDir)
}

// ImageSize returns how many bytes the layers hold that the container stands on,
// as far as they are unpacked.
func (c *Container) ImageSize() int64 {
	var total int64
	for _, l := range c.Config.Layers {
		if id, err := reference.ParseDigest(l); err == nil {
			total += c.home.Store.LayerSize(id)
		}
	}
	return total
}

// Size returns how many bytes the container has written over its image, as far
// as this user may look. It takes a walk over everything that it wrote.
func (c *Container) Size(ctx context.Context) (int64, error) {
	switch c.Config.Root {
	case rootDir:
		return 0, nil // it works on the user's own
	case rootCopy:
		// Nobody knows any more what of the copy is the image's: its size is taken off.
		all, err := c.home.Store.TreeSize(ctx, filepath.Join(c.dir, "rootfs"))
		return max(0, all-c.ImageSize()), err
	}
	return c.home.Store.TreeSize(ctx, filepath.Join(c.dir, "upper"))
}
