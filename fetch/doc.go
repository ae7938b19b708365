// SPDX-License-Identifier: Apache-2.0

// Package fetch brings base images in and takes images out: over the OCI distribution
// protocol from and to registries, and from local files, folders and URLs.
//
//	Registry: ping, token -> manifest or index -> platform -> *Image
//	Push:     documents, children first; per blob HEAD, mount, else a resumed upload
//	Keyring:  Docker's and Podman's files, credential helpers -> Credential -> session
//	Open:     sniff -> OCI layout or docker-save archive -> *Image
//	                -> anything else that is a tar       -> *Rootfs, its bytes untouched
//	Image:    Manifest is known by then; Blob streams raw bytes from any offset
//	session:  how one registry wants to be convinced, and the token of the moment
//	guard:    every request of every layer above passes it: policy, retries, stalls
//	stream:   a body that was cut is taken up again where it ended
//
// Invariants: plain http goes to loopback registries, to those that the user has
// configured as insecure and to http URLs that he typed, nowhere else. A credential is sent
// to the host that it was got for, and a password to that registry's token server, and to
// no other, whatever those redirect to. Every document has a size limit, every graph a
// depth and a number, every silence an end. A manifest is checked against its digest here;
// blobs are checked by the store, but a reader never yields more bytes than its
// descriptor says. What came over the wire reaches an error only with its control
// characters escaped.
//
// The package never writes but to unlinked temporary files and to the files of
// credentials, runs no program but docker-credential-*, never decides where a blob
// lives and never touches a namespace, a mount or a terminal.
package fetch
