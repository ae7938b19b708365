// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bufio"
	"bytes"
	"fmt"
	"path"
	"strings"

	"github.com/moby/patternmatcher"
)

// maxIgnore bounds a .dockerignore.
const maxIgnore = 4 << 20

// readIgnore reads the patterns of a .dockerignore (Docker's documentation of the
// build context): a line each, # begins a comment, paths are cleaned.
func readIgnore(data []byte) ([]string, error) {
	if len(data) > maxIgnore {
		return nil, fmt.Errorf("read .dockerignore: it is larger than %d bytes", maxIgnore)
	}
	var patterns []string
	lines := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(data, []byte("\uFEFF"))))
	lines.Buffer(nil, maxIgnore+1)
	for lines.Scan() {
		p := lines.Text()
		if strings.HasPrefix(p, "#") {
			continue
		}
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		invert := p[0] == '!'
		if invert {
			p = strings.TrimSpace(p[1:])
		}
		if p != "" {
			p = path.Clean(p)
			if len(p) > 1 && p[0] == '/' {
				p = p[1:]
			}
		}
		if invert {
			p = "!" + p
		}
		patterns = append(patterns, p)
	}
	return patterns, lines.Err()
}

// filter says which paths of a tree are not there.
type filter struct {
	matcher *patternmatcher.PatternMatcher
	again   bool // patterns may bring back what is in a directory that is left out
}

func newFilter(patterns []string) (*filter, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	return &filter{matcher: m, again: m.Exclusions()}, nil
}

// filterState is what matching a directory leaves for what is in it.
type filterState = patternmatcher.MatchInfo

// drops reports whether path is left out; state is that of its directory.
func (f *filter) drops(path string, state filterState) (bool, filterState, error) {
	if f == nil || path == "" {
		return false, filterState{}, nil
	}
	return f.matcher.MatchesUsingParentResults(path, state)
}

// dropsPath is drops for a path whose directories were not looked at.
func (f *filter) dropsPath(path string) (bool, error) {
	if f == nil || path == "" {
		return false, nil
	}
	return f.matcher.MatchesOrParentMatches(path)
}

// stateOf is what matching the directories of a path leaves.
func (f *filter) stateOf(path string) (filterState, error) {
	var state filterState
	if f == nil || path == "" {
		return state, nil
	}
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		var err error
		if _, state, err = f.matcher.MatchesUsingParentResults(path[:i], state); err != nil {
			return state, err
		}
	}
	return state, nil
}
