// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// Rename gives the container another name. The error is a *NameInUseError when
// another container has it.
func (c *Container) Rename(ctx context.Context, name string) error {
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.release()
	old := c.Config.Name
	if name == old {
		return fmt.Errorf("rename container %s: it has this name", old)
	}
	if err := c.home.takeName(name, c.Config.ID); err != nil {
		return fmt.Errorf("rename container %s: %w", old, err)
	}
	c.Config.Name = name
	if err := c.rewrite(ctx); err != nil {
		c.Config.Name = old
		_ = c.home.dropName(name, c.Config.ID)
		return fmt.Errorf("rename container %s: %w", old, err)
	}
	c.record("rename", map[string]string{"oldName": "/" + old})
	return c.home.dropName(old, c.Config.ID)
}

// Update changes the record. What a program was started with, its limits among
// that, holds until it is started again.
func (c *Container) Update(ctx context.Context, change func(*Config) error) error {
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.release()
	err = errors.Join(change(&c.Config), c.Config.checkRestart())
	if err == nil {
		err = c.rewrite(ctx)
	}
	if err != nil {
		return fmt.Errorf("update container %s: %w", c.Config.Name, err)
	}
	c.record("update", nil)
	return nil
}

// rewrite writes the record anew and has the monitor read it, if there is one.
func (c *Container) rewrite(ctx context.Context) error {
	if err := writeJSON(filepath.Join(c.dir, "config.json"), c.Config); err != nil {
		return err
	}
	err := c.command(ctx, request{Do: doReload, Ask: true})
	var stopped *NotRunningError
	if errors.As(err, &stopped) {
		return nil
	}
	return err
}
