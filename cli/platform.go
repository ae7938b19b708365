// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"runtime"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/fetch"
	"sbx/store"
)

// suits reports whether an image is one for the platform asked for. A later
// variant of an architecture runs what was built for an earlier one.
func (r *resolver) suits(img store.Image) bool {
	if r.flags.platform == "" {
		return true
	}
	have, err := fetch.ParsePlatform(platformName(img.Config.Platform))
	return err == nil && have.OS == r.platform.OS && have.Architecture == r.platform.Architecture && have.Variant <= r.platform.Variant
}

// checkPlatform refuses an image that stands alone and is for another platform
// than was asked for.
func (r *resolver) checkPlatform(img store.Image) error {
	if r.suits(img) {
		return nil
	}
	return &platformError{img.Name, platformName(img.Config.Platform), platformName(r.platform)}
}

// platformError says that there is an image, and it is another.
type platformError struct{ name, have, want string }

func (e *platformError) Error() string {
	return fmt.Sprintf("image with reference %s was found but its platform (%s) does not match the specified platform (%s)", familiar(e.name), e.have, e.want)
}

// Hint says what to leave out.
func (e *platformError) Hint() string {
	return "it is the only one there; leave out --platform to use it"
}

// platformName writes a platform as --platform takes it.
func platformName(p ocispec.Platform) string {
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name
}

// warnPlatform says so when an image was made for another kind of machine and
// nobody asked for that.
func (r *resolver) warnPlatform(img store.Image) {
	if r.flags.platform == "" && foreign(img.Config.Platform) {
		r.client.notice("WARNING: The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested",
			platformName(img.Config.Platform), platformName(fetch.DefaultPlatform()))
	}
}

// foreign reports whether programs of a platform are for another kind of machine.
func foreign(p ocispec.Platform) bool {
	if p.Architecture == "" {
		return false
	}
	return p.OS != "linux" || !slices.Contains(executable(), p.Architecture)
}

// executable are the architectures whose programs this machine usually runs.
func executable() []string {
	switch runtime.GOARCH {
	case "amd64":
		return []string{"amd64", "386"}
	case "arm64":
		return []string{"arm64", "arm"}
	}
	return []string{runtime.GOARCH}
}
