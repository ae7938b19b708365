// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"sbx/fetch"
	"sbx/reference"
	"sbx/store"
)

// redrawEvery is how often a line of progress changes at most.
const redrawEvery = 100 * time.Millisecond

// progress shows the steps of a pull as Docker does: a line for each layer,
// which on a terminal is drawn in place with a bar, and elsewhere is written
// anew for each step that is not a mere advance.
type progress struct {
	mu    sync.Mutex
	out   *os.File
	quiet bool
	width int // of the terminal; 0: lines only
	rows  int // how many layers the terminal can hold
	order []reference.Digest
	state map[reference.Digest]store.Event
	drawn int // lines on the screen that are redrawn
	last  time.Time
	now   func() time.Time
}

func newProgress(out *os.File, quiet bool) *progress {
	p := &progress{out: out, quiet: quiet, state: map[reference.Digest]store.Event{}, now: time.Now}
	if !quiet && isTerminal(out) {
		if width, height, err := term.GetSize(int(out.Fd())); err == nil && width > 20 && os.Getenv("TERM") != "dumb" {
			p.width, p.rows = width, height-2
		}
	}
	return p
}

// line writes a line of its own.
func (p *progress) line(format string, args ...any) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	fmt.Fprintln(p.out, printable(fmt.Sprintf(format, args...)))
}

// event takes a step of one layer. It may be called by several at once.
func (p *progress) event(e store.Event) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before, known := p.state[e.Digest]
	if !known {
		p.order = append(p.order, e.Digest)
	}
	p.state[e.Digest] = e
	step := !known || before.Status != e.Status
	switch {
	case p.width == 0 || len(p.order) > p.rows:
		if step && !advancing(e) {
			p.leave()
			fmt.Fprintln(p.out, p.text(e, 0))
		}
	case step || p.now().Sub(p.last) >= redrawEvery:
		p.draw()
	}
}

// advancing reports whether an event only says how far a step has come. Docker
// writes no line for those without a terminal.
func advancing(e store.Event) bool {
	return e.Status == store.StatusDownloading || e.Status == store.StatusExtracting || e.Status == fetch.StatusPushing
}

// draw writes all layers over what was drawn before, in one write.
func (p *progress) draw() {
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	for _, d := range p.order {
		fmt.Fprintf(&b, "\r%s\x1b[K\n", p.text(p.state[d], p.width))
	}
	_, _ = p.out.WriteString(b.String())
	p.drawn, p.last = len(p.order), p.now()
}

// settle leaves what is drawn as it is: what comes is drawn below it.
func (p *progress) settle() {
	if p.width == 0 || p.drawn == 0 {
		return
	}
	p.draw()
	p.drawn, p.order = 0, nil
	clear(p.state)
}

// leave stops drawing in place: what is on the screen stays.
func (p *progress) leave() { p.drawn, p.width = 0, 0 }

// end leaves the last state on the screen.
func (p *progress) end() {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width > 0 && p.drawn > 0 {
		p.draw()
	}
	p.leave()
}

// text is one layer's line, of less than width columns if that is not 0.
func (p *progress) text(e store.Event, width int) string {
	name := shortID(e.Digest.String())
	if e.Digest.IsZero() {
		name = "rootfs" // which has no digest before it has been read
	}
	line := name + ": " + printable(e.Status)
	if width == 0 || !advancing(e) || e.Total <= 0 {
		return line
	}
	amount := humanSize(e.Current) + "/" + humanSize(e.Total)
	const bar = 50
	if room := width - 1 - len(line) - len(amount) - 4; room >= 10 {
		line += " " + drawBar(e.Current, e.Total, min(bar, room-2)) + " "
	} else {
		line += " "
	}
	return ellipsis(line+" "+amount, width-1)
}

// drawBar is a bar of the given length between its brackets.
func drawBar(current, total int64, length int) string {
	done := int(float64(length) * float64(min(current, total)) / float64(total))
	done = min(max(done, 0), length)
	bar := strings.Repeat("=", done)
	if done < length {
		bar += ">" + strings.Repeat(" ", length-done-1)
	}
	return "[" + bar + "]"
}
