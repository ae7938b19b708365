// SPDX-License-Identifier: Apache-2.0

// Package store keeps images on disk: OCI-layout blobs, names, unpacked layers, and their garbage collection.
//
// The data flow:
//
//	Source -> partial file (+ digest) -> blobs/sha256/HEX              download.go, blob.go
//	partial file, followed as it grows -> decompress (+ diff ID)       unpack.go
//	     -> overlay.Unpack, here or in the role "unpack" -> layers/KEY/HEX    layer.go, role.go
//	what a container changed -> role "diff" -> tar (+ diff ID) -> gzip (+ digest) -> blob    draft.go, diff.go
//	     and the directory itself -> layers/KEY/HEX
//	manifest, name -> index.json                                       pull.go, draft.go, index.go
//	name -> index.json -> config -> layer directories                  image.go: what every run does
//
// On disk, beneath a directory of mode 0700 that belongs to the user:
//
//	version                    "1"; written last when a store is made
//	oci-layout, index.json     an OCI image layout, one line for each image, its ID among the annotations
//	blobs/sha256/HEX           manifests, configs and layers, as they came
//	layers/KEY/HEX/            one unpacked layer for the rung KEY, by diff ID, or by chain ID
//	                           if it took something from the layers below it:
//	    root/                  its tree, with overlayfs whiteouts
//	    owners.json            owners of files that cannot carry attributes; only if there are any
//	    layer.json             {boot, synced, ..}; written last
//	tmp/                       what is being made; see tmp.go
//	lock                       flock: held while index.json changes and while garbage is collected
//
// # Invariants
//
// What has its final name is whole: files and layers are made in tmp/ and renamed. Blobs
// and index.json are synced before; layers are a cache of their blobs, and one that was
// not synced when the machine went down is unpacked again.
//
// Every digest in a document becomes a reference.Digest before it becomes a path or is
// compared. Content is hashed by the code that moves it, and nothing is given its final
// name before its size, digest and, for layers, diff ID were found right.
//
// Whoever makes something in tmp/ holds a flock on it, so what has no holder is a dead
// process's and may be removed, or, if it is a partial download, continued. A pull names
// what it is going to need in a lease, and garbage collection honours the leases of the
// living. Nobody waits for anything while holding the lock of the index.
//
// Readers take no lock: renames show them the old state or the new.
//
// # Never
//
// It opens no connection (it is handed a Source), mounts nothing, and does not know what a
// container is: garbage collection is told which images and layers to keep.
package store
