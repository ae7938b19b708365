// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// LogOptions say what of a container's log is wanted.
type LogOptions struct {
	Follow       bool
	Tail         int       // the last lines; negative for all
	Since, Until time.Time // zero for no bound
	// Mark gives what to put before each line, by the time it was written; nil for nothing.
	Mark func(time.Time) string
}

// Logs writes what the container's program has written, to out and errs as it
// did. With Follow it goes on until the container has ended.
func (c *Container) Logs(ctx context.Context, o LogOptions, out, errs io.Writer) error {
	if c.Config.Log.Driver == LogNone {
		return fmt.Errorf("read logs of container %s: configured logging driver does not support reading", c.Config.Name)
	}
	var l *link
	if o.Follow {
		var err error
		if l, err = c.follow(ctx); err != nil {
			return err
		}
	}
	r := &logReader{
		dir: filepath.Join(c.dir, logDir), options: o,
		in: bufio.NewReaderSize(nil, 4*carryBuffer), data: make([]byte, maxLogData+logTrailer),
	}
	defer r.close()
	r.sinks[streamOut] = &logSink{w: bufio.NewWriterSize(out, carryBuffer), fresh: true}
	r.sinks[streamErr] = &logSink{w: bufio.NewWriterSize(errs, carryBuffer), fresh: true}
	err := r.seek(o.Tail)
	for err == nil {
		if err = r.read(); err != nil || l == nil {
			break
		}
		if !l.more(ctx) {
			l.close()
			l = nil
		}
	}
	if errors.Is(err, errPastUntil) {
		err = nil
	}
	if l != nil {
		l.close()
	}
	return err
}

// follow asks the monitor to tell of new records. A container that does not run
// has none to come.
func (c *Container) follow(ctx context.Context) (*link, error) {
	l, err := c.dial()
	if err == nil {
		_, err = l.ask(ctx, request{Do: doFollow})
		if err != nil {
			l.close()
			err = c.gone(err)
		}
	}
	var ended *NotRunningError
	if errors.As(err, &ended) {
		return nil, nil //nolint:nilnil // nobody to follow is no error
	}
	return l, err
}

// more waits until there is more in the log, and is false when that is the rest.
func (l *link) more(ctx context.Context) bool {
	if l.ended != nil {
		return false
	}
	var answer reply
	files, err := l.conn.Receive(ctx, &answer)
	closeFiles(unbundle(nil, files))
	return err == nil && answer.Ended == nil
}

// errPastUntil ends the reading of a log.
var errPastUntil = errors.New("past the end that was asked for")

// logReader reads a log forwards, across its files.
type logReader struct {
	dir     string
	options LogOptions
	number  int
	file    *os.File
	at      int64 // where the next record begins
	skip    int   // bytes of it that are not wanted
	in      *bufio.Reader
	data    []byte // of one record
	sinks   [3]*logSink
	last    byte // the stream written to last
}

// logSink is where a stream goes.
type logSink struct {
	w     *bufio.Writer
	fresh bool // at the beginning of a line
}

