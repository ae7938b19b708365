// SPDX-License-Identifier: Apache-2.0

// Package bases makes base images on this machine, without a registry.
//
// The data flow:
//
//	Host    -> a directory of links, mount points and a copy of /etc -> container.Base
//	Collect -> programs, their interpreters and libraries            -> the tar of a root filesystem
//	Pull: the index of a distribution's server -> its tarball, verified -> imported
//	Bootstrap: release, verified -> packages, chosen -> their files, a layer -> configured in a container, a second
//
// # Invariants
//
// What is made is kept under a fingerprint of what it was made of, complete or
// not there at all. The host's own files are only read, and mounted read-only.
//
// Nothing that a mirror of Debian's sends is used before a key that is trusted has
// proved it. Of what the catalog brings the sum is checked always, and the signature
// where the distribution signs and its key is known.
//
// # Never
//
// It runs no foreign program outside a container, and shows no home directory.
package bases
