// SPDX-License-Identifier: Apache-2.0

package build

import (
	"fmt"
	"strconv"
	"strings"
)

// changeMode applies --chmod to the mode of a file, of permission and special bits.
func changeMode(spec string, mode uint32, isDir bool) uint32 {
	if n, err := strconv.ParseUint(spec, 8, 32); err == nil {
		return uint32(n) & 0o7777
	}
	changed, err := symbolicMode(spec, mode, isDir)
	if err != nil {
		return mode // checkMode has refused it
	}
	return changed
}

// symbolicMode applies clauses such as u=rwX,go-w, by the grammar of chmod(1)
// without a umask.
func symbolicMode(spec string, mode uint32, isDir bool) (uint32, error) {
	for clause := range strings.SplitSeq(spec, ",") {
		i := strings.IndexAny(clause, "+-=")
		if i < 0 || strings.Trim(clause[:i], "ugoa") != "" {
			return 0, fmt.Errorf("invalid chmod parameter: '%s'", spec)
		}
		who := clause[:i]
		if who == "" || strings.Contains(who, "a") {
			who = "ugo"
		}
		for rest := clause[i:]; rest != ""; {
			op := rest[0]
			rest = rest[1:]
			end := strings.IndexAny(rest, "+-=")
			if end < 0 {
				end = len(rest)
			}
			perms := rest[:end]
			rest = rest[end:]
			next, ok := applyMode(mode, who, op, perms, isDir)
			if !ok {
				return 0, fmt.Errorf("invalid chmod parameter: '%s'", spec)
			}
			mode = next
		}
	}
	return mode, nil
}

// applyMode applies one operator. The bits of u, g and o stand 6, 3 and 0 to the
// left of those of "rwx".
func applyMode(mode uint32, who string, op byte, perms string, isDir bool) (uint32, bool) {
	shift := map[byte]int{'u': 6, 'g': 3, 'o': 0}
	special := map[byte]uint32{'u': 0o4000, 'g': 0o2000}
	var bits, mask uint32
	for _, w := range []byte(who) {
		mask |= 0o7<<shift[w] | special[w]
		for _, p := range []byte(perms) {
			switch p {
			case 'r':
				bits |= 0o4 << shift[w]
			case 'w':
				bits |= 0o2 << shift[w]
			case 'x':
				bits |= 0o1 << shift[w]
			case 'X':
				if isDir || mode&0o111 != 0 {
					bits |= 0o1 << shift[w]
				}
			case 's':
				bits |= special[w]
			case 't':
				bits |= 0o1000
			case 'u', 'g', 'o':
				bits |= mode >> shift[p] & 0o7 << shift[w]
			default:
				return 0, false
			}
		}
	}
	switch op {
	case '+':
		return mode | bits, true
	case '-':
		return mode &^ bits, true
	}
	if strings.Contains(perms, "t") {
		mask |= 0o1000
	}
	return mode&^mask | bits, true
}
