// SPDX-License-Identifier: Apache-2.0

package container

import (
	"golang.org/x/sys/unix"
)

// programMode is the mode of the file that this process executes, before any
// program of the container has run.
//
// A script whose interpreter is /proc/self/exe has the kernel execute that file in
// the container, whose other programs can then name it; and they are its owner
// where the user is. They cannot write it: this process executes it as long as one
// of them lives. They can set its mode. So what they add is taken away when the
// last of them is dead and before this process is: at no moment can anybody write
// the file who could not before. As a set-user-ID program it refuses to start, see
// userns.Dispatch.
type programMode struct {
	mode  uint32
	known bool
}

const ownFile = "/proc/self/exe"

// lending are the bits by which others get at what is the owner's.
const lending = unix.S_ISUID | unix.S_ISGID | unix.S_IWGRP | unix.S_IWOTH

const lentError = "the container made the file of sbx's own program writable or set-user-ID, which was undone"

func ownProgram() programMode {
	var st unix.Stat_t
	err := unix.Stat(ownFile, &st)
	return programMode{st.Mode & 0o7777, err == nil}
}

// restore takes away what was lent since, and reports whether something was.
func (p programMode) restore() bool {
	now := ownProgram()
	lent := now.mode &^ p.mode & lending
	return p.known && now.known && lent != 0 && unix.Chmod(ownFile, now.mode&^lent) == nil
}
