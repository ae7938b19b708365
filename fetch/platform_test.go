// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	host := DefaultPlatform()
	if host.OS != "linux" || host.Architecture != runtime.GOARCH {
		t.Fatalf("DefaultPlatform() = %+v", host)
	}
	for _, tt := range []struct {
		in   string
		want ocispec.Platform
	}{
		{"linux/amd64", ocispec.Platform{OS: "linux", Architecture: "amd64"}},
		{"linux/amd64/v1", ocispec.Platform{OS: "linux", Architecture: "amd64"}},
		{"linux/amd64/v3", ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}},
		{"linux/arm64", ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		{"linux/arm64/v8", ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		{"LINUX/ARM64/V8", ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		{"linux/arm", ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
		{"linux/arm/6", ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}},
		{"amd64", ocispec.Platform{OS: "linux", Architecture: "amd64"}},
		{"x86_64", ocispec.Platform{OS: "linux", Architecture: "amd64"}},
		{"aarch64", ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		{"armhf", ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}},
		{"armel", ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}},
		{"i386", ocispec.Platform{OS: "linux", Architecture: "386"}},
		{"linux", host},
		{"windows/amd64", ocispec.Platform{OS: "windows", Architecture: "amd64"}},
	} {
		got, err := ParsePlatform(tt.in)
		if err != nil {
			t.Errorf("ParsePlatform(%q): %v", tt.in, err)
		} else if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("ParsePlatform(%q) (-want +got):\n%s", tt.in, diff)
		}
	}
	for _, bad := range []string{"", "/", "linux/", "/amd64", "linux//v8", "linux/arm/v7/x", "vax", "beos/ppc", "linux amd64", "linux/\x1b[2J", "linux/../..", "linux/" + strings.Repeat("a", 40)} {
		_, err := ParsePlatform(bad)
		wantError(t, err, "parse platform")
	}
}

func TestRank(t *testing.T) {
	for _, tt := range []struct {
		want, have string
		ok         bool
	}{
		{"linux/amd64", "linux/amd64", true},
		{"linux/amd64", "linux/amd64/v2", false},
		{"linux/amd64/v3", "linux/amd64/v2", true},
		{"linux/amd64/v3", "linux/amd64", true},
		{"linux/arm64", "linux/arm64/v8", true},
		{"linux/arm64/v9", "linux/arm64", true},
		{"linux/arm64", "linux/arm64/v9", false},
		{"linux/arm/v7", "linux/arm/v6", true},
		{"linux/arm/v6", "linux/arm/v7", false},
		{"linux/arm/v7", "linux/arm/odd", false},
		{"linux/amd64", "windows/amd64", false},
		{"linux/amd64", "linux/386", false},
	} {
		want, err := ParsePlatform(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		have, err := ParsePlatform(tt.have)
		if err != nil {
			t.Fatal(err)
		}
		if got := rank(want, have) > 0; got != tt.ok {
			t.Errorf("%s for %s: %v", tt.have, tt.want, got)
		}
	}
	v7 := ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	v6, v5 := v7, v7
	v6.Variant, v5.Variant = "v6", "v5"
	if !(rank(v7, v7) > rank(v7, v6) && rank(v7, v6) > rank(v7, v5)) {
		t.Error("a nearer variant does not rank higher")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode €": "plain ünïcode €",
		"\x1b[31m":        `\x1b[31m`,
		"a\nb\rc\td\x00":  `a\nb\x0dc\x09d\x00`,
		"\u202e\u009b":    `\u202e\u009b`,
		"\xff\xfe":        `\xff\xfe`,
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := clean(strings.Repeat("x", 1<<20)); len(got) > 5000 {
		t.Errorf("%d bytes", len(got))
	}
}
