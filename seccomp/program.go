// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Program is a filter in the kernel's form. A nil Program is no filter.
type Program struct {
	code  []unix.SockFilter
	flags uintptr
}

// maxLen is the kernel's limit (BPF_MAXINSNS).
const maxLen = 4096

// Fprog is the program as seccomp(2) takes it, or nil. What it points at lives as
// long as it does.
func (p *Program) Fprog() *unix.SockFprog {
	if p == nil {
		return nil
	}
	return &unix.SockFprog{Len: uint16(len(p.code)), Filter: &p.code[0]}
}

// Flags are what seccomp(2) should be called with. SPEC_ALLOW is always among
// them: before Linux 5.16 a filter without it slows every process behind it down
// by a CPU mitigation that such a kernel ties to seccomp. runc sets it likewise.
func (p *Program) Flags() uintptr {
	if p == nil {
		return 0
	}
	return p.flags | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
}

// Len is the number of instructions.
func (p *Program) Len() int {
	if p == nil {
		return 0
	}
	return len(p.code)
}

// Allows reports whether calls with these numbers of the machine's own table pass,
// with arguments of zero.
func (p *Program) Allows(numbers ...uint32) bool {
	own, _, err := native(runtime.GOARCH)
	return err == nil && !slices.ContainsFunc(numbers, func(n uint32) bool {
		return p.Run(Data{Number: n, Arch: own}).Compare(Allow) != 0
	})
}

// Data is a system call as a filter sees it (struct seccomp_data).
type Data struct {
	Number uint32
	Arch   Arch
	IP     uint64
	Args   [argCount]uint64
}

// Offsets in struct seccomp_data. The low half of an argument comes first: all
// our architectures are little-endian.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetIP     = 8
	offsetArgs   = 16
	sizeArg      = 8
	sizeData     = offsetArgs + argCount*sizeArg
)

// word is what a load from that offset gives.
func (d *Data) word(offset uint32) (uint32, error) {
	if offset%4 != 0 || offset >= sizeData {
		return 0, fmt.Errorf("load from offset %d", offset)
	}
	half := func(v uint64, at uint32) uint32 { return uint32(v >> (8 * (at % sizeArg))) }
	switch {
	case offset == offsetNumber:
		return d.Number, nil
	case offset == offsetArch:
		return uint32(d.Arch), nil
	case offset < offsetArgs:
		return half(d.IP, offset-offsetIP), nil
	}
	return half(d.Args[(offset-offsetArgs)/sizeArg], offset-offsetArgs), nil
}

// Run is what the kernel would do with the call: it interprets the program. A nil
// Program allows everything.
func (p *Program) Run(d Data) Action {
	action, _ := p.run(&d)
	return action
}

// run also counts the instructions. What the kernel would not have accepted kills,
// as there is nobody to ask.
func (p *Program) run(d *Data) (action Action, steps int) {
	if p == nil {
		return Allow, 0
	}
	var a uint32
	for pc := 0; pc < len(p.code); pc++ {
		is := p.code[pc]
		steps++
		jump := func(yes bool) {
			if yes {
				pc += int(is.Jt)
			} else {
				pc += int(is.Jf)
			}
		}
		switch is.Code {
		case opLoad:
			var err error
			if a, err = d.word(is.K); err != nil {
				return KillProcess, steps
			}
		case opAnd:
			a &= is.K
		case opJump:
			pc += int(is.K)
		case opIfEqual:
			jump(a == is.K)
		case opIfGreater:
			jump(a > is.K)
		case opIfGreaterOrEqual:
			jump(a >= is.K)
		case opReturn:
			return Action(is.K), steps
		default:
			return KillProcess, steps
		}
	}
	return KillProcess, steps
}
