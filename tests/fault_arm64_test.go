// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// systemCall is the set of the one register with the number of the call, NT_ARM_SYSTEM_CALL.
const systemCall = 0x404

// setNumber has the call that begins be another one.
func setNumber(tid int, n int64) error {
	number := int32(n)
	set := unix.Iovec{Base: (*byte)(unsafe.Pointer(&number)), Len: uint64(unsafe.Sizeof(number))}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SETREGSET, uintptr(tid), systemCall, uintptr(unsafe.Pointer(&set)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// setResult has the call that ends return something else.
func setResult(tid int, v int64) error {
	var all unix.PtraceRegsArm64
	if err := unix.PtraceGetRegSetArm64(tid, unix.NT_PRSTATUS, &all); err != nil {
		return err
	}
	all.Regs[0] = uint64(v)
	return unix.PtraceSetRegSetArm64(tid, unix.NT_PRSTATUS, &all)
}
