// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/bases"
	"sbx/container"
	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

// Values of --pull.
const (
	pullAlways  = "always"
	pullMissing = "missing"
	pullNever   = "never"
)

// resolver turns what the user typed into an image, which it fetches if it is to.
type resolver struct {
	client *client
	home   *container.Home
	flags  imageFlags
	// progress is where the steps of a pull go: standard error for run, whose
	// output is the program's, and standard output for pull.
	progress *os.File
	platform ocispec.Platform // zero: this machine's
}

func newResolver(c *client, home *container.Home, flags imageFlags, progress *os.File) (*resolver, error) {
	r := &resolver{client: c, home: home, flags: flags, progress: progress}
	if r.flags.pull == "" {
		r.flags.pull = pullMissing
	}
	if r.flags.platform == "" {
		r.flags.platform = c.variable("DOCKER_DEFAULT_PLATFORM")
	}
	var err error
	if r.flags.platform != "" {
		r.platform, err = fetch.ParsePlatform(r.flags.platform)
	}
	return r, err
}

// base finds what a container starts from: the image `host`, the directory of
// --rootfs, or the image that typed names.
func (r *resolver) base(ctx context.Context, typed string) (container.Base, error) {
	switch {
	case r.flags.rootfs != "" && r.flags.overlay:
		return container.OverDir(r.flags.rootfs)
	case r.flags.rootfs != "":
		return container.FromDir(r.flags.rootfs)
	}
	if typed == bases.HostName {
		return bases.Host(ctx, r.home)
	}
	img, err := r.image(ctx, typed)
	if err != nil {
		return container.Base{}, err
	}
	r.warnPlatform(img)
	return r.home.FromImage(ctx, img, typed)
}

// image finds an image here, or fetches it as --pull says.
func (r *resolver) image(ctx context.Context, typed string) (store.Image, error) {
	if location, ok := fetch.Locate(typed); ok {
		return r.located(ctx, location)
	}
	if r.flags.pull != pullAlways {
		img, err := findImage(r.home.Store, typed)
		if err == nil && r.suits(img) || err != nil && !errors.Is(err, store.ErrNotFound) || isID(typed) {
			return img, err
		}
	}
	ref, err := r.client.reference(typed)
	if err != nil {
		return store.Image{}, err
	}
	if full := ref.String(); r.flags.pull != pullAlways {
		// A short name may stand for one of another registry.
		img, err := findImage(r.home.Store, full)
		if err == nil && r.suits(img) || err != nil && !errors.Is(err, store.ErrNotFound) {
			return img, err
		}
	}
	if r.flags.pull == pullNever {
		return store.Image{}, &noImageError{ref.Familiar()}
	}
	if r.flags.pull == pullMissing && !r.flags.quiet {
		fmt.Fprintf(r.client.err, "Unable to find image '%s' locally\n", ref.Familiar())
	}
	img, _, err := r.fetch(ctx, typed, ref)
	return img, err
}

// pull fetches the image that ref names from its registry, and says what Docker says.
func (r *resolver) pull(ctx context.Context, ref reference.Ref) (img store.Image, err error) {
	err = interruptible(ctx, func(ctx context.Context) error {
		options, err := r.client.fetchOptions(r.platform)
		if err != nil {
			return err
		}
		repository, err := fetch.OpenRepository(ref, options)
		if err != nil {
			return err
		}
		defer repository.Close()
		var fresh bool
		if img, fresh, err = r.pullFrom(ctx, repository, ref); err != nil {
			return err
		}
		if !r.flags.quiet {
			p := newProgress(r.progress, false)
			p.line("%s", pullStatus(fresh, ref.Familiar()))
		}
		return r.checkPlatform(img)
	})
	return img, err
}

func pullStatus(fresh bool, name string) string {
	if fresh {
		return "Status: Downloaded newer image for " + name
	}
	return "Status: Image is up to date for " + name
}

// pullFrom pulls one reference of a repository, and reports whether that brought another
// image than was here. One that is here is only asked for by its digest, which registries
// do not count as a pull.
func (r *resolver) pullFrom(ctx context.Context, repository *fetch.Repository, ref reference.Ref) (img store.Image, fresh bool, err error) {
	p := newProgress(r.progress, r.flags.quiet)
	before, beforeErr := r.home.Store.Image(ref.String())
	if beforeErr == nil && !before.Root.IsZero() && r.fits(before) && r.home.Store.IsComplete(before) {
		now, err := repository.Resolve(ctx, ref)
		if err != nil {
			return img, false, err
		}
		if string(now.Digest) == before.Root.String() {
			p.line("%s: Pulling from %s", or(ref.Tag, ref.Digest.String()), ref.Path)
			p.line("Digest: %s", now.Digest)
			return before, false, nil
		}
	}
	src, err := repository.Image(ctx, ref)
	if err != nil {
		return img, false, err
	}
	defer src.Close()
	p.line("%s: Pulling from %s", or(ref.Tag, ref.Digest.String()), ref.Path)
	root := src.Root()
	img, err = r.home.Store.Pull(ctx, ref.String(), src, store.PullOptions{Progress: p.event, Root: root})
	p.end()
	if err != nil {
		return img, false, err
	}
	p.line("Digest: %s", root)
	return img, beforeErr != nil || before.Manifest.Digest != img.Manifest.Digest, nil
}

