// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"sbx/reference"
)

// The layers that steps of builds have made, by the keys of the steps. A record is a file
// cache/steps/HEX, whose time says when it was last used. Like blobs, records come into
// being by a rename, and any number of processes may make the same. They are not synced: one
// that the last power loss has torn, or whose blob is gone, counts as none.

const (
	stepsDir     = "cache/steps"
	maxStepCache = 64 << 10
)

// CachedStep is a step whose layer is kept.
type CachedStep struct {
	Key reference.Digest
	StepLayer
	Used time.Time
}

// StepLayer is the layer of a step, and when the step was evaluated.
type StepLayer struct {
	Layer   Layer     `json:"layer"`
	Created time.Time `json:"created"`
}

func (s *Store) stepPath(key reference.Digest) string { return s.path(stepsDir, key.Hex()) }

// CachedLayer returns the layer that the step with a key has made, if that is known. It
// counts as used now. The layer may be garbage unless a Draft keeps it.
func (s *Store) CachedLayer(key reference.Digest) (StepLayer, bool) {
	l, err := s.readStep(s.stepPath(key))
	if err != nil {
		return StepLayer{}, false
	}
	now := time.Now()
	_ = os.Chtimes(s.stepPath(key), now, now)
	return l, true
}

func (s *Store) readStep(path string) (StepLayer, error) {
	data, err := readSmall(path, maxStepCache)
	var l StepLayer
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	if err == nil && l.Layer.DiffID.IsZero() && l.Layer.Entries > 0 {
		err = errors.New("a layer without diff ID")
	}
	return l, err
}

// CacheLayer remembers the layer that the step with a key has made.
func (s *Store) CacheLayer(key reference.Digest, l StepLayer) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	next := s.path(tmpDir, importPrefix+randomName())
	err = os.WriteFile(next, data, 0o600)
	if err == nil {
		if err = os.Rename(next, s.stepPath(key)); errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(s.path(stepsDir), 0o700); err == nil {
				err = os.Rename(next, s.stepPath(key))
			}
		}
	}
	if err != nil {
		os.Remove(next)
		return fmt.Errorf("remember step: %w", spaceError(err, s.dir, 0))
	}
	return nil
}

// CachedSteps returns all that is remembered, the longest unused first.
func (s *Store) CachedSteps() ([]CachedStep, error) {
	names, err := os.ReadDir(s.path(stepsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list steps: %w", err)
	}
	var steps []CachedStep
	for _, n := range names {
		key, err := reference.ParseDigest("sha256:" + n.Name())
		fi, statErr := n.Info()
		if err != nil || statErr != nil {
			continue
		}
		l, err := s.readStep(s.stepPath(key))
		if err != nil {
			_ = removeFile(s.stepPath(key)) // torn, or nobody's
			continue
		}
		steps = append(steps, CachedStep{Key: key, StepLayer: l, Used: fi.ModTime()})
	}
	slices.SortFunc(steps, func(a, b CachedStep) int { return a.Used.Compare(b.Used) })
	return steps, nil
}

// ForgetStep takes a step out of the cache. Its layer goes with the next Collect, if nobody
// else needs it.
func (s *Store) ForgetStep(_ context.Context, key reference.Digest) error {
	return removeFile(s.stepPath(key))
}

// markSteps marks what the cache needs.
func (s *Store) markSteps(needed map[reference.Digest]bool) error {
	steps, err := s.CachedSteps()
	if err != nil {
		return err
	}
	for _, st := range steps {
		if st.Layer.Entries == 0 {
			continue
		}
		needed[st.Layer.DiffID] = true
		if blob, err := reference.ParseDigest(strings.TrimSpace(string(st.Layer.Blob.Digest))); err == nil {
			needed[blob] = true
		}
	}
	return nil
}
