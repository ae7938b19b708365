// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sbx/bases"
	"sbx/fetch"
)

// Where a name is looked for is decided on the word as it was typed.
func TestSources(t *testing.T) {
	const both = "catalog registry"
	for _, test := range []struct{ config, typed, name, want string }{
		{"", "alpine", "base.sbx/alpine:latest", both},
		{"", "alpine:3.20", "base.sbx/alpine:3.20", both},
		{"", "arch", "base.sbx/archlinux:latest", both},
		{"", "rocky:9", "base.sbx/rockylinux:9", both},
		{"", "docker.io/library/alpine", "", "registry"},
		{"", "library/alpine", "", "registry"},
		{"", "localhost/alpine", "", "registry"},
		{"", "alpine@sha256:" + strings.Repeat("0", 64), "", "registry"},
		{"", "nginx", "", "registry"},
		{"", "busybox:latest", "", "registry"},
		{"", "base.sbx/alpine", "base.sbx/alpine:latest", "catalog"},
		{"", "base.sbx/gone:1", "base.sbx/gone:1", "catalog"},
		{"[bases]\norder = [\"registry\", \"catalog\"]\n", "alpine", "base.sbx/alpine:latest", "registry catalog"},
		{"[bases]\norder = [\"registry\"]\n", "alpine", "base.sbx/alpine:latest", "registry"},
		{"[bases]\norder = [\"registry\"]\n", "base.sbx/alpine", "base.sbx/alpine:latest", "catalog"},
		{"[short-names]\ndefault = \"lab.test\"\n", "alpine", "base.sbx/alpine:latest", "registry"},
		{"[short-names.aliases]\nalpine = \"lab.test/alpine\"\n", "alpine:3", "base.sbx/alpine:3", "registry"},
		{"[short-names.aliases]\nalpine = \"lab.test/alpine\"\n", "debian", "base.sbx/debian:latest", both},
	} {
		c, _ := configClient(t, test.config)
		name, sources, err := c.sources(test.typed)
		got := ""
		if name.Name != "" {
			got = name.String()
		}
		if err != nil || got != test.name || strings.Join(sources, " ") != test.want {
			t.Errorf("%s with %q: %s from %v, error %v; want %s from %s", test.typed, test.config, got, sources, err, test.name, test.want)
		}
	}
}

// Another source is asked where one did not answer, and never in place of one that
// answered something wrong.
func TestMayBeElsewhere(t *testing.T) {
	for err, want := range map[error]bool{
		fmt.Errorf("pull: %w", &bases.ElsewhereError{}):           true,
		&fetch.Error{Registry: "docker.io"}:                       true,
		&fetch.Error{Registry: "docker.io", Status: 429}:          true,
		&fetch.Error{Registry: "docker.io", Status: 503}:          true,
		&fetch.Error{Registry: "docker.io", Status: 401}:          false,
		&fetch.Error{Registry: "docker.io", Status: 404}:          false,
		errors.New("verify SHA256SUMS: no good signature"):        false,
		&fetch.Error{Cause: errors.New("a file of this machine")}: false,
	} {
		if got := mayBeElsewhere(err); got != want {
			t.Errorf("%#v: %v, want %v", err, got, want)
		}
	}
}

func TestBasesConfig(t *testing.T) {
	for text, want := range map[string]string{
		"[bases]\norder = [\"hub\"]\n":              `bases.order: "hub" is neither catalog nor registry`,
		"[bases.keys]\nalpine = \"alpine.gpg\"\n":   `bases.keys.alpine: "alpine.gpg" is not an absolute path`,
		"[bases.mirrors]\nalpine = [\"ftp://x\"]\n": "is not an http or https URL",
	} {
		c, _ := configClient(t, text)
		if _, err := c.config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}
