// SPDX-License-Identifier: Apache-2.0

// Command bench measures sbx against its goals, and against the programs that
// the goals name.
//
// The data flow:
//
//	rows (rows.go) -> pairs of commands, run in turn -> medians (measure.go)
//	    -> a table line each; a goal that is missed -> exit status 1
//
//	-net: the network engine by itself, with its peers, between namespaces (net*.go)
//
// # Invariants
//
// What is compared runs in one go, A B B A, so that a slow moment of the machine
// meets both. A row that cannot be measured here says why; it is not missed.
// Nothing is left: stores and trees are in a directory that is removed.
//
// Podman refuses to run on a host whose cgroup hierarchies are mixed, as old
// init systems and some containers have them, with "cgroups in hybrid mode not
// supported". Root can hide the second hierarchy from one shell:
//
//	unshare -m sh -c 'umount /sys/fs/cgroup/unified; runuser -u USER -- make bench'
//
// # Never
//
// It asserts nothing in tests: speed is a matter of the machine.
package main
