// SPDX-License-Identifier: Apache-2.0

package build

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// variables is an ordered environment, of entries NAME=value. Its methods never
// change the slice that they are called on.
type variables []string

// Get implements shell.EnvGetter.
func (v variables) Get(name string) (string, bool) {
	for _, e := range v {
		if n, value, ok := strings.Cut(e, "="); ok && n == name {
			return value, true
		}
	}
	return "", false
}

// Keys implements shell.EnvGetter.
func (v variables) Keys() []string {
	keys := make([]string, 0, len(v))
	for _, e := range v {
		name, _, _ := strings.Cut(e, "=")
		keys = append(keys, name)
	}
	return keys
}

// with is v with a variable set, in its old place if it has one.
func (v variables) with(name, value string) variables {
	next := slices.Clone(v)
	for i, e := range next {
		if n, _, _ := strings.Cut(e, "="); n == name {
			next[i] = name + "=" + value
			return next
		}
	}
	return append(next, name+"="+value)
}

// defaultPath is the PATH of an image that has none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// platformArgs are the arguments that exist without being declared before the
// first FROM, and in a stage once it declares them.
func platformArgs(build, target ocispec.Platform, stage string, given map[string]string) variables {
	if stage == "" {
		stage = "default"
	}
	var v variables
	for _, e := range [][2]string{
		{"BUILDPLATFORM", platformName(build)}, {"BUILDOS", build.OS}, {"BUILDOSVERSION", build.OSVersion},
		{"BUILDARCH", build.Architecture}, {"BUILDVARIANT", build.Variant},
		{"TARGETPLATFORM", platformName(target)}, {"TARGETOS", target.OS}, {"TARGETOSVERSION", target.OSVersion},
		{"TARGETARCH", target.Architecture}, {"TARGETVARIANT", target.Variant}, {"TARGETSTAGE", stage},
	} {
		value := e[1]
		if g, ok := given[e[0]]; ok {
			value = g
		}
		v = append(v, e[0]+"="+value)
	}
	return v
}

func platformName(p ocispec.Platform) string {
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name
}

// withoutVariable are build arguments that steer BuildKit and reach no program.
func withoutVariable(name string) bool {
	switch name {
	case "BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE":
		return true
	}
	return false
}
