// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory of the waiting process is read and written by process_vm_readv(2) and
// process_vm_writev(2). It is the process's to change or unmap at any moment:
// every read is bounded, and what fails is EFAULT, as it is for the kernel.

const (
	pathMax  = 4096 // with the NUL
	pageSize = 4096 // the smallest; a step that ends at its borders ends at no larger page's middle that matters
)

// readMemory reads exactly len(to) bytes at an address of the process.
func readMemory(pid uint32, address uint64, to []byte) unix.Errno {
	if len(to) == 0 {
		return 0
	}
	n, errno := transfer(unix.SYS_PROCESS_VM_READV, pid, address, to)
	if errno != 0 || n != len(to) {
		return unix.EFAULT
	}
	return 0
}

// writeMemory writes all of from to an address of the process.
func writeMemory(pid uint32, address uint64, from []byte) unix.Errno {
	if len(from) == 0 {
		return 0
	}
	n, errno := transfer(unix.SYS_PROCESS_VM_WRITEV, pid, address, from)
	if errno != 0 || n != len(from) {
		return unix.EFAULT
	}
	return 0
}

// isHidden reports whether the memory of the process is not ours to read,
// whatever there is at the address.
func isHidden(pid uint32, address uint64) bool {
	var first [1]byte
	_, errno := transfer(unix.SYS_PROCESS_VM_READV, pid, address, first[:])
	return errno == unix.EPERM
}

// remoteVector is struct iovec with an address that is not ours.
type remoteVector struct{ base, length uint64 }

func transfer(number uintptr, pid uint32, address uint64, buf []byte) (int, unix.Errno) {
	local := unix.Iovec{Base: &buf[0], Len: uint64(len(buf))}
	remote := remoteVector{address, uint64(len(buf))}
	// Not RawSyscall: a page may have to come from a slow filesystem, and the
	// garbage collector must not wait for that.
	n, _, errno := syscall.Syscall6(number, uintptr(pid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// readString reads a string of fewer than len(to) bytes and returns its length;
// to holds it with its NUL. Like the kernel, it reads no page that the string
// does not reach into.
func readString(pid uint32, address uint64, to []byte) (int, unix.Errno) {
	const first = 512 // nearly every path is shorter
	for n := 0; n < len(to); {
		step := pageSize - int((address+uint64(n))%pageSize)
		if n == 0 {
			step = min(step, first)
		}
		step = min(step, len(to)-n)
		if errno := readMemory(pid, address+uint64(n), to[n:n+step]); errno != 0 {
			return 0, errno
		}
		if i := bytes.IndexByte(to[n:n+step], 0); i >= 0 {
			return n + i, 0
		}
		n += step
	}
	return 0, unix.ENAMETOOLONG
}

// writeUint32s writes each value at its address.
func writeUint32s(pid uint32, addresses []uint64, values []uint32) unix.Errno {
	var word [4]byte
	for i, v := range values {
		binary.NativeEndian.PutUint32(word[:], v)
		if errno := writeMemory(pid, addresses[i], word[:]); errno != 0 {
			return errno
		}
	}
	return 0
}

// bytesOf is the memory of a structure.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
