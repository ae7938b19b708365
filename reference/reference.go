// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"fmt"
	"strings"
)

const (
	hub        = "docker.io"
	legacyHub  = "index.docker.io"
	official   = "library/"
	defaultTag = "latest"
)

// Ref is a qualified image reference. One that Parse returned has a domain, a path and
// a tag, a digest or both. Refs are comparable.
type Ref struct {
	Domain string // the registry's host, with its port if one was given: docker.io
	Path   string // the repository in that registry: library/alpine
	Tag    string
	Digest Digest
}

// Name returns the repository with its registry: docker.io/library/alpine.
func (r Ref) Name() string {
	if r.Domain == "" {
		return r.Path
	}
	return r.Domain + "/" + r.Path
}

// String returns the canonical form: docker.io/library/alpine:latest.
func (r Ref) String() string { return r.Name() + r.suffix() }

// FamiliarName returns the repository as short as Docker's user knows it: alpine.
func (r Ref) FamiliarName() string {
	if r.Domain != hub {
		return r.Name()
	}
	if rest, ok := strings.CutPrefix(r.Path, official); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return r.Path
}

// Familiar returns the reference as short as Docker's user knows it: alpine:latest.
func (r Ref) Familiar() string { return r.FamiliarName() + r.suffix() }

func (r Ref) suffix() string {
	var b strings.Builder
	if r.Tag != "" {
		b.WriteByte(':')
		b.WriteString(r.Tag)
	}
	if !r.Digest.IsZero() {
		b.WriteByte('@')
		b.WriteString(r.Digest.String())
	}
	return b.String()
}

// Error says why a string is not a reference.
type Error struct {
	Input string // as it was typed
	Cause string
	hint  string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("parse reference %q: %s", shorten(e.Input), e.Cause)
}

// Hint returns what the user could type instead, or "".
func (e *Error) Hint() string { return e.hint }
