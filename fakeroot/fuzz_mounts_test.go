// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzParseMounts reads whatever comes as mountinfo. Nothing is the container's own but
// what a line says is mounted where the options say that it is; and no file without a
// mount is anybody's.
func FuzzParseMounts(f *testing.F) {
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{
		string(own), `1 0 0:5 / / rw - overlay overlay rw`, `2 1 0:6 / /v\040w rw shared:1 - tmpfs tmpfs rw`, "3 1 x:y / / rw - overlay o rw", "- - -", "4 1 4294967296:1 / / - overlay",
		"18446744073709551616 1 0:7 / / rw - tmpfs t rw", `5 1 0:8 / / rw overlay`,
	} {
		f.Add(s, "/v w")
	}
	f.Fuzz(func(t *testing.T, text, target string) {
		m := parseMounts(text, &Options{Own: []string{target}, ForeignRoot: true})
		if n := strings.Count(text, "\n") + 1; len(m.own) > n || len(m.devices) > len(m.own) {
			t.Fatalf("%d mounts and %d devices of %d lines", len(m.own), len(m.devices), n)
		}
		if len(m.own) > 0 && !strings.Contains(unescapeMount(text), target) {
			t.Fatalf("%v of %q, and none is at %q", m.own, text, target)
		}
		if len(m.devices) == 0 && m.has(&unix.Statx_t{}, func() string { return text }) && len(m.own) == 0 {
			t.Fatalf("a file is the container's by %q", text)
		}
	})
}
