// SPDX-License-Identifier: Apache-2.0

// Package cli parses argv, calls one function, prints, and chooses the exit status.
//
// The data flow:
//
//	argv -> command (cli.go) -> flags and operands (args.go, options.go)
//	run: flags -> container.Options (flags.go, accepted.go, mounts.go, tmpfs.go, environ.go)
//	IMAGE -> container.Base: host, a file, a URL, a directory, a reference (resolve.go, platform.go)
//	fetch -> store, its progress on the terminal (pull.go, progress.go)
//	records -> tables, JSON, Go templates (format.go, record.go, units.go)
//	error -> one line, a hint, a status (output.go, exit.go)
//
// One file per command, in four parts: the command, its options, their flags,
// and run. Flag names, texts of tables and fields of templates are Docker's.
//
// # Invariants
//
// Standard output carries only what was asked for. Everything after the image
// belongs to the program. What another machine sent is printed with its control
// characters escaped. A flag that is accepted and has no effect here says so in
// one line; a security option that has none is an error.
//
// # Never
//
// It holds no logic that a second command would need, keeps nothing between two
// commands, and makes no system call.
package cli