// fits reports whether an image that is here is what a pull would choose: of the platform
// asked for, or of this machine's.
func (r *resolver) fits(img store.Image) bool {
	if r.flags.platform == "" {
		return img.Config.Architecture == fetch.DefaultPlatform().Architecture && img.Config.OS == fetch.DefaultPlatform().OS
	}
	return r.suits(img)
}

// located finds the image of a file, a folder or a URL. One that is here is used
// as long as the file is the same; a URL is asked again with --pull always only.
func (r *resolver) located(ctx context.Context, location string) (store.Image, error) {
	name := locationName(location)
	state, err := stateOf(location)
	if err != nil {
		return store.Image{}, err
	}
	img, err := r.home.Store.Image(name)
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return img, err
	case err == nil && r.suits(img) && r.flags.pull != pullAlways && (state == "" || state == img.Origin):
		return img, nil
	case r.flags.pull == pullNever:
		return img, &noImageError{location}
	}
	err = interruptible(ctx, func(ctx context.Context) error {
		var err error
		if img, err = r.importFrom(ctx, location, name, state); err != nil {
			return err
		}
		return r.checkPlatform(img)
	})
	return img, withoutName(err, name)
}

// withoutName strips an error of the location: the command that failed names it,
// as the user typed it.
func withoutName(err error, name string) error {
	if err == nil {
		return nil
	}
	inner := errors.Unwrap(err)
	text, hint := describe(err)
	if inner == nil || !strings.HasPrefix(text, "pull "+name+": ") && !strings.HasPrefix(text, "import "+name+": ") {
		return err
	}
	if _, innerHint := describe(inner); innerHint != hint {
		return err
	}
	return inner
}

func (r *resolver) importFrom(ctx context.Context, location, name, state string) (store.Image, error) {
	options, err := r.client.fetchOptions(r.platform)
	if err != nil {
		return store.Image{}, err
	}
	opened, err := fetch.Open(ctx, location, options)
	if err != nil {
		return store.Image{}, err
	}
	defer opened.Close()
	p := newProgress(r.progress, r.flags.quiet)
	defer p.end()
	p.line("Importing %s", location)
	o := store.PullOptions{Progress: p.event, Origin: or(state, opened.Origin)}
	if opened.Image != nil {
		return r.home.Store.Pull(ctx, name, opened.Image, o)
	}
	return r.home.Store.Import(ctx, name, store.Rootfs{Reader: opened.Rootfs.Reader, Config: opened.Rootfs.Config}, o)
}

// stateOf changes when a local file does, or the index of a folder. It is empty
// for a URL. It is taken before the file is read: one that changes meanwhile is
// read again the next time.
func stateOf(location string) (string, error) {
	if !filepath.IsAbs(location) {
		return "", nil
	}
	fi, err := os.Stat(location)
	if err == nil && fi.IsDir() {
		index, indexErr := os.Stat(filepath.Join(location, "index.json"))
		if indexErr == nil {
			fi = index
		}
	}
	if err != nil {
		return "", fmt.Errorf("open %s: %w", location, withoutPath(err))
	}
	state := fmt.Sprintf("size=%d mtime=%d", fi.Size(), fi.ModTime().UnixNano())
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		state += fmt.Sprintf(" inode=%d", st.Ino)
	}
	return state, nil
}

// locationName is the name under which the image of a location is kept. What a
// URL carries of credentials stays out of the store.
func locationName(location string) string {
	if u, err := url.Parse(location); err == nil && u.Host != "" && u.User != nil {
		u.User = nil
		return u.String()
	}
	return location
}

// findImage finds an image that is here by name, location, digest or the
// beginning of its ID. The error is store.ErrNotFound when there is none.
func findImage(st *store.Store, typed string) (img store.Image, err error) {
	shown := typed
	ref, refErr := reference.Parse(typed)
	location, isLocation := fetch.Locate(typed)
	switch {
	case isLocation:
		img, err = st.Image(locationName(location))
	case isID(typed):
		if img, err = st.ImageByID(typed); errors.Is(err, store.ErrNotFound) {
			img, err = st.Image(typed) // the digest of a manifest
		}
	case refErr != nil:
		return img, refErr
	default:
		shown = familiar(ref.String())
		if img, err = st.Image(ref.String()); errors.Is(err, store.ErrNotFound) {
			if n, ok := parseCatalogName(typed); ok {
				img, err = st.Image(n.String())
			}
		}
		if errors.Is(err, store.ErrNotFound) && isHex(typed) {
			img, err = st.ImageByID(typed)
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		err = &noImageError{shown}
	}
	return img, err
}

// isID reports whether typed can be nothing but an ID: no registry is asked for it.
func isID(typed string) bool {
	digits, ok := strings.CutPrefix(typed, "sha256:")
	return isHex(digits) && (ok || len(digits) == 64)
}

func isHex(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdef") == "" }

// noImageError says that an image is not here.
type noImageError struct{ name string }

func (e *noImageError) Error() string { return "no such image: " + e.name }

// Unwrap says the same in the store's word.
func (e *noImageError) Unwrap() error { return store.ErrNotFound }

// Hint says where there are some.
func (e *noImageError) Hint() string { return "list the images here with: sbx images" }

func or(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
