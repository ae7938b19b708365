// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Default is the filter of a container with this bounding set of capabilities,
// on the machine that this binary was built for.
func Default(caps []string) (*Program, error) {
	return DefaultFor(Target{Machine: runtime.GOARCH, Caps: caps}, false)
}

// DefaultFor is Docker's default profile with our refusals in front. With
// socketcall, 32-bit x86 programs may use the call of that name.
func DefaultFor(t Target, socketcall bool) (*Program, error) {
	usual := Target{Machine: t.Machine, Caps: usualCaps()}
	if packed := usualCode(t.Machine); packed != nil && !socketcall && defaultProfile.same(t, usual) {
		return unpack(packed), nil
	}
	return compileDefault(t, socketcall)
}

// usualCaps are the capabilities of an ordinary container, of those that make a
// difference to Docker's profile.
func usualCaps() []string { return []string{"CAP_SYS_CHROOT"} }

// usualCode is what compileDefault makes of them, compiled beforehand: compiling
// takes more time than all else that an ordinary start has for its filter.
func usualCode(machine string) []uint64 {
	switch machine {
	case "amd64":
		return usualAMD64[:]
	case "arm64":
		return usualARM64[:]
	}
	return nil
}

// pack puts an instruction in a number; unpack makes a program of many.
func pack(is unix.SockFilter) uint64 {
	return uint64(is.Code) | uint64(is.Jt)<<16 | uint64(is.Jf)<<24 | uint64(is.K)<<32
}

func unpack(packed []uint64) *Program {
	code := make([]unix.SockFilter, len(packed))
	for i, v := range packed {
		code[i] = unix.SockFilter{Code: uint16(v), Jt: uint8(v >> 16), Jf: uint8(v >> 24), K: uint32(v >> 32)}
	}
	return &Program{code: code}
}

func compileDefault(t Target, socketcall bool) (*Program, error) {
	f, err := defaultFilter(t, socketcall)
	if err != nil {
		return nil, err
	}
	return f.Compile()
}

func defaultFilter(t Target, socketcall bool) (*Filter, error) {
	f, err := defaultProfile.filter(t)
	if err != nil {
		return nil, err
	}
	for i := range f.Tables {
		table := &f.Tables[i]
		table.Rules = append(refusals(table.Arch, socketcall), table.Rules...)
	}
	return f, nil
}

// What the default filter refuses whatever Docker's profile says of it. The
// numbers of families and requests are the same on all architectures.
const (
	tiocsti   = 0x5412 // puts characters in a terminal's input: its owner's shell reads them
	tioclinux = 0x541c // does so on a console, by its selection
)

// refusals are rules for calls whose arguments the kernel takes for ints, so that
// bits above 32 must not hide what is refused.
func refusals(arch Arch, socketcall bool) []Rule {
	var rules []Rule
	refuse := func(name string, arg int, values ...uint64) {
		number, ok := arch.Number(name)
		if !ok {
			return
		}
		if values == nil {
			rules = append(rules, Rule{number, number, nil, refused})
		}
		for _, v := range values {
			rules = append(rules, Rule{number, number, []Test{{arg, Low32, Equal, v}}, refused})
		}
	}
	refuse("ioctl", 1, tiocsti, tioclinux)
	// AF_ALG hands unprivileged programs the kernel's cryptography and with it
	// writes to the page cache of files that they may only read (CVE-2026-31431);
	// AF_VSOCK reaches what listens on the hypervisor, past every namespace.
	refuse("socket", 0, unix.AF_ALG, unix.AF_VSOCK)
	if !socketcall {
		// Its arguments are in memory, where a filter cannot see the family.
		refuse("socketcall", 0)
	}
	return rules
}
