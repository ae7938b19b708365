// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/reference"
)

// Image is an image of the store as it was when it was looked up.
type Image struct {
	Name     string                    // canonical; "" once every name was taken away
	ID       reference.Digest          // of its config
	Manifest ocispec.Descriptor        // media type, digest and size
	Config   dockerspec.DockerOCIImage // its platform may be another than this machine's
	Layers   []reference.Digest        // diff IDs, bottom first; may be empty
	Size     int64                     // bytes of its layers, unpacked
	Pulled   time.Time                 // when it got its name
	Origin   string                    // as PullOptions had it
	Root     reference.Digest          // so
}

// minPrefix is how many digits of an ID are needed at least.
const minPrefix = 3

// Image returns the image of a canonical name, or the one whose ID or manifest digest is
// name. A name with a digest is also found under another tag of its repository. The error
// is ErrNotFound if there is none.
func (s *Store) Image(name string) (Image, error) {
	e, err := s.findName(canonical(name))
	if err != nil {
		return Image{}, fmt.Errorf("find image %s: %w", name, err)
	}
	return s.load(e)
}

func (s *Store) findName(name string) (entry, error) {
	if d, err := reference.ParseDigest(name); err == nil {
		return s.findFirst([]byte(name), func(e *entry) bool { return e.Notes.ID == d || e.Digest == d || e.Notes.Root == d })
	}
	e, err := s.findFirst(quoteNote(ocispec.AnnotationRefName, name), func(e *entry) bool { return e.Notes.Name == name })
	if !errors.Is(err, ErrNotFound) || !strings.Contains(name, "@") {
		return e, err
	}
	ref, err := reference.Parse(name)
	if err != nil || ref.Digest.IsZero() {
		return entry{}, ErrNotFound
	}
	return s.findFirst([]byte(ref.Digest.String()), func(e *entry) bool {
		other, err := reference.Parse(e.Notes.Name)
		return err == nil && (e.Digest == ref.Digest || e.Notes.Root == ref.Digest) && other.Name() == ref.Name()
	})
}

// findFirst prefers an entry with a name.
func (s *Store) findFirst(needle []byte, match func(*entry) bool) (entry, error) {
	found, err := s.find(needle, match)
	if err != nil {
		return entry{}, err
	}
	if len(found) == 0 {
		return entry{}, ErrNotFound
	}
	if i := slices.IndexFunc(found, func(e entry) bool { return e.Notes.Name != "" }); i >= 0 {
		return found[i], nil
	}
	return found[0], nil
}

// ImageByID returns the image whose ID begins with prefix, three digits or more with or
// without "sha256:". The error is ErrNotFound or ErrAmbiguous.
func (s *Store) ImageByID(prefix string) (Image, error) {
	digits := strings.TrimPrefix(prefix, "sha256:")
	if len(digits) < minPrefix || strings.Trim(digits, "0123456789abcdef") != "" {
		return Image{}, fmt.Errorf("find image %s: %w", prefix, ErrNotFound)
	}
	begins := func(e *entry) bool { return strings.HasPrefix(e.Notes.ID.Hex(), digits) }
	needle := quoteNote("sbx.id", "sha256:"+digits)
	found, err := s.find(needle[:len(needle)-1], begins)
	if err != nil {
		return Image{}, fmt.Errorf("find image %s: %w", prefix, err)
	}
	if len(found) == 0 {
		return Image{}, fmt.Errorf("find image %s: %w", prefix, ErrNotFound)
	}
	best := found[0]
	for _, e := range found[1:] {
		if e.Notes.ID != best.Notes.ID {
			return Image{}, fmt.Errorf("find image %s: %w", prefix, ErrAmbiguous)
		}
		if best.Notes.Name == "" {
			best = e
		}
	}
	return s.load(best)
}

