// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"
)

// errHelp says that the user asked for help.
var errHelp = errors.New("help requested")

// parseArgs reads argv as Docker does, which is as POSIX and GNU have it: -i -t
// is -it, -e A=1 is -eA=1, --name x is --name=x, a switch takes a value only
// after "=", and "--" ends the flags. With trailing they also end at the first
// operand, so that what follows an image belongs to its program; without, they
// may stand anywhere. It hands the values to the options, in order, and returns
// the operands.
func parseArgs(args []string, options []option, trailing bool) (operands []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return append(operands, args...), nil
		case len(arg) < 2 || arg[0] != '-':
			operands = append(operands, arg)
			if trailing {
				return append(operands, args...), nil
			}
		case arg[1] == '-':
			args, err = parseLong(arg, args, options)
		default:
			args, err = parseShort(arg, args, options)
		}
		if err != nil {
			return nil, err
		}
	}
	return operands, nil
}

// parseLong reads --name, --name=value or --name value; rest follows it.
func parseLong(arg string, rest []string, options []option) ([]string, error) {
	name, value, hasValue := strings.Cut(arg[2:], "=")
	if name == "" || name[0] == '-' {
		return nil, &usageError{text: "bad flag syntax: " + arg}
	}
	o := findLong(options, name)
	switch {
	case o == nil && name == "help":
		return nil, errHelp
	case o == nil:
		return nil, &usageError{text: "unknown flag: --" + name, near: nearest("--"+name, longNames(options))}
	case hasValue:
	case o.isSwitch():
		value = "true"
	case o.bare != "":
		value = o.bare
	case len(rest) == 0:
		return nil, &usageError{text: "flag needs an argument: --" + name}
	default:
		value, rest = rest[0], rest[1:]
	}
	return rest, o.set(value)
}

// parseShort reads a run of one-letter flags, of which the last may have a
// value: -it, -eA=1, -e A=1, -e=A=1.
func parseShort(arg string, rest []string, options []option) ([]string, error) {
	for letters := arg[1:]; letters != ""; {
		letter := letters[:1]
		letters = letters[1:]
		o := findShort(options, letter)
		var value string
		switch {
		case o == nil && letter == "h":
			return nil, errHelp
		case o == nil:
			return nil, &usageError{text: fmt.Sprintf("unknown shorthand flag: %q in %s", letter[0], arg)}
		case len(letters) > 1 && letters[0] == '=':
			value, letters = letters[1:], ""
		case o.isSwitch():
			value = "true"
		case letters != "":
			value, letters = letters, ""
		case len(rest) == 0:
			return nil, &usageError{text: fmt.Sprintf("flag needs an argument: %q in %s", letter[0], arg)}
		default:
			value, rest = rest[0], rest[1:]
		}
		if err := o.set(value); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func findLong(options []option, name string) *option {
	for i := range options {
		if o := &options[i]; o.name == name || (o.alias != "" && o.alias == name) {
			return o
		}
	}
	return nil
}

func findShort(options []option, letter string) *option {
	for i := range options {
		if options[i].short == letter {
			return &options[i]
		}
	}
	return nil
}

func longNames(options []option) []string {
	var names []string
	for _, o := range options {
		if !o.hidden {
			names = append(names, "--"+o.name)
		}
	}
	return names
}

// nearest returns the candidate that the user most likely meant, or "".
func nearest(typed string, candidates []string) string {
	best, least := "", 1+len(strings.TrimLeft(typed, "-"))/3
	for _, c := range candidates {
		if d := distance(typed, c); d <= least && (best == "" || d < least) {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour that lie between two words.
func distance(a, b string) int {
	const most = 64
	if len(a) > most || len(b) > most {
		return most
	}
	var before, last, row [most + 1]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
