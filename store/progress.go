// SPDX-License-Identifier: Apache-2.0

package store

import (
	"sync"
	"time"

	"sbx/reference"
)

// The words of Event.Status, as Docker prints them.
const (
	StatusWaiting     = "Pulling fs layer"
	StatusDownloading = "Downloading"
	StatusVerifying   = "Verifying Checksum"
	StatusDownloaded  = "Download complete"
	StatusExtracting  = "Extracting"
	StatusDone        = "Pull complete"
	StatusExists      = "Already exists"
)

// Event tells how far a layer has come.
type Event struct {
	Digest  reference.Digest // of the layer's blob; zero while an import does not know it
	Status  string
	Current int64 // bytes, while downloading and extracting
	Total   int64 // 0: not known
}

// eventPause is the least time between two events that differ in numbers only.
const eventPause = 100 * time.Millisecond

// progress passes events on, one at a time and not too many.
type progress struct {
	mu   sync.Mutex
	f    func(Event)
	last map[reference.Digest]shown
}

type shown struct {
	status string
	at     time.Time
}

func newProgress(f func(Event)) *progress {
	return &progress{f: f, last: make(map[reference.Digest]shown)}
}

func (p *progress) tell(e Event) {
	if p.f == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now, last := time.Now(), p.last[e.Digest]
	if last.status == e.Status && now.Sub(last.at) < eventPause {
		return
	}
	p.last[e.Digest] = shown{e.Status, now}
	p.f(e)
}
