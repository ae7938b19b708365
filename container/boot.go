// SPDX-License-Identifier: Apache-2.0

package container

import (
	"cmp"
	"context"
	"errors"
	"slices"
)

// Boot starts the containers that ran before the machine was started anew and
// whose restart policy has them come back: those of `always`, and those of
// `unless-stopped` that the user had not stopped. It returns the names of those
// that it started; the error joins those of the others, each with its name.
func (h *Home) Boot(ctx context.Context) ([]string, error) {
	list, err := h.List()
	if err != nil {
		return nil, err
	}
	// Who shares what another has needs that one first.
	slices.SortStableFunc(list, func(a, b *Container) int {
		return cmp.Compare(len(a.Config.shares()), len(b.Config.shares()))
	})
	var started []string
	var errs []error
	for _, c := range list {
		if !c.comesBack() {
			continue
		}
		if err := c.Start(ctx); err != nil {
			errs = append(errs, err)
			continue
		}
		started = append(started, c.Config.Name)
	}
	return started, errors.Join(errs...)
}

// comesBack reports whether the container's last run ended with an earlier boot
// of this machine, and is to be followed by another.
func (c *Container) comesBack() bool {
	s := &c.State
	if s.Status != Exited || s.Monitor.PID == 0 || s.Monitor.Boot == c.home.here.Boot {
		return false
	}
	switch c.Config.Restart.Name {
	case RestartAlways:
		return true
	case RestartUnlessStopped:
		return !s.Stopped
	}
	return false
}
