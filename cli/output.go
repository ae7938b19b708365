// SPDX-License-Identifier: Apache-2.0

package cli

// The rules of output:
//
//   - Standard output carries what was asked for and nothing else: names, IDs,
//     tables, JSON. It can be piped into a program at any time.
//   - Everything else goes to standard error: errors, hints, notices, progress.
//   - An error is one line, "sbx: verb object: cause", and what helps against it
//     a second, "sbx: hint: ..". Only report prints them.
//   - A notice is one line, "sbx: ..", and says something that the user would
//     otherwise find out the hard way.
//   - Progress is drawn on a terminal only, in place; without one, each step is
//     a line.
//   - Text from a registry, an image or an archive is printed with its control
//     characters escaped. What a template takes out of a record reaches a pipe
//     as it is.
//   - With -q, only what was asked for is left.

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// print writes to standard output.
func (c *client) print(format string, args ...any) {
	c.write(fmt.Sprintf(format, args...))
}

// write writes text to standard output and remembers the first failure.
func (c *client) write(text string) {
	if c.broken != nil || text == "" {
		return
	}
	_, c.broken = c.out.WriteString(text)
}

// document writes text that may hold what others chose, lines and tabs included:
// tables, JSON and templates.
func (c *client) document(text string) {
	if isTerminal(c.out) {
		text = escape(text, "\n\t")
	}
	c.write(text)
}

// notice tells the user something in one line.
func (c *client) notice(format string, args ...any) {
	fmt.Fprintf(c.err, "%s: %s\n", c.name(), printable(fmt.Sprintf(format, args...)))
}

// report prints an error and its hint.
func (c *client) report(err error) {
	text, hint := describe(err)
	var usage *usageError
	if errors.As(err, &usage) {
		text = c.own(text)
	}
	if text != "" {
		fmt.Fprintf(c.err, "%s: %s\n", c.name(), printable(text))
	}
	if hint != "" {
		fmt.Fprintf(c.err, "%s: hint: %s\n", c.name(), printable(c.own(hint)))
	}
}

// describe returns what to say of an error. One without a cause only settles the
// exit status, or has a hint on something the program itself has reported.
func describe(err error) (text, hint string) {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		hint = h.Hint()
	}
	var settled *statusError
	if errors.As(err, &settled) && settled.err == nil {
		return "", hint
	}
	return err.Error(), hint
}

// finish reports how the command ended and returns the exit status.
func (c *client) finish(err error, otherwise int) int {
	if err != nil {
		c.report(err)
		return status(err, otherwise)
	}
	// A reader that left early has had what it wanted.
	if c.broken != nil && !errors.Is(c.broken, syscall.EPIPE) {
		c.report(fmt.Errorf("write standard output: %w", withoutPath(c.broken)))
		return statusFailed
	}
	return 0
}

// withoutPath strips an error of a file's name that is not one.
func withoutPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// printable escapes what could steer a terminal or forge a line: control
// characters, the invisible ones that reorder text, bytes that are no text.
func printable(s string) string { return escape(s, "") }

// escape leaves the characters in keep as they are.
func escape(s, keep string) string {
	clean := func(r rune) bool { return unicode.IsPrint(r) || strings.ContainsRune(keep, r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !clean(r) }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case clean(r):
			b.WriteString(s[i : i+n])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}
