// SPDX-License-Identifier: Apache-2.0

package userns

import "golang.org/x/sys/unix"

// Join adds the entering of the namespaces of the process behind pidfd: those
// of flags, CLONE_NEWUSER among them, in one call (setns(2), Linux 5.8).
// Namespaces that the process shares with us must be left out. What is forked
// next is in its pid namespace.
//
// The memory is hidden first. Until its execve the child is a copy of its
// parent, and a root in the container with CAP_SYS_PTRACE could read that and
// reach through its descriptors (CVE-2016-9962). It belongs to the host's user
// namespace, where that capability counts for nothing once it is undumpable;
// execve makes the program dumpable again.
//
// Runs in: a plain forked child (see Fork), single-threaded as setns wants it.
func (p *Prog) Join(pidfd any, flags int) {
	p.Call("hide memory", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	p.Call("enter namespaces", unix.SYS_SETNS, pidfd, flags)
}
