// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// maxDockerfile is the largest Dockerfile that is read. BuildKit's parser has a
// limit of its own on a line.
const maxDockerfile = 16 << 20

// dockerfile is a parsed Dockerfile.
type dockerfile struct {
	name     string // for messages
	data     []byte
	stages   []instructions.Stage
	args     []instructions.ArgCommand // before the first FROM
	lex      *shell.Lex
	lint     *linter.Linter
	warnings []Warning
}

// Warning is what BuildKit's checks say of a Dockerfile that can be built all
// the same.
type Warning struct {
	Rule   string // "StageNameCasing"
	Text   string
	URL    string
	Source *SourceError // where; its Err is nil
}

// parse reads a Dockerfile. An error is a *SourceError where it has lines.
func parse(name string, data []byte) (*dockerfile, error) {
	d := &dockerfile{name: name, data: data}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("the Dockerfile (%s) cannot be empty", name)
	}
	if len(data) > maxDockerfile {
		return nil, fmt.Errorf("read %s: it is larger than %d bytes", name, maxDockerfile)
	}
	lint, err := d.linter()
	if err != nil {
		return nil, err
	}
	tree, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, d.locate(err)
	}
	for _, w := range tree.Warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL && w.Location != nil {
			lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	if d.stages, d.args, err = instructions.Parse(tree.AST, lint); err != nil {
		return nil, d.locate(err)
	}
	if len(d.stages) == 0 {
		return nil, d.locate(errors.New("dockerfile contains no stages to build"))
	}
	d.lex, d.lint = shell.NewLex(tree.EscapeToken), lint
	d.checkStages()
	return d, nil
}

// linter collects warnings. A `# check=` line of the Dockerfile says which.
func (d *dockerfile) linter() (*linter.Linter, error) {
	config := &linter.Config{}
	value, _, location, ok := parser.ParseDirective("check", d.data)
	if ok {
		parsed, err := linter.ParseLintOptions(value)
		if err != nil {
			return nil, d.at(fmt.Errorf("parse check options: %w", err), location)
		}
		config = parsed
	}
	config.Warn = func(rule, _, url, text string, location []parser.Range) {
		d.warnings = append(d.warnings, Warning{Rule: rule, Text: text, URL: url, Source: d.source(location, nil)})
	}
	return linter.New(config), nil
}