func (r *logReader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

// next opens the oldest file of the log from a number on. It is false when there
// is none.
func (r *logReader) next(from int) (bool, error) {
	numbers, err := logNumbers(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, n := range numbers {
		if n < from {
			continue
		}
		f, err := openLog(r.dir, n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away
		}
		if err != nil {
			return false, err
		}
		r.close()
		r.file, r.number, r.at, r.skip = f, n, 0, 0
		return true, nil
	}
	return false, nil
}

// read writes every whole record that is there.
func (r *logReader) read() error {
	for {
		if r.file == nil {
			if found, err := r.next(r.number); err != nil || !found {
				return err
			}
		}
		// A later file is only begun when this one is whole: look for one first.
		numbers, err := logNumbers(r.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := r.readFile(); err != nil {
			return err
		}
		if len(numbers) == 0 || numbers[len(numbers)-1] <= r.number {
			return r.flush()
		}
		if _, err := r.next(r.number + 1); err != nil {
			return err
		}
	}
}

func (r *logReader) readFile() error {
	in, data := r.in, r.data
	in.Reset(io.NewSectionReader(r.file, r.at, 1<<62))
	for {
		var head [logHeader]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return nil
		}
		n := int(binary.LittleEndian.Uint32(head[:]))
		stream := head[4]
		if n > maxLogData || (stream != streamOut && stream != streamErr) {
			return fmt.Errorf("read log %s: it is damaged at byte %d", r.file.Name(), r.at)
		}
		if _, err := io.ReadFull(in, data[:n+logTrailer]); err != nil {
			return nil // it is being written
		}
		at := time.Unix(0, int64(binary.LittleEndian.Uint64(head[8:])))
		if err := r.write(stream, at, data[r.skip:n]); err != nil {
			return err
		}
		r.at += int64(logHeader + n + logTrailer)
		r.skip = 0
	}
}

// write writes a record's data, if it was asked for.
func (r *logReader) write(stream byte, at time.Time, data []byte) error {
	o := &r.options
	if !o.Until.IsZero() && at.After(o.Until) {
		return errors.Join(r.flush(), errPastUntil)
	}
	if at.Before(o.Since) {
		return nil
	}
	// Whoever sees both in one place is to see them in order.
	if r.last != stream {
		if err := r.flush(); err != nil {
			return err
		}
		r.last = stream
	}
	s := r.sinks[stream]
	if o.Mark == nil {
		_, err := s.w.Write(data)
		return err
	}
	mark := o.Mark(at)
	for len(data) > 0 {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line = data[:i+1]
		}
		if s.fresh {
			_, _ = s.w.WriteString(mark)
		}
		s.fresh = line[len(line)-1] == '\n'
		if _, err := s.w.Write(line); err != nil {
			return err
		}
		data = data[len(line):]
	}
	return nil
}

func (r *logReader) flush() error {
	for _, s := range r.sinks {
		if s != nil {
			if err := s.w.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// seek goes to the beginning of the last lines, of both streams together.
func (r *logReader) seek(lines int) error {
	if lines < 0 {
		return nil
	}
	numbers, err := logNumbers(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	count := lineCount{wanted: lines}
	for _, n := range slices.Backward(numbers) {
		found, err := r.seekIn(n, &count)
		if err != nil || found {
			return err
		}
	}
	return nil
}

// seekIn looks for the beginning in one file, from its end.
func (r *logReader) seekIn(number int, count *lineCount) (bool, error) {
	f, err := openLog(r.dir, number)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	end, err := wholeLog(f)
	data := make([]byte, maxLogData)
	for err == nil {
		if count.wanted == 0 {
			r.close()
			r.file, r.number, r.at, r.skip = f, number, end, 0
			return true, nil
		}
		rec, ok := recordBefore(f, end)
		if !ok {
			break
		}
		if _, err = f.ReadAt(data[:rec.length], rec.at+logHeader); err != nil {
			break
		}
		if i, ok := count.back(data[:rec.length]); ok {
			r.close()
			r.file, r.number, r.at, r.skip = f, number, rec.at, i
			return true, nil
		}
		end = rec.at
	}
	f.Close()
	return false, err
}

// lineCount counts lines backwards.
type lineCount struct {
	wanted int
	seen   int
	begun  bool // the last byte of all was seen
}

// back counts the lines of what comes before that which was seen, and returns
// where the wanted ones begin, if they begin in it.
func (c *lineCount) back(data []byte) (int, bool) {
	end := len(data)
	if !c.begun && end > 0 {
		c.begun = true
		if data[end-1] == '\n' {
			end-- // it ends the last line, and begins none
		}
	}
	for end > 0 {
		i := bytes.LastIndexByte(data[:end], '\n')
		if i < 0 {
			return 0, false
		}
		if c.seen++; c.seen == c.wanted {
			return i + 1, true
		}
		end = i
	}
	return 0, false
}
