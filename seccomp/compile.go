// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"cmp"
	"fmt"
	"slices"
)

// Compile makes the program of the filter. It fails on a filter that cannot be
// said or that is longer than the kernel takes.
func (f *Filter) Compile() (*Program, error) {
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("build seccomp filter: %w", err)
	}
	a := newAssembler()
	start := returns(f.Foreign)
	for i := range slices.Backward(f.Tables) {
		t := &f.Tables[i]
		start = a.branch(opIfEqual, uint32(t.Arch), a.table(t), start)
		if len(a.reversed) > maxLen {
			break
		}
	}
	a.start(a.load(offsetArch, allBits, start))
	if len(a.reversed) > maxLen {
		return nil, tooLong()
	}
	return &Program{code: a.code()}, nil
}

// table goes by the call's number.
func (a *assembler) table(t *Table) target {
	spans := t.spans()
	arms := make([]arm, len(spans))
	for i, s := range spans {
		arms[i] = arm{s.first, a.decide(t, s)}
		if len(a.reversed) > maxLen {
			return returns(t.Default)
		}
	}
	return a.load(offsetNumber, allBits, a.choose(arms))
}

// span is a range of numbers, up to the next span's, with the same fate: that of
// the first of the rules with tests that holds, else the action.
type span struct {
	first  uint32
	rules  []int // by their indices
	action Action
}

// spans are all numbers in order.
func (t *Table) spans() []span {
	byFirst := make([]int, len(t.Rules))
	bounds := make([]uint32, 1, 2*len(t.Rules)+1)
	for i := range t.Rules {
		byFirst[i] = i
		bounds = append(bounds, t.Rules[i].First)
		if last := t.Rules[i].Last; last != maxNumber {
			bounds = append(bounds, last+1)
		}
	}
	slices.SortFunc(byFirst, func(a, b int) int {
		return cmp.Or(cmp.Compare(t.Rules[a].First, t.Rules[b].First), cmp.Compare(a, b))
	})
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)

	spans := make([]span, 0, len(bounds))
	var open []int // rules that cover the bound
	for _, first := range bounds {
		open = slices.DeleteFunc(open, func(i int) bool { return t.Rules[i].Last < first })
		for len(byFirst) > 0 && t.Rules[byFirst[0]].First == first {
			at, _ := slices.BinarySearch(open, byFirst[0])
			open = slices.Insert(open, at, byFirst[0])
			byFirst = byFirst[1:]
		}
		rules, action := t.deciding(open)
		if n := len(spans); n > 0 && spans[n-1].action == action && slices.Equal(spans[n-1].rules, rules) {
			continue
		}
		spans = append(spans, span{first, slices.Clone(rules), action})
	}
	return spans
}

// deciding cuts a list of rules in front of the first without tests, which has
// the last word.
func (t *Table) deciding(rules []int) ([]int, Action) {
	for n, i := range rules {
		if len(t.Rules[i].Tests) == 0 {
			return rules[:n], t.Rules[i].Action
		}
	}
	return rules, t.Default
}

// decide goes by the call's arguments, from rule to rule.
func (a *assembler) decide(t *Table, s span) target {
	next, rules := returns(s.action), s.rules
	for len(rules) > 0 {
		if alike := t.alike(rules); len(alike) > 1 {
			next = a.choice(alike, next)
			rules = rules[:len(rules)-len(alike)]
			continue
		}
		last := &t.Rules[rules[len(rules)-1]]
		rules = rules[:len(rules)-1]
		yes := returns(last.Action)
		for _, test := range slices.Backward(last.Tests) {
			yes = a.test(test.on(t.Arch), yes, next)
		}
		next = yes
	}
	return next
}
