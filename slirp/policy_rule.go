// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Ports is a range of ports, both ends in it. The zero value is every port.
type Ports struct {
	First uint16 `json:"first,omitempty"`
	Last  uint16 `json:"last,omitempty"`
}

// Contains reports whether a port is in the range.
func (r Ports) Contains(port uint16) bool {
	return r == Ports{} || r.First <= port && port <= r.Last
}

// ParsePorts reads "80" or "8000-8010".
func ParsePorts(s string) (Ports, error) {
	first, last, isRange := strings.Cut(s, "-")
	from, err := parsePort(first)
	to := from
	if err == nil && isRange {
		to, err = parsePort(last)
	}
	if err == nil && to < from {
		err = fmt.Errorf("port range %s: it ends before it begins", s)
	}
	return Ports{from, to}, err
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("port %q: want a number of 1-65535", s)
	}
	return uint16(n), nil
}

// Rule is a destination that a policy allows: the hosts of a prefix, or of a
// name, on some ports.
type Rule struct {
	Prefix netip.Prefix `json:"prefix,omitzero"`
	Name   string       `json:"name,omitempty"` // lower case; with a leading dot, every name below
	Ports  Ports        `json:"ports,omitzero"`
}

// ParseRule reads host[:port] where host is a name, *.name, an address or a
// prefix, an IPv6 one in brackets when a port follows, and port a number or a
// range.
func ParseRule(s string) (Rule, error) {
	host, port := s, ""
	switch i := strings.LastIndexByte(s, ':'); {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return Rule{}, fmt.Errorf("destination %q: a bracket is not closed", s)
		}
		rest := s[end+1:]
		host = s[1:end]
		if prefix, after, ok := cutPrefixLength(rest); ok {
			host, rest = host+prefix, after
		}
		if rest != "" && rest[0] != ':' {
			return Rule{}, fmt.Errorf("destination %q: want host[:port]", s)
		}
		port = strings.TrimPrefix(rest, ":")
		if rest == ":" {
			return Rule{}, fmt.Errorf("destination %q: the port is missing", s)
		}
	case i >= 0 && strings.Count(s, ":") == 1:
		host, port = s[:i], s[i+1:]
		if port == "" {
			return Rule{}, fmt.Errorf("destination %q: the port is missing", s)
		}
	}
	var r Rule
	var err error
	if port != "" {
		if r.Ports, err = ParsePorts(port); err != nil {
			return Rule{}, fmt.Errorf("destination %q: %w", s, err)
		}
	}
	if r.Prefix, err = parsePrefix(host); err == nil {
		return r, nil
	}
	if r.Name, err = ruleName(host); err != nil {
		return Rule{}, fmt.Errorf("destination %q: %w", s, err)
	}
	return r, nil
}

// cutPrefixLength parts "/64:80" into "/64" and ":80".
func cutPrefixLength(s string) (length, rest string, ok bool) {
	if !strings.HasPrefix(s, "/") {
		return "", s, false
	}
	if i := strings.IndexByte(s, ':'); i >= 0 {
		return s[:i], s[i:], true
	}
	return s, "", true
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("address %q: want one without a zone", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// ruleName checks a name of a rule and folds it.
func ruleName(s string) (string, error) {
	name := foldName(s)
	below, isBelow := strings.CutPrefix(name, "*.")
	if !validHostName(below) {
		return "", fmt.Errorf("%q is no host name", s)
	}
	// What can only be meant as an address is no name: 1.2.3 or 10.0.0.256.
	if strings.Trim(below, "0123456789./") == "" {
		return "", fmt.Errorf("%q is no address", s)
	}
	if isBelow {
		return "." + below, nil
	}
	return below, nil
}

// validHostName follows RFC 1123 2.1, with the underscore that container names
// have.
func validHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return true
}

func (r Rule) matchesName(name string) bool {
	if r.Name == "" {
		return false
	}
	return r.Name == name || r.Name[0] == '.' && strings.HasSuffix(name, r.Name)
}

// foldName is a host name in the form that they are compared in.
func foldName(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }
