// SPDX-License-Identifier: Apache-2.0

package reference

import "strings"

// maxPath is Docker's limit on a repository's path.
const maxPath = 255

// Parse reads a reference as Docker does: "alpine" is docker.io/library/alpine:latest,
// "u/app@sha256:…" is docker.io/u/app at that digest, and a first element that looks
// like a host ("localhost", or one with a dot, a colon or a capital) is the registry.
// A tag beside a digest is kept. A string of 64 hexadecimal digits is an image's ID and
// not a reference. The error is an *Error.
func Parse(s string) (Ref, error) {
	if s == "" {
		return Ref{}, &Error{Input: s, Cause: "empty"}
	}
	if len(s) == 64 && isLowerHex(s) {
		return Ref{}, &Error{Input: s, Cause: "this is an image ID, not a name"}
	}
	domain, rest := splitDomain(s)
	name, digest, hasDigest := strings.Cut(rest, "@")
	path, tag, hasTag := strings.Cut(name, ":")
	r := Ref{Domain: domain, Path: path, Tag: tag}

	if lower := strings.ToLower(path); lower != path {
		return Ref{}, &Error{Input: s, Cause: "the repository name must be lower case", hint: lowerHint(r, lower)}
	}
	if !validDomain(domain) {
		return Ref{}, &Error{Input: s, Cause: "invalid registry name"}
	}
	if !validPath(path) {
		return Ref{}, &Error{Input: s, Cause: "invalid repository name"}
	}
	if len(path) > maxPath {
		return Ref{}, &Error{Input: s, Cause: "the repository name is longer than 255 characters"}
	}
	if hasTag && !validTag(tag) {
		return Ref{}, &Error{Input: s, Cause: "invalid tag"}
	}
	if hasDigest {
		d, err := ParseDigest(digest)
		if err != nil {
			return Ref{}, &Error{Input: s, Cause: "invalid digest", hint: "a digest is sha256: and 64 hexadecimal digits"}
		}
		r.Digest = d
	}
	if !hasTag && !hasDigest {
		r.Tag = defaultTag
	}
	return r, nil
}

// lowerHint offers the name in lower case if that would be a name.
func lowerHint(r Ref, lower string) string {
	r.Path = lower
	if !validPath(lower) || len(lower) > maxPath || (r.Tag != "" && !validTag(r.Tag)) {
		return ""
	}
	return "try " + r.Familiar()
}

// splitDomain decides whether the first element of s is a registry and fills in what
// the user may leave out. It validates nothing.
func splitDomain(s string) (domain, rest string) {
	first, after, ok := strings.Cut(s, "/")
	switch {
	case !ok:
		// One element is a name on the hub even if it looks like host:port.
		return hub, official + s
	case first == legacyHub:
		domain, rest = hub, after
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		domain, rest = first, after
	default:
		domain, rest = hub, s
	}
	if domain == hub && !strings.Contains(rest, "/") {
		rest = official + rest
	}
	return domain, rest
}

// validDomain matches a DNS name, an IPv4 address or an IPv6 address in brackets, each
// with an optional port.
func validDomain(s string) bool {
	host := s
	if address, after, ok := strings.Cut(s, "]"); ok {
		return strings.HasPrefix(address, "[") && len(address) > 1 &&
			every(address[1:], isAddressByte) && (after == "" || validPort(after))
	}
	if i := strings.IndexByte(s, ':'); i >= 0 {
		if !validPort(s[i:]) {
			return false
		}
		host = s[:i]
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || !every(label, isLabelByte) {
			return false
		}
	}
	return true
}

// validPort matches a colon and digits.
func validPort(s string) bool {
	return len(s) > 1 && s[0] == ':' && every(s[1:], isDigit)
}

func validPath(s string) bool {
	for component := range strings.SplitSeq(s, "/") {
		if !validComponent(component) {
			return false
		}
	}
	return true
}

// validComponent matches runs of letters and digits held together by one period, one or
// two underscores or any number of dashes.
func validComponent(s string) bool {
	for {
		n := run(s, isAlphanumeric)
		if n == 0 {
			return false
		}
		if s = s[n:]; s == "" {
			return true
		}
		switch {
		case s[0] == '-':
			s = s[run(s, func(c byte) bool { return c == '-' }):]
		case strings.HasPrefix(s, "__"):
			s = s[2:]
		case s[0] == '.' || s[0] == '_':
			s = s[1:]
		default:
			return false
		}
	}
}

// validTag matches a word of at most 128 characters, periods and dashes after the first.
func validTag(s string) bool {
	return s != "" && len(s) <= 128 && isWordByte(s[0]) &&
		every(s, func(c byte) bool { return isWordByte(c) || c == '.' || c == '-' })
}

// run counts the bytes at the beginning of s that ok accepts.
func run(s string, ok func(byte) bool) int {
	for i := range len(s) {
		if !ok(s[i]) {
			return i
		}
	}
	return len(s)
}

func every(s string, ok func(byte) bool) bool { return run(s, ok) == len(s) }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }

func isAlphanumeric(c byte) bool { return isLower(c) || isDigit(c) }
func isLabelByte(c byte) bool    { return isLower(c) || isUpper(c) || isDigit(c) || c == '-' }
func isWordByte(c byte) bool     { return isLower(c) || isUpper(c) || isDigit(c) || c == '_' }
func isAddressByte(c byte) bool {
	return isDigit(c) || c == ':' || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')
}
