// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The names by which a layer tar says that something below it is gone
// (OCI image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

var (
	errClimbs      = errors.New("the name leads out of the archive")
	errName        = errors.New("the name holds a NUL byte")
	errWhiteout    = errors.New("not a valid whiteout")
	errWhiteoutDir = errors.New("a whiteout has no entries")
)

// cleanName turns a name of the archive into a relative path without ".", ".."
// and doubled slashes; "" is the root. Names that climb above the root are
// errors: no honest archive has them.
func cleanName(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", errName
	}
	name = strings.TrimLeft(name, "/")
	depth := 0
	for rest := name; rest != ""; {
		var part string
		switch part, rest, _ = strings.Cut(rest, "/"); part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return "", errClimbs
			}
		default:
			depth++
		}
	}
	if name = path.Clean(name); name == "." {
		return "", nil
	}
	return name, nil
}

// checkPath applies the limits on paths to a clean one.
func (l Limits) checkPath(clean string) error {
	if len(clean) > l.PathBytes {
		return &LimitError{What: "bytes in a path", Max: int64(l.PathBytes)}
	}
	if n := strings.Count(clean, "/"); n >= l.Depth {
		return &LimitError{What: "directories in a path", Max: int64(l.Depth)}
	}
	return nil
}

// splitPath splits a clean path other than the root.
func splitPath(clean string) (dir, base string) {
	i := strings.LastIndexByte(clean, '/')
	if i < 0 {
		return "", clean
	}
	return clean[:i], clean[i+1:]
}

func joinPath(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// A mark is what the last component of a name means in a layer.
type mark int

const (
	plain    mark = iota // an ordinary entry
	whiteout             // what has the rest of the name is gone
	opaque               // everything in the directory is gone
	ignored              // book-keeping of aufs, which old images carry
)

// markOf tells what the entry dir/base is. For a whiteout it returns the name
// that is gone.
func markOf(dir, base string) (m mark, name string, err error) {
	if strings.HasPrefix(dir, whiteoutPrefix) || strings.Contains(dir, "/"+whiteoutPrefix) {
		if first, _, _ := strings.Cut(dir, "/"); isAufs(first) {
			return ignored, "", nil
		}
		return plain, "", errWhiteoutDir
	}
	name, found := strings.CutPrefix(base, whiteoutPrefix)
	switch {
	case !found:
		return plain, "", nil
	case base == opaqueName:
		return opaque, "", nil
	case dir == "" && isAufs(base):
		return ignored, "", nil
	case name == "" || name == "." || name == ".." || strings.HasPrefix(name, whiteoutPrefix):
		return plain, "", errWhiteout
	}
	return whiteout, name, nil
}

func isAufs(name string) bool {
	return name == ".wh..wh.aufs" || name == ".wh..wh.plnk" || name == ".wh..wh.orph"
}

// isReserved reports whether no file of a layer can have this name.
func isReserved(base string) bool { return strings.HasPrefix(base, whiteoutPrefix) }

// deviceNumber joins a device's number, if there is such a device.
func deviceNumber(major, minor int64) (ma, mi uint32, err error) {
	if major < 0 || major > maxMajor || minor < 0 || minor > maxMinor {
		return 0, 0, errors.New("no such device number")
	}
	return uint32(major), uint32(minor), nil
}

// checkXattrName refuses names that the kernel would, before it is asked.
func checkXattrName(name string) error {
	switch {
	case name == "":
		return named("set attribute", unix.EINVAL)
	case len(name) > maxXattrName:
		return named("set attribute "+quote(name), unix.ERANGE)
	case strings.IndexByte(name, 0) >= 0:
		return named("set attribute "+quote(name), unix.EINVAL)
	}
	return nil
}
