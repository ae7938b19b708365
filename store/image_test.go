// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImage(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	src := source(t, base(t))
	img := mustPull(t, s, alpine, src)
	byDigest := "docker.io/library/alpine@" + string(src.desc.Digest)
	for _, name := range []string{alpine, string(src.desc.Digest), img.ID.String(), byDigest} {
		got, err := s.Image(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(img, got, sameDigest); diff != "" {
			t.Error(diff)
		}
	}
	for _, name := range []string{"", "alpine", "docker.io/library/alpine", alpine + "x", `"`, img.ID.Hex(), "docker.io/library/other@" + string(src.desc.Digest), "sha256:" + strings.Repeat("0", 64), alpine + "\n"} {
		if _, err := s.Image(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("Image(%q): %v", name, err)
		}
	}
	for _, prefix := range []string{img.ID.Hex()[:3], img.ID.Hex()[:12], img.ID.Hex(), img.ID.String(), img.ID.String()[:11]} {
		if got, err := s.ImageByID(prefix); err != nil || got.ID != img.ID || got.Name != alpine {
			t.Errorf("ImageByID(%q): %v", prefix, err)
		}
	}
	for _, prefix := range []string{"", img.ID.Hex()[:2], "sha256:", strings.ToUpper(img.ID.Hex()), "zzz", img.ID.Hex() + "0", `abc"`} {
		if _, err := s.ImageByID(prefix); !errors.Is(err, ErrNotFound) {
			t.Errorf("ImageByID(%q): %v", prefix, err)
		}
	}
}

func TestImageByIDAmbiguous(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	first := make(map[string]string)
	for i := 0; ; i++ {
		src := source(t)
		src.setConfig(t, fmt.Appendf(nil, `{"rootfs":{"type":"layers"},"i":%d}`, i))
		digits := src.config.Digest.Encoded()[:3]
		name := fmt.Sprintf("localhost/i:%d", i)
		if _, err := s.Pull(t.Context(), name, src, PullOptions{}); err != nil {
			t.Fatal(err)
		}
		if first[digits] != "" {
			if _, err := s.ImageByID(digits); !errors.Is(err, ErrAmbiguous) {
				t.Errorf("error %v", err)
			}
			break
		}
		first[digits] = name
	}
	mustCheck(t, s)
}

