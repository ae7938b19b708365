// SPDX-License-Identifier: Apache-2.0

package slirp

import (
	"encoding/binary"
	"io"
	"sync"
	"time"
)

// capture writes packets to a pcap file (link type 101: raw IP), beside the loops.
type capture struct {
	mutex   sync.Mutex
	wake    *sync.Cond
	pending []byte // records that wait for the writer
	closed  bool
	done    chan struct{}
}

// captureMax bounds the bytes that wait for a slow writer.
const captureMax = 4 << 20

func newCapture(w io.Writer) *capture {
	c := &capture{done: make(chan struct{})}
	c.wake = sync.NewCond(&c.mutex)
	header := make([]byte, 24)
	binary.NativeEndian.PutUint32(header, 0xa1b23c4d) // nanoseconds
	binary.NativeEndian.PutUint16(header[4:], 2)
	binary.NativeEndian.PutUint16(header[6:], 4)
	binary.NativeEndian.PutUint32(header[16:], 256<<10)
	binary.NativeEndian.PutUint32(header[20:], 101)
	c.pending = header
	go c.run(w)
	return c
}

// packet records one IP packet.
func (c *capture) packet(ip []byte) {
	now := time.Now()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed || len(c.pending)+16+len(ip) > captureMax {
		return
	}
	b := c.pending
	b = binary.NativeEndian.AppendUint32(b, uint32(now.Unix()))
	b = binary.NativeEndian.AppendUint32(b, uint32(now.Nanosecond()))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(ip)))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(ip)))
	c.pending = append(b, ip...)
	c.wake.Signal()
}

func (c *capture) run(w io.Writer) {
	defer close(c.done)
	var spare []byte
	for {
		c.mutex.Lock()
		for len(c.pending) == 0 && !c.closed {
			c.wake.Wait()
		}
		b := c.pending
		c.pending = spare[:0]
		c.mutex.Unlock()
		if len(b) == 0 {
			return
		}
		if _, err := w.Write(b); err != nil {
			c.mutex.Lock()
			c.closed, c.pending = true, nil
			c.mutex.Unlock()
			return
		}
		spare = b
	}
}

func (c *capture) close() {
	c.mutex.Lock()
	c.closed = true
	c.wake.Signal()
	c.mutex.Unlock()
	<-c.done
}
