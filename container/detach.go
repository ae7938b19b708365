// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// DefaultDetachKeys are Docker's: ctrl-p, ctrl-q.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ParseDetachKeys reads a sequence of keys in Docker's form: letters, or ctrl-
// and one of a-z @ [ \ ] ^ _, with commas between. An empty text is the default.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = DefaultDetachKeys
	}
	var keys []byte
	for key := range strings.SplitSeq(s, ",") {
		control, isControl := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(key) == 1:
			keys = append(keys, key[0])
		case isControl && len(control) == 1 && control[0] >= 'a' && control[0] <= 'z':
			keys = append(keys, control[0]-'a'+1)
		case isControl && control == "@":
			keys = append(keys, 0)
		case isControl && len(control) == 1 && strings.Contains(`[\]^_`, control):
			keys = append(keys, control[0]-'@')
		default:
			return nil, fmt.Errorf("invalid detach keys (%s) provided", s)
		}
	}
	return keys, nil
}

// escape reads the keys of a terminal, and ends with ErrDetached when the detach
// keys are among them. The beginning of what may become that is held back until
// it is clear that it does not.
type escape struct {
	keys    []byte
	from    io.Reader
	matched int
}

func (e *escape) Read(buf []byte) (int, error) {
	for {
		// Room for what was held back.
		n, err := e.from.Read(buf[:len(buf)-len(e.keys)])
		out, detached := e.pass(buf[:n])
		n = copy(buf, out)
		if detached {
			return n, ErrDetached
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// pass returns the keys to pass on, and whether the sequence was completed.
func (e *escape) pass(typed []byte) (out []byte, detached bool) {
	if len(e.keys) == 0 {
		return typed, false
	}
	for _, key := range typed {
		held := append(bytes.Clone(e.keys[:e.matched]), key)
		// The longest end of what was typed that begins the sequence.
		for n := len(held); n >= 0; n-- {
			if bytes.Equal(held[len(held)-n:], e.keys[:n]) {
				out = append(out, held[:len(held)-n]...)
				e.matched = n
				break
			}
		}
		if e.matched == len(e.keys) {
			return out, true
		}
	}
	return out, false
}
