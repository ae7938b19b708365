// SPDX-License-Identifier: Apache-2.0

package seccomp

import "slices"

// on is the test as the architecture can make it.
func (t Test) on(arch Arch) Test {
	if !arch.wide() {
		t.Mask &= Low32
	}
	return t
}

// holds makes the test here and now.
func (t Test) holds(argument uint64) bool {
	argument &= t.Mask
	switch t.Op {
	case Equal:
		return argument == t.Value
	case NotEqual:
		return argument != t.Value
	case Less:
		return argument < t.Value
	case LessOrEqual:
		return argument <= t.Value
	case Greater:
		return argument > t.Value
	}
	return argument >= t.Value
}

const allBits = uint32(Low32)

// half is one of the two words that an argument is to a filter.
type half struct{ offset, mask, value uint32 }

func (t Test) low() half {
	return half{uint32(offsetArgs + sizeArg*t.Arg), uint32(t.Mask), uint32(t.Value)}
}

func (t Test) high() half {
	return half{uint32(offsetArgs + sizeArg*t.Arg + sizeArg/2), uint32(t.Mask >> 32), uint32(t.Value >> 32)}
}

// test goes to yes if it holds, else to no. The high halves decide unless they
// are equal.
func (a *assembler) test(t Test, yes, no target) target {
	op := t.Op
	switch op {
	case NotEqual:
		op, yes, no = Equal, no, yes
	case Less:
		op, yes, no = GreaterOrEqual, no, yes
	case LessOrEqual:
		op, yes, no = Greater, no, yes
	}
	code := uint16(opIfEqual)
	switch op {
	case Greater:
		code = opIfGreater
	case GreaterOrEqual:
		code = opIfGreaterOrEqual
	}
	low, high := t.low(), t.high()
	ifEqual := a.load(low.offset, low.mask, a.compare(low, code, yes, no))
	to := a.compare(high, opIfEqual, ifEqual, no)
	if op != Equal {
		to = a.compare(high, opIfGreater, yes, to)
	}
	return a.load(high.offset, high.mask, to)
}

// compare branches on a loaded half. One that the mask leaves out is 0, which
// needs no branch.
func (a *assembler) compare(h half, code uint16, yes, no target) target {
	if h.mask != 0 {
		return a.branch(code, h.value, yes, no)
	}
	if code != opIfGreater && h.value == 0 {
		return yes
	}
	return no
}

// alike are the last of the rules, as many as make the same kind of test of the
// same argument and can be one choice by its value.
func (t *Table) alike(rules []int) []choiceRule {
	var alike []choiceRule
	for _, i := range slices.Backward(rules) {
		r := &t.Rules[i]
		if len(r.Tests) != 1 {
			break
		}
		test := r.Tests[0].on(t.Arch)
		if test.Mask != Low32 && (test.Mask != All64 || test.Value > Low32) {
			break
		}
		if len(alike) > 0 && (alike[0].test.Arg != test.Arg || alike[0].test.Mask != test.Mask) {
			break
		}
		alike = append(alike, choiceRule{test, r.Action})
	}
	slices.Reverse(alike)
	return alike
}

type choiceRule struct {
	test   Test
	action Action
}

// choice goes by the value of the argument that all the rules test, and to next
// for the values that no rule wants.
func (a *assembler) choice(rules []choiceRule, next target) target {
	decide := func(value uint64) target {
		for _, r := range rules {
			if r.test.holds(value) {
				return returns(r.action)
			}
		}
		return next
	}
	bounds := []uint32{0}
	for _, r := range rules {
		if r.test.Value <= Low32 {
			bounds = append(bounds, uint32(r.test.Value))
		}
		if r.test.Value < Low32 {
			bounds = append(bounds, uint32(r.test.Value)+1)
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	arms := make([]arm, len(bounds))
	for i, b := range bounds {
		arms[i] = arm{b, decide(uint64(b))}
	}
	test := rules[0].test
	to := a.load(test.low().offset, allBits, a.choose(arms))
	if test.Mask == Low32 {
		return to
	}
	// Every value that is compared fits in the low half, so that all with
	// something in the high one are greater in the same way.
	to = a.branch(opIfEqual, 0, to, decide(Low32+1))
	return a.load(test.high().offset, allBits, to)
}
