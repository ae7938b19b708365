// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Event is something that happened to a container, an image or a volume. There
// is no daemon to tell of it, so whoever does it writes it down.
type Event struct {
	Time       time.Time         `json:"time"`
	Type       string            `json:"type"`   // container, image, volume
	Action     string            `json:"action"` // in Docker's words: create, start, die, ..
	ID         string            `json:"id"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// The events of a home stand in a file of lines, in the order in which they were
// written. At its largest it becomes the old one, and the one before that goes.
const (
	eventsFile = "events"
	eventsOld  = "events.1"
	maxEvents  = 1 << 20 // bytes
)

// Record writes an event down. That it cannot be, on a full disk, keeps nothing
// from being done.
func (h *Home) Record(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	line, err := json.Marshal(e)
	if err != nil || len(line) > maxEvents/4 {
		return
	}
	line = append(line, '\n')
	path := filepath.Join(h.dir, eventsFile)
	for range 3 {
		if done, err := appendLine(path, filepath.Join(h.dir, eventsOld), line); done || err != nil {
			return
		}
	}
}

// appendLine appends a line under the file's lock. It is to be called again when
// the file was full, or another has just renamed it.
func appendLine(path, old string, line []byte) (done bool, err error) {
	fd, err := open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return false, err
	}
	// A process on its way to an execve may have a copy, and wait for a monitor that waits
	// for this lock.
	defer lock{fd}.release()
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(fd, unix.LOCK_EX)
	}
	if err != nil {
		return false, err
	}
	var here, there unix.Stat_t
	if err := unix.Fstat(fd, &here); err != nil {
		return false, err
	}
	if unix.Lstat(path, &there) != nil || here.Ino != there.Ino || here.Dev != there.Dev {
		return false, nil
	}
	if here.Size+int64(len(line)) > maxEvents {
		return false, unix.Rename(path, old)
	}
	_, err = unix.Write(fd, line)
	return true, err
}

// record writes an event of the container down.
func (c *Container) record(action string, more map[string]string) {
	c.home.Record(containerEvent(&c.Config, action, more))
}

// containerEvent has the labels of a container as attributes, as Docker's have.
func containerEvent(c *Config, action string, more map[string]string) Event {
	attributes := map[string]string{}
	for k, v := range c.Labels {
		attributes[k] = v
	}
	for k, v := range more {
		attributes[k] = v
	}
	attributes["image"], attributes["name"] = c.Image, c.Name
	return Event{Type: "container", Action: action, ID: c.ID, Attributes: attributes}
}

// Events hands the events that are written down to visit, the oldest first, and
// with follow those that come, until ctx ends or visit returns an error. io.EOF
// from visit ends it without one.
func (h *Home) Events(ctx context.Context, follow bool, visit func(Event) error) error {
	err := h.events(ctx, follow, visit)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

func (h *Home) events(ctx context.Context, follow bool, visit func(Event) error) error {
	path := filepath.Join(h.dir, eventsFile)
	var watch *watcher
	if follow {
		// Before anything is read, so that nothing falls between.
		var err error
		if watch, err = watchDir(ctx, h.dir); err != nil {
			return err
		}
		defer watch.close()
	}
	if err := readEvents(filepath.Join(h.dir, eventsOld), visit); err != nil {
		return err
	}
	lines := &eventLines{path: path}
	defer lines.close()
	for {
		if err := lines.read(visit); err != nil || !follow {
			return err
		}
		if err := watch.wait(eventsFile); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func readEvents(path string, visit func(Event) error) error {
	l := &eventLines{path: path}
	defer l.close()
	return l.read(visit)
}

// eventLines reads a file of events as far as it goes, again and again.
type eventLines struct {
	path string
	file *os.File
	rest []byte // of a line that is not whole yet
}

func (l *eventLines) close() {
	if l.file != nil {
		l.file.Close()
	}
}

func (l *eventLines) read(visit func(Event) error) error {
	for {
		if l.file == nil {
			f, err := os.Open(l.path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			l.file, l.rest = f, nil
		}
		if err := l.drain(visit); err != nil {
			return err
		}
		// A file that was renamed gets no more lines; go on with its successor.
		now, err := os.Lstat(l.path)
		mine, ownErr := l.file.Stat()
		if err == nil && ownErr == nil && os.SameFile(now, mine) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err := l.drain(visit); err != nil {
			return err
		}
		l.file.Close()
		l.file = nil
	}
}

func (l *eventLines) drain(visit func(Event) error) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := l.file.Read(buf)
		l.rest = append(l.rest, buf[:n]...)
		for {
			line, rest, whole := bytes.Cut(l.rest, []byte{'\n'})
			if !whole {
				break
			}
			l.rest = rest
			var e Event
			if json.Unmarshal(line, &e) != nil {
				continue // a crash has cut it short
			}
			if err := visit(e); err != nil {
				return err
			}
		}
		if err == io.EOF || n == 0 && err == nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// watcher waits for changes in a directory (inotify(7)).
type watcher struct {
	file *os.File
	stop func() bool
}

func watchDir(ctx context.Context, dir string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		f.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	return &watcher{file: f, stop: context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })}, nil
}

func (w *watcher) close() {
	w.stop()
	w.file.Close()
}

// wait waits until something has happened to a name.
func (w *watcher) wait(name string) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return err
		}
		// A name stands padded with zeros behind each header of 16 bytes.
		if bytes.Contains(buf[:n], append([]byte(name), 0)) {
			return nil
		}
	}
}
