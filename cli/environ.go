// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPairLine is the longest line of an --env-file, as on Docker.
const maxPairLine = 64 << 10

// environment joins --env-file and -e, in this order. NAME alone takes its value
// from lookup; where that has none, a file's line is left out, and -e NAME takes
// the image's value away.
func environment(files, pairs []string, lookup func(string) (string, bool)) ([]string, error) {
	env, err := readPairFiles("env file", files, lookup)
	if err != nil {
		return nil, err
	}
	for _, p := range pairs {
		name, _, hasValue := strings.Cut(p, "=")
		if name == "" || strings.ContainsRune(p, 0) {
			return nil, fmt.Errorf("invalid environment variable: %s", p)
		}
		if value, ok := lookup(name); !hasValue && ok {
			p = name + "=" + value
		}
		env = append(env, p)
	}
	return env, nil
}

// labels joins --label-file and --label. NAME alone is a label without a value.
func labels(files, pairs []string) (map[string]string, error) {
	lines, err := readPairFiles("label file", files, func(string) (string, bool) { return "", true })
	if err != nil {
		return nil, err
	}
	if len(lines)+len(pairs) == 0 {
		return nil, nil
	}
	set := make(map[string]string, len(lines)+len(pairs))
	for _, p := range append(lines, pairs...) {
		name, value, _ := strings.Cut(p, "=")
		if name == "" {
			return nil, fmt.Errorf("invalid label %q: it has no name", p)
		}
		set[name] = value
	}
	return set, nil
}

func readPairFiles(what string, files []string, lookup func(string) (string, bool)) ([]string, error) {
	var all []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		pairs, err := readPairs(f, lookup)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s %s: %w", what, name, err)
		}
		all = append(all, pairs...)
	}
	return all, nil
}

// readPairs reads lines of NAME=VALUE as Docker does: space before a name, empty
// lines and lines that begin with # are passed over, nothing is unquoted or
// expanded, and NAME alone takes its value from lookup or is left out.
func readPairs(r io.Reader, lookup func(string) (string, bool)) ([]string, error) {
	var pairs []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxPairLine)
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		if !utf8.Valid(line) || bytes.ContainsRune(line, 0) {
			return nil, fmt.Errorf("line %d: not UTF-8 text", n)
		}
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\uFEFF"))
		}
		pair := strings.TrimLeftFunc(string(line), unicode.IsSpace)
		if pair == "" || pair[0] == '#' {
			continue
		}
		name, _, hasValue := strings.Cut(pair, "=")
		if name == "" {
			return nil, fmt.Errorf("line %d: no variable name", n)
		}
		if strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("line %d: variable '%s' contains whitespaces", n, name)
		}
		if hasValue {
			pairs = append(pairs, pair)
		} else if value, ok := lookup(name); ok {
			pairs = append(pairs, name+"="+value)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("a line is longer than %d bytes", maxPairLine)
	}
	return pairs, lines.Err()
}
