// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"io"
	"os"
	"sync"
)

// spool is a file that one goroutine writes and others read as it grows. It is the buffer
// between the network and the unpacking, and costs no memory of ours.
type spool struct {
	f *os.File

	mu    sync.Mutex
	grown *sync.Cond
	size  int64
	ended bool
	err   error
}

func newSpool(f *os.File) *spool {
	s := &spool{f: f}
	s.grown = sync.NewCond(&s.mu)
	return s
}

// Write implements io.Writer: it appends.
func (s *spool) Write(p []byte) (int, error) {
	n, err := s.f.WriteAt(p, s.size)
	s.mu.Lock()
	s.size += int64(n)
	s.mu.Unlock()
	s.grown.Broadcast()
	return n, err
}

// extend counts the first size bytes of the file as written.
func (s *spool) extend(size int64) {
	s.mu.Lock()
	s.size = size
	s.mu.Unlock()
	s.grown.Broadcast()
}

func (s *spool) length() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// end tells the readers that nothing will be added: they read io.EOF, or err.
func (s *spool) end(err error) {
	s.mu.Lock()
	if !s.ended {
		s.ended, s.err = true, err
	}
	s.mu.Unlock()
	s.grown.Broadcast()
}

// wait returns how much f can read, or why there will never be any.
func (s *spool) wait(f *follower) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f.off >= s.size && !s.ended && !f.closed {
		s.grown.Wait()
	}
	off := f.off
	switch {
	case f.closed:
		return 0, os.ErrClosed
	case s.err != nil:
		return 0, s.err
	case off < s.size:
		return s.size - off, nil
	}
	return 0, io.EOF
}

// follow returns a reader of the spool from its beginning. Reads wait for data; they end
// when the reader is closed or end is called. seen is told how far the reader has come.
func (s *spool) follow(seen func(int64)) io.ReadCloser { return &follower{s: s, seen: seen} }

type follower struct {
	s      *spool
	off    int64
	seen   func(int64)
	closed bool // guarded by s.mu
}

// Close implements io.Closer. A read that waits is ended.
func (f *follower) Close() error {
	f.s.mu.Lock()
	f.closed = true
	f.s.mu.Unlock()
	f.s.grown.Broadcast()
	return nil
}

// Read implements io.Reader.
func (f *follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	ready, err := f.s.wait(f)
	if err != nil {
		return 0, err
	}
	n, err := f.s.f.ReadAt(p[:min(int64(len(p)), ready)], f.off)
	f.off += int64(n)
	f.seen(f.off)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
