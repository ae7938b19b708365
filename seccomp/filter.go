// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"math"
)

// Filter is what a Program is compiled from: for each architecture its rules.
// A call of an architecture without a table gets Foreign.
type Filter struct {
	Tables  []Table
	Foreign Action
}

// Table holds the rules for the system calls of one architecture. The first rule
// that covers a call's number and whose tests all hold decides; Default does
// where there is none.
type Table struct {
	Arch    Arch
	Rules   []Rule
	Default Action
}

// Rule is an Action for the numbers First to Last, where all Tests hold.
type Rule struct {
	First, Last uint32
	Tests       []Test
	Action      Action
}

// maxNumber ends a rule for all numbers from its first.
const maxNumber = math.MaxUint32

// Test is: Mask's bits of the argument, compared with Value. A zero Mask tests
// nothing of the argument, so that the result is that of 0 and Value.
//
// Of a 32-bit architecture's arguments only the low half is looked at. On the
// others, the Mask says how much of an argument the kernel looks at: what it
// declares as int must be refused with Low32 and may be allowed with All64.
type Test struct {
	Arg   int // 0 to 5
	Mask  uint64
	Op    Op
	Value uint64
}

// Masks.
const (
	All64 uint64 = math.MaxUint64
	Low32 uint64 = math.MaxUint32
)

// Op is a comparison of unsigned numbers.
type Op uint8

// The comparisons. That a bit of a mask is set is NotEqual with the value 0.
const (
	Equal Op = iota
	NotEqual
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
)

// argCount is how many arguments a system call has.
const argCount = 6

func (f *Filter) check() error {
	seen := map[Arch]bool{}
	for _, t := range f.Tables {
		if seen[t.Arch] {
			return fmt.Errorf("two tables for %s", t.Arch)
		}
		seen[t.Arch] = true
		for _, r := range t.Rules {
			if r.Last < r.First {
				return fmt.Errorf("a rule for %d to %d", r.First, r.Last)
			}
			for _, test := range r.Tests {
				if test.Arg < 0 || test.Arg >= argCount || test.Op > GreaterOrEqual {
					return fmt.Errorf("a rule for %d with operator %d on argument %d", r.First, test.Op, test.Arg)
				}
			}
		}
	}
	return nil
}
