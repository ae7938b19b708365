// SPDX-License-Identifier: Apache-2.0

package build

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"

	"sbx/reference"
)

// The checks of BuildKit that look at what instructions mean. Those of its parser
// are made while that runs; rules, words and addresses are all BuildKit's.

// warn notes a violation of a rule, unless the Dockerfile skips it.
func (d *dockerfile) warn(rule linter.LinterRuleI, location []parser.Range, text string) {
	d.lint.Run(rule, location, text)
}

// violations are an error if the Dockerfile wants them to be, `# check=error=true`.
func (d *dockerfile) violations() error {
	rules := slices.Compact(slices.Sorted(slices.Values(*d.lint.CalledRules)))
	if !d.lint.ReturnAsError || len(rules) == 0 {
		return nil
	}
	return fmt.Errorf("lint violation found for rules: %s", strings.Join(rules, ", "))
}

// checkStages looks at names of stages and the case of instructions.
func (d *dockerfile) checkStages() {
	lower := 0
	count := func(name string) {
		switch name {
		case strings.ToLower(name):
			lower++
		case strings.ToUpper(name):
			lower--
		}
	}
	for _, s := range d.stages {
		count(s.OrigCmd)
		for _, cmd := range s.Commands {
			count(cmd.Name())
		}
	}
	change, want := strings.ToUpper, "uppercase"
	if lower > 0 {
		change, want = strings.ToLower, "lowercase"
	}
	known := map[string]bool{}
	for _, s := range d.stages {
		if change(s.OrigCmd) != s.OrigCmd {
			d.warn(&linter.RuleConsistentInstructionCasing, s.Location, linter.RuleConsistentInstructionCasing.Format(s.OrigCmd, want))
		}
		for _, cmd := range s.Commands {
			if change(cmd.Name()) != cmd.Name() {
				d.warn(&linter.RuleConsistentInstructionCasing, cmd.Location(), linter.RuleConsistentInstructionCasing.Format(cmd.Name(), want))
			}
		}
		switch {
		case s.Name == "":
			continue
		case s.Name == "context" || s.Name == scratch:
			d.warn(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		case known[s.Name]:
			d.warn(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		known[s.Name] = true
	}
}

// checkDefaults finds bases that are no image unless arguments are given.
func (p *plan) checkDefaults(platform variables) {
	defaults := plan{file: p.file, args: platform}
	if defaults.globalArgs() != nil {
		return // which fails the build, too
	}
	for _, s := range p.file.stages {
		base, _, err := p.file.lex.ProcessWord(s.BaseName, defaults.args)
		if err != nil {
			return
		}
		if _, err := reference.Parse(base); err != nil && base != scratch {
			p.file.warn(&linter.RuleInvalidDefaultArgInFrom, s.Location, linter.RuleInvalidDefaultArgInFrom.Format(s.BaseName))
		}
	}
}

// checkFrom looks at the variables of a FROM line.
func (p *plan) checkFrom(s *instructions.Stage) {
	base, err := p.file.lex.ProcessWordWithMatches(s.BaseName, p.args)
	if err != nil {
		return
	}
	p.checkUndeclared(s, base)
	if s.Platform == "" {
		return
	}
	platform, err := p.file.lex.ProcessWordWithMatches(s.Platform, p.args)
	if err != nil {
		return
	}
	p.checkUndeclared(s, platform)
	target, _ := p.args.Get("TARGETPLATFORM")
	_, isTarget := platform.Matched["TARGETPLATFORM"]
	switch parsed, err := parsePlatform(platform.Result); {
	case len(platform.Unmatched) > 0:
	case len(platform.Matched) == 1 && isTarget && platform.Result == target:
		p.file.warn(&linter.RuleRedundantTargetPlatform, s.Location, linter.RuleRedundantTargetPlatform.Format(s.Platform))
	case len(platform.Matched) == 0 && err == nil && !strings.Contains(s.Name, parsed.OS) && !strings.Contains(s.Name, parsed.Architecture):
		p.file.warn(&linter.RuleFromPlatformFlagConstDisallowed, s.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(platform.Result))
	}
}

func (p *plan) checkUndeclared(s *instructions.Stage, word shell.ProcessWordResult) {
	known := p.args.Keys()
	for i := range p.file.args {
		for _, a := range p.file.args[i].Args {
			known = append(known, a.Key)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(word.Unmatched)) {
		if !slices.Contains(known, name) {
			like, _ := suggest.Search(name, known, true)
			p.file.warn(&linter.RuleUndefinedArgInFrom, s.Location, linter.RuleUndefinedArgInFrom.Format(name, like))
		}
	}
}

// check looks at an instruction of the Dockerfile before it is planned.
func (s *stage) check(cmd instructions.Command) {
	file, at := s.plan.file, cmd.Location()
	switch c := cmd.(type) {
	case *instructions.EnvCommand:
		for _, e := range c.Env {
			s.checkPair(cmd, e)
			checkSecret(file, "ENV", e.Key, at)
		}
	case *instructions.LabelCommand:
		for _, l := range c.Labels {
			s.checkPair(cmd, l)
		}
	case *instructions.ArgCommand:
		for _, a := range c.Args {
			checkSecret(file, "ARG", a.Key, at)
		}
	case *instructions.WorkdirCommand:
		if !s.workdirSet && !path.IsAbs(c.Path) {
			file.warn(&linter.RuleWorkdirRelativePath, at, linter.RuleWorkdirRelativePath.Format(c.Path))
		}
		s.workdirSet = true
	case *instructions.CmdCommand:
		s.checkOnce(cmd)
		s.checkJSON(cmd, c.PrependShell)
	case *instructions.EntrypointCommand:
		s.checkOnce(cmd)
		s.checkJSON(cmd, c.PrependShell)
	case *instructions.HealthCheckCommand:
		s.checkOnce(cmd)
	}
}

// checkBase warns of a base image that is for another platform than was asked for.
func (s *stage) checkBase() {
	want, got := s.wantedPlatform(), s.image.Platform
	if s.base != nil || s.unknown || got.Architecture == "" || want.OS == got.OS && want.Architecture == got.Architecture {
		return
	}
	text := linter.RuleInvalidBaseImagePlatform.Format(s.baseName, platformName(want), platformName(got))
	s.plan.file.warn(&linter.RuleInvalidBaseImagePlatform, s.location, text)
}

// checkIgnored warns of what is copied from the context and cannot be there. With
// patterns that bring something back nobody can tell, says BuildKit.
func (s *stage) checkIgnored(cmd instructions.Command, st *copyStep) {
	ignore := s.plan.ignore
	if ignore == nil || ignore.again {
		return
	}
	verb := "Copy"
	if st.add {
		verb = "Add"
	}
	for _, src := range st.sources {
		name := path.Clean(src)
		if name == "." || name == "/" {
			name = "\x00" // no pattern but one for everything matches it
		}
		if dropped, err := ignore.dropsPath(name); err == nil && dropped {
			s.plan.file.warn(&linter.RuleCopyIgnoredFile, cmd.Location(), linter.RuleCopyIgnoredFile.Format(verb, path.Clean(src)))
		}
	}
}

func (s *stage) checkPair(cmd instructions.Command, e instructions.KeyValuePair) {
	if e.NoDelim {
		s.plan.file.warn(&linter.RuleLegacyKeyValueFormat, cmd.Location(), linter.RuleLegacyKeyValueFormat.Format(cmd.Name()))
	}
}

func (s *stage) checkJSON(cmd instructions.Command, shellForm bool) {
	if shellForm && len(s.image.Config.Shell) == 0 {
		s.plan.file.warn(&linter.RuleJSONArgsRecommended, cmd.Location(), linter.RuleJSONArgsRecommended.Format(cmd.Name()))
	}
}

// checkOnce warns of the one before, which has no effect.
func (s *stage) checkOnce(cmd instructions.Command) {
	name := strings.ToLower(cmd.Name())
	if before, ok := s.once[name]; ok {
		s.plan.file.warn(&linter.RuleMultipleInstructionsDisallowed, before, linter.RuleMultipleInstructionsDisallowed.Format(cmd.Name()))
	}
	if s.once == nil {
		s.once = map[string][]parser.Range{}
	}
	s.once[name] = cmd.Location()
}

func (s *stage) checkExpose(cmd *instructions.ExposeCommand, word string) {
	file := s.plan.file
	if _, proto, _ := strings.Cut(word, "/"); proto != strings.ToLower(proto) {
		file.warn(&linter.RuleExposeProtoCasing, cmd.Location(), linter.RuleExposeProtoCasing.Format(word))
	}
	if strings.Contains(word, ":") {
		file.warn(&linter.RuleExposeInvalidFormat, cmd.Location(), linter.RuleExposeInvalidFormat.Format(word))
	}
}

// checkVariables warns of what an instruction uses and nothing sets. Where the base
// image is not known, nothing is known of its variables.
func (s *stage) checkVariables(cmd instructions.Command, unmatched map[string]struct{}) {
	if s.unknown {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(unmatched)) {
		isArgument := slices.ContainsFunc(s.args, func(a instructions.KeyValuePairOptional) bool { return a.Key == name })
		if !isArgument && !withoutVariable(name) {
			like, _ := suggest.Search(name, s.env.Keys(), true)
			s.plan.file.warn(&linter.RuleUndefinedVar, cmd.Location(), linter.RuleUndefinedVar.Format(name, like))
		}
	}
}

// secretNames are BuildKit's: what the whole of a name, or its first or last word,
// makes look like a secret, and what makes it look like none.
var secretNames = sync.OnceValues(func() (deny, allow *regexp.Regexp) {
	return regexp.MustCompile(`(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`),
		regexp.MustCompile(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
})

func checkSecret(file *dockerfile, instruction, key string, location []parser.Range) {
	if deny, allow := secretNames(); deny.MatchString(key) && !allow.MatchString(key) {
		file.warn(&linter.RuleSecretsUsedInArgOrEnv, location, linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}
