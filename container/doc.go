// SPDX-License-Identifier: Apache-2.0

// Package container owns a container from record to exit status.
//
// The data flow:
//
//	Base + Options -> Create -> containers/ID/config.json          config.go, create.go
//	Config -> recipe -> userns.Prog -> the program as pid 1        recipe*.go
//	Run -> monitor (a role of this binary) -> exit status          run.go, monitor.go
//	flags -> addresses, ports -> device, engine -> network         network*.go, recipe_network.go
//	flags -> limits of processes, control groups of the user's     limits.go, scope*.go
//	other containers' namespaces -> the start                      shared*.go
//	terminal, pipes, signals of the client                         stdio.go, attach.go, signals.go
//
// # Invariants
//
// The recipe is a program of system calls, in one order for every start, which
// reads from top to bottom in recipe.go. Everything that the image may choose (a
// path, a link, a file's kind) is opened beneath the root's descriptor before it
// is used. What is mounted over the image is from the host or from this
// container's own directory, never from a path that the image resolves.
//
// The monitor is pid 1 of a pid namespace around the container's: when it dies,
// the kernel kills the container (one that has the processes of another is the
// exception: shared_pid.go). A container is "running" only while the very process in
// its state lives, so nothing on disk can lie about it.
//
// # Never
//
// It does not talk HTTP, parse flags or Dockerfiles, or print.
package container
