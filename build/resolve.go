// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"fmt"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"sbx/reference"
)

// resolve finds the images of the stages that are needed, all at once, and the
// triggers that they bring; these may need further stages. load fills the image
// of a stage that has no other stage as its base.
func (p *plan) resolve(ctx context.Context, load func(context.Context, *stage) error) error {
	for {
		var open []*stage
		for _, s := range p.stages {
			if s.needed && !s.resolved {
				open = append(open, s)
			}
		}
		if len(open) == 0 {
			return p.layout()
		}
		g, ctx := errgroup.WithContext(ctx)
		for _, s := range open {
			if s.base != nil {
				continue
			}
			g.Go(func() error {
				if s.baseName == scratch && !s.replaced {
					s.image = emptyImage(p.wanted)
					return nil
				}
				return p.file.at(load(ctx, s), s.location)
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, s := range open {
			s.resolved = true
			if s.implied {
				continue
			}
			if err := s.parseTriggers(s.baseTriggers()); err != nil {
				return err
			}
			for _, on := range s.sources {
				on.need()
			}
		}
	}
}

// layout plans the needed stages, which stand in an order in which each comes
// after its base.
func (p *plan) layout() error {
	if err := p.checkCycles(); err != nil {
		return err
	}
	for _, s := range p.stages {
		if !s.needed {
			continue
		}
		if err := s.layout(); err != nil {
			return err
		}
	}
	return nil
}

// wantedPlatform is what the base image of a stage is to be for.
func (s *stage) wantedPlatform() ocispec.Platform {
	if s.platform != nil {
		return *s.platform
	}
	return s.plan.wanted
}

// checkName refuses a base that is no image reference.
func (s *stage) checkName() error {
	if _, err := reference.Parse(s.baseName); err != nil {
		return fmt.Errorf("parse stage name %q: %w", s.baseName, err)
	}
	return nil
}

// emptyImage is the config of a stage from scratch.
func emptyImage(p ocispec.Platform) dockerspec.DockerOCIImage {
	img := dockerspec.DockerOCIImage{}
	img.Platform = p
	img.RootFS.Type = "layers"
	img.Config.WorkingDir = "/"
	img.Config.Env = []string{"PATH=" + defaultPath}
	return img
}
