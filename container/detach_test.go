// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestParseDetachKeys(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "\x10\x11"},
		{"ctrl-p,ctrl-q", "\x10\x11"},
		{"ctrl-x", "\x18"},
		{"a", "a"},
		{"ctrl-a,a,Z,1", "\x01aZ1"},
		{"ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", "\x00\x1b\x1c\x1d\x1e\x1f"},
		{"-", "-"},
	} {
		if got, err := ParseDetachKeys(test.text); err != nil || string(got) != test.want {
			t.Errorf("%q: %q, %v; want %q", test.text, got, err, test.want)
		}
	}
	for _, text := range []string{",", "a,", "ctrl-", "ctrl-A", "ctrl-1", "ctrl-pp", "ctrl", "CTRL-p", "ctrl-p ctrl-q", "ctrl-ä"} {
		if got, err := ParseDetachKeys(text); err == nil {
			t.Errorf("%q: %q, want an error", text, got)
		}
	}
}

// readKeys types text, in reads of one key or of all, and returns what passes.
func readKeys(keys, text string, slow bool) (string, error) {
	var from io.Reader = bytes.NewReader([]byte(text))
	if slow {
		from = iotest.OneByteReader(from)
	}
	out, err := io.ReadAll(&escape{keys: []byte(keys), from: from})
	return string(out), err
}

func TestEscape(t *testing.T) {
	for _, test := range []struct {
		keys, typed, want string
		detached          bool
	}{
		{"\x10\x11", "abc", "abc", false},
		{"\x10\x11", "abc\x10\x11def", "abc", true},
		{"\x10\x11", "\x10x\x11", "\x10x\x11", false},
		{"\x10\x11", "\x10\x10\x11", "\x10", true},
		{"aab", "aaab", "a", true},
		{"aab", "aacaab", "aac", true},
		{"\x18", "\x18", "", true},
		{"", "\x10\x11", "\x10\x11", false},
	} {
		for _, slow := range []bool{false, true} {
			got, err := readKeys(test.keys, test.typed, slow)
			if got != test.want || errors.Is(err, ErrDetached) != test.detached {
				t.Errorf("keys %q, typed %q: %q, %v; want %q, %v", test.keys, test.typed, got, err, test.want, test.detached)
			}
		}
	}
}

// All keys pass up to the first whole sequence, but for a beginning of one at
// the very end.
func FuzzEscape(f *testing.F) {
	f.Add([]byte("\x10\x11"), []byte("ab\x10\x10\x11c"), true)
	f.Add([]byte("aab"), []byte("aaaab"), false)
	f.Fuzz(func(t *testing.T, keys, typed []byte, slow bool) {
		if len(keys) == 0 || len(keys) > 64 {
			return
		}
		got, err := readKeys(string(keys), string(typed), slow)
		before, _, found := bytes.Cut(typed, keys)
		if found != errors.Is(err, ErrDetached) {
			t.Fatalf("keys %q, typed %q: %v", keys, typed, err)
		}
		if found && got != string(before) {
			t.Errorf("keys %q, typed %q: %q, want %q", keys, typed, got, before)
		}
		if held, ok := bytes.CutPrefix(typed, []byte(got)); !found && (!ok || !bytes.HasPrefix(keys, held)) {
			t.Errorf("keys %q, typed %q: %q passed", keys, typed, got)
		}
	})
}

func FuzzParseDetachKeys(f *testing.F) {
	for _, s := range []string{"", "ctrl-p,ctrl-q", "a,b", "ctrl-", ",,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if keys, err := ParseDetachKeys(s); (err == nil) != (len(keys) > 0) {
			t.Errorf("%q: %q, %v", s, keys, err)
		}
	})
}
