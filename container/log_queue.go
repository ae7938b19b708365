// SPDX-License-Identifier: Apache-2.0

package container

import (
	"slices"
	"sync"
	"time"
)

// logQueue keeps in memory what is to be written to the log, so that a program
// never waits for a disk (--log-opt mode=non-blocking). What does not fit is lost,
// as on Docker.
type logQueue struct {
	most  int
	write func(stream byte, at time.Time, data []byte)

	mu      sync.Mutex
	entries []logEntry
	held    int           // bytes of entries, and of what is being written
	idle    chan struct{} // closed when nothing is left; nil while nobody writes
}

type logEntry struct {
	stream byte
	at     time.Time
	data   []byte
}

// put takes a copy of data. One that is larger than the whole queue is taken when
// there is nothing else.
func (q *logQueue) put(stream byte, at time.Time, data []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held > 0 && q.held+len(data) > q.most {
		return
	}
	q.entries = append(q.entries, logEntry{stream, at, slices.Clone(data)})
	q.held += len(data)
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.drain()
	}
}

// drain writes until nothing is left.
func (q *logQueue) drain() {
	for {
		q.mu.Lock()
		if len(q.entries) == 0 {
			close(q.idle)
			q.idle = nil
			q.mu.Unlock()
			return
		}
		e := q.entries[0]
		q.entries = q.entries[1:]
		q.mu.Unlock()
		q.write(e.stream, e.at, e.data)
		q.mu.Lock()
		q.held -= len(e.data)
		q.mu.Unlock()
	}
}

// flush waits until what was put is written.
func (q *logQueue) flush() {
	q.mu.Lock()
	idle := q.idle
	q.mu.Unlock()
	if idle != nil {
		<-idle
	}
}
