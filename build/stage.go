// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// stage is one FROM with what follows it; or, implied, an image or a named
// context that something is copied from.
type stage struct {
	plan     *plan
	index    int
	name     string // as declared, or ""
	label    string // in progress; "" for the only stage
	baseName string
	base     *stage // FROM another stage
	platform *ocispec.Platform
	location []parser.Range
	commands []instructions.Command
	triggers []instructions.Command // ONBUILD of the base
	sources  []*stage               // of --from
	implied  bool
	replaced bool // by a named context
	needed   bool
	resolved bool // base and triggers are known

	// What planning makes of it.
	image   dockerspec.DockerOCIImage
	env     variables // of RUN: the image's, and arguments
	args    []instructions.KeyValuePairOptional
	steps   []*step
	history []historyEntry
	onbuild []string // its own ONBUILD triggers
	total   int      // numbered steps, FROM of an image included
	count   int
	cmdSet  bool

	// What the checks remember.
	unknown    bool // the base image has not been looked at
	workdirSet bool
	once       map[string][]parser.Range

	fromText string   // of its image, for progress
	context  *Context // a named context's tree

	// What evaluation makes of it, once done is closed.
	done   chan struct{}
	result snapshot
	err    error
}

// historyEntry is a line of the image's history; without a step it has no layer.
type historyEntry struct {
	createdBy string
	step      *step
}

// step is an instruction that may make a layer. One of run, copy and mkdir is set.
type step struct {
	stage    *stage
	name     string // "[2/3] RUN true"
	location []parser.Range
	run      *runStep
	copy     *copyStep
	mkdir    *mkdirStep
	empty    bool      // evaluated, and without a layer
	created  time.Time // when it was evaluated, in this build or an earlier one
}

// runStep is a RUN with everything expanded.
type runStep struct {
	args     []string
	env      variables
	workdir  string
	user     string
	mounts   []*instructions.Mount
	network  string // "default", "none", "host"
	security string // "sandbox", "insecure"
	script   *instructions.ShellInlineFile
	image    string // what the image is for: "linux/amd64"
}

// copyStep is a COPY or ADD with everything expanded.
type copyStep struct {
	add      bool
	sources  []string
	inline   []instructions.SourceContent
	dest     string // absolute; ends with a slash if the instruction's does
	from     *stage // nil: the build context
	chown    string
	chmod    string
	link     bool
	parents  bool
	excludes []string
	checksum string
	keepGit  bool
	unpack   *bool
}

// mkdirStep is the directory of a WORKDIR.
type mkdirStep struct {
	dir  string
	user string
}

// baseTriggers returns the ONBUILD triggers that a stage's base has.
func (s *stage) baseTriggers() []string {
	if s.base == nil {
		return s.image.Config.OnBuild
	}
	var all []string
	for _, cmd := range s.base.commands {
		if c, ok := cmd.(*instructions.OnbuildCommand); ok {
			all = append(all, c.Expression)
		}
	}
	if s.base.replaced {
		all = s.base.image.Config.OnBuild
	}
	return all
}

// parseTriggers makes commands of ONBUILD triggers. Their errors are those of
// the stage's FROM line.
func (s *stage) parseTriggers(triggers []string) error {
	for _, text := range triggers {
		cmd, err := parseTrigger(text, s.location)
		if err != nil {
			return s.plan.file.source(s.location, err)
		}
		s.triggers = append(s.triggers, cmd)
	}
	return s.findSources(s.triggers)
}

func parseTrigger(text string, at []parser.Range) (instructions.Command, error) {
	tree, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	if len(tree.AST.Children) != 1 {
		return nil, errors.New("onbuild trigger should be a single expression")
	}
	node := tree.AST.Children[0]
	node.StartLine, node.EndLine = lines(at)
	return instructions.ParseCommand(node)
}

// layout plans a stage: its base has been planned, or its image holds the
// config of the base image.
func (s *stage) layout() error {
	if s.base != nil {
		s.image = cloneImage(s.base.image)
		s.history = slices.Clone(s.base.history)
		s.env = slices.Clone(s.base.env)
		s.args = slices.Clone(s.base.args)
		s.unknown = s.base.unknown
		if s.platform == nil {
			s.platform = s.base.platform
		}
	} else {
		// Nobody counts on the entries of the base twice.
		s.env = variables(slices.Clone(s.image.Config.Env))
	}
	s.image.Config.OnBuild = nil
	if s.implied {
		return nil
	}
	s.checkBase()
	if _, ok := s.env.Get("PATH"); !ok {
		s.env = s.env.with("PATH", defaultPath)
		s.image.Config.Env = variables(s.image.Config.Env).with("PATH", defaultPath)
	}
	if s.base == nil && s.baseName != scratch {
		s.total, s.count = 1, 1 // FROM
	}
	for _, cmd := range slices.Concat(s.triggers, s.commands) {
		switch cmd.(type) {
		case *instructions.RunCommand, *instructions.CopyCommand, *instructions.AddCommand, *instructions.WorkdirCommand:
			s.total++
		}
	}
	for i, cmd := range slices.Concat(s.triggers, s.commands) {
		if err := s.instruction(cmd, i < len(s.triggers)); err != nil {
			return s.plan.file.at(s.plan.file.locate(s.plan.file.at(err, cmd.Location())), cmd.Location())
		}
	}
	s.image.Config.OnBuild = s.onbuild
	return nil
}

// numbered puts "[stage 2/3] " before the text of a step.
func (s *stage) numbered(text string, trigger bool) string {
	if s.total == 0 {
		return text
	}
	s.count++
	label := ""
	if s.label != "" {
		label = s.label + " "
	}
	if trigger {
		text = "ONBUILD " + text
	}
	return fmt.Sprintf("[%s%*d/%d] %s", label, int(1+math.Log10(float64(s.total))), s.count, s.total, text)
}

// fromName is the name of the step that brings the base.
func (s *stage) fromName(image string) string {
	label := ""
	if s.label != "" {
		label = s.label + " "
	}
	if s.implied {
		return "FROM " + image
	}
	return fmt.Sprintf("[%s%*d/%d] FROM %s", label, int(1+math.Log10(float64(max(s.total, 1)))), 1, max(s.total, 1), image)
}

func (s *stage) record(createdBy string, st *step) {
	s.history = append(s.history, historyEntry{createdBy, st})
}

// cloneImage copies a config as deep as instructions change it.
func cloneImage(i dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	c := &i.Config
	c.Env, c.Cmd, c.Entrypoint = slices.Clone(c.Env), slices.Clone(c.Cmd), slices.Clone(c.Entrypoint)
	c.OnBuild, c.Shell = slices.Clone(c.OnBuild), slices.Clone(c.Shell)
	c.Labels, c.Volumes, c.ExposedPorts = cloneMap(c.Labels), cloneMap(c.Volumes), cloneMap(c.ExposedPorts)
	i.History = slices.Clone(i.History)
	i.RootFS.DiffIDs = slices.Clone(i.RootFS.DiffIDs)
	return i
}

func cloneMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return nil
	}
	next := make(map[string]V, len(m))
	for k, v := range m {
		next[k] = v
	}
	return next
}
