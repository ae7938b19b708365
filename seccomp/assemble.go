// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// The instructions in use. When a filter is installed, Linux 5.11 and later walk
// it for each number and remember those that are allowed whatever their
// arguments; what is not in this list would end that walk (seccomp_is_const_allow).
const (
	opLoad             = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd              = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opJump             = unix.BPF_JMP | unix.BPF_JA
	opIfEqual          = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opIfGreater        = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opIfGreaterOrEqual = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opReturn           = unix.BPF_RET | unix.BPF_K
)

// target is where a jump goes: to the instruction at that position from the end,
// counted from 1, or to a return of the action where at is 0.
type target struct {
	action Action
	at     int
}

func returns(a Action) target { return target{action: a} }

// assembler builds a program from its end, as jumps only go forwards: what an
// instruction jumps to is there before it.
type assembler struct {
	reversed []unix.SockFilter
	returns  map[Action]int // where the latest return of an action is
}

func newAssembler() *assembler { return &assembler{returns: map[Action]int{}} }

func (a *assembler) add(code uint16, k uint32) target {
	a.reversed = append(a.reversed, unix.SockFilter{Code: code, K: k})
	return target{at: len(a.reversed)}
}

// load puts the mask's bits of the word at that offset in front of the branch at
// t that looks at them. Where the branch came to nothing, t does not need them.
func (a *assembler) load(offset, mask uint32, t target) target {
	if mask == 0 || t.at == 0 || t.at != len(a.reversed) {
		return t
	}
	if mask != math.MaxUint32 {
		a.add(opAnd, mask)
	}
	return a.add(opLoad, offset)
}

// branch goes to yes if the loaded word compares so with k, else to no.
func (a *assembler) branch(code uint16, k uint32, yes, no target) target {
	if yes == no {
		return yes
	}
	// Reaching no may take an instruction, and yes is then one further away.
	toYes := a.reach(yes, 1)
	toNo := a.reach(no, 0)
	here := a.add(code, k)
	is := &a.reversed[here.at-1]
	is.Jt, is.Jf = uint8(here.at-1-toYes), uint8(here.at-1-toNo)
	return here
}

// reach is a position that leads to t and that a conditional jump can name even
// after so many more instructions.
func (a *assembler) reach(t target, more int) int {
	const furthest = math.MaxUint8
	near := func(at int) bool { return len(a.reversed)+more-at <= furthest }
	if t.at != 0 {
		if near(t.at) {
			return t.at
		}
		return a.add(opJump, uint32(len(a.reversed)-t.at)).at
	}
	at, ok := a.returns[t.action]
	if !ok || !near(at) {
		at = a.add(opReturn, uint32(t.action)).at
		a.returns[t.action] = at
	}
	return at
}

// start makes t the program's first instruction.
func (a *assembler) start(t target) {
	if t.at == len(a.reversed) && t.at != 0 {
		return
	}
	if t.at == 0 {
		a.add(opReturn, uint32(t.action))
		return
	}
	a.add(opJump, uint32(len(a.reversed)-t.at))
}

func (a *assembler) code() []unix.SockFilter {
	slices.Reverse(a.reversed)
	return a.reversed
}

// arm is a case of a choice by value: it takes the values from its first up to
// the next arm's.
type arm struct {
	first uint32
	to    target
}

// choose goes to the arm that takes the loaded word. The arms are in order and
// the first begins at 0. The tree of comparisons is balanced by the number of
// values, for what programs call most are the wide ranges of allowed numbers.
func (a *assembler) choose(arms []arm) target {
	arms = merge(arms)
	if len(arms) == 3 && arms[0].to == arms[2].to && arms[2].first-arms[1].first == 1 {
		return a.branch(opIfEqual, arms[1].first, arms[1].to, arms[0].to)
	}
	if len(arms) == 1 {
		return arms[0].to
	}
	middle := middleOf(arms)
	right := a.choose(arms[middle:])
	left := a.choose(arms[:middle])
	return a.branch(opIfGreaterOrEqual, arms[middle].first, right, left)
}

// merge joins neighbours that go to the same place.
func merge(arms []arm) []arm {
	return slices.CompactFunc(arms, func(a, b arm) bool { return a.to == b.to })
}

// middleOf is the arm that begins the right half, never the first.
func middleOf(arms []arm) int {
	// Tried on the default profile: with these a call takes 11 instructions in the
	// mean and 22 at most; a flat weight makes common calls dearer, a steep one the
	// others.
	const least, most = 4, 16
	weight := func(i int) int {
		width := most
		if i+1 < len(arms) {
			width = int(min(arms[i+1].first-arms[i].first, most))
		}
		return least + width
	}
	total := 0
	for i := range arms {
		total += weight(i)
	}
	best, bestDifference := 1, math.MaxInt
	left := 0
	for i := 1; i < len(arms); i++ {
		left += weight(i - 1)
		difference := max(2*left-total, total-2*left)
		if difference < bestDifference {
			best, bestDifference = i, difference
		}
	}
	return best
}
