// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"
)

// helpWidth is where lines of help end, as on Docker's.
const helpWidth = 80

// help is the text of --help, in Docker's layout.
func help(path string, cmd command, options []option) string {
	var b strings.Builder
	usage := cmd.usage
	if usage == "" && cmd.commands != nil {
		usage = "COMMAND"
	}
	fmt.Fprintf(&b, "Usage:  %s\n\n%s\n", strings.TrimSpace(path+" "+usage), cmd.summary)
	if len(cmd.forms) > 1 {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", strings.Join(cmd.forms, ", "))
	}
	if cmd.commands != nil {
		var single, groups []command
		for _, sub := range cmd.commands {
			if sub.commands != nil {
				groups = append(groups, sub)
			} else {
				single = append(single, sub)
			}
		}
		helpCommands(&b, "Commands", single)
		helpCommands(&b, "Groups", groups)
	}
	title := "Options"
	if path == program {
		title = "Global Options"
	}
	helpOptions(&b, title, options)
	if cmd.commands != nil {
		fmt.Fprintf(&b, "\nRun '%s COMMAND --help' for more information on a command.\n", path)
	}
	return b.String()
}

func helpCommands(b *strings.Builder, title string, list []command) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, c := range list {
		fmt.Fprintf(b, "  %-11s %s\n", c.name, c.summary)
	}
}

func helpOptions(b *strings.Builder, title string, options []option) {
	var left []string
	var right []string
	widest := 0
	for _, o := range options {
		if o.hidden {
			continue
		}
		s := "      --" + o.name
		if o.short != "" {
			s = "  -" + o.short + ", --" + o.name
		}
		if o.kind != "" {
			s += " " + o.kind
		}
		left, right = append(left, s), append(right, o.usage)
		widest = max(widest, len(s))
	}
	if len(left) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	indent := widest + 3
	for i, s := range left {
		for j, line := range wrap(right[i], helpWidth-indent) {
			if j > 0 {
				s = ""
			}
			fmt.Fprintf(b, "%-*s%s\n", indent, s, line)
		}
	}
}

// wrap breaks text into lines of at most width columns, where words allow it.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