// Images returns every image once for each of its names, the youngest first. One whose
// config is damaged is among them without it, so that it can be seen and removed.
func (s *Store) Images() ([]Image, error) {
	entries, err := s.entries()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	images := make([]Image, 0, len(entries))
	for _, e := range entries {
		if !e.isImage() {
			continue
		}
		img, err := s.load(e)
		if err != nil {
			img = e.image()
		}
		images = append(images, img)
	}
	slices.SortStableFunc(images, func(a, b Image) int {
		return created(b).Compare(created(a))
	})
	return images, nil
}

func created(img Image) time.Time {
	if img.Config.Created == nil {
		return time.Time{}
	}
	return *img.Config.Created
}

// Names returns the names that an image has, in the order in which it got them.
func (s *Store) Names(id reference.Digest) ([]string, error) {
	entries, err := s.entries()
	if err != nil {
		return nil, fmt.Errorf("list names of image %s: %w", id, err)
	}
	var names []string
	for _, e := range entries {
		if e.isImage() && e.Notes.ID == id && e.Notes.Name != "" {
			names = append(names, e.Notes.Name)
		}
	}
	return names, nil
}

// image is what the index knows of an image.
func (e *entry) image() Image {
	pulled, _ := time.Parse(time.RFC3339, e.Notes.Pulled) // zero if somebody wrote nonsense
	return Image{
		Name:     e.Notes.Name,
		ID:       e.Notes.ID,
		Manifest: ocispec.Descriptor{MediaType: e.MediaType, Digest: godigest.Digest(e.Digest.String()), Size: e.Size},
		Size:     e.Notes.Unpack,
		Pulled:   pulled,
		Origin:   e.Notes.Origin,
		Root:     e.Notes.Root,
	}
}

// RegistryDigest is the digest by which registries know the image: of the index that it
// was pulled in, if there was one, else its manifest's.
func (img *Image) RegistryDigest() string {
	if !img.Root.IsZero() {
		return img.Root.String()
	}
	return string(img.Manifest.Digest)
}

// load adds what the config says. The manifest is not read.
func (s *Store) load(e entry) (Image, error) {
	img := e.image()
	data, err := s.document(e.Notes.ID, maxConfig)
	if err == nil {
		img.Config, img.Layers, err = parseConfig(data)
	}
	if err != nil {
		return Image{}, damaged(fmt.Errorf("read image %s: %w", e.label(), err))
	}
	return img, nil
}

// manifest reads the manifest of an entry.
func (s *Store) manifest(d reference.Digest, mediaType string) (manifest, error) {
	data, err := s.document(d, maxManifest)
	if err != nil {
		return manifest{}, err
	}
	m, err := parseManifest(data, mediaType)
	if err != nil {
		return manifest{}, fmt.Errorf("read manifest %s: %w", d, err)
	}
	return m, nil
}

// label is how messages call the image.
func (e *entry) label() string {
	if e.Notes.Name != "" {
		return e.Notes.Name
	}
	return e.Notes.ID.String()
}

// damaged advises to pull again when something of an image is missing or wrong.
func damaged(err error) error {
	var wrong *DigestError
	if !errors.As(err, &wrong) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return advise(err, "the image is damaged on disk: pull it again")
}

func (img *Image) label() string {
	if img.Name != "" {
		return img.Name
	}
	return img.ID.String()
}

// canonical makes a name that JSON can hold: a path may be any bytes.
func canonical(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// LayerBytes returns the size of each layer of the image, unpacked, bottom first. It is 0
// where it is not known: of layers that have not been unpacked for this rung, unless there
// is but one.
func (s *Store) LayerBytes(img Image) []int64 {
	sizes := make([]int64, len(img.Layers))
	unknown, rest := -1, img.Size
	for i := range img.Layers {
		id, ok := s.unpackedAs(img.Layers, i)
		r, err := s.layerRecord(id)
		switch {
		case ok && err == nil:
			sizes[i] = r.Bytes
			rest -= r.Bytes
		case unknown >= 0:
			return sizes
		default:
			unknown = i
		}
	}
	if unknown >= 0 {
		sizes[unknown] = max(rest, 0)
	}
	return sizes
}
