// SPDX-License-Identifier: Apache-2.0

package slirp

// timer is a deadline of a flow, in nanoseconds of the loop's clock.
//
// Flows move their deadline with nearly every packet, mostly into the future. That
// only writes due: the heap learns of it when the old one has passed.
type timer struct {
	due    int64 // 0 is never
	at     int64 // where it stands in the heap
	index  int   // in the heap plus one; 0 is not there
	expire func(l *loop)
}

// timers is a heap by at.
type timers struct{ heap []*timer }

// set moves t's deadline; 0 stops it.
func (ts *timers) set(t *timer, due int64) {
	t.due = due
	switch {
	case due == 0:
	case t.index == 0:
		t.at = due
		ts.heap = append(ts.heap, t)
		t.index = len(ts.heap)
		ts.up(len(ts.heap) - 1)
	case due < t.at:
		t.at = due
		ts.up(t.index - 1)
	}
}

// remove forgets t.
func (ts *timers) remove(t *timer) {
	t.due = 0
	if t.index == 0 {
		return
	}
	i, last := t.index-1, len(ts.heap)-1
	moved := ts.heap[last]
	ts.heap[i] = moved
	moved.index = i + 1
	ts.heap[last] = nil
	ts.heap = ts.heap[:last]
	t.index = 0
	if i < last {
		ts.down(i)
		ts.up(i)
	}
}

// next is when the loop must look again; false is never.
func (ts *timers) next() (int64, bool) {
	if len(ts.heap) == 0 {
		return 0, false
	}
	return ts.heap[0].at, true
}

// pop returns a timer whose deadline has passed, or nil.
func (ts *timers) pop(now int64) *timer {
	for len(ts.heap) > 0 && ts.heap[0].at <= now {
		t := ts.heap[0]
		due := t.due
		if due > now {
			t.at = due
			ts.down(0)
			continue
		}
		ts.remove(t)
		if due != 0 {
			return t
		}
	}
	return nil
}

func (ts *timers) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if ts.heap[parent].at <= ts.heap[i].at {
			return
		}
		ts.swap(i, parent)
		i = parent
	}
}

func (ts *timers) down(i int) {
	for {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < len(ts.heap) && ts.heap[c].at < ts.heap[least].at {
				least = c
			}
		}
		if least == i {
			return
		}
		ts.swap(i, least)
		i = least
	}
}

func (ts *timers) swap(i, j int) {
	ts.heap[i], ts.heap[j] = ts.heap[j], ts.heap[i]
	ts.heap[i].index, ts.heap[j].index = i+1, j+1
}
