// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbidMain is the command `forbid PROGRAM ARGS...`: it runs a program under a
// filter that refuses user namespaces, as other container engines have.
func forbidMain() {
	err := errors.New("usage: forbid PROGRAM ARGS...")
	if len(os.Args) > 1 {
		err = forbid(os.Args[1:])
	}
	fmt.Fprintln(os.Stderr, "forbid:", err)
	os.Exit(1)
}

// Offsets in struct seccomp_data, seccomp(2).
const (
	offsetNumber   = 0
	offsetArgument = 16 // the low half of the first, on a little-endian machine
)

func forbid(command []string) error {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	filter := []unix.SockFilter{
		load(offsetNumber),
		equal(unix.SYS_CLONE3, 5, 0), // its flags are in memory: ENOSYS has callers use clone
		equal(unix.SYS_CLONE, 1, 0),
		equal(unix.SYS_UNSHARE, 0, 4),
		load(offsetArgument),
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.CLONE_NEWUSER, Jt: 0, Jf: 2},
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)),
		answer(unix.SECCOMP_RET_ALLOW),
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, command, os.Environ())
}
