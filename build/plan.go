// SPDX-License-Identifier: Apache-2.0

package build

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// scratch is the base without any file.
const scratch = "scratch"

// plan is a Dockerfile with what the target needs of it.
type plan struct {
	file   *dockerfile
	args   variables // of the lines before the first FROM, platform arguments included
	given  map[string]string
	stages []*stage
	target *stage
	epoch  *time.Time // SOURCE_DATE_EPOCH
	build  ocispec.Platform
	wanted ocispec.Platform
	ignore *filter // what is not there of the context
}

// planOptions is what of a build's options decides its plan.
type planOptions struct {
	target   string
	args     map[string]string
	build    ocispec.Platform // this machine's
	platform ocispec.Platform // the image's
	contexts map[string]bool  // names of --build-context
	ignore   []string         // patterns of .dockerignore
}

// newPlan finds the stages, what they are based on and copy from, and which of
// them the target needs. No image is looked at.
func newPlan(file *dockerfile, o planOptions) (*plan, error) {
	ignore, err := newFilter(o.ignore)
	if err != nil {
		return nil, fmt.Errorf("read .dockerignore: %w", err)
	}
	p := &plan{file: file, given: o.args, build: o.build, wanted: o.platform, ignore: ignore}
	last := file.stages[len(file.stages)-1]
	p.args = platformArgs(o.build, o.platform, cmp.Or(o.target, last.Name), o.args)
	p.checkDefaults(p.args)
	if err := p.globalArgs(); err != nil {
		return nil, err
	}
	if err := p.readEpoch(); err != nil {
		return nil, err
	}
	for i := range file.stages {
		if err := p.addStage(&file.stages[i], o.contexts); err != nil {
			return nil, file.at(file.locate(err), file.stages[i].Location)
		}
	}
	if err := p.findTarget(o.target); err != nil {
		return nil, err
	}
	for _, s := range p.stages {
		if err := s.findSources(s.commands); err != nil {
			return nil, err
		}
	}
	if err := p.checkCycles(); err != nil {
		return nil, err
	}
	if len(p.stages) == 1 {
		p.stages[0].label = ""
	}
	p.target.need()
	return p, nil
}

// globalArgs evaluates the ARG lines before the first FROM.
func (p *plan) globalArgs() error {
	for i := range p.file.args {
		cmd := &p.file.args[i]
		for _, a := range cmd.Args {
			value, given := p.given[a.Key]
			if !given {
				if a.Value == nil {
					continue
				}
				var err error
				if value, _, err = p.file.lex.ProcessWord(*a.Value, p.args); err != nil {
					return p.file.at(err, cmd.Location())
				}
			}
			p.args = p.args.with(a.Key, value)
		}
	}
	return nil
}

// readEpoch reads the build argument that makes times reproducible.
func (p *plan) readEpoch() error {
	text, ok := p.given["SOURCE_DATE_EPOCH"]
	if !ok {
		text, _ = p.args.Get("SOURCE_DATE_EPOCH")
	}
	if text == "" {
		return nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return fmt.Errorf("invalid SOURCE_DATE_EPOCH: %q is no number of seconds", text)
	}
	t := time.Unix(seconds, 0).UTC()
	p.epoch = &t
	return nil
}

func (p *plan) addStage(parsed *instructions.Stage, contexts map[string]bool) error {
	s := &stage{plan: p, index: len(p.stages), name: parsed.Name, location: parsed.Location, commands: parsed.Commands, done: make(chan struct{})}
	p.checkFrom(parsed)
	base, _, err := p.file.lex.ProcessWord(parsed.BaseName, p.args)
	if err != nil {
		return err
	}
	if base == "" {
		return fmt.Errorf("base name (%s) should not be blank", parsed.BaseName)
	}
	s.baseName = base
	if parsed.Platform != "" {
		name, _, err := p.file.lex.ProcessWord(parsed.Platform, p.args)
		if err != nil {
			return fmt.Errorf("process arguments for platform %s: %w", parsed.Platform, err)
		}
		if name == "" {
			return fmt.Errorf("empty platform value from expression %s", parsed.Platform)
		}
		if s.platform, err = parsePlatform(name); err != nil {
			return fmt.Errorf("parse platform %s: %w", parsed.Platform, err)
		}
	}
	s.label = cmp.Or(s.name, "stage-"+strconv.Itoa(s.index))
	if s.name != "" && contexts[strings.ToLower(s.name)] {
		s.replaced = true // by --build-context, with all that it does
		s.commands = nil
	} else {
		s.base = p.stage(base)
	}
	p.stages = append(p.stages, s)
	return nil
}

