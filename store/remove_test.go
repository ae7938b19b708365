// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sbx/reference"
)

func TestRemove(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		shared, own := base(t), second(t)
		a, b := source(t, shared, own), source(t, shared)
		imgA := mustPull(t, s, alpine, a)
		mustPull(t, s, "docker.io/library/alpine:3", a)
		mustPull(t, s, "localhost/b:1", b)
		imgB, err := s.Image("localhost/b:1")
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Remove(t.Context(), imgA.ID, Roots{})
		if err != nil {
			t.Fatal(err)
		}
		want := []Removed{
			{Untagged: alpine},
			{Untagged: "docker.io/library/alpine:3"},
			{Untagged: "docker.io/library/alpine@" + string(a.desc.Digest)},
			{Deleted: imgA.ID},
			{Deleted: chainIDs(a.diffIDs)[1]},
		}
		if diff := cmp.Diff(want, got, sameDigest); diff != "" {
			t.Error(diff)
		}
		mustCheck(t, s)
		mustBeClean(t, s)
		if _, err := s.Remove(t.Context(), imgA.ID, Roots{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v", err)
		}
		if dirs, err := s.LayerDirs(t.Context(), imgB); err != nil || len(dirs) != 1 {
			t.Errorf("%q, %v", dirs, err)
		}
		if _, err := s.Remove(t.Context(), imgB.ID, Roots{}); err != nil {
			t.Fatal(err)
		}
		mustCheck(t, s)
		if left := contents(t, s); len(left) > 0 {
			t.Errorf("left %q", left)
		}
	})
}

func TestRemoveKept(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	src := source(t, base(t))
	img := mustPull(t, s, alpine, src)
	keep := Roots{Images: []reference.Digest{img.ID}, Layers: img.Layers}
	got, err := s.Remove(t.Context(), img.ID, keep)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Removed{{Untagged: alpine}, {Untagged: "docker.io/library/alpine@" + string(src.desc.Digest)}}, got, sameDigest); diff != "" {
		t.Error(diff)
	}
	mustCheck(t, s)
	nameless, err := s.ImageByID(img.ID.Hex()[:12])
	if err != nil || nameless.Name != "" {
		t.Fatalf("%q, %v", nameless.Name, err)
	}
	if _, err := s.LayerDirs(t.Context(), nameless); err != nil {
		t.Error(err)
	}
	if err := s.Collect(t.Context(), keep); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ImageByID(img.ID.Hex()[:12]); err != nil {
		t.Error(err)
	}
	if _, err := s.Remove(t.Context(), img.ID, Roots{}); err != nil {
		t.Error(err)
	}
	if left := contents(t, s); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestUntag(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	src := source(t, base(t))
	img := mustPull(t, s, alpine, src)
	mustPull(t, s, "localhost/x:1", src)
	if _, err := s.Untag(t.Context(), "localhost/y:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v", err)
	}
	got, err := s.Untag(t.Context(), "localhost/x:1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Removed{{Untagged: "localhost/x:1"}, {Untagged: "localhost/x@" + string(src.desc.Digest)}}, got, sameDigest); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Untag(t.Context(), alpine); err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
	if diff := cmp.Diff([]string{" " + img.ID.String()}, list(t, s)); diff != "" {
		t.Error(diff)
	}
	if err := s.Collect(t.Context(), Roots{}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Image(img.ID.String()); err != nil || got.ID != img.ID {
		t.Errorf("%v, %v", got, err)
	}
}

// Collection takes what nobody needs, keeps what containers need, and drops partial
// downloads.
func TestCollect(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		src := source(t, base(t), second(t))
		img := mustPull(t, s, alpine, src)
		before := contents(t, s)
		write(t, s.path(blobsDir, "sha256", digestOf(nil).Hex()), "")
		write(t, s.path(tmpDir, partialPrefix+"sha256-"+digestOf(nil).Hex()), "x")
		write(t, s.path(tmpDir, leasePrefix+"dead"), digestOf(nil).String()+"\n")
		write(t, s.path(tmpDir, importPrefix+"dead"), "x")
		for _, dir := range []string{stagePrefix + s.key + "-dead", trashPrefix + s.key + "-dead"} {
			if err := os.MkdirAll(s.path(tmpDir, dir, rootDir, "a/b"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Collect(t.Context(), Roots{}); err != nil {
			t.Fatal(err)
		}
		mustCheck(t, s)
		if diff := cmp.Diff(before, contents(t, s)); diff != "" {
			t.Error(diff)
		}
		if _, err := s.Untag(t.Context(), alpine); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Remove(t.Context(), img.ID, Roots{Layers: img.Layers[:1]}); err != nil {
			t.Fatal(err)
		}
		layers, _ := filepath.Glob(s.path(layersDir, s.key, "*"))
		if len(layers) != 1 {
			t.Errorf("layers %q; want what a container needs", layers)
		}
	})
}

// A pull in progress holds what it has found and fetched.
func TestCollectDuringPull(t *testing.T) {
	onRungs(t, "", func(t *testing.T, s *Store) {
		other, err := Open(s.dir, s.rung)
		if err != nil {
			t.Fatal(err)
		}
		src := source(t, base(t), second(t))
		var points atomic.Int64
		s.step = func(what string) {
			if what == "write "+indexFile || what == "rename "+indexFile {
				return // inside the lock of the index: a collection would wait for us
			}
			points.Add(1)
			if err := other.Collect(t.Context(), Roots{}); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		img := mustPull(t, s, alpine, src)
		if n := points.Load(); n < 10 {
			t.Errorf("%d points", n)
		}
		if _, err := s.LayerDirs(t.Context(), img); err != nil {
			t.Error(err)
		}
	})
}
