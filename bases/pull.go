// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/container"
	"sbx/fetch"
	"sbx/store"
)

// Pull says which root filesystem of the catalog is to become an image.
type Pull struct {
	Distribution Distribution
	Tag          string
	Platform     ocispec.Platform
	Mirrors      []string // asked first, in order; the distribution's own server is asked last
	Keyring      string   // a file of keys that must have signed; "": those that are known
	Epoch        time.Time
	Fetch        fetch.Options
	// Progress is told what is being done, in words for the user.
	Progress func(text string)
	// Event is told how far a download or an import has come.
	Event func(store.Event)
}

// Make brings the root filesystem as the image name, and reports whether that is
// another one than was there. What is here already is not got again. The error is
// an *ElsewhereError where another source may have what this one has not.
func (p Pull) Make(ctx context.Context, h *container.Home, name string) (img store.Image, fresh bool, err error) {
	before, beforeErr := h.Store.Image(name)
	if beforeErr != nil && !errors.Is(beforeErr, store.ErrNotFound) {
		return before, false, beforeErr
	}
	if p.Distribution.vendor != "" {
		img, err = p.bootstrap(ctx, h, name, before)
	} else {
		img, err = p.get(ctx, h.Store, name, before)
	}
	return img, err == nil && img.Manifest.Digest != before.Manifest.Digest, err
}

// sites are the servers to ask, in order.
func (p Pull) sites() ([]*site, error) {
	keys, err := p.keys()
	if err != nil {
		return nil, err
	}
	d := p.Distribution
	arm := ""
	if p.Platform.Architecture == "arm" {
		arm = p.Platform.Variant
	}
	var list []*site
	for _, u := range append(slices.Clone(p.Mirrors), d.URL) {
		list = append(list, &site{
			url: strings.TrimRight(u, "/"), name: d.stream, arch: p.Platform.Architecture, arm: arm, last: d.latest, keys: keys, fetch: p.Fetch, now: time.Now(),
		})
	}
	return list, nil
}

// keys are those that must have signed; none where nobody is known to sign.
func (p Pull) keys() (keyring, error) {
	data, from := p.Distribution.keys, p.Distribution.Name
	if own, err := os.ReadFile(p.Distribution.keyring); p.Keyring == "" && p.Distribution.keyring != "" && err == nil {
		data, from = own, p.Distribution.keyring
	}
	if p.Keyring != "" {
		var err error
		if data, err = os.ReadFile(p.Keyring); err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		from = p.Keyring
	}
	keys, err := parseKeyring(data)
	if err == nil && p.Keyring != "" && len(keys) == 0 {
		err = errors.New("it has no key that could be used")
	}
	if err != nil {
		return nil, fmt.Errorf("read keys of %s: %w", from, err)
	}
	return keys, nil
}

// get asks one server after the other, until one has the whole. What the one
// before has sent of it is gone on with.
func (p Pull) get(ctx context.Context, st *store.Store, name string, before store.Image) (img store.Image, err error) {
	sites, err := p.sites()
	if err != nil {
		return img, err
	}
	files, err := openCache(ctx, st, p.Fetch)
	if err != nil {
		return img, err
	}
	defer files.close()
	for i, s := range sites {
		if img, err = p.getFrom(ctx, s, st, files, name, before); err == nil || !mayBeElsewhere(err) || ctx.Err() != nil {
			return img, err
		}
		if i < len(sites)-1 {
			p.Progress(err.Error() + "; asking " + sites[i+1].host())
		}
	}
	return img, &ElsewhereError{err}
}

// mayBeElsewhere reports whether another server may have what one has not. One
// that sends something wrong is an error: nothing else is to be taken in its place
// without a word.
func mayBeElsewhere(err error) bool {
	var net *fetch.Error
	var missing *missingError
	return errors.As(err, &net) || errors.As(err, &missing)
}

func (p Pull) getFrom(ctx context.Context, s *site, st *store.Store, files cache, name string, before store.Image) (store.Image, error) {
	found, err := p.Distribution.find(ctx, s, p.Tag)
	if err != nil {
		return store.Image{}, err
	}
	p.Progress(p.Tag + ": Pulling from " + found.url)
	origin := found.digest.String() + " " + found.url
	if was, _, _ := strings.Cut(before.Origin, " "); was == found.digest.String() && st.IsComplete(before) {
		p.Progress("Digest: " + found.digest.String())
		return before, nil
	}
	f, err := files.get(ctx, found.url, found.digest, found.size, func(n int64) {
		p.Event(store.Event{Digest: found.digest, Status: store.StatusDownloading, Current: n, Total: max(found.size, 0)})
	})
	if err != nil {
		return store.Image{}, err
	}
	defer f.Close()
	if err := found.verify(s, f); err != nil {
		files.drop(found.digest)
		return store.Image{}, err
	}
	p.Progress("Digest: " + found.digest.String())
	p.Progress("Verified: " + found.proof(s))
	release, _, _ := strings.Cut(found.version, " ")
	config := ocispec.Image{Platform: p.Platform, Config: p.Distribution.configOf(release)}
	r := beneath(f, p.Distribution.inside)
	defer r.Close()
	img, err := st.Import(ctx, name, store.Rootfs{Reader: r, Config: config}, store.PullOptions{Progress: p.Event, Origin: origin})
	if err == nil {
		files.drop(found.digest) // the store has it
	}
	return img, err
}

// verify checks the signature of the tarball itself, where it has one.
func (p *published) verify(s *site, f io.ReadSeeker) error {
	if len(s.keys) == 0 || p.signature == nil {
		return nil
	}
	id, err := s.keys.verifyDetached(p.signature, func(w io.Writer) error {
		_, err := f.Seek(0, io.SeekStart)
		if err == nil {
			_, err = io.Copy(w, f)
		}
		return err
	}, s.now)
	if err != nil {
		return fmt.Errorf("verify %s: %w", p.url, err)
	}
	p.signer = keyName(id)
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// proof says what vouches for a root filesystem.
func (p *published) proof(s *site) string {
	switch {
	case p.signer != "":
		return "its SHA-256 sum, and the signature of " + p.signer
	case s.isProtected():
		return "its SHA-256 sum, as " + s.host() + " has it; there is no signature, or no key to check it"
	}
	return "its SHA-256 sum alone: nobody has signed it, and http does not protect it on its way"
}
