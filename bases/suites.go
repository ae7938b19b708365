// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"runtime"
	"slices"

	"sbx/container"
	"sbx/store"
)

// debianNumbers are the suites of Debian's releases.
var debianNumbers = map[string]string{"latest": "stable", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}

// bootstrap makes the image of a suite from a mirror of its archive, unless it is
// here already.
func (p Pull) bootstrap(ctx context.Context, h *container.Home, name string, before store.Image) (store.Image, error) {
	suite := or(debianNumbers[p.Tag], p.Tag)
	v, known := vendorOf(suite)
	if !known || v.name != p.Distribution.vendor || p.Platform.Architecture != runtime.GOARCH {
		i := slices.IndexFunc(vendors(), func(v vendor) bool { return v.name == p.Distribution.vendor })
		return store.Image{}, &ElsewhereError{&missingError{"no " + p.Distribution.Name + " " + p.Tag + " for " + p.Platform.Architecture + " is made here", vendors()[i].suites}}
	}
	b := Bootstrap{
		Suite: suite, Arch: DebianArch(p.Platform.Architecture), Mirrors: p.Mirrors, Keyring: p.Keyring, Epoch: p.Epoch, Fetch: p.Fetch, Progress: p.Progress, Event: p.Event,
	}
	u, err := b.prepare(ctx, h)
	if err != nil {
		return store.Image{}, err
	}
	defer u.close()
	err = u.reach(ctx)
	if err == nil && p.Tag == "latest" {
		u.Suite = or(u.release.codename, u.Suite) // the system stays what it is when the next one is stable
	}
	switch {
	case err != nil && mayBeElsewhere(err):
		return store.Image{}, &ElsewhereError{err}
	case err != nil:
		return store.Image{}, err
	case p.Epoch.IsZero() && before.Config.Created != nil && before.Config.Created.Equal(u.date()) && h.Store.IsComplete(before):
		return before, nil
	}
	return u.make(ctx, h, name)
}
