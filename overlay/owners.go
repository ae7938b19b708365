// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Owners is the table of owners of files that cannot carry a record: symbolic
// links and pipes, and everything on a filesystem without user attributes. Its
// keys are paths in the layer as they are on disk, without a leading slash; "."
// is the root.
type Owners map[string]Owner

// Bounds of a table, so that no archive makes us hold an unbounded one.
const (
	maxOwners      = 1 << 17
	maxOwnersBytes = 16 << 20 // of paths and attributes
	maxOwnersFile  = 64 << 20 // as JSON
)

// ownersFile is a table on disk. Strings are escaped, see escape.
type ownersFile struct {
	Version int                          `json:"version"`
	Owners  map[string]string            `json:"owners"`
	Xattrs  map[string]map[string]string `json:"xattrs,omitempty"`
}

const ownersVersion = 1

// MarshalJSON writes the table sorted by path; any bytes a path holds survive.
func (t Owners) MarshalJSON() ([]byte, error) {
	file := ownersFile{Version: ownersVersion, Owners: make(map[string]string, len(t))}
	for path, o := range t {
		key := escape(path)
		file.Owners[key] = o.Record()
		if len(o.Xattrs) == 0 {
			continue
		}
		if file.Xattrs == nil {
			file.Xattrs = map[string]map[string]string{}
		}
		attrs := make(map[string]string, len(o.Xattrs))
		for name, value := range o.Xattrs {
			attrs[escape(name)] = escape(value)
		}
		file.Xattrs[key] = attrs
	}
	return json.Marshal(file)
}

// UnmarshalJSON reads what MarshalJSON wrote and refuses everything else.
func (t *Owners) UnmarshalJSON(data []byte) error {
	if len(data) > maxOwnersFile {
		return fmt.Errorf("read owners: %w", errOwnersSize)
	}
	var file ownersFile
	if err := json.Unmarshal(data, &file); err != nil {
		return fmt.Errorf("read owners: %w", err)
	}
	if file.Version != ownersVersion {
		return fmt.Errorf("read owners: version %d is not known here", file.Version)
	}
	table := make(Owners, len(file.Owners))
	for key, record := range file.Owners {
		path, ok := unescape(key)
		if !ok || !isTablePath(path) {
			return fmt.Errorf("read owners: %.64q is no path in a layer", key)
		}
		o, err := ParseRecord(record)
		if err != nil {
			return fmt.Errorf("read owners: %w", err)
		}
		if o.Xattrs, err = unescapeXattrs(file.Xattrs[key]); err != nil {
			return err
		}
		table[path] = o
	}
	for key := range file.Xattrs {
		if _, ok := file.Owners[key]; !ok {
			return fmt.Errorf("read owners: %.64q has attributes and no owner", key)
		}
	}
	*t = table
	return nil
}

var errOwnersSize = errors.New("the table is too large")

func unescapeXattrs(attrs map[string]string) (map[string]string, error) {
	if len(attrs) == 0 {
		return nil, nil
	}
	got := make(map[string]string, len(attrs))
	for k, v := range attrs {
		name, ok1 := unescape(k)
		value, ok2 := unescape(v)
		if !ok1 || !ok2 || name == "" {
			return nil, fmt.Errorf("read owners: %.64q is no attribute", k)
		}
		got[name] = value
	}
	return got, nil
}

// Save writes the table as JSON, the same bytes for the same table.
func (t Owners) Save(w io.Writer) error {
	data, err := t.MarshalJSON()
	if err != nil {
		return fmt.Errorf("save owners: %w", err)
	}
	if _, err := w.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("save owners: %w", err)
	}
	return nil
}

// ReadOwners is LoadOwners of a file. There is none, and no owners, where every file
// carries its own record.
func ReadOwners(path string) (Owners, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return LoadOwners(f)
}

// LoadOwners reads a table that Save wrote. It reads a bounded amount and trusts
// nothing in it.
func LoadOwners(r io.Reader) (Owners, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxOwnersFile+1))
	if err != nil {
		return nil, fmt.Errorf("read owners: %w", err)
	}
	var t Owners
	if err := t.UnmarshalJSON(data); err != nil {
		return nil, err
	}
	return t, nil
}

// isTablePath reports whether a path is one that Unpack makes keys of.
func isTablePath(path string) bool {
	if path == "." {
		return true
	}
	clean, err := cleanName(path)
	return err == nil && clean == path && path != ""
}

// escape makes any bytes valid UTF-8: a byte that is not part of a valid
// character, and the percent sign, become %XX.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if r == '%' || r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, "%%%02X", s[0])
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

func unescape(s string) (string, bool) {
	if !strings.Contains(s, "%") {
		return s, true
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "%")
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		if len(rest) < 2 {
			return "", false
		}
		n, err := strconv.ParseUint(rest[:2], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(n))
		s = rest[2:]
	}
}

// An ownerTable is a table while it grows.
type ownerTable struct {
	owners Owners
	bytes  int
}

// set gives path an owner, or takes it away when o says nothing.
func (t *ownerTable) set(path string, o Owner) error {
	if path == "" {
		path = "."
	}
	if !o.needsRecord() {
		t.forget(path)
		return nil
	}
	if t.owners == nil {
		t.owners = Owners{}
	}
	t.forget(path)
	t.bytes += sizeOf(path, o)
	if len(t.owners) >= maxOwners {
		return &LimitError{What: "owners that this filesystem cannot record", Max: maxOwners}
	}
	if t.bytes > maxOwnersBytes {
		return &LimitError{What: "bytes of owners that this filesystem cannot record", Max: maxOwnersBytes}
	}
	t.owners[path] = o
	return nil
}

// forget takes the owner of path away: the file is gone, or carries its own.
func (t *ownerTable) forget(path string) {
	if len(t.owners) == 0 {
		return
	}
	if path == "" {
		path = "."
	}
	if o, ok := t.owners[path]; ok {
		t.bytes -= sizeOf(path, o)
		delete(t.owners, path)
	}
}

// table is what there is in the end, nil if that is nothing.
func (t *ownerTable) table() Owners {
	if len(t.owners) == 0 {
		return nil
	}
	return t.owners
}

func sizeOf(path string, o Owner) int {
	n := len(path)
	for name, value := range o.Xattrs {
		n += len(name) + len(value)
	}
	return n
}
