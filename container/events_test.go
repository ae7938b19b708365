// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEvents(t *testing.T) {
	h := &Home{dir: t.TempDir()}
	var all sync.WaitGroup
	const writers, each = 8, 50
	for w := range writers {
		all.Go(func() {
			for i := range each {
				h.Record(Event{Type: "container", Action: "start", ID: fmt.Sprint(w, ".", i)})
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	if err := h.Events(t.Context(), false, func(e Event) error { seen[e.ID] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if len(seen) != writers*each {
		t.Errorf("%d events of %d were kept", len(seen), writers*each)
	}
}

// What is followed comes in order, also from behind a file that was full.
func TestEventsFollowed(t *testing.T) {
	h := &Home{dir: t.TempDir()}
	const n = 60
	pad := map[string]string{"pad": strings.Repeat("x", maxEvents/10)}
	ready, done := make(chan struct{}), make(chan error, 1)
	next := 0
	go func() {
		done <- h.Events(t.Context(), true, func(e Event) error {
			if e.ID == "first" {
				close(ready)
				return nil
			}
			if e.ID != fmt.Sprint(next) {
				return fmt.Errorf("got event %s, want %d", e.ID, next)
			}
			if next++; next == n {
				return io.EOF
			}
			return nil
		})
	}()
	h.Record(Event{ID: "first"})
	<-ready
	for i := range n / 5 { // more than one file holds, and fewer than two
		h.Record(Event{ID: fmt.Sprint(i), Attributes: pad})
	}
	for i := n / 5; i < n; i++ {
		h.Record(Event{ID: fmt.Sprint(i)})
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, name := range []string{eventsFile, eventsOld} {
		if fi, err := os.Stat(filepath.Join(h.dir, name)); err == nil && fi.Size() > maxEvents {
			t.Errorf("%s has %d bytes", name, fi.Size())
		}
	}
}

func TestEventsEnd(t *testing.T) {
	h := &Home{dir: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Events(ctx, true, func(Event) error { return nil }) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// A line that a crash has cut short is passed over.
	if err := os.WriteFile(filepath.Join(h.dir, eventsFile), []byte("{\"id\":\"a\"}\n{\"id\":\n{\"id\":\"b\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := h.Events(t.Context(), false, func(e Event) error { got = append(got, e.ID); return nil }); err != nil || strings.Join(got, " ") != "a b" {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestRecordWithCopies has the descriptor of the events' file copied while a line is
// written, as a clone on its way to an execve does: the lock ends all the same.
func TestRecordWithCopies(t *testing.T) {
	h := &Home{dir: t.TempDir()}
	path := filepath.Join(h.dir, eventsFile)
	copied := make(chan int, 1)
	go func() {
		for t.Context().Err() == nil {
			for fd := 3; fd < 100; fd++ {
				if name, err := os.Readlink(slot(fd)); err != nil || name != path {
					continue
				}
				if duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 200); err == nil {
					copied <- duplicate
					return
				}
			}
		}
	}()
	for {
		h.Record(Event{Type: "container", Action: "create"})
		select {
		case fd := <-copied:
			defer unix.Close(fd)
			if name, err := os.Readlink(slot(fd)); err != nil || name != path {
				t.Fatalf("the copy is of %s, %v", name, err)
			}
			h.Record(Event{Type: "container", Action: "start"})
			return
		default:
		}
	}
}
