// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// The ring between decompression and its reader.
const (
	ringBuffers = 4
	ringSize    = 256 << 10
)

var errClosed = errors.New("decompress: reader was closed")

// A gate lets reads of the source through until it is shut.
type gate struct {
	r    io.Reader
	shut atomic.Bool
}

func (g *gate) Read(p []byte) (int, error) {
	if g.shut.Load() {
		return 0, errClosed
	}
	return g.r.Read(p)
}

// plainReader needs no goroutine: there is nothing to do ahead.
type plainReader struct {
	io.Reader
	gate *gate
}

func (p plainReader) Close() error {
	p.gate.shut.Store(true)
	return nil
}

// A pump reads ahead in a goroutine, into a ring of buffers.
type pump struct {
	gate *gate
	full chan chunk
	free chan []byte
	quit chan struct{}

	close sync.Once
	chunk chunk // being read
	rest  []byte
}

type chunk struct {
	buf []byte
	n   int
	err error // after the n bytes
}

func newPump(r io.Reader, g *gate, done func(), explain func(error) error) *pump {
	p := &pump{
		gate: g,
		full: make(chan chunk, ringBuffers),
		free: make(chan []byte, ringBuffers),
		quit: make(chan struct{}),
	}
	for range ringBuffers {
		p.free <- make([]byte, ringSize)
	}
	go p.run(r, done, explain)
	return p
}

func (p *pump) run(r io.Reader, done func(), explain func(error) error) {
	defer done()
	for {
		var buf []byte
		select {
		case buf = <-p.free:
		case <-p.quit:
			return
		}
		n, err := readFull(r, buf)
		select {
		case p.full <- chunk{buf: buf, n: n, err: explain(err)}:
		case <-p.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// readFull fills buf, or returns why it could not. A decompressor that panics on
// what it is given has found the blob damaged; in this goroutine nobody else
// could say so.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("damaged data (%v)", v)
		}
	}()
	for idle := 0; n < len(buf) && err == nil; {
		var got int
		got, err = r.Read(buf[n:])
		n += got
		if idle++; got > 0 {
			idle = 0
		} else if idle > 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// Read takes what the goroutine has read.
func (p *pump) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(p.rest) == 0 {
		if p.chunk.err != nil {
			return 0, p.chunk.err
		}
		if p.chunk.buf != nil {
			p.free <- p.chunk.buf // there is room for all of them
		}
		select {
		case p.chunk = <-p.full:
			p.rest = p.chunk.buf[:p.chunk.n]
		case <-p.quit:
			p.chunk = chunk{err: errClosed}
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Close ends the goroutine and a Read that waits for it. It does not wait for a
// read of the source.
func (p *pump) Close() error {
	p.gate.shut.Store(true)
	p.close.Do(func() { close(p.quit) })
	return nil
}
