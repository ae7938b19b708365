// SPDX-License-Identifier: Apache-2.0

// Package seccomp builds the filters that the kernel asks about every system call of a container.
//
// The data flow:
//
//	Docker's JSON -> Parse -> Profile                   rules by name, some under conditions: parse.go
//	Profile + Target -> Filter                          rules by number and architecture: profile.go
//	Filter -> Compile -> Program                        the kernel's instructions: compile.go, argument.go, assemble.go
//	capabilities -> Default -> Program                  Docker's profile and our refusals: default.go
//
// A Filter may also be written by hand, as one that emulates root is: it allows by
// default, has [Notify] or Errno(0) for what is in its table, tests arguments, and
// has rules of its own for 32-bit programs. Several filters of one process add up,
// and the strictest answer wins ([Action.Compare]).
//
// # Installing
//
// Nothing here makes a system call. What starts the container does, as one of the
// last things before execve, on the only thread that is to be filtered:
//
//	prctl(PR_SET_NO_NEW_PRIVS, 1)                       or CAP_SYS_ADMIN in its user namespace
//	seccomp(SECCOMP_SET_MODE_FILTER, p.Flags(), p.Fprog())
//
// Every call after that must be one that the filter allows: the default one allows
// what follows (prctl, capset, setresuid, close_range, rt_sigprocmask, execve); one
// from a file need not, so that it comes last. For a filter with Notify the caller
// adds SECCOMP_FILTER_FLAG_NEW_LISTENER to the flags.
//
// # Invariants
//
// What is denied is denied in the program, never by whoever answers a
// notification. All 64 bits of an argument are compared unless a test says which
// the kernel looks at, and 32 of a 32-bit program's. A number that is unknown here
// is never allowed by a filter that denies by default. uretprobe and uprobe on
// AMD64 are past every filter since Linux 6.14, whatever a profile says.
//
// At start nothing is initialised, parsed or compiled: the profile is a table that
// is generated from Docker's module, and what it compiles to for ordinary
// containers is another. Tests hold both to their sources; after an update of a
// module, go generate writes them anew.
//
// # Never
//
// It does no I/O, knows no container, and installs nothing.
package seccomp

//go:generate env SBX_TEST_UPDATE=1 go test -count=1 -run TestGenerated/.*_(table|profile).go .
//go:generate env SBX_TEST_UPDATE=1 go test -count=1 -run TestGenerated/default_code.go .
