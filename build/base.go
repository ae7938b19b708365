// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
	"sbx/store"
)

// snapshot is a filesystem: an image, and layers above it.
type snapshot struct {
	base   store.Image // zero: nothing
	layers []store.Layer
}

// with is the snapshot with a layer more, unless that changes nothing.
func (s snapshot) with(l store.Layer) snapshot {
	if l.Entries == 0 {
		return s
	}
	return snapshot{s.base, append(slices.Clip(s.layers), l)}
}

// diffIDs are those of all layers, bottom first.
func (s snapshot) diffIDs() []reference.Digest {
	ids := slices.Clone(s.base.Layers)
	for _, l := range s.layers {
		ids = append(ids, l.DiffID)
	}
	return ids
}

// dirs are the unpacked directories of a snapshot, topmost first.
func (b *builder) dirs(ctx context.Context, s snapshot) ([]string, error) {
	dirs, err := b.home.Store.ChainDirs(ctx, s.base, s.layers)
	slices.Reverse(dirs)
	return dirs, err
}

// loadBase brings the image of a stage that has no other stage as its base: one
// of a registry, or what a named context stands for.
func (b *builder) loadBase(ctx context.Context, s *stage) error {
	if c, ok := b.Contexts[strings.ToLower(s.baseName)]; ok && !s.replaced {
		return b.loadContext(ctx, s, c)
	}
	if s.replaced {
		return b.loadContext(ctx, s, b.Contexts[strings.ToLower(s.name)])
	}
	if err := s.checkName(); err != nil {
		return err
	}
	return b.loadImage(ctx, s, s.baseName)
}

// loadImage brings the image of a name; that of a named context may be a path.
func (b *builder) loadImage(ctx context.Context, s *stage, name string) error {
	s.baseName = name
	ref, err := reference.Parse(name)
	isPath := err != nil
	shown := name
	if !isPath {
		shown = ref.String()
	}
	v := b.report.begin("[internal] load metadata for " + shown)
	img, err := b.Image(ctx, name, s.wantedPlatform())
	v.end(err)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.image = cloneImage(img.Config)
	s.result = snapshot{base: img}
	if kept, err := reference.Parse(img.Name); err == nil && !isPath && kept.Domain != ref.Domain && ref.Digest.IsZero() {
		shown = img.Name // a distribution's own, and no registry's
	}
	if ref.Digest.IsZero() {
		shown += "@" + string(img.Manifest.Digest)
	}
	s.fromText = shown
	return nil
}

// loadContext makes a named context the base of a stage.
func (b *builder) loadContext(ctx context.Context, s *stage, c Context) error {
	if c.Image != "" {
		return b.loadImage(ctx, s, c.Image)
	}
	s.image = emptyImage(b.plan.wanted)
	s.context = &c
	return nil
}

// machine is what this machine runs.
func machine() ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

// size is a number of bytes as BuildKit's progress shows it.
func size(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%dB", n)
	}
	value, i := float64(n)/unit, 0
	for ; value >= unit && i < 3; i++ {
		value /= unit
	}
	return fmt.Sprintf("%.2f%cB", value, "kMGT"[i])
}
