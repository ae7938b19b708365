// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
)

// Main runs the command that args names, args[0] being this program, and returns
// the exit status.
func Main(args []string, stdin, stdout, stderr *os.File) int {
	c := &client{in: stdin, out: stdout, err: stderr, lookup: os.LookupEnv}
	if len(args) > 0 {
		c.docker = filepath.Base(args[0]) == dockerProgram
		args = args[1:]
	}
	otherwise, err := c.dispatch(context.Background(), args)
	return c.finish(err, otherwise)
}

// client is the command that was typed: its streams and its environment.
type client struct {
	in, out, err *os.File
	lookup       func(string) (string, bool)
	broken       error   // the first failure to write to out
	docker       bool    // called by Docker's name
	settings     *config // once config has read it
}

// command is one command as its file declares it. What it costs to make is paid
// at every start, so the options come later, from bind.
type command struct {
	name     string
	aliases  []string // in the same group
	summary  string
	usage    string   // what follows the name
	forms    []string // the command's names in full, where it has several
	min, max int      // operands; no most if max is negative
	trailing bool     // what follows the first operand is the program's
	failure  int      // exit status of an error that has none; statusFailed if 0
	bind     func() ([]option, action)
	commands []command // of a group; it has no bind
}

// action is what a command does with its operands.
type action func(ctx context.Context, c *client, operands []string) error

// commands are the commands in the order of help.
func commands() []command {
	return []command{
		runCommand(),
		attachCommand(),
		createCommand(),
		execCommand(),
		killCommand(),
		logsCommand(),
		pauseCommand(),
		restartCommand(),
		startCommand(),
		stopCommand(),
		unpauseCommand(),
		waitCommand(),
		buildCommand(),
		psCommand(),
		pullCommand(),
		imagesCommand(),
		versionCommand(),
		infoCommand(),
		loginCommand(),
		logoutCommand(),
		pushCommand(),
		searchCommand(),

		builderGroup(),
		buildxGroup(),
		containerGroup(),
		imageGroup(),
		manifestGroup(),
		systemGroup(),
		networkGroup(),
		volumeGroup(),

		bootstrapCommand(),
		collectCommand(),
		commitCommand(), diffCommand(), exportCommand(), historyCommand(), importCommand(), loadCommand(), saveCommand(), tagCommand(),
		cpCommand(),
		doctorCommand(),
		eventsCommand(),
		inspectCommand(),
		portCommand(),
		renameCommand(),
		rmCommand(),
		rmiCommand(),
		statsCommand(),
		topCommand(),
		updateCommand(),
	}
}

const program = "sbx"

// globals are the flags before the command.
type globals struct {
	debug, version bool
}

func (g *globals) options() []option {
	return []option{
		switchFlag(&g.debug, "debug", "D", "Enable debug mode"),
		switchFlag(&g.version, "version", "v", "Print version information and quit"),
	}
}

// dispatch finds the command, reads its flags and runs it. It returns the exit
// status of an error that has no own.
func (c *client) dispatch(ctx context.Context, args []string) (int, error) {
	var g globals
	cmd, path, args, err := g.walk(args)
	if g.debug {
		slog.SetDefault(slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}
	var options []option
	var run action
	var operands []string
	switch {
	case g.version:
		c.print("%s\n", c.oneLineVersion())
		return statusFailed, nil
	case err == nil && cmd.bind != nil:
		options, run = cmd.bind()
		operands, err = parseArgs(args, options, cmd.trailing)
	case path == program:
		options = g.options()
	}
	if errors.Is(err, errHelp) {
		if options == nil && cmd.bind != nil {
			options, _ = cmd.bind()
		}
		c.write(c.own(help(path, cmd, options)))
		return 0, nil
	}
	if err == nil {
		err = checkCount(path, cmd, len(operands))
	}
	if err != nil {
		return statusFailed, locate(err, path)
	}
	return max(cmd.failure, statusFailed), run(ctx, c, operands)
}

// walk goes down the groups to the command that args name, and returns it, its
// name in full and its arguments. "help NAME" is "NAME --help".
func (g *globals) walk(args []string) (cmd command, path string, rest []string, err error) {
	cmd = command{summary: "Containers for everyone: no root, no daemon, no set-up", usage: "[OPTIONS] COMMAND", commands: commands()}
	path = program
	options := g.options()
	helping := false
	for cmd.commands != nil {
		operands, err := parseArgs(args, options, true)
		if err == nil && len(operands) > 0 && operands[0] == "help" {
			helping, operands = true, operands[1:]
		}
		if err == nil && len(operands) == 0 {
			err = errHelp
		}
		if err != nil || g.version {
			return cmd, path, nil, err
		}
		next := cmd.find(operands[0])
		if next == nil {
			return cmd, path, nil, unknownCommand(path, cmd, operands[0])
		}
		cmd, path, args, options = *next, path+" "+next.name, operands[1:], nil
	}
	if helping {
		err = errHelp
	}
	return cmd, path, args, err
}

func (cmd *command) find(name string) *command {
	for i := range cmd.commands {
		if sub := &cmd.commands[i]; sub.name == name || slices.Contains(sub.aliases, name) {
			return sub
		}
	}
	return nil
}

func unknownCommand(path string, group command, name string) error {
	var names []string
	for _, sub := range group.commands {
		names = append(names, sub.name)
	}
	return &usageError{text: "unknown command: " + path + " " + name, near: nearest(name, names), path: path}
}

// usageError says that the command line cannot be read.
type usageError struct {
	text string
	near string // what the user most likely meant
	hint string
	path string // the command whose help says more
}

func (e *usageError) Error() string { return e.text }

// Hint shows the way.
func (e *usageError) Hint() string {
	text := e.hint
	if e.near != "" {
		text = apart(text, "; ") + "did you mean " + e.near + "?"
	}
	if e.path != "" && e.near != "" {
		text += " see " + e.path + " --help"
	} else if e.path != "" {
		text = apart(text, "; ") + "see " + e.path + " --help"
	}
	return text
}

// apart puts between behind a text, unless that is empty.
func apart(text, between string) string {
	if text == "" {
		return ""
	}
	return text + between
}

// locate tells a usage error which command it is of.
func locate(err error, path string) error {
	var usage *usageError
	if errors.As(err, &usage) && usage.path == "" {
		usage.path = path
	}
	return err
}

// checkCount holds the number of operands against what the command takes.
func checkCount(path string, cmd command, n int) error {
	var text string
	switch {
	case cmd.max == 0 && n > 0:
		text = "accepts no arguments"
	case cmd.min == cmd.max && n != cmd.min:
		text = "requires " + arguments(cmd.min)
	case n < cmd.min:
		text = "requires at least " + arguments(cmd.min)
	case cmd.max >= 0 && n > cmd.max:
		text = "requires at most " + arguments(cmd.max)
	default:
		return nil
	}
	return &usageError{text: fmt.Sprintf("%q %s", path, text), path: path}
}

func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}
