// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sbx/reference"
)

// paragraph is one of a control file: fields by their names in lower case
// (deb-control(5)). A value's further lines keep their line breaks.
type paragraph map[string]string

// maxLine bounds a line of a control file.
const maxLine = 1 << 20

// eachParagraph calls f for each paragraph of a control file. It does not keep
// the map: f copies what it wants.
func eachParagraph(data []byte, f func(paragraph) error) error {
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxLine)
	p, last := paragraph{}, ""
	flush := func() error {
		if len(p) == 0 {
			return nil
		}
		err := f(p)
		clear(p)
		return err
	}
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.TrimSpace(line) == "":
			if err := flush(); err != nil {
				return err
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			p[last] += "\n" + strings.TrimRight(line[1:], " \t")
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return fmt.Errorf("read control file: strange line %.60q", line)
			}
			last = strings.ToLower(name)
			p[last] = strings.TrimSpace(value)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read control file: %w", err)
	}
	return flush()
}

// release is an archive's signed index of one suite.
type release struct {
	suite, codename string
	date            time.Time
	validUntil      time.Time
	architectures   []string
	components      []string
	byHash          bool
	files           map[string]indexFile // by path below the suite
}

// indexFile is what the release says of another index.
type indexFile struct {
	digest reference.Digest
	size   int64
}

// parseRelease reads a Release file, of which the SHA-256 sums are believed.
func parseRelease(text []byte) (*release, error) {
	r := &release{files: map[string]indexFile{}}
	err := eachParagraph(text, func(p paragraph) error {
		r.suite, r.codename = p["suite"], p["codename"]
		r.architectures, r.components = strings.Fields(p["architectures"]), strings.Fields(p["components"])
		r.byHash = p["acquire-by-hash"] == "yes"
		var err error
		if r.date, err = parseDate(p["date"]); err != nil {
			return err
		}
		if until := p["valid-until"]; until != "" {
			if r.validUntil, err = parseDate(until); err != nil {
				return err
			}
		}
		return r.readSums(p["sha256"])
	})
	if err != nil {
		return nil, fmt.Errorf("read release: %w", err)
	}
	if r.codename == "" && r.suite == "" || len(r.files) == 0 {
		return nil, errors.New("read release: it has no suite or no SHA256 sums")
	}
	return r, nil
}

func (r *release) readSums(lines string) error {
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return fmt.Errorf("strange line %.60q", line)
		}
		digest, err := reference.ParseDigest("sha256:" + f[0])
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("strange size %.30q", f[1])
		}
		r.files[f[2]] = indexFile{digest, size}
	}
	return nil
}

// parseDate reads a date of RFC 1123, which archives write in UTC.
func parseDate(text string) (time.Time, error) {
	for _, form := range []string{time.RFC1123, time.RFC1123Z, "Mon, _2 Jan 2006 15:04:05 MST", "Mon, _2 Jan 2006 15:04:05 -0700"} {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("strange date %.40q", text)
}

// dateError says that a release is not of this moment.
type dateError struct {
	what string
	at   time.Time
}

func (e *dateError) Error() string { return e.what + " " + e.at.UTC().Format(time.RFC1123) }

// Hint says what that may mean.
func (e *dateError) Hint() string {
	return "the mirror is out of date, or this machine's clock is wrong; another mirror: --mirror URL"
}

// check holds a release against what was asked for, and against the clock: an
// old one, signed as it is, would bring back mended flaws.
func (r *release) check(suite string, now time.Time) error {
	switch {
	case suite != r.suite && suite != r.codename && (suite != "sid" || r.suite != "unstable"):
		return fmt.Errorf("the mirror sent suite %s (%s) in place of %s", r.suite, r.codename, suite)
	case r.date.After(now.Add(24 * time.Hour)):
		return &dateError{"the release is dated", r.date}
	case !r.validUntil.IsZero() && now.After(r.validUntil):
		return &dateError{"the release was valid until", r.validUntil}
	}
	return nil
}
