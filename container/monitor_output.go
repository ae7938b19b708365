// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"os"
	"slices"
	"sync"
)

// The streams that a program writes, numbered as its descriptors. A terminal has
// the first only.
const (
	streamOut = 1
	streamErr = 2
)

// output brings what the program writes to the log and to everyone who is
// attached. It lives as long as the container; programs come and go.
type output struct {
	needle []byte // what to look for, see hello.Refused
	log    *logWriter

	mu    sync.Mutex
	sinks []*sink
	found bool
}

// sink is a file of a client's that a stream is written to. The client reads the
// other end, so that one that has gone refuses what is written, and one that is
// slow slows down the program, as with a pipe.
type sink struct {
	stream byte
	file   *os.File
	// vital says that the program is to learn when this reader leaves early, as
	// at the left of a pipe: the sink is the starter's own output.
	vital bool
}

func newOutput(needle, dir string, log LogConfig) *output {
	return &output{needle: []byte(needle), log: newLogWriter(dir, log)}
}

func (o *output) attach(s *sink) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sinks = append(o.sinks, s)
}

// detach lets a sink go. A write to it that waits ends with an error.
func (o *output) detach(s *sink) {
	o.mu.Lock()
	i := slices.Index(o.sinks, s)
	if i >= 0 {
		o.sinks = slices.Delete(slices.Clone(o.sinks), i, i+1)
	}
	o.mu.Unlock()
	if i >= 0 {
		s.file.Close()
	}
}

// carryBuffer is how much is read at once: what a pipe holds.
const carryBuffer = 64 << 10

// carry carries a stream from source, which must be pollable and is closed at
// its end.
func (o *output) carry(stream byte, source *os.File) {
	defer source.Close()
	buf := make([]byte, carryBuffer)
	var tail []byte
	for {
		n, err := read(source, buf)
		if n > 0 {
			if contains(&tail, buf[:n], o.needle) {
				o.mu.Lock()
				o.found = true
				o.mu.Unlock()
			}
			o.log.append(stream, buf[:n])
			if !o.deliver(stream, buf[:n]) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// deliver writes to the sinks of a stream. It is false when a vital one refuses.
func (o *output) deliver(stream byte, data []byte) bool {
	o.mu.Lock()
	sinks := o.sinks
	o.mu.Unlock()
	for _, s := range sinks {
		if s.stream != stream {
			continue
		}
		if _, err := s.file.Write(data); err != nil {
			o.mu.Lock()
			vital := s.vital && slices.Contains(o.sinks, s)
			o.mu.Unlock()
			o.detach(s)
			if vital {
				return false
			}
		}
	}
	return true
}

func (o *output) refused() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.found
}

// close lets everyone who is attached read the end.
func (o *output) close() {
	o.mu.Lock()
	sinks := o.sinks
	o.sinks = nil
	o.mu.Unlock()
	for _, s := range sinks {
		s.file.Close()
	}
	o.log.close()
}

// contains reports whether needle is in what was read, also across two reads.
func contains(tail *[]byte, data, needle []byte) bool {
	if len(needle) == 0 {
		return false
	}
	joined := append(*tail, data...)
	found := bytes.Contains(joined, needle)
	keep := min(len(joined), len(needle)-1)
	*tail = append([]byte(nil), joined[len(joined)-keep:]...)
	return found
}
