// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func lookupIn(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}
}

func TestReadPairs(t *testing.T) {
	in := "\uFEFFA=1\n# comment\n\n  \n \tB= x \nC=\"q\" # no comment\nSET\nUNSET\nD==\nE=a=b\nF=\r\n"
	got, err := readPairs(strings.NewReader(in), lookupIn(map[string]string{"SET": "from outside"}))
	want := []string{"A=1", "B= x ", `C="q" # no comment`, "SET=from outside", "D==", "E=a=b", "F="}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, tt := range []struct{ in, want string }{
		{"A=1\n=x\n", "line 2: no variable name"},
		{"A B=1\n", "line 1: variable 'A B' contains whitespaces"},
		{"A\t=1\n", "line 1: variable 'A\t' contains whitespaces"},
		{"A=\xff\n", "line 1: not UTF-8 text"},
		{"A=\x00\n", "line 1: not UTF-8 text"},
		{"A=" + strings.Repeat("x", maxPairLine), "a line is longer than 65536 bytes"},
	} {
		if _, err := readPairs(strings.NewReader(tt.in), lookupIn(nil)); err == nil || err.Error() != tt.want {
			t.Errorf("%.20q: got %v, want %s", tt.in, err, tt.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("A=file\nSET\nUNSET\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lookup := lookupIn(map[string]string{"SET": "", "OTHER": "o"})
	got, err := environment([]string{file}, []string{"A=1,2", "OTHER", "GONE", "E=", "E=a b"}, lookup)
	// GONE stays as a name: it takes the image's value away, as on Docker.
	want := []string{"A=file", "SET=", "A=1,2", "OTHER=o", "GONE", "E=", "E=a b"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"", "=x", "A=\x00"} {
		if _, err := environment(nil, []string{bad}, lookup); err == nil {
			t.Errorf("-e %q: no error", bad)
		}
	}
	if _, err := environment([]string{file + "-none"}, nil, lookup); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing file: %v", err)
	}
}

func TestLabels(t *testing.T) {
	file := filepath.Join(t.TempDir(), "labels")
	if err := os.WriteFile(file, []byte("a=file\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := labels([]string{file}, []string{"a=flag", "c", "d=x=y"})
	want := map[string]string{"a": "flag", "b": "", "c": "", "d": "x=y"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := labels(nil, nil); got != nil || err != nil {
		t.Errorf("no labels: %v, %v", got, err)
	}
}

func FuzzReadPairs(f *testing.F) {
	for _, s := range []string{"A=1\nB\n#c\n", "\uFEFFA=1", " =\n", "A=\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pairs, err := readPairs(strings.NewReader(s), func(string) (string, bool) { return "v", true })
		if err != nil {
			return
		}
		for _, p := range pairs {
			name, _, ok := strings.Cut(p, "=")
			if !ok || name == "" || strings.ContainsAny(p, "\n\x00") || strings.ContainsAny(name, " \t") {
				t.Errorf("%q: pair %q", s, p)
			}
		}
	})
}
