// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// instruction adds what one instruction does to the stage. The words of history
// entries are BuildKit's.
func (s *stage) instruction(cmd instructions.Command, trigger bool) error {
	if !trigger {
		s.check(cmd)
	}
	if err := s.expand(cmd); err != nil {
		return err
	}
	config := &s.image.Config
	switch c := cmd.(type) {
	case *instructions.RunCommand:
		return s.runInstruction(c, trigger)
	case *instructions.CopyCommand:
		return s.copyInstruction(c, trigger)
	case *instructions.AddCommand:
		return s.addInstruction(c, trigger)
	case *instructions.WorkdirCommand:
		s.workdirInstruction(c, trigger)
	case *instructions.ArgCommand:
		return s.argInstruction(c)
	case *instructions.EnvCommand:
		text := "ENV"
		for _, e := range c.Env {
			s.env = s.env.with(e.Key, e.Value)
			config.Env = variables(config.Env).with(e.Key, e.Value)
			text += " " + e.String()
		}
		s.record(text, nil)
	case *instructions.LabelCommand:
		text := "LABEL"
		for _, l := range c.Labels {
			if config.Labels == nil {
				config.Labels = map[string]string{}
			}
			config.Labels[l.Key] = l.Value
			text += " " + l.String()
		}
		s.record(text, nil)
	case *instructions.MaintainerCommand:
		s.image.Author = c.Maintainer
		s.record("MAINTAINER "+c.Maintainer, nil)
	case *instructions.OnbuildCommand:
		s.onbuild = append(s.onbuild, c.Expression)
	case *instructions.CmdCommand:
		config.Cmd = s.shellForm(c.ShellDependantCmdLine)
		config.ArgsEscaped = true //nolint:staticcheck // deprecated in the OCI specification, and in every image of Docker's
		s.cmdSet = true
		s.record(fmt.Sprintf("CMD %q", config.Cmd), nil)
	case *instructions.EntrypointCommand:
		config.Entrypoint = s.shellForm(c.ShellDependantCmdLine)
		if !s.cmdSet { // the base's command would be arguments of another program
			config.Cmd = nil
		}
		s.record(fmt.Sprintf("ENTRYPOINT %q", config.Entrypoint), nil)
	case *instructions.HealthCheckCommand:
		health := dockerspec.HealthcheckConfig(*c.Health)
		config.Healthcheck = &health
		s.record(fmt.Sprintf("HEALTHCHECK %+v", health), nil)
	case *instructions.ExposeCommand:
		return s.exposeInstruction(c)
	case *instructions.UserCommand:
		config.User = c.User
		s.record("USER "+c.User, nil)
	case *instructions.VolumeCommand:
		return s.volumeInstruction(c)
	case *instructions.StopSignalCommand:
		if err := checkSignal(c.Signal); err != nil {
			return err
		}
		config.StopSignal = c.Signal
		s.record("STOPSIGNAL "+c.Signal, nil)
	case *instructions.ShellCommand:
		config.Shell = c.Shell
		s.record(fmt.Sprintf("SHELL %v", c.Shell), nil)
	default:
		return fmt.Errorf("unknown instruction: %s", strings.ToUpper(cmd.Name()))
	}
	return nil
}

// expand replaces the variables in an instruction. Those of ARG are expanded
// only if its default is used.
func (s *stage) expand(cmd instructions.Command) error {
	if _, isArg := cmd.(*instructions.ArgCommand); isArg {
		return nil
	}
	if c, ok := cmd.(instructions.SupportsSingleWordExpansion); ok {
		err := c.Expand(func(word string) (string, error) {
			word, unmatched, err := s.plan.file.lex.ProcessWord(word, s.env)
			s.checkVariables(cmd, unmatched)
			return word, err
		})
		if err != nil {
			return err
		}
	}
	if c, ok := cmd.(instructions.SupportsSingleWordExpansionRaw); ok {
		lex := shell.NewLex('\\')
		lex.SkipProcessQuotes = true
		return c.ExpandRaw(func(word string) (string, error) {
			word, unmatched, err := lex.ProcessWord(word, s.env)
			s.checkVariables(cmd, unmatched)
			return word, err
		})
	}
	return nil
}

// display is an instruction as progress shows it, with variables replaced.
func (s *stage) display(text string, env shell.EnvGetter, raw bool) string {
	lex := *s.plan.file.lex
	if raw {
		lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
	}
	if word, _, err := lex.ProcessWord(text, env); err == nil {
		text = word
	}
	name, rest, _ := strings.Cut(text, " ")
	return strings.ToUpper(name) + " " + rest
}

