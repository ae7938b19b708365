// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"sbx/build"
)

// buildPrinter shows a build's events as BuildKit does: a paragraph for each step
// that has something new to say ("plain"); on a terminal a line for each step,
// with what the running ones write below it ("tty"); JSON ("rawjson"); or nothing.
type buildPrinter struct {
	mu     sync.Mutex
	out    *os.File
	mode   string
	width  int
	height int
	steps  map[int]*shownStep
	order  []*shownStep
	last   int    // the step that the last plain line was about
	before int    // steps of builds for other platforms
	prefix string // the platform, where there are several
	failed *shownStep
	drawn  int
	start  time.Time
	ticker *time.Ticker
	done   chan struct{}
	wait   sync.WaitGroup
}

// shownStep is what is known of a step.
type shownStep struct {
	number  int
	name    string
	started time.Time
	ended   time.Time
	state   build.EventKind
	partial [3]string // of output, by stream: what has no newline yet
	tail    []string  // the last lines of output
	err     error
}

const keptLines = 200

func newBuildPrinter(c *client, mode string) (*buildPrinter, error) {
	p := &buildPrinter{out: c.err, mode: mode, steps: map[int]*shownStep{}, start: time.Now(), done: make(chan struct{})}
	switch mode {
	case "", "auto":
		p.mode = "plain"
		if isTerminal(c.err) && c.variable("TERM") != "dumb" && c.variable("NO_COLOR") == "" {
			p.mode = "tty"
		}
	case "plain", "quiet", "rawjson", "none":
	case "tty":
		if !isTerminal(c.err) {
			return nil, fmt.Errorf("failed to get console: standard error is no terminal")
		}
	default:
		return nil, &usageError{text: fmt.Sprintf("invalid progress mode %s", mode), hint: `want "auto", "plain", "tty", "quiet" or "rawjson"`, path: "sbx build"}
	}
	if p.mode == "tty" {
		width, height, err := term.GetSize(int(c.err.Fd()))
		if err != nil || width < 20 {
			p.mode = "plain"
			return p, nil
		}
		p.width, p.height = width, height
		p.ticker = time.NewTicker(redrawEvery)
		p.wait.Go(p.redraw)
	}
	return p, nil
}

func (p *buildPrinter) redraw() {
	for {
		select {
		case <-p.done:
			return
		case <-p.ticker.C:
			p.mu.Lock()
			p.draw(false)
			p.mu.Unlock()
		}
	}
}

// close leaves the last state on the screen.
func (p *buildPrinter) close() {
	if p.ticker == nil {
		return
	}
	p.ticker.Stop()
	close(p.done)
	p.wait.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw(true)
}

// begin says which platform the next build is for; its steps are counted on.
func (p *buildPrinter) begin(platform string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before, p.prefix = len(p.steps), platform
}

func (p *buildPrinter) event(e build.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.Step += p.before
	if rest, ok := strings.CutPrefix(e.Name, "["); ok && p.prefix != "" && !strings.HasPrefix(rest, "internal]") {
		e.Name = "[" + p.prefix + " " + rest
	}
	s := p.steps[e.Step]
	if s == nil {
		s = &shownStep{number: e.Step, name: e.Name, started: e.Time}
		p.steps[e.Step] = s
		p.order = append(p.order, s)
	}
	if e.Kind != build.Output && e.Kind != build.Status {
		s.state = e.Kind
	}
	if e.Kind == build.Failed {
		s.err, p.failed = e.Err, s
	}
	if e.Kind != build.Started {
		s.ended = e.Time
	}
	lines := s.take(e)
	switch p.mode {
	case "plain":
		p.plain(s, e, lines)
	case "rawjson":
		p.rawJSON(e)
	}
}

// take cuts output into whole lines, and gives out the rest at the step's end.
func (s *shownStep) take(e build.Event) []string {
	var lines []string
	switch e.Kind {
	case build.Output:
		text := s.partial[e.Stream] + string(e.Data)
		for {
			line, rest, ok := strings.Cut(text, "\n")
			if !ok {
				break
			}
			lines, text = append(lines, lastOf(line)), rest
		}
		s.partial[e.Stream] = text
	case build.Done, build.Failed, build.Ended:
		for i, rest := range s.partial {
			if rest != "" {
				lines = append(lines, lastOf(rest))
				s.partial[i] = ""
			}
		}
	}
	s.tail = append(s.tail, lines...)
	if n := len(s.tail) - keptLines; n > 0 {
		s.tail = s.tail[n:]
	}
	return lines
}

// lastOf is what a line shows at last: carriage returns overwrite it.
func lastOf(line string) string {
	line = strings.TrimRight(line, "\r")
	return line[strings.LastIndexByte(line, '\r')+1:]
}

// plain writes "#5 0.123 output", and the step's name when another was shown.
func (p *buildPrinter) plain(s *shownStep, e build.Event, lines []string) {
	if e.Kind == build.Output && len(lines) == 0 {
		return
	}
	var b strings.Builder
	if p.last != s.number {
		if p.last != 0 {
			if other := p.steps[p.last]; other.state == build.Started {
				fmt.Fprintf(&b, "#%d ...\n", other.number)
			}
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "#%d %s\n", s.number, printable(s.name))
		p.last = s.number
	}
	seconds := e.Time.Sub(s.started).Seconds()
	for _, line := range lines {
		fmt.Fprintf(&b, "#%d %s %s\n", s.number, stepTime(seconds), escape(line, "\t"))
	}
	switch e.Kind {
	case build.Status:
		fmt.Fprintf(&b, "#%d %s\n", s.number, printable(e.Text))
	case build.Cached:
		fmt.Fprintf(&b, "#%d CACHED\n", s.number)
	case build.Done:
		fmt.Fprintf(&b, "#%d DONE %.1fs\n", s.number, seconds)
	case build.Ended:
		fmt.Fprintf(&b, "#%d CANCELED\n", s.number)
	case build.Failed:
		fmt.Fprintf(&b, "#%d ERROR: %s\n", s.number, printable(e.Err.Error()))
	}
	_, _ = p.out.WriteString(b.String())
}

