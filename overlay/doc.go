// SPDX-License-Identifier: Apache-2.0

// Package overlay moves a filesystem between tar and directory and looks into stacks of such directories.
//
// The data flow:
//
//	blob -> Decompress -> (caller hashes) -> Unpack -> layer directory      compression.go, unpack.go
//	     framing.go     no two readers may disagree about where an entry begins
//	     tree.go        where an entry's parent is, beneath the root's descriptor
//	     entry.go       one entry: create, content, metadata; marker.go: whiteouts
//	layer directories -> OpenMerged -> one file                             open.go
//	layer directories -> Flatten -> plain directory                         flatten.go
//	upper directory, or changed copy -> Diff -> layer tar                   diff.go; Changes -> A, C, D
//	     compare.go     what differs from the layers below, one directory at a time
//	     pack.go        one file: header, content, second names
//	directory -> RemoveAll -> nothing                                       remove.go
//
// # A layer on disk
//
// A layer directory is what the kernel's overlayfs takes as a lower directory
// under the option userxattr: a whiteout is the character device 0:0, an opaque
// directory has the attribute user.overlay.opaque=y. Where the filesystem
// refuses these, they stay what they are in the tar: empty files .wh.NAME and
// .wh..wh..opq, and only Flatten and OpenMerged can read the layer
// (Result.Markers).
//
// Unpacked for one ID (UnpackOptions.Recorded) every file belongs to the caller.
// Its true owner, its set-ID and sticky bits, a device's number stand in the
// attribute user.containers.override_stat, see Owner.Record; privileged
// attributes in user.containers.override_xattr.NAME. What cannot carry
// attributes stands in a table, see Owners. No record means: owner 0:0, and mode
// as on disk. Device nodes are never made: a device is an empty file and a
// record, on every rung.
//
// # Invariants
//
// Everything is opened beneath the root's descriptor, without following a
// symbolic link that this package has not resolved in the root itself. An entry
// is created, never opened: whatever had its name is removed first, by
// descriptor. Metadata goes through the descriptor of what was just created.
//
// Whatever the archive says, an unpack ends: with a tree, or with one error that
// names the entry. Memory does not grow with the archive, but for the table of
// owners, which is bounded.
//
// # Never
//
// It does not follow a path it did not open beneath its root descriptor, runs no
// program, mounts nothing, and knows no image and no digest.
package overlay