func (s *stage) shellForm(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell {
		return c.CmdLine
	}
	sh := s.image.Config.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(sh), strings.Join(c.CmdLine, " "))
}

func (s *stage) argInstruction(c *instructions.ArgCommand) error {
	var texts []string
	for _, arg := range c.Args {
		value, given := s.plan.given[arg.Key]
		global, isGlobal := s.plan.args.Get(arg.Key)
		switch {
		case given:
			arg.Value = &value
		case arg.Value != nil:
			word, unmatched, err := s.plan.file.lex.ProcessWord(*arg.Value, s.env)
			if err != nil {
				return err
			}
			s.checkVariables(c, unmatched)
			arg.Value = &word
		case isGlobal:
			arg.Value = &global
		}
		text := arg.Key
		if arg.Value != nil {
			text += "=" + *arg.Value
			if !withoutVariable(arg.Key) {
				s.env = s.env.with(arg.Key, *arg.Value)
			}
		}
		s.args = append(s.args, arg)
		texts = append(texts, text)
	}
	s.record("ARG "+strings.Join(texts, " "), nil)
	return nil
}

func (s *stage) workdirInstruction(c *instructions.WorkdirCommand, trigger bool) {
	config := &s.image.Config
	dir := c.Path
	if !path.IsAbs(dir) {
		dir = path.Join("/", config.WorkingDir, dir)
	}
	dir = path.Clean(dir)
	config.WorkingDir = dir
	var st *step
	name := s.numbered(s.display(c.String(), s.env, false), trigger)
	if dir != "/" {
		st = &step{stage: s, name: name, location: c.Location(), mkdir: &mkdirStep{dir: dir, user: config.User}}
		s.steps = append(s.steps, st)
	}
	s.record("WORKDIR "+dir, st)
}

func (s *stage) volumeInstruction(c *instructions.VolumeCommand) error {
	config := &s.image.Config
	for _, v := range c.Volumes {
		if v == "" {
			return errors.New("VOLUME specified can not be an empty string")
		}
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		config.Volumes[v] = struct{}{}
	}
	s.record(fmt.Sprintf("VOLUME %v", c.Volumes), nil)
	return nil
}

func (s *stage) exposeInstruction(c *instructions.ExposeCommand) error {
	config := &s.image.Config
	var all []string
	for _, p := range c.Ports {
		words, err := s.plan.file.lex.ProcessWords(p, s.env)
		if err != nil {
			return err
		}
		for _, w := range words {
			s.checkExpose(c, w)
			ports, err := exposedPorts(w)
			if err != nil {
				return err
			}
			all = append(all, ports...)
		}
	}
	for _, p := range all {
		if config.ExposedPorts == nil {
			config.ExposedPorts = map[string]struct{}{}
		}
		config.ExposedPorts[p] = struct{}{}
	}
	s.record(fmt.Sprintf("EXPOSE %v", all), nil)
	return nil
}

// exposedPorts reads [[IP:]HOST:]PORT[-PORT][/PROTOCOL], of which an image keeps
// the container's side.
func exposedPorts(word string) ([]string, error) {
	port := word[strings.LastIndexByte(word, ':')+1:]
	port, proto, _ := strings.Cut(port, "/")
	if port == "" {
		return nil, fmt.Errorf("invalid port: %q: no port specified", word)
	}
	switch strings.ToLower(proto) {
	case "":
		proto = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return nil, fmt.Errorf("invalid port: %q: invalid proto: %s", word, proto)
	}
	low, high, isRange := strings.Cut(port, "-")
	first, err := strconv.ParseUint(low, 10, 16)
	last := first
	if err == nil && isRange {
		last, err = strconv.ParseUint(high, 10, 16)
	}
	if err != nil || last < first {
		return nil, fmt.Errorf("invalid containerPort: %s", port)
	}
	var ports []string
	for n := first; n <= last; n++ {
		ports = append(ports, strconv.FormatUint(n, 10)+"/"+strings.ToLower(proto))
	}
	return ports, nil
}

// checkSignal takes a number, a name, or RTMIN+n.
func checkSignal(name string) error {
	n, err := strconv.Atoi(name)
	upper := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	switch {
	case err == nil && n > 0 && n <= 64:
		return nil
	case err != nil && unix.SignalNum("SIG"+upper) != 0:
		return nil
	case err != nil && (strings.HasPrefix(upper, "RTMIN") || strings.HasPrefix(upper, "RTMAX")):
		rest := upper[len("RTMIN"):]
		if n, err := strconv.Atoi(rest); rest == "" || err == nil && n >= -30 && n <= 30 {
			return nil
		}
	}
	return fmt.Errorf("invalid signal: %s", name)
}