// parsePlatform reads OS/ARCH[/VARIANT], or one of the two alone.
func parsePlatform(name string) (*ocispec.Platform, error) {
	parts := strings.Split(strings.ToLower(name), "/")
	if slices.Contains(parts, "") || len(parts) > 3 {
		return nil, fmt.Errorf("%q: want os/architecture[/variant]", name)
	}
	p := &ocispec.Platform{OS: "linux", Architecture: parts[0]}
	if len(parts) > 1 {
		p.OS, p.Architecture = parts[0], parts[1]
	} else if parts[0] == "linux" || parts[0] == "local" {
		return nil, fmt.Errorf("%q: want os/architecture[/variant]", name)
	}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	}
	if p.Architecture == "arm64" && p.Variant == "v8" {
		p.Variant = ""
	}
	return p, nil
}

// stage is the last stage so far that has a name.
func (p *plan) stage(name string) *stage {
	for _, s := range slices.Backward(p.stages) {
		if s.name != "" && strings.EqualFold(s.name, name) {
			return s
		}
	}
	return nil
}

func (p *plan) names() []string {
	var names []string
	for _, s := range p.stages {
		names = append(names, s.label)
	}
	return names
}

func (p *plan) findTarget(name string) error {
	p.target = p.stages[len(p.stages)-1]
	if name == "" {
		return nil
	}
	if s := p.stage(name); s != nil {
		p.target = s
		return nil
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(p.stages) {
		p.target = p.stages[i]
		return nil
	}
	return suggest.WrapError(fmt.Errorf("target stage %q could not be found", name), name, p.names(), true)
}

// findSources notes what commands of a stage read from. They are looked up by
// name among all stages: that one is defined too late is an error of its own.
func (s *stage) findSources(commands []instructions.Command) error {
	for _, cmd := range commands {
		var froms []string
		switch c := cmd.(type) {
		case *instructions.CopyCommand:
			if c.From == "" {
				continue
			}
			if word, _, err := s.plan.file.lex.ProcessWord(c.From, variables(nil)); err != nil || word != c.From {
				return s.plan.file.at(errors.New("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"), cmd.Location())
			}
			froms = []string{c.From}
		case *instructions.RunCommand:
			for _, m := range instructions.GetMounts(c) {
				if m.From != "" {
					froms = append(froms, m.From)
				}
			}
		}
		for _, from := range froms {
			src, err := s.source(from, cmd)
			if err != nil {
				return s.plan.file.at(err, cmd.Location())
			}
			s.sources = append(s.sources, src)
		}
	}
	return nil
}

// source is what --from names: a stage, or an image or context of another name,
// for which a stage without a line is made.
func (s *stage) source(from string, cmd instructions.Command) (*stage, error) {
	p := s.plan
	if _, isCopy := cmd.(*instructions.CopyCommand); isCopy {
		if i, err := strconv.Atoi(from); err == nil {
			if i < 0 || i >= len(p.stages) || p.stages[i].implied {
				return nil, fmt.Errorf("invalid stage index %d", i)
			}
			return p.stages[i], nil
		}
	}
	if src := p.stage(from); src != nil {
		return src, nil
	}
	src := &stage{plan: p, index: len(p.stages), name: from, label: from, baseName: from, implied: true, location: cmd.Location(), done: make(chan struct{})}
	p.stages = append(p.stages, src)
	return src, nil
}

// checkCycles refuses stages that need themselves, and those that need a later one.
func (p *plan) checkCycles() error {
	var walk func(s *stage, way []*stage) error
	walk = func(s *stage, way []*stage) error {
		if slices.Contains(way, s) {
			return p.file.at(fmt.Errorf("circular dependency detected on stage: %s", s.label), s.location)
		}
		way = append(way, s)
		for _, on := range s.dependencies() {
			if err := walk(on, way); err != nil {
				return err
			}
		}
		return nil
	}
	for _, s := range p.stages {
		if err := walk(s, nil); err != nil {
			return err
		}
	}
	return nil
}

// dependencies are the stages whose result this one reads.
func (s *stage) dependencies() []*stage {
	if s.base == nil {
		return s.sources
	}
	return append([]*stage{s.base}, s.sources...)
}

// need marks a stage and all that it needs.
func (s *stage) need() {
	if s.needed {
		return
	}
	s.needed = true
	for _, on := range s.dependencies() {
		on.need()
	}
}

// lines is a location as first and last line.
func lines(location []parser.Range) (first, last int) {
	for i, r := range location {
		if i == 0 || r.Start.Line < first {
			first = r.Start.Line
		}
		last = max(last, r.Start.Line, r.End.Line)
	}
	return first, last
}
