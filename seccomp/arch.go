// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Arch is an architecture as a filter sees it: one table of system call numbers
// (linux/audit.h, AUDIT_ARCH_*).
type Arch uint32

// The architectures that sbx's machines run programs of.
const (
	AMD64 Arch = unix.AUDIT_ARCH_X86_64
	I386  Arch = unix.AUDIT_ARCH_I386 // also what a 64-bit program reaches through int 0x80
	ARM64 Arch = unix.AUDIT_ARCH_AARCH64
	ARM   Arch = unix.AUDIT_ARCH_ARM
)

// X32Bit is set in the numbers of x32, a third table that AMD64's programs reach.
const X32Bit = 0x40000000

// wide reports whether arguments have 64 bits. Those of the other architectures
// may come with rubbish above: int 0x80 does not clear it.
func (a Arch) wide() bool { return a&0x80000000 != 0 }

// native are the architectures of a machine, by Go's name of it: its own, then
// that of its 32-bit programs.
func native(goarch string) (own, compat Arch, err error) {
	switch goarch {
	case "amd64":
		return AMD64, I386, nil
	case "arm64":
		return ARM64, ARM, nil
	}
	return 0, 0, fmt.Errorf("build seccomp filter: architecture %s is not known", goarch)
}

// call is a system call with its number on each architecture, or absent.
type call struct {
	name                    string
	amd64, i386, arm64, arm int32
}

const absent = -1

// lookup finds a system call by its name in the kernel's headers.
func lookup(name string) (*call, bool) {
	i, ok := slices.BinarySearchFunc(calls[:], name, func(c call, name string) int { return strings.Compare(c.name, name) })
	if !ok {
		return nil, false
	}
	return &calls[i], true
}

// Number is the number of the system call of that name.
func (a Arch) Number(name string) (number uint32, ok bool) {
	c, ok := lookup(name)
	if !ok {
		return 0, false
	}
	n := c.on(a)
	return uint32(n), n != absent
}

func (c *call) on(a Arch) int32 {
	switch a {
	case AMD64:
		return c.amd64
	case I386:
		return c.i386
	case ARM64:
		return c.arm64
	case ARM:
		return c.arm
	}
	return absent
}

func (a Arch) String() string {
	switch a {
	case AMD64:
		return "amd64"
	case I386:
		return "i386"
	case ARM64:
		return "arm64"
	case ARM:
		return "arm"
	}
	return fmt.Sprintf("architecture %#x", uint32(a))
}
