// SPDX-License-Identifier: Apache-2.0

// Package fakeroot makes one real ID look like all of them: identities, owners and modes are answered as if there were many users.
//
// The data flow:
//
//	Filter     -> start program     installs it, sends its listener to the monitor          filter.go, calls.go
//	Supervisor -> one thread        in the container's mounts, for each listener            supervisor.go, service.go
//	trapped call -> notification -> answer | "go on" | new descriptor                       answer.go, then a file for each kind of call
//	identities:  RLIMIT_LOCKS of the process is the number of its credentials               credentials.go, interned.go, identity.go
//	owners:      user.containers.override_stat of the file, or a table                      record.go, owners.go; between runs saved.go, volumes.go, save.go
//
// # How a path is found
//
// The thread's root is the container's, so absolute paths mean what they mean for
// the process; one with another root is told apart (roots.go). The thread's
// working directory is a procfs of the monitor's pid namespace that is mounted
// nowhere: relative paths are looked up below PID/cwd and PID/fd/N there. An error
// that the supervisor's own calls find is not passed on: the kernel is told to go
// on and finds the same one, or finds that the process knows better.
//
// # Whose files
//
// Ownership is written down with files of the container's root, of its volumes
// and of its own tmpfs. What is mounted from the host is the user's: there it is
// remembered in memory until the container ends, and nothing is written. The two
// are told apart by the mount that a file is on (mounts.go).
//
// # Invariants
//
// The supervisor only changes answers. Whatever it does for a process the process
// may do itself, with the same rights, in the same mounts; so a program that
// changes its memory or its paths while it is being answered deceives nobody but
// itself. When anything is odd the answer is "go on", which is what happens
// without emulation.
//
// A thread of the supervisor is never unlocked, blocks all signals, and makes
// plain system calls only. What a container can make it remember is bounded.
// Nothing that exists is opened for reading or writing but the first two bytes of
// a program with a set-user-ID bit.
//
// # Never
//
// It grants nothing, and denies nothing that protects anyone: there is one real
// user, and all virtual ones can do what he can. It starts no process, writes to
// no file of the user's, and knows no image.
package fakeroot
