// SPDX-License-Identifier: Apache-2.0

// Package userns starts programs and this binary in new namespaces with mapped IDs, talks to it, and joins them later.
//
// The data flow:
//
//	Probe     -> Rung                     what this host allows, found by doing it
//	Prog      -> Start -> Process         a forked child that is a list of system calls, in new namespaces
//	Leave     -> trampoline               its last steps, run by a file in memory and not by this binary's
//	Call      -> "sbx-ROLE" -> answer     this binary again, as mapped root, for one job
//	Conn      -> JSON + descriptors       the one form of message between any two of our processes
//
// # The processes and their messages
//
// A role is started with its socket as descriptor 3 and the role in argv[0]. The
// conversation of a job (unpack, remove, copy) is one question and one answer:
//
//	caller                                role
//	 clone, maps, execve ────────────────►
//	 {question} + files ─────────────────►
//	                    ◄───────────────── {answer} or {error, hint}
//	                                       exit
//
// The conversation of a container, whose monitor is a role that stays:
//
//	client                                monitor (pid 1 of the outer pid namespace)
//	 {container, stdio} + files ─────────► (queued before the clone)
//	 clone A ── clone B ── A: execve
//	                                       B: mounts .. execve     errors: (step, errno) on the status pipe
//	 {signal n} ─────────────────────────► kill(B, n)
//	                    ◄───────────────── {exit status}
//	 end of file ────────────────────────► the client died: kill B when it was to be removed
//
// # Invariants
//
// A forked child runs no Go code but the nosplit interpreter in run.go: no
// allocation, no stack growth, no pointer writes. It reports a failed call as
// (step, errno), so that the error keeps its name. The binary is never started
// in a role without the socket that proves who asked. No call here waits
// without a context, and none polls.
//
// # Never
//
// It does not know what a role does, what an image or a container is, and runs
// no program but newuidmap, newgidmap and getsubids.
package userns
