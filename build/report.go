// SPDX-License-Identifier: Apache-2.0

package build

import (
	"sync"
	"time"
)

// Event is something that happened to a step. They are reported one at a time.
type Event struct {
	Step     int    // from 1, in the order in which steps began
	Name     string // "[2/3] RUN true"
	Kind     EventKind
	Time     time.Time
	Started  time.Time // of the step
	Stream   int       // of Output: 1 or 2
	Data     []byte    // of Output
	Text     string    // of Status
	Err      error     // of Failed
	Internal bool      // a step of ours, not of the Dockerfile
}

// EventKind is what an Event says.
type EventKind string

// The kinds of events.
const (
	Started EventKind = "started"
	Output  EventKind = "output" // of a RUN
	Status  EventKind = "status" // "exporting layers done"
	Cached  EventKind = "cached" // the step is done: its result was known
	Done    EventKind = "done"
	Failed  EventKind = "failed"
	Ended   EventKind = "canceled" // by the failure of another, or the user
)

// reporter numbers steps and passes their events on.
type reporter struct {
	mu   sync.Mutex
	next int
	to   func(Event)
}

func newReporter(to func(Event)) *reporter {
	if to == nil {
		to = func(Event) {}
	}
	return &reporter{to: to}
}

// vertex is a step that has begun.
type vertex struct {
	r       *reporter
	number  int
	name    string
	started time.Time
	over    bool
}

func (r *reporter) begin(name string) *vertex {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	v := &vertex{r: r, number: r.next, name: name, started: time.Now()}
	v.send(Event{Kind: Started})
	return v
}

// send passes an event on; the caller holds the reporter.
func (v *vertex) send(e Event) {
	e.Step, e.Name, e.Time, e.Started = v.number, v.name, time.Now(), v.started
	v.r.to(e)
}

func (v *vertex) tell(e Event) {
	v.r.mu.Lock()
	defer v.r.mu.Unlock()
	v.send(e)
}

func (v *vertex) status(text string) { v.tell(Event{Kind: Status, Text: text}) }

func (v *vertex) output(stream int, data []byte) {
	v.tell(Event{Kind: Output, Stream: stream, Data: data})
}

func (v *vertex) cached() {
	v.over = true
	v.tell(Event{Kind: Cached})
}

// end says how the step ended. After cached it says nothing.
func (v *vertex) end(err error) {
	switch {
	case v.over:
	case err != nil && isCancelled(err):
		v.tell(Event{Kind: Ended})
	case err != nil:
		v.tell(Event{Kind: Failed, Err: err})
	default:
		v.tell(Event{Kind: Done})
	}
	v.over = true
}
