// SPDX-License-Identifier: Apache-2.0

package bases

import (
	"fmt"
	"slices"
	"strings"

	"pault.ag/go/debian/dependency"
	"pault.ag/go/debian/version"
)

// provision is a name that a package provides, in a version or none.
type provision struct {
	name    string
	version *version.Version
}

// selection is a set of packages that is closed under dependency.
type selection struct {
	index  *packageIndex
	arch   dependency.Arch
	chosen map[string]*debPackage
	order  []*debPackage // as chosen
	// provided are the names that the chosen ones provide.
	provided map[string][]*debPackage
}

// selectPackages chooses the packages that roots name, and what they need:
// of alternatives the first that can be had, unless another is chosen already,
// as debootstrap and apt do. why says of each root who asked for it.
func selectPackages(index *packageIndex, arch string, roots []string, why map[string]string) ([]*debPackage, error) {
	parsed, err := dependency.ParseArch(arch)
	if err != nil {
		return nil, fmt.Errorf("choose packages: architecture %q: %w", arch, err)
	}
	if err := index.readProvides(); err != nil {
		return nil, err
	}
	s := &selection{index: index, arch: *parsed, chosen: map[string]*debPackage{}, provided: map[string][]*debPackage{}}
	for _, name := range roots {
		p := index.byName[name]
		if p == nil {
			if list := index.providers[name]; len(list) > 0 {
				p = list[0]
			}
		}
		if p == nil {
			return nil, fmt.Errorf("choose packages: the suite has no package %s, %s", name, why[name])
		}
		s.choose(p, nil, why[name])
	}
	// What stands in order grows while it is gone through.
	for i := 0; i < len(s.order); i++ {
		if err := s.satisfy(s.order[i]); err != nil {
			return nil, fmt.Errorf("choose packages: %w", err)
		}
	}
	return s.order, s.checkConflicts()
}

// readProvides notes who provides what, in the order of names, so that a choice
// is the same each time.
func (x *packageIndex) readProvides() error {
	for _, name := range x.names {
		p := x.byName[name]
		if p.provides == "" || p.providesParsed != nil {
			continue
		}
		list, err := dependency.Parse(p.provides)
		if err != nil {
			return fmt.Errorf("read package index: package %s provides %.60q: %w", name, p.provides, err)
		}
		for _, relation := range list.Relations {
			for _, o := range relation.Possibilities {
				v := provision{name: o.Name}
				if o.Version != nil {
					parsed, err := version.Parse(o.Version.Number)
					if err != nil {
						return fmt.Errorf("read package index: package %s provides %.60q: %w", name, p.provides, err)
					}
					v.version = &parsed
				}
				p.providesParsed = append(p.providesParsed, v)
				x.providers[o.Name] = append(x.providers[o.Name], p)
			}
		}
	}
	return nil
}

func (s *selection) choose(p, neededBy *debPackage, why string) {
	if s.chosen[p.name] != nil {
		return
	}
	p.neededBy, p.wanted = neededBy, why
	s.chosen[p.name] = p
	s.order = append(s.order, p)
	for _, v := range p.providesParsed {
		s.provided[v.name] = append(s.provided[v.name], p)
	}
}

// satisfy chooses what p needs.
func (s *selection) satisfy(p *debPackage) error {
	for _, field := range []string{p.preDepends, p.depends} {
		if field == "" {
			continue
		}
		list, err := dependency.Parse(field)
		if err != nil {
			return fmt.Errorf("package %s needs %.80q: %w", p.name, field, err)
		}
		for _, relation := range list.Relations {
			if err := s.satisfyRelation(p, relation); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *selection) satisfyRelation(p *debPackage, relation dependency.Relation) error {
	var open []dependency.Possibility
	for _, o := range relation.Possibilities {
		if o.Architectures != nil && !o.Architectures.Matches(&s.arch) {
			continue
		}
		if s.isSatisfied(o) {
			return nil
		}
		open = append(open, o)
	}
	for _, o := range open {
		if q := s.candidate(o); q != nil {
			s.choose(q, p, "")
			return nil
		}
	}
	if len(open) == 0 {
		return nil // for other architectures only
	}
	return &dependencyError{relation: relation.String(), needed: p}
}

// isSatisfied reports whether what is chosen satisfies o.
func (s *selection) isSatisfied(o dependency.Possibility) bool {
	if p := s.chosen[o.Name]; p != nil && fitsVersion(o, &p.parsed) {
		return true
	}
	return slices.ContainsFunc(s.provided[o.Name], func(p *debPackage) bool { return providesFor(p, o) })
}

// candidate is the package to choose for o, nil if there is none: the package of
// the name, or else the first that provides it.
func (s *selection) candidate(o dependency.Possibility) *debPackage {
	if p := s.index.byName[o.Name]; p != nil && fitsVersion(o, &p.parsed) {
		return p
	}
	for _, p := range s.index.providers[o.Name] {
		if providesFor(p, o) {
			return p
		}
	}
	return nil
}

func providesFor(p *debPackage, o dependency.Possibility) bool {
	return slices.ContainsFunc(p.providesParsed, func(v provision) bool { return v.name == o.Name && fitsVersion(o, v.version) })
}

// fitsVersion reports whether a version satisfies a relation (Debian policy
// §7.1). A provision without a version satisfies none that asks for one (§7.5).
func fitsVersion(o dependency.Possibility, v *version.Version) bool {
	if o.Version == nil {
		return true
	}
	if v == nil {
		return false
	}
	wanted, err := version.Parse(o.Version.Number)
	if err != nil {
		return false
	}
	order := version.Compare(*v, wanted)
	switch o.Version.Operator {
	case "=":
		return order == 0
	case ">=", ">": // the single forms are old and mean the same (policy §7.1)
		return order >= 0
	case "<=", "<":
		return order <= 0
	case ">>":
		return order > 0
	case "<<":
		return order < 0
	}
	return false
}

// dependencyError says that nothing in the suite satisfies a dependency.
type dependencyError struct {
	relation string
	needed   *debPackage
}

func (e *dependencyError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "nothing in the suite satisfies %s", e.relation)
	p := e.needed
	for ; p != nil; p = p.neededBy {
		fmt.Fprintf(&text, ", needed by %s", p.name)
		if p.neededBy == nil && p.wanted != "" {
			fmt.Fprintf(&text, ", %s", p.wanted)
		}
	}
	return text.String()
}

// checkConflicts refuses two packages that cannot be installed together.
func (s *selection) checkConflicts() error {
	for _, p := range s.order {
		if p.conflicts == "" {
			continue
		}
		list, err := dependency.Parse(p.conflicts)
		if err != nil {
			return fmt.Errorf("choose packages: package %s conflicts with %.80q: %w", p.name, p.conflicts, err)
		}
		for _, relation := range list.Relations {
			for _, o := range relation.Possibilities {
				// A package does not conflict with itself by what it provides (policy §7.4).
				if q := s.chosen[o.Name]; q != nil && q != p && fitsVersion(o, &q.parsed) {
					return fmt.Errorf("choose packages: %s and %s cannot be installed together", p.name, q.name)
				}
			}
		}
	}
	return nil
}