// Names are any bytes that a path may have, and mean one image each.
func TestStrangeNames(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	names := []string{"/a b/\"c\".tar", "/<&>.tar", "/x\ny", "/\u2028", "https://h/x?y=\"sbx.id\":\"", "/caf\xe9", `/\`, "/" + strings.Repeat("n", 5000), `"org.opencontainers.image.ref.name":"x"`}
	src := make(map[string]string)
	for i, name := range names {
		img := mustPull(t, s, name, source(t, tarOf(t, file{name: fmt.Sprint(i), data: "x"})))
		src[name] = img.ID.String()
	}
	for _, name := range names {
		if img, err := s.Image(name); err != nil || img.ID.String() != src[name] {
			t.Errorf("Image(%q): %v, %v", name, img.ID, err)
		}
	}
	if _, err := s.Image("x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a name inside a name was found: %v", err)
	}
	if _, err := s.Pull(t.Context(), "", source(t), PullOptions{}); err == nil {
		t.Error("an empty name is accepted")
	}
}

// A name that moves leaves the old image without one; taking it back drops that entry.
func TestNameMoves(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	one, two := source(t, base(t)), source(t, second(t))
	mustPull(t, s, alpine, one)
	mustPull(t, s, alpine, two)
	if diff := cmp.Diff([]string{alpine + " " + string(two.config.Digest), " " + string(one.config.Digest)}, list(t, s)); diff != "" {
		t.Error(diff)
	}
	mustPull(t, s, "localhost/two:1", two)
	mustPull(t, s, alpine, one)
	want := []string{alpine + " " + string(one.config.Digest), "localhost/two:1 " + string(two.config.Digest)}
	if diff := cmp.Diff(want, list(t, s)); diff != "" {
		t.Error(diff)
	}
	names, err := s.Names(mustDigest(t, string(two.config.Digest)))
	if err != nil || !slices.Equal(names, []string{"localhost/two:1"}) {
		t.Errorf("%q, %v", names, err)
	}
}

// list is name and ID of each image, sorted, those without a name last.
func list(t testing.TB, s *Store) []string {
	t.Helper()
	images, err := s.Images()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, img := range images {
		lines = append(lines, img.Name+" "+img.ID.String())
	}
	slices.SortFunc(lines, func(a, b string) int {
		if (a[0] == ' ') != (b[0] == ' ') {
			if a[0] == ' ' {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	return lines
}

// An image whose config is damaged is listed, so that it can be removed.
func TestImagesWithDamage(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	img := mustPull(t, s, alpine, source(t, base(t)))
	write(t, s.blobPath(img.ID), "{}")
	if _, err := s.Image(alpine); err == nil || !strings.Contains(err.Error(), "wrong content") || hintOf(err) == "" {
		t.Errorf("error %v", err)
	}
	images, err := s.Images()
	if err != nil || len(images) != 1 || images[0].Name != alpine || images[0].ID != img.ID {
		t.Errorf("%+v, %v", images, err)
	}
	if _, err := s.Remove(t.Context(), img.ID, Roots{}); err != nil {
		t.Error(err)
	}
	mustCheck(t, s)
	mustPull(t, s, alpine, source(t, base(t)))
}

// The index may have been rewritten by another program: in another form, with entries
// that mean nothing to us.
func TestForeignIndex(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	src := source(t, base(t))
	img := mustPull(t, s, alpine, src)
	data, err := s.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	foreign := map[string]any{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": "sha256:" + strings.Repeat("1", 64), "size": 7, "x": "y",
		"annotations": map[string]any{"org.opencontainers.image.ref.name": "theirs", "k": "v"}}
	doc["manifests"] = append(doc["manifests"].([]any), foreign)
	pretty, _ := json.MarshalIndent(doc, "", "   ")
	write(t, s.path(indexFile), string(pretty))

	if got, err := s.Image(alpine); err != nil || got.ID != img.ID {
		t.Errorf("%v, %v", got.ID, err)
	}
	if _, err := s.Image("theirs"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if got := list(t, s); len(got) != 1 {
		t.Errorf("%q", got)
	}
	mustPull(t, s, "localhost/b:1", source(t, second(t)))
	if err := s.Collect(t.Context(), Roots{}); err != nil {
		t.Fatal(err)
	}
	data, _ = s.readIndex()
	if !strings.Contains(string(data), `"x":"y"`) || !strings.Contains(string(data), `"k":"v"`) {
		t.Errorf("the foreign entry is lost: %s", data)
	}
	if _, err := s.Untag(t.Context(), "theirs"); err != nil {
		t.Error(err)
	}
	data, _ = s.readIndex()
	if strings.Contains(string(data), `"x":"y"`) {
		t.Errorf("the foreign entry is still there: %s", data)
	}
}

// A store whose index is gone or damaged says so; it is not an empty store, whose blobs
// could be collected.
func TestIndexDamage(t *testing.T) {
	s := newStore(t, rungs(t)[0])
	img := mustPull(t, s, alpine, source(t, base(t)))
	good, err := s.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{", "null", "[]", `{"schemaVersion":2,"manifests":[{}]}`, `{"schemaVersion":2,"manifests":[null]}`, `{"schemaVersion":2,"manifests":[],"layers":[]}`, string(good[:len(good)-8])} {
		write(t, s.path(indexFile), bad)
		if _, err := s.Image("localhost/none:1"); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%q: Image: %v", bad, err)
		}
		if _, err := s.Images(); err == nil {
			t.Errorf("%q: Images succeeds", bad)
		}
		if err := s.Collect(t.Context(), Roots{}); err == nil {
			t.Errorf("%q: Collect succeeds", bad)
		}
		if _, err := s.Remove(t.Context(), img.ID, Roots{}); err == nil {
			t.Errorf("%q: Remove succeeds", bad)
		}
		if s.Check(t.Context()) == nil {
			t.Errorf("%q: Check succeeds", bad)
		}
	}
	if err := os.Remove(s.path(indexFile)); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(t.Context(), Roots{}); err == nil {
		t.Error("Collect succeeds without an index")
	}
	write(t, s.path(indexFile), string(good))
	mustCheck(t, s)
}

func FuzzIndex(f *testing.F) {
	good := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("a", 64) + `","size":7,"annotations":{"org.opencontainers.image.ref.name":"n","sbx.id":"sha256:` + strings.Repeat("b", 64) + `"}}`
	f.Add([]byte(string(indexHead)+"\n"+good+string(indexTail)), "n")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[`+good+`]}`), "n")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"x"}]}`), "")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		match := func(e *entry) bool { return e.Notes.Name == name }
		fast := findLines(data, quoteNote("org.opencontainers.image.ref.name", name), match)
		entries, err := parseIndex(data)
		if err != nil {
			return
		}
		for _, e := range entries {
			if e.Digest.IsZero() || e.Size < 0 || (e.isImage() && e.Notes.ID.IsZero()) {
				t.Fatalf("entry %+v", e)
			}
		}
		// What we write we read again, and find in both ways.
		ours := formatIndex(entries)
		again, err := parseIndex(ours)
		if err != nil || string(formatIndex(again)) != string(ours) {
			t.Fatalf("%q: %v", ours, err)
		}
		var slow int
		for _, e := range again {
			if e.isImage() && match(&e) {
				slow++
			}
		}
		found := len(findLines(ours, quoteNote("org.opencontainers.image.ref.name", name), match))
		if found != slow && strings.ToValidUTF8(name, "") == name {
			t.Fatalf("%q: found %d, there are %d", ours, found, slow)
		}
		_ = fast
	})
}

func FuzzManifest(f *testing.F) {
	src := source(f, tarOf(f, file{name: "x", data: "y"}))
	f.Add(src.manifest, "")
	f.Add(src.manifest, dockerManifest)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`), "")
	f.Fuzz(func(t *testing.T, data []byte, mediaType string) {
		m, err := parseManifest(data, mediaType)
		if err != nil {
			return
		}
		for _, d := range append(m.layers, m.config) {
			if d.digest.IsZero() || d.Size < 0 || d.digest.String() != string(d.Digest) || strings.ContainsAny(d.digest.Hex(), "/.\x00") {
				t.Fatalf("descriptor %+v", d)
			}
		}
	})
}

func FuzzConfig(f *testing.F) {
	src := source(f, tarOf(f, file{name: "x", data: "y"}))
	f.Add(src.blobs[string(src.config.Digest)])
	f.Add([]byte(`{"rootfs":{"diff_ids":["x"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, layers, err := parseConfig(data)
		if err == nil && len(layers) != len(c.RootFS.DiffIDs) {
			t.Fatalf("%d layers for %d diff IDs", len(layers), len(c.RootFS.DiffIDs))
		}
		for _, d := range layers {
			if d.IsZero() || strings.ContainsAny(d.Hex(), "/.\x00") {
				t.Fatalf("diff ID %q", d)
			}
		}
	})
}
