// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

const (
	indexFile = "index.json"
	maxIndex  = 64 << 20
)

// entry is one image in index.json, a descriptor of its manifest. An image with two names
// has two entries; one whose names were all taken away has one without.
type entry struct {
	MediaType string           `json:"mediaType"`
	Digest    reference.Digest `json:"digest"`
	Size      int64            `json:"size"`
	Notes     notes            `json:"annotations,omitzero"`

	// foreign is the entry as another program wrote it. It is kept to the letter.
	foreign json.RawMessage
}

// notes are the annotations of an entry. What is noted about an image saves reading its
// manifest when it is run or listed.
type notes struct {
	Name   string           `json:"org.opencontainers.image.ref.name,omitempty"`
	ID     reference.Digest `json:"sbx.id,omitzero"`           // config digest
	Unpack int64            `json:"sbx.size,string,omitempty"` // bytes of its layers, unpacked
	Pulled string           `json:"sbx.pulled,omitempty"`      // RFC 3339
	Origin string           `json:"sbx.origin,omitempty"`      // of a file: what tells it has changed
	Root   reference.Digest `json:"sbx.root,omitzero"`         // of a registry: what the name stood for there
}

// isImage reports whether the entry is a manifest that this package wrote.
func (e *entry) isImage() bool { return e.foreign == nil }

var (
	indexHead = []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[`)
	indexTail = []byte("\n]}\n")
)

// formatIndex writes one entry to a line, so that an image is found without parsing the
// others.
func formatIndex(entries []entry) []byte {
	var b bytes.Buffer
	b.Write(indexHead)
	for i := range entries {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		line := entries[i].foreign
		if line == nil {
			// Strings, numbers and digests cannot fail to marshal.
			line, _ = json.Marshal(&entries[i])
		}
		b.Write(line)
	}
	b.Write(indexTail)
	return b.Bytes()
}

// parseIndex reads a whole index, ours or one that another program rewrote.
func parseIndex(data []byte) ([]entry, error) {
	var doc struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
		Layers        json.RawMessage   `json:"layers"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	if doc.SchemaVersion != 2 || doc.Layers != nil || (doc.MediaType != "" && doc.MediaType != ocispec.MediaTypeImageIndex) {
		return nil, errors.New("not an image index")
	}
	entries := make([]entry, 0, len(doc.Manifests))
	for i, raw := range doc.Manifests {
		e, err := parseEntry(raw)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// parseEntry reads one descriptor of the index.
func parseEntry(raw []byte) (entry, error) {
	var e entry
	if err := json.Unmarshal(raw, &e); err != nil {
		return entry{}, err
	}
	if e.Digest.IsZero() || e.Size < 0 {
		return entry{}, errors.New("a descriptor without digest or size")
	}
	if e.Notes.ID.IsZero() || !isManifestType(e.MediaType) {
		var line bytes.Buffer
		if err := json.Compact(&line, raw); err != nil {
			return entry{}, err
		}
		e.foreign = line.Bytes()
	}
	return e, nil
}

// readIndex reads index.json as it is now.
func (s *Store) readIndex() ([]byte, error) {
	return readSmall(s.path(indexFile), maxIndex)
}

func (s *Store) entries() ([]entry, error) {
	data, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	entries, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.path(indexFile), err)
	}
	return entries, nil
}

// find returns the images that match, all of which have needle in their line. In an index
// as formatIndex writes it only lines with needle are parsed; any other is read in whole.
func (s *Store) find(needle []byte, match func(*entry) bool) ([]entry, error) {
	data, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	if found := findLines(data, needle, match); len(found) > 0 {
		return found, nil
	}
	all, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.path(indexFile), err)
	}
	var found []entry
	for _, e := range all {
		if e.isImage() && match(&e) {
			found = append(found, e)
		}
	}
	return found, nil
}

// findLines returns nil when data is not made of lines, or when it finds nothing.
func findLines(data, needle []byte, match func(*entry) bool) []entry {
	data, ok := bytes.CutPrefix(data, indexHead)
	if !ok {
		return nil
	}
	// The longest that bytes.Index finds with vector instructions.
	needle = needle[max(0, len(needle)-63):]
	var found []entry
	for {
		i := bytes.Index(data, needle)
		if i < 0 {
			return found
		}
		start := bytes.LastIndexByte(data[:i], '\n') + 1
		end := len(data)
		if n := bytes.IndexByte(data[i:], '\n'); n >= 0 {
			end = i + n
		}
		e, err := parseEntry(bytes.TrimSuffix(data[start:end], []byte{','}))
		if err != nil {
			return nil
		}
		if e.isImage() && match(&e) {
			found = append(found, e)
		}
		data = data[end:]
	}
}

// quoteNote is how an annotation stands in a line of the index.
func quoteNote(key, value string) []byte {
	quoted, _ := json.Marshal(value) // a string can always be marshalled
	return append([]byte(`"`+key+`":`), quoted...)
}

// updateIndex replaces the entries by what change makes of them, durably. The caller
// holds the lock. makeRoom is called once when the disk is full, if it is not nil.
func (s *Store) updateIndex(change func([]entry) []entry, makeRoom func([]entry)) error {
	before, err := s.entries()
	if err != nil {
		return err
	}
	was := formatIndex(before)
	after := change(before)
	data := formatIndex(after)
	if bytes.Equal(data, was) {
		return nil
	}
	if len(data) > maxIndex {
		return errors.New("too many images")
	}
	err = s.replace(indexFile, data)
	if err != nil && isSpace(err) && makeRoom != nil {
		makeRoom(after)
		err = s.replace(indexFile, data)
	}
	return spaceError(err, s.dir, int64(len(data)))
}

// record gives an image its name. Another image that had the name goes on without one.
func (s *Store) record(ctx context.Context, e entry) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.updateIndex(func(entries []entry) []entry { return named(entries, e) }, nil)
}

// named gives the image e its name among the entries.
func named(entries []entry, e entry) []entry {
	kept := make([]entry, 0, len(entries)+1)
	done := false
	for _, old := range entries {
		switch {
		case old.isImage() && old.Notes.Name == e.Notes.Name && old.Digest == e.Digest:
			if old.Notes.Origin == e.Notes.Origin && old.Notes.Root == e.Notes.Root {
				e = old
			}
			old, done = e, true
		case old.isImage() && old.Notes.Name == e.Notes.Name:
			old.Notes.Name, old.Notes.Origin = "", "" // its root stays: it was pulled
		case old.foreign != nil && old.Notes.Name == e.Notes.Name && e.Notes.Name != "":
			continue
		}
		kept = append(kept, old)
	}
	if !done {
		kept = append(kept, e)
	}
	return dropNameless(kept)
}

// dropNameless takes out nameless entries of manifests that have another entry.
func dropNameless(entries []entry) []entry {
	named := make(map[reference.Digest]bool)
	for _, e := range entries {
		if e.Notes.Name != "" {
			named[e.Digest] = true
		}
	}
	kept := entries[:0]
	for _, e := range entries {
		if e.isImage() && e.Notes.Name == "" {
			if named[e.Digest] {
				continue
			}
			named[e.Digest] = true
		}
		kept = append(kept, e)
	}
	return kept
}