// stepTime is a time as BuildKit writes it: four digits.
func stepTime(seconds float64) string {
	switch {
	case seconds < 10:
		return fmt.Sprintf("%.3f", seconds)
	case seconds < 100:
		return fmt.Sprintf("%.2f", seconds)
	}
	return fmt.Sprintf("%.1f", seconds)
}

// rawJSON writes an event as BuildKit's SolveStatus: one document a line.
func (p *buildPrinter) rawJSON(e build.Event) {
	digest := fmt.Sprintf("sha256:%064x", e.Step)
	vertex := map[string]any{"digest": digest, "name": e.Name, "started": e.Started}
	doc := map[string]any{}
	switch e.Kind {
	case build.Output:
		doc["logs"] = []any{map[string]any{"vertex": digest, "stream": e.Stream, "data": e.Data, "timestamp": e.Time}}
	case build.Status:
		doc["statuses"] = []any{map[string]any{"id": e.Text, "vertex": digest, "timestamp": e.Time, "started": e.Started, "completed": e.Time, "current": 0}}
	default:
		if e.Kind != build.Started {
			vertex["completed"] = e.Time
		}
		if e.Kind == build.Cached {
			vertex["cached"] = true
		}
		if e.Err != nil {
			vertex["error"] = e.Err.Error()
		}
		doc["vertexes"] = []any{vertex}
	}
	data, err := json.Marshal(doc)
	if err == nil {
		_, _ = p.out.Write(append(data, '\n'))
	}
}

// shownOutput is how many lines of output are shown below a running step.
const shownOutput = 6

// draw writes the state over what was drawn before. At last, what there is no
// room for is written too.
func (p *buildPrinter) draw(last bool) {
	if last && len(p.order) == 0 && p.drawn == 0 {
		return // nothing was begun
	}
	now := time.Now()
	done := 0
	var rows []string
	for _, s := range p.order {
		if s.state != build.Started {
			done++
		}
		rows = append(rows, p.row(s, now))
		if s.state == build.Started {
			for _, line := range s.tail[max(0, len(s.tail)-shownOutput):] {
				rows = append(rows, ellipsis(" => => # "+escape(line, ""), p.width-1))
			}
		}
	}
	finished := ""
	if last && p.failed == nil {
		finished = " FINISHED"
	}
	head := fmt.Sprintf("[+] Building %.1fs (%d/%d)%s", now.Sub(p.start).Seconds(), done, len(p.order), finished)
	if room := p.height - 2; !last && len(rows) > room && room > 0 {
		rows = rows[len(rows)-room:]
	}
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA\x1b[J", p.drawn) // whoever typed meanwhile, ctrl-c too, has moved the cursor
	}
	b.WriteString(head + "\n")
	for _, r := range rows {
		b.WriteString(r + "\n")
	}
	p.drawn = len(rows) + 1
	_, _ = p.out.WriteString(b.String())
}

// row is the line of one step: its name to the left, its time to the right.
func (p *buildPrinter) row(s *shownStep, now time.Time) string {
	end, mark, color := now, "=>", ""
	switch s.state {
	case build.Started:
	case build.Cached:
		end, mark, color = s.ended, "=> CACHED", "\x1b[34m"
	case build.Failed:
		end, mark, color = s.ended, "=> ERROR", "\x1b[31m"
	case build.Ended:
		end, mark, color = s.ended, "=> CANCELED", "\x1b[33m"
	default:
		end, color = s.ended, "\x1b[34m"
	}
	timer := fmt.Sprintf(" %.1fs", end.Sub(s.started).Seconds())
	left := ellipsis(" "+mark+" "+printable(s.name), max(p.width-1-len(timer), 1))
	line := fmt.Sprintf("%-*s%s", max(p.width-1-len(timer), 0), left, timer)
	if color != "" {
		line = color + line + "\x1b[0m"
	}
	return line
}

// line writes a line beside the steps.
func (p *buildPrinter) line(format string, args ...any) {
	if p.mode != "plain" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "\n%s\n", printable(fmt.Sprintf(format, args...)))
}

// failure is the last output of the step that failed, as BuildKit shows it.
func (p *buildPrinter) failure() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.failed
	if s == nil || len(s.tail) == 0 && p.mode != "tty" {
		if s == nil {
			return ""
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "------\n > %s:\n", s.name)
	for _, line := range s.tail[max(0, len(s.tail)-10):] {
		b.WriteString(line + "\n")
	}
	b.WriteString("------\n")
	return b.String()
}

// warnings writes what BuildKit's checks say, shortly.
func (p *buildPrinter) warnings(all []build.Warning) {
	if len(all) == 0 || p.mode == "quiet" || p.mode == "none" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ticker != nil {
		p.draw(true)
		p.drawn = 0
		p.order = nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n %d %s found (use --check to expand):\n", len(all), plural(len(all), "warning", "warnings"))
	for _, w := range all {
		fmt.Fprintf(&b, " - %s: %s (line %d)\n", w.Rule, printable(w.Text), w.Source.Line())
	}
	_, _ = p.out.WriteString(b.String())
}
