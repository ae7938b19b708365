// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
	"strings"

	"pault.ag/go/debian/version"

	"sbx/reference"
)

// debPackage is one of an archive's packages, as its index describes it.
type debPackage struct {
	name, version  string
	architecture   string
	priority       string
	essential      bool
	preDepends     string
	depends        string
	conflicts      string
	provides       string
	file           string // below the archive's root
	size           int64
	digest         reference.Digest
	parsed         version.Version
	wanted         string      // why it was chosen: what asked for it
	neededBy       *debPackage // who needs it, nil when it was asked for
	providesParsed []provision
}

// packageIndex is what a suite has, by name, the newest version of each.
type packageIndex struct {
	byName    map[string]*debPackage
	providers map[string][]*debPackage // of names that are no package's, or also one's
	names     []string                 // as the index has them
}

// parsePackages reads a Packages index (deb-src-control fields of
// https://wiki.debian.org/DebianRepository/Format). It passes over fields that
// are not asked for, which are most of fifty megabytes.
func parsePackages(data []byte) (*packageIndex, error) {
	x := &packageIndex{byName: map[string]*debPackage{}, providers: map[string][]*debPackage{}}
	p := &debPackage{}
	for len(data) > 0 {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		if len(line) == 0 {
			if err := x.add(p); err != nil {
				return nil, err
			}
			p = &debPackage{}
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return nil, fmt.Errorf("read package index: strange line %.60q", line)
		}
		if err := p.set(string(name), bytes.TrimSpace(value)); err != nil {
			return nil, fmt.Errorf("read package index: package %s: %w", p.name, err)
		}
	}
	return x, x.add(p)
}

// set takes a field that is of use.
func (p *debPackage) set(field string, value []byte) error {
	var err error
	switch field {
	case "Package":
		p.name = string(value)
	case "Version":
		p.version = string(value)
	case "Architecture":
		p.architecture = string(value)
	case "Priority":
		p.priority = string(value)
	case "Essential":
		p.essential = string(value) == "yes"
	case "Pre-Depends":
		p.preDepends = string(value)
	case "Depends":
		p.depends = string(value)
	case "Conflicts":
		p.conflicts = string(value)
	case "Provides":
		p.provides = string(value)
	case "Filename":
		p.file = string(value)
	case "Size":
		p.size, err = strconv.ParseInt(string(value), 10, 64)
	case "SHA256":
		p.digest, err = reference.ParseDigest("sha256:" + string(value))
	}
	return err
}

// add takes a package into the index. Where a name comes again, the higher
// version stays.
func (x *packageIndex) add(p *debPackage) error {
	if p.name == "" {
		return nil
	}
	var err error
	if p.parsed, err = version.Parse(p.version); err != nil {
		return fmt.Errorf("read package index: package %s: version %.40q: %w", p.name, p.version, err)
	}
	if !validPackage(p.name) || p.digest.IsZero() || p.size < 0 || path.IsAbs(p.file) || p.file == "" || strings.HasPrefix(path.Clean(p.file), "..") {
		return fmt.Errorf("read package index: package %.60q: strange name, file or sum", p.name)
	}
	if before := x.byName[p.name]; before != nil {
		if version.Compare(p.parsed, before.parsed) > 0 {
			*before = *p
		}
		return nil
	}
	x.byName[p.name] = p
	x.names = append(x.names, p.name)
	return nil
}

// validPackage holds a name against Debian policy §5.6.7: it becomes a file name.
func validPackage(name string) bool {
	return len(name) >= 2 && len(name) < 256 && name[0] != '.' && name[0] != '-' && name[0] != '+' &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}
