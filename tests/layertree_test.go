// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"archive/tar"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/overlay"
)

// node is what a layer says of one file, on whichever rung it was unpacked.
type node struct {
	kind     string
	mode     uint32
	uid, gid uint32
	size     int64
	target   string // of a symbolic link
	device   string // MAJOR:MINOR
	caps     string // security.capability, in hexadecimal
}

func (n node) String() string {
	s := fmt.Sprintf("%s %04o %d:%d", n.kind, n.mode, n.uid, n.gid)
	switch n.kind {
	case "file":
		s += fmt.Sprintf(" %d", n.size)
	case "symlink":
		s += " -> " + n.target
	case "char", "block":
		s += " " + n.device
	}
	if n.caps != "" {
		s += " caps=" + n.caps
	}
	return s
}

// listing writes nodes a line each, sorted by path.
func listing(nodes map[string]node) string {
	var lines []string
	for p, n := range nodes {
		lines = append(lines, fmt.Sprintf("%q %s\n", p, n))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// layertreeMain is the command `layertree LAYER`: it prints the listing of an
// unpacked layer, LAYER/root with LAYER/owners.json. It runs in a user namespace
// with the map of the layer's rung.
func layertreeMain() {
	nodes, err := unpackedNodes(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "layertree:", err)
		os.Exit(1)
	}
	fmt.Print(listing(nodes))
}

func unpackedNodes(layer string) (map[string]node, error) {
	owners := overlay.Owners{}
	f, err := os.Open(filepath.Join(layer, "owners.json"))
	if err == nil {
		owners, err = overlay.LoadOwners(f)
		f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	root := filepath.Join(layer, "root")
	nodes := map[string]node{}
	err = filepath.WalkDir(root, func(at string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		n, err := unpackedNode(at)
		if o, ok := owners[name]; ok {
			n.fill(o)
		}
		nodes[name] = n
		return err
	})
	return nodes, err
}

var kindNames = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "symlink", unix.S_IFIFO: "pipe",
	unix.S_IFSOCK: "socket", unix.S_IFCHR: "char", unix.S_IFBLK: "block",
}

// unpackedNode reads a file as it is on disk, and what its record says instead.
func unpackedNode(at string) (node, error) {
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		return node{}, err
	}
	n := node{
		kind: kindNames[st.Mode&unix.S_IFMT], mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, size: st.Size,
		device: fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)),
	}
	// Without a record a file of the user's is root's.
	if int(st.Uid) == os.Getuid() {
		n.uid = 0
	}
	if int(st.Gid) == os.Getgid() {
		n.gid = 0
	}
	if n.kind == "symlink" {
		var err error
		n.mode = 0o777
		n.target, err = os.Readlink(at)
		return n, err
	}
	if n.kind != "file" && n.kind != "dir" {
		return n, nil
	}
	if record := attribute(at, overlay.RecordXattr); record != nil {
		o, err := overlay.ParseRecord(string(record))
		if err != nil {
			return n, err
		}
		n.fill(o)
	}
	for _, name := range []string{"security.capability", overlay.RecordXattrPrefix + "security.capability"} {
		if value := attribute(at, name); value != nil {
			n.caps = capabilities(value)
		}
	}
	return n, nil
}

func (n *node) fill(o overlay.Owner) {
	n.kind, n.uid, n.gid = o.Kind.String(), o.UID, o.GID
	if n.kind != "symlink" {
		n.mode = o.Mode
	}
	n.device = fmt.Sprintf("%d:%d", o.Major, o.Minor)
}

func attribute(at, name string) []byte {
	value := make([]byte, 256)
	k, err := unix.Lgetxattr(at, name, value)
	if err != nil {
		return nil
	}
	return value[:k]
}

// capabilities drops the ID of the namespace's root, which the kernel adds to
// what is set in one (capabilities(7), version 3).
func capabilities(value []byte) string {
	if len(value) == 24 && value[3] == 3 {
		value = append([]byte{value[0], value[1], value[2], 2}, value[4:20]...)
	}
	return hex.EncodeToString(value)
}

// archivedNodes reads what a tar says of its files.
func archivedNodes(r io.Reader) (map[string]node, error) {
	nodes := map[string]node{}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nodes, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Join(".", h.Name)
		if h.Typeflag == tar.TypeLink {
			nodes[name] = nodes[path.Join(".", h.Linkname)]
			continue
		}
		n := node{mode: uint32(h.Mode & 0o7777), uid: uint32(h.Uid), gid: uint32(h.Gid), size: h.Size, target: h.Linkname,
			device: fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor)}
		switch h.Typeflag {
		case tar.TypeReg:
			n.kind = "file"
		case tar.TypeDir:
			n.kind = "dir"
		case tar.TypeSymlink:
			n.kind, n.mode = "symlink", 0o777
		case tar.TypeChar:
			n.kind = "char"
		case tar.TypeBlock:
			n.kind = "block"
		case tar.TypeFifo:
			n.kind = "pipe"
		}
		if value, ok := h.PAXRecords["SCHILY.xattr.security.capability"]; ok {
			n.caps = capabilities([]byte(value))
		}
		nodes[name] = n
	}
}
