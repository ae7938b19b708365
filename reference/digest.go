// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Digest names content by its hash, as in "sha256:4bf5…". Digests are comparable and
// the zero Digest means that there is none. ParseDigest and SHA256 are the only sources
// of others, so a digest never holds a path separator or an unexpected length.
type Digest struct {
	text string
}

const (
	algorithmSHA256 = "sha256"
	algorithmSHA512 = "sha512"
)

// ParseDigest accepts "sha256:" followed by 64 and "sha512:" followed by 128 lower case
// hexadecimal digits, and nothing else.
func ParseDigest(s string) (Digest, error) {
	algorithm, digits, ok := strings.Cut(s, ":")
	if !ok {
		return Digest{}, fmt.Errorf("parse digest %q: no algorithm", shorten(s))
	}
	want := 0
	switch algorithm {
	case algorithmSHA256:
		want = 64
	case algorithmSHA512:
		want = 128
	default:
		return Digest{}, fmt.Errorf("parse digest %q: unsupported algorithm", shorten(s))
	}
	if len(digits) != want {
		return Digest{}, fmt.Errorf("parse digest %q: %d digits, want %d", shorten(s), len(digits), want)
	}
	if !isLowerHex(digits) {
		return Digest{}, fmt.Errorf("parse digest %q: not lower case hexadecimal", shorten(s))
	}
	return Digest{text: s}, nil
}

// SHA256 returns the digest with the given sum.
func SHA256(sum [32]byte) Digest {
	return Digest{text: algorithmSHA256 + ":" + hex.EncodeToString(sum[:])}
}

// String returns the digest as it stands in documents, "" for none.
func (d Digest) String() string { return d.text }

// Algorithm returns "sha256" or "sha512", "" for none.
func (d Digest) Algorithm() string {
	algorithm, _, _ := strings.Cut(d.text, ":")
	return algorithm
}

// Hex returns the digits after the algorithm, "" for none.
func (d Digest) Hex() string {
	_, digits, _ := strings.Cut(d.text, ":")
	return digits
}

// IsZero reports whether there is no digest.
func (d Digest) IsZero() bool { return d.text == "" }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.text), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Empty text is the zero Digest.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	parsed, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// shorten keeps hostile input from filling the user's screen; %q does the escaping.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
