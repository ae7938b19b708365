// SPDX-License-Identifier: Apache-2.0

package store

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sbx/reference"
)

// What a step has made is known by its key, to another process too, until it is
// forgotten; a record that is torn, or of a layer whose blob has gone, counts as none.
func TestStepCache(t *testing.T) {
	onRungs(t, "steps", func(t *testing.T, s *Store) {
		needUserns(t)
		d, err := s.NewDraft(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		data := tarOf(t, file{name: "f", data: "made by a step"})
		l, err := d.AddPacked(t.Context(), nil, func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		key, other, nothing := digestOf([]byte("key")), digestOf([]byte("other")), digestOf([]byte("nothing"))
		made := StepLayer{Layer: l, Created: time.Unix(1700000000, 0).UTC()}
		for _, k := range []reference.Digest{key, other} {
			if err := s.CacheLayer(k, made); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CacheLayer(nothing, StepLayer{}); err != nil {
			t.Fatal(err)
		}
		d.Close()

		got, ok := openAgain(t, s).CachedLayer(key)
		if diff := cmp.Diff(made, got, cmp.Comparer(func(a, b reference.Digest) bool { return a == b })); !ok || diff != "" {
			t.Errorf("cached: %v (-want +got):\n%s", ok, diff)
		}
		if got, ok := s.CachedLayer(nothing); !ok || got.Layer.Entries != 0 {
			t.Errorf("a step without a layer: %+v, %v", got, ok)
		}
		if _, ok := s.CachedLayer(digestOf([]byte("unknown"))); ok {
			t.Error("a step that nobody made is known")
		}

		// The longest unused first; the cache keeps layers from being collected.
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(s.stepPath(other), old, old); err != nil {
			t.Fatal(err)
		}
		steps, err := s.CachedSteps()
		if err != nil || len(steps) != 3 || steps[0].Key != other {
			t.Errorf("steps: %+v, %v", steps, err)
		}
		if err := s.Collect(t.Context(), Roots{}); err != nil {
			t.Fatal(err)
		}
		if kept := keep(t, s, l); !kept {
			t.Error("the layer of a cached step was collected")
		}

		if err := os.WriteFile(s.stepPath(other), []byte(`{"layer":{"entr`), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.CachedLayer(other); ok {
			t.Error("a torn record was believed")
		}
		if steps, err := s.CachedSteps(); err != nil || len(steps) != 2 {
			t.Errorf("steps beside a torn one: %+v, %v", steps, err)
		}
		for range 2 { // somebody else may have been faster
			if err := s.ForgetStep(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Collect(t.Context(), Roots{}); err != nil {
			t.Fatal(err)
		}
		if kept := keep(t, s, l); kept {
			t.Error("a forgotten step's layer is still there")
		}
		mustCheck(t, s)
	})
}

// keep reports whether a layer's blob is there.
func keep(t *testing.T, s *Store, l Layer) bool {
	t.Helper()
	d, err := s.NewDraft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	whole, err := d.Keep(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return whole
}

// openAgain is the store as another process opens it.
func openAgain(t *testing.T, s *Store) *Store {
	t.Helper()
	again, err := Open(s.dir, s.rung)
	if err != nil {
		t.Fatal(err)
	}
	return again
}
