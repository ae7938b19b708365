// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// DefaultPlatform is this machine's: linux, the architecture and its usual variant.
func DefaultPlatform() ocispec.Platform {
	return normalize(ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH})
}

// ParsePlatform reads "linux/arm64/v8", "linux/amd64", an architecture alone ("arm64",
// "x86_64") or a system alone ("linux"), as Docker's --platform takes them.
func ParsePlatform(s string) (ocispec.Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	if slices.ContainsFunc(parts, func(p string) bool { return !plainWord(p) }) || len(parts) > 3 {
		return ocispec.Platform{}, platformError(s, "want OS/ARCHITECTURE[/VARIANT], such as linux/arm64")
	}
	host := DefaultPlatform()
	switch {
	case len(parts) == 1 && isSystem(parts[0]):
		host.OS = parts[0]
		return host, nil
	case len(parts) == 1:
		p := normalize(ocispec.Platform{OS: host.OS, Architecture: parts[0]})
		if !isArchitecture(p.Architecture) {
			return ocispec.Platform{}, platformError(s, "unknown system or architecture")
		}
		return p, nil
	case !isSystem(parts[0]):
		return ocispec.Platform{}, platformError(s, "unknown system")
	}
	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return normalize(p), nil
}

func platformError(s, cause string) error {
	return &Error{Op: fmt.Sprintf("parse platform %q", s), Cause: fmt.Errorf("%s", cause)}
}

// plainWord matches what the OCI specification's GOOS, GOARCH and variants consist of.
func plainWord(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	return s != "" && len(s) <= 32 && strings.Contains(letters, s[:1]) && strings.Trim(s, letters+"._-") == ""
}

func isSystem(s string) bool {
	return slices.Contains([]string{"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "aix", "android", "illumos", "plan9", "wasip1"}, s)
}

func isArchitecture(s string) bool {
	return slices.Contains([]string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"}, s)
}

// normalize gives one spelling to what has several: uname's words for architectures,
// and variants that say no more than the architecture does.
func normalize(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386", "i486", "i586", "i686":
		p.Architecture, p.Variant = "386", ""
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch {
	case p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm64" && (p.Variant == "" || p.Variant == "8"):
		p.Variant = "v8"
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "arm" && len(p.Variant) == 1:
		p.Variant = "v" + p.Variant
	}
	return p
}

// rank tells how well an image for have suits a machine that is want: 0 not at all,
// more is better. Both must be normalized. A later variant runs what was built for an
// earlier one: arm v7 runs v6 and v5, amd64 v3 runs v2 and plain amd64.
func rank(want, have ocispec.Platform) int {
	if want.OS != have.OS || want.Architecture != have.Architecture {
		return 0
	}
	if want.Variant == have.Variant {
		return 100
	}
	w, okW := variantNumber(want)
	h, okH := variantNumber(have)
	if !okW || !okH || h > w {
		return 0
	}
	return 1 + h
}

// variantNumber reads the n of vn, a missing variant being v1.
func variantNumber(p ocispec.Platform) (int, bool) {
	if p.Variant == "" {
		return 1, true
	}
	if len(p.Variant) == 2 && p.Variant[0] == 'v' && p.Variant[1] >= '1' && p.Variant[1] <= '9' {
		return int(p.Variant[1] - '0'), true
	}
	return 0, false
}

// platformString is how a platform stands in messages and is typed for --platform.
func platformString(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" && (p.Architecture != "arm64" || p.Variant != "v8") {
		s += "/" + p.Variant
	}
	return s
}
