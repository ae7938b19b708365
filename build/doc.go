// SPDX-License-Identifier: Apache-2.0

// Package build evaluates a Dockerfile into an image.
//
// The data flow:
//
//	bytes -> parsed stages                        dockerfile.go: BuildKit's own parser and instruction checker
//	stages + target -> the stages it needs        plan.go
//	stage + config of its base -> steps, config   stage.go, instruction.go: pure, no file is read
//	COPY, ADD -> sources -> a layer's tar         copy.go, source.go, walk.go, archive.go
//	RUN -> a container with a fresh upper         run.go, mount.go
//	layer -> key -> cache                         key.go, execute.go
//	layers + config -> image                      result.go
//
// # A step and its key
//
// What a stage becomes is a list of steps, each of which makes at most one layer.
// A step's key is the digest of everything its result depends on: the chain of
// layers it starts from, the instruction with its variables expanded, the
// environment for a RUN, and content and metadata of what a COPY reads. Times of
// files and secrets are not among it. The store keeps the layer of a key; a key
// that is known is not evaluated again.
//
// The files of a COPY are never written by this package: it makes the layer's
// tar, and the store unpacks it, beneath the root's descriptor and with owners
// recorded or real, as it does with a pulled layer.
//
// # Invariants
//
// A build context is read where it is, beneath a descriptor of its root, and only
// what an instruction names of it. Secrets are in the memory of this process and
// of the container's own filesystem in memory, and nowhere else.
//
// Whatever a Dockerfile says, the build ends: with an image, or with one error
// that names the lines.
//
// # Never
//
// It runs no program of the image except through package container, and no
// program of the host but git, for a git context. It opens no connection: what
// has a URL is handed to it.
package build
