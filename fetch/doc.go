// SPDX-License-Identifier: Apache-2.0

// Package fetch brings base images in: from registries over the OCI distribution
// protocol, and from local files, folders and URLs.
//
//	Registry: ping, token -> manifest or index -> platform -> *Image
//	Open:     sniff -> OCI layout or docker-save archive -> *Image
//	                -> anything else that is a tar       -> *Rootfs, its bytes untouched
//	Image:    Manifest is known by then; Blob streams raw bytes from any offset
//	guard:    every request of every layer above passes it: policy, retries, stalls
//	stream:   a body that was cut is taken up again where it ended
//
// Invariants: plain http goes to loopback registries and to http URLs that the user
// typed, nowhere else. A credential is sent to the host that it was got for and to no
// other, whatever that redirects to. Every document has a size limit, every graph a
// depth and a number, every silence an end. A manifest is checked against its digest here;
// blobs are checked by the store, but a reader never yields more bytes than its
// descriptor says. What came over the wire reaches an error only with its control
// characters escaped.
//
// The package never writes but to unlinked temporary files, never decides where a blob
// lives and never touches a namespace, a mount or a terminal.
package fetch
