// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"slices"
)

// Profile is a list of rules by system call names, as Docker's profiles have it:
// some hold only on some architectures, kernels, or with some capabilities.
type Profile struct {
	action Action
	arches []archFamily
	listed []Arch // in place of arches, in older profiles
	rules  []profileRule
	flags  uintptr
}

// archFamily is a machine's architecture and those of its other programs.
type archFamily struct {
	own   Arch
	other []Arch
}

type profileRule struct {
	names  []string
	action Action
	tests  []Test
	when   condition // all of it must hold
	unless condition // none of it may
}

// condition is about the machine and the container. Architectures are as Docker
// names machines.
type condition struct {
	caps   []string
	arches []string
	kernel Kernel
}

// Kernel is a kernel's version. The zero Kernel is newer than any.
type Kernel struct{ Major, Minor int }

// ParseKernel reads the release of uname(2).
func ParseKernel(release string) (Kernel, error) {
	var k Kernel
	if n, err := fmt.Sscanf(release, "%d.%d", &k.Major, &k.Minor); n != 2 {
		return Kernel{}, fmt.Errorf("parse kernel release %q: %w", release, err)
	}
	return k, nil
}

func (k Kernel) atLeast(least Kernel) bool {
	if k == (Kernel{}) {
		return true
	}
	return k.Major > least.Major || k.Major == least.Major && k.Minor >= least.Minor
}

// Target is what a profile is resolved for.
type Target struct {
	Machine string   // as GOARCH has it: amd64 or arm64
	Caps    []string // the container's bounding set, as "CAP_NET_RAW"
	Kernel  Kernel
}

// Compile resolves the profile and makes its program, as runc and libseccomp do
// of what Docker hands them:
//
//   - A name that an architecture does not have is passed over there.
//   - A rule without tests beats those with, the first of several counts.
//   - Where several rules with tests hold, the strictest action counts.
//   - Several tests of one argument in a rule are alternatives.
//   - A number above all that the profile names, which its author cannot have
//     known, is ENOSYS, so that programs fall back; unless the default allows.
//   - A call of an architecture that the profile does not name kills the process.
//
// Other than there, x32 is ENOSYS even where the profile names it, and socketcall
// on i386 is one call, which is not taken apart.
func (p *Profile) Compile(t Target) (*Program, error) {
	f, err := p.filter(t)
	if err != nil {
		return nil, err
	}
	program, err := f.Compile()
	if err != nil {
		return nil, err
	}
	program.flags = p.flags
	return program, nil
}

// filter resolves the profile.
func (p *Profile) filter(t Target) (*Filter, error) {
	own, compat, err := native(t.Machine)
	if err != nil {
		return nil, err
	}
	tables := []*resolving{{arch: own}}
	if p.covers(own, compat) {
		tables = append(tables, &resolving{arch: compat})
	}
	for i := range p.rules {
		if r := &p.rules[i]; r.applies(t) {
			for _, table := range tables {
				if err := table.add(r, r.action == p.action); err != nil {
					return nil, err
				}
			}
		}
	}
	f := &Filter{Foreign: KillProcess}
	for _, table := range tables {
		f.Tables = append(f.Tables, table.done(p.action))
	}
	return f, nil
}

// covers reports whether calls of that architecture are judged on a machine.
func (p *Profile) covers(own, arch Arch) bool {
	i := slices.IndexFunc(p.arches, func(f archFamily) bool { return f.own == own })
	return i >= 0 && slices.Contains(p.arches[i].other, arch) || slices.Contains(p.listed, arch)
}

// resolving is a table in the making.
type resolving struct {
	arch   Arch
	rules  []Rule
	newest uint32 // the highest number that the profile names; runc takes 0 for none
}

// add takes a rule's calls. A redundant rule says what is said by default anyway,
// and only shows that its author knew the call.
func (s *resolving) add(r *profileRule, redundant bool) error {
	alternatives := r.alternatives(s.arch)
	if len(s.rules)+len(r.names)*len(alternatives) > maxRules {
		return tooLong()
	}
	s.rules = slices.Grow(s.rules, len(r.names)*len(alternatives))
	for _, name := range r.names {
		number, ok := s.arch.Number(name)
		if !ok {
			continue
		}
		if number < privateNumbers {
			s.newest = max(s.newest, number)
		}
		if redundant {
			continue
		}
		for _, tests := range alternatives {
			s.rules = append(s.rules, Rule{number, number, tests, r.action})
		}
	}
	return nil
}

// maxRules bounds the work that a profile makes: a program cannot hold as many.
const maxRules = 2 * maxLen

func (s *resolving) done(byDefault Action) Table {
	rank(s.rules)
	if s.arch == AMD64 {
		s.rules = slices.Insert(s.rules, 0, Rule{First: X32Bit, Last: maxNumber, Action: unknown})
	}
	if s.newest != 0 && byDefault.Compare(Trace) < 0 {
		s.rules = append(s.rules, Rule{First: s.newest + 1, Last: maxNumber, Action: unknown})
	}
	return Table{Arch: s.arch, Rules: s.rules, Default: byDefault}
}

// privateNumbers are ARM's own, far from the others.
const privateNumbers = 0xf0000

// rank puts the rules for one number in the order in which they count.
func rank(rules []Rule) {
	slices.SortStableFunc(rules, func(a, b Rule) int {
		switch {
		case len(a.Tests) == 0 && len(b.Tests) == 0:
			return 0
		case len(a.Tests) == 0:
			return -1
		case len(b.Tests) == 0:
			return 1
		}
		return a.Action.Compare(b.Action)
	})
}

// applies reports whether the rule is for that target.
func (r *profileRule) applies(t Target) bool {
	switch {
	case len(r.when.arches) > 0 && !slices.Contains(r.when.arches, t.Machine),
		slices.ContainsFunc(r.when.caps, func(c string) bool { return !slices.Contains(t.Caps, c) }),
		r.when.kernel != (Kernel{}) && !t.Kernel.atLeast(r.when.kernel),
		slices.Contains(r.unless.arches, t.Machine),
		slices.ContainsFunc(r.unless.caps, func(c string) bool { return slices.Contains(t.Caps, c) }),
		r.unless.kernel != (Kernel{}) && t.Kernel.atLeast(r.unless.kernel):
		return false
	}
	return true
}

// same reports whether the same rules are for both targets, which are of one
// machine.
func (p *Profile) same(a, b Target) bool {
	for i := range p.rules {
		if p.rules[i].applies(a) != p.rules[i].applies(b) {
			return false
		}
	}
	return true
}

// alternatives are the lists of tests of which one must hold, as runc makes them:
// two tests of one argument cannot both be meant.
func (r *profileRule) alternatives(arch Arch) [][]Test {
	tests := r.tests
	if !arch.wide() {
		// libseccomp cuts what is compared to the register's size, so that a
		// value of -1 is -1 there too.
		tests = make([]Test, len(r.tests))
		for i, test := range r.tests {
			test.Mask &= Low32
			test.Value &= Low32
			tests[i] = test
		}
	}
	var seen [argCount]bool
	for _, test := range tests {
		if seen[test.Arg] {
			return each(tests)
		}
		seen[test.Arg] = true
	}
	return [][]Test{tests}
}

func each(tests []Test) [][]Test {
	alternatives := make([][]Test, len(tests))
	for i := range tests {
		alternatives[i] = tests[i : i+1]
	}
	return alternatives
}