func (s *stage) runInstruction(c *instructions.RunCommand, trigger bool) error {
	config := &s.image.Config
	r := &runStep{
		env: s.env, workdir: config.WorkingDir, user: config.User, mounts: instructions.GetMounts(c),
		network: string(instructions.GetNetwork(c)), security: string(instructions.GetSecurity(c)),
		image: platformName(s.image.Platform),
	}
	if r.workdir == "" {
		r.workdir = "/"
	}
	name := c.String()
	args := c.CmdLine
	if len(c.Files) > 0 {
		if len(args) != 1 || !c.PrependShell {
			return fmt.Errorf("parsing produced an invalid run command: %v", args)
		}
		args = r.heredoc(c)
		if parser.MustParseHeredoc(c.CmdLine[0]) != nil {
			name += " (" + summary(c.Files[0].Data) + ")"
		}
	}
	if c.PrependShell {
		args = s.shellForm(instructions.ShellDependantCmdLine{CmdLine: args, PrependShell: true})
	}
	r.args = args
	if err := s.checkMounts(r); err != nil {
		return err
	}
	env := s.env
	for _, m := range r.mounts {
		if m.Type == instructions.MountTypeSecret && m.Env != nil {
			env = env.with(*m.Env, "****")
		}
	}
	st := &step{stage: s, name: s.numbered(s.display(name, env, true), trigger), location: c.Location(), run: r}
	s.steps = append(s.steps, st)
	s.record("RUN "+s.runText(args)+" # buildkit", st)
	return nil
}

// heredoc turns here-documents into the command line: one alone is a script, any
// others are for the shell.
func (r *runStep) heredoc(c *instructions.RunCommand) []string {
	if parser.MustParseHeredoc(c.CmdLine[0]) == nil {
		var b strings.Builder
		b.WriteString(c.CmdLine[0])
		for _, f := range c.Files {
			b.WriteString("\n" + f.Data + f.Name)
		}
		return []string{b.String()}
	}
	f := c.Files[0]
	if f.Chomp {
		f.Data = parser.ChompHeredocContent(f.Data)
	}
	if !strings.HasPrefix(f.Data, "#!") {
		return []string{f.Data}
	}
	r.script = &f
	return []string{path.Join(scriptDir, f.Name)}
}

// scriptDir is where a here-document with an interpreter is mounted.
const scriptDir = "/dev/pipes"

func summary(doc string) string {
	first, _, more := strings.Cut(strings.ReplaceAll(strings.TrimSpace(doc), "\r\n", "\n"), "\n")
	if more {
		first += "..."
	}
	return first
}

// runText is the command line in the history: build arguments first.
func (s *stage) runText(args []string) string {
	var set []string
	at := map[string]int{}
	for _, a := range s.args {
		value, ok := s.env.Get(a.Key)
		if !ok {
			value = a.ValueString()
		}
		entry := a.Key + "=" + value
		if i, known := at[a.Key]; known {
			set[i] = entry
			continue
		}
		at[a.Key] = len(set)
		set = append(set, entry)
	}
	if len(set) > 0 {
		set = append([]string{"|" + strconv.Itoa(len(set))}, set...)
	}
	return strings.Join(append(set, args...), " ")
}

// checkMounts looks at what can be known of mounts without their sources.
func (s *stage) checkMounts(r *runStep) error {
	for _, m := range r.mounts {
		if m.From != "" {
			if src := s.plan.stage(m.From); src == nil || !src.implied && src.index >= s.index {
				return fmt.Errorf("cannot mount from stage %q to %q, stage needs to be defined before current command", m.From, m.Target)
			}
		}
		switch m.Type {
		case instructions.MountTypeSecret:
			if m.Source == "" && m.CacheID == "" && m.Target == "" {
				return errors.New("one of source, target required")
			}
		case instructions.MountTypeSSH:
			if m.Source != "" {
				return errors.New("ssh does not support source")
			}
		default:
			if path.Join("/", r.workdir, m.Target) == "/" || path.Clean(m.Target) == "/" {
				return fmt.Errorf("invalid mount target %q", m.Target)
			}
		}
	}
	switch r.network {
	case "", "default", "none", "host":
	default:
		return fmt.Errorf("unsupported network mode %q", r.network)
	}
	return nil
}
