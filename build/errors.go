// SPDX-License-Identifier: Apache-2.0

package build

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// SourceError says which lines of a Dockerfile an error is about.
type SourceError struct {
	File  string
	Lines [][2]int // first and last, from 1
	Err   error
	data  []byte
}

// Error names file and line, unless BuildKit's words say the line already.
func (e *SourceError) Error() string {
	text := e.Err.Error()
	if e.Line() == 0 || strings.HasPrefix(text, "dockerfile parse error on line ") {
		return text
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line(), text)
}

func (e *SourceError) Unwrap() error { return e.Err }

// Line is the first of the lines, or 0.
func (e *SourceError) Line() int {
	if len(e.Lines) == 0 {
		return 0
	}
	return e.Lines[0][0]
}

// Quote shows the lines with those around them, as BuildKit does. It ends with a
// newline, or is empty.
func (e *SourceError) Quote() string {
	lines := strings.Split(string(e.data), "\n")
	if len(e.Lines) == 0 {
		return ""
	}
	first, last := e.Lines[0][0], e.Lines[len(e.Lines)-1][1]
	if first < 1 || first > len(lines) {
		return ""
	}
	last = min(last, len(lines))
	start, end, pad := first, last, 2
	if start == end {
		pad = 4
	}
	for p := 0; p < pad; p++ {
		if start > 1 {
			start--
			p++
		}
		if end != len(lines) {
			end++
			p++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n--------------------\n", e.File, first)
	for i := start; i <= end; i++ {
		mark := "   "
		if e.holds(i) {
			mark = ">>>"
		}
		fmt.Fprintf(&b, " %3d | %s %s\n", i, mark, strings.TrimSuffix(lines[i-1], "\r"))
	}
	b.WriteString("--------------------\n")
	return b.String()
}

func (e *SourceError) holds(line int) bool {
	for _, l := range e.Lines {
		if l[0] <= line && line <= max(l[0], l[1]) {
			return true
		}
	}
	return false
}

// source makes a SourceError of a location of the parser.
func (d *dockerfile) source(location []parser.Range, err error) *SourceError {
	e := &SourceError{File: d.name, Err: err, data: d.data}
	for _, r := range location {
		e.Lines = append(e.Lines, [2]int{r.Start.Line, max(r.Start.Line, r.End.Line)})
	}
	return e
}

// at gives an error its lines, unless it has some.
func (d *dockerfile) at(err error, location []parser.Range) error {
	var known *SourceError
	if err == nil || errors.As(err, &known) {
		return err
	}
	return d.source(location, err)
}

// locate takes the lines from an error of BuildKit's parser, if it has some.
func (d *dockerfile) locate(err error) error {
	var known *SourceError
	var at *parser.LocationError
	if errors.As(err, &known) {
		return err
	}
	if errors.As(err, &at) && len(at.Locations) > 0 {
		return d.source(at.Locations[0], err)
	}
	return err
}

// ProcessError says that the program of a RUN failed.
type ProcessError struct {
	Args   []string
	Status int
}

func (e *ProcessError) Error() string {
	return fmt.Sprintf("process %q did not complete successfully: exit code: %d", strings.Join(e.Args, " "), e.Status)
}
