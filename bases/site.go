// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"pault.ag/go/debian/version"

	"sbx/fetch"
	"sbx/reference"
)

// site is one server of a distribution's, its own or a mirror of it.
type site struct {
	url   string // without a slash at its end
	name  string // of the distribution, in the index
	arch  string // Go's name
	arm   string // which arm: v6, v7
	last  string // what the tag latest stands for
	keys  keyring
	fetch fetch.Options
	now   time.Time
}

// published is a root filesystem that a site has.
type published struct {
	url       string // of the tarball
	version   string
	digest    reference.Digest
	size      int64  // or anySize
	signer    string // who signed the digest; "": nobody
	signature []byte // of the tarball itself, to be checked yet; nil: none
}

// maxCatalogIndex bounds an index, which nobody has signed when it is read.
const maxCatalogIndex = 64 << 20

// read gets a small file of the site's.
func (s *site) read(ctx context.Context, name string) ([]byte, error) {
	return s.readUpTo(ctx, name, maxCatalogIndex)
}

func (s *site) readUpTo(ctx context.Context, name string, most int64) ([]byte, error) {
	where := s.url + "/" + name
	r, err := fetch.OpenFile(ctx, where, 0, s.fetch)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("download %s: more than %d bytes", where, most)
	}
	return data, err
}

// readIf is read for what may not be there: then it returns nothing.
func (s *site) readIf(ctx context.Context, name string) ([]byte, error) {
	data, err := s.read(ctx, name)
	if isMissing(err) {
		return nil, nil
	}
	return data, err
}

// isMissing reports whether a server said that it has no such file.
func isMissing(err error) bool {
	var e *fetch.Error
	return errors.As(err, &e) && e.Status == 404
}

// isUnanswered reports whether a server was not reached, or could not say anything.
func isUnanswered(err error) bool {
	var e *fetch.Error
	return errors.As(err, &e) && e.IsUnanswered()
}

// fail says of which file of the site an error is.
func (s *site) fail(name string, err error) error {
	return fmt.Errorf("verify %s/%s: %w", s.url, name, err)
}

// missing is the error of a tag that a site does not have.
func (s *site) missing(tag string, have ...string) error {
	return &missingError{fmt.Sprintf("%s has no %s for %s", s.url, tag, s.arch+s.arm), have}
}

// isProtected reports whether nobody on the way can change what the site sends.
func (s *site) isProtected() bool { return strings.HasPrefix(s.url, "https://") }

// host is the server's name.
func (s *site) host() string {
	u, err := url.Parse(s.url)
	if err != nil {
		return s.url
	}
	return u.Host
}

// verify checks a text's detached signature, where there are keys, and returns
// who made it.
func (s *site) verify(ctx context.Context, text []byte, name, signature string) (signer string, err error) {
	if len(s.keys) == 0 {
		return "", nil
	}
	data, err := s.read(ctx, signature)
	if err != nil {
		return "", err
	}
	id, err := s.keys.verifyDetached(data, func(w io.Writer) error { _, err := w.Write(text); return err }, s.now)
	if err != nil {
		return "", s.fail(name, err)
	}
	return keyName(id), nil
}

// keyName is how a key is called that made a signature.
func keyName(id uint64) string {
	if id == 0 {
		return "a known key"
	}
	return fmt.Sprintf("key %016X", id)
}

// sumLine is a line of a file of sums (sha256sum(1)).
type sumLine struct {
	digest reference.Digest
	name   string
}

// parseSums reads a file of SHA-256 sums.
func parseSums(data []byte) ([]sumLine, error) {
	var list []sumLine
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		sum, name, ok := strings.Cut(line, " ")
		name = strings.TrimPrefix(strings.TrimLeft(name, " "), "*")
		name = strings.TrimPrefix(name, "./")
		digest, err := reference.ParseDigest("sha256:" + sum)
		if !ok || err != nil || name == "" {
			return nil, fmt.Errorf("strange line %.80q", line)
		}
		list = append(list, sumLine{digest, name})
	}
	return list, nil
}

// compareVersions orders versions by their numbers: 3.9 before 3.20.
func compareVersions(a, b string) int {
	x, errX := version.Parse(a)
	y, errY := version.Parse(b)
	if errX != nil || errY != nil {
		return strings.Compare(a, b)
	}
	return version.Compare(x, y)
}
