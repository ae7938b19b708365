// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"strings"
	"testing"
	"time"

	"sbx/build"
)

// drawn is what a printer on a terminal writes.
func drawn(t *testing.T, use func(p *buildPrinter)) string {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	use(&buildPrinter{out: out, mode: "tty", width: 80, height: 24, steps: map[int]*shownStep{}, start: time.Now()})
	data, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestBuildDrawn(t *testing.T) {
	if got := drawn(t, func(p *buildPrinter) { p.draw(true) }); got != "" {
		t.Errorf("of a build that never began: %q", got)
	}
	if got := drawn(t, func(p *buildPrinter) { p.draw(false) }); !strings.HasPrefix(got, "[+] Building ") {
		t.Errorf("of one that waits for its Dockerfile: %q", got)
	}
	got := drawn(t, func(p *buildPrinter) {
		p.event(build.Event{Step: 1, Name: "RUN true", Kind: build.Started, Time: time.Now()})
		p.draw(false)
		p.draw(true)
	})
	// What was typed meanwhile stands in the line that is drawn over.
	if parts := strings.Split(got, "\r\x1b[2A\x1b[J"); len(parts) != 2 || !strings.HasPrefix(parts[1], "[+] Building ") {
		t.Errorf("drawn twice: %q", got)
	}
}
