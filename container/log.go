// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The log of a container is a directory of files named 0, 1, 2, .. in the order
// of time; rotation begins a new one and removes the oldest, and none ever gets
// another number, so that a reader cannot miss one. A file is a row of records:
//
//	4 bytes  length of the data, little-endian
//	1 byte   stream: 1 standard output, 2 standard error
//	3 bytes  zero
//	8 bytes  time, nanoseconds since 1970
//	n bytes  data, as the program wrote it; a line may go on in the next record of its stream
//	4 bytes  length of the data again, so that the file can be read from its end
const (
	logDir     = "log"
	logHeader  = 16
	logTrailer = 4
	// maxLogData is the most that a record holds: one reading of carry.
	maxLogData = carryBuffer
)

// Log drivers, by Docker's names. The two that keep something are one to us.
const (
	LogNone  = "none"
	LogLocal = "local"
	LogJSON  = "json-file"
)

// LogConfig says what is kept of a container's output.
type LogConfig struct {
	Driver   string            `json:"driver,omitempty"`   // LogJSON when empty
	MaxSize  int64             `json:"maxSize,omitempty"`  // bytes of a file; 0: no limit
	MaxFiles int               `json:"maxFiles,omitempty"` // at least 1
	Compress bool              `json:"compress,omitempty"` // all but the newest file
	Buffer   int               `json:"buffer,omitempty"`   // bytes that may wait to be written; 0: the program waits
	Options  map[string]string `json:"options,omitempty"`  // as given, for inspect
}

// logWriter appends to a container's log. Nothing is made before there is
// something to write. A log that cannot be written (a full disk) loses records,
// and does not hold up the program.
type logWriter struct {
	dir    string
	config LogConfig
	queue  *logQueue // nil when the program waits

	mu     sync.Mutex
	file   *os.File
	number int
	size   int64
	broken bool
	told   func()
	// compressing is the compression of the file before this.
	compressing sync.WaitGroup
}

func newLogWriter(dir string, config LogConfig) *logWriter {
	l := &logWriter{dir: filepath.Join(dir, logDir), config: config}
	if config.Buffer > 0 {
		l.queue = &logQueue{most: config.Buffer, write: l.commit}
	}
	return l
}

// onWrite has f called after each record.
func (l *logWriter) onWrite(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = f
}

// append writes what a stream has brought.
func (l *logWriter) append(stream byte, data []byte) {
	if l.config.Driver == LogNone {
		return
	}
	if l.queue != nil {
		l.queue.put(stream, time.Now(), data)
		return
	}
	l.commit(stream, time.Now(), data)
}

// commit writes to the file.
func (l *logWriter) commit(stream byte, now time.Time, data []byte) {
	l.mu.Lock()
	for len(data) > 0 && l.ready() {
		n := l.fit(data)
		l.write(stream, now, data[:n])
		data = data[n:]
	}
	told := l.told
	l.mu.Unlock()
	if told != nil {
		told()
	}
}

// fit is how much of data the next record takes: with a limit on the file's size
// no record is larger than that, and is cut behind a line if it can be.
func (l *logWriter) fit(data []byte) int {
	most := maxLogData
	if l.config.MaxSize > 0 {
		most = min(most, max(int(l.config.MaxSize)-logHeader-logTrailer, 1))
	}
	if len(data) <= most {
		return len(data)
	}
	if i := bytes.LastIndexByte(data[:most], '\n'); i >= 0 {
		return i + 1
	}
	return most
}

// ready opens the file to write to. It is false when there is none to be had.
func (l *logWriter) ready() bool {
	if l.file != nil || l.broken {
		return !l.broken
	}
	l.broken = l.open() != nil
	return !l.broken
}

// open goes on with the newest file of an earlier run, after its last whole record.
func (l *logWriter) open() error {
	if err := os.Mkdir(l.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	numbers, err := logNumbers(l.dir)
	if err != nil {
		return err
	}
	if len(numbers) > 0 {
		l.number = numbers[len(numbers)-1]
	}
	if err := l.create(l.number); err != nil {
		return err
	}
	if l.size, err = wholeLog(l.file); err != nil {
		return err
	}
	return l.file.Truncate(l.size)
}

// create opens, or makes, the file of a number. It has no deadlines and needs no
// poller.
func (l *logWriter) create(number int) error {
	path := filepath.Join(l.dir, strconv.Itoa(number))
	fd, err := open(path, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.number, l.size = os.NewFile(uintptr(fd), path), number, 0
	return nil
}

func (l *logWriter) write(stream byte, at time.Time, data []byte) {
	whole := int64(logHeader + len(data) + logTrailer)
	if l.config.MaxSize > 0 && l.size > 0 && l.size+whole > l.config.MaxSize {
		l.rotate()
	}
	var head [logHeader]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(data)))
	head[4] = stream
	binary.LittleEndian.PutUint64(head[8:], uint64(at.UnixNano()))
	n, err := unix.Writev(int(l.file.Fd()), [][]byte{head[:], data, head[:logTrailer]})
	if err == nil && int64(n) == whole {
		l.size += whole
		return
	}
	// What was half written would hide all that follows.
	_ = l.file.Truncate(l.size)
}

// rotate begins a new file.
func (l *logWriter) rotate() {
	whole := l.number
	if l.create(whole+1) != nil {
		return
	}
	// What is removed next is none that is being compressed.
	l.compressing.Wait()
	removeLog(l.dir, l.number-max(l.config.MaxFiles, 1))
	if l.config.Compress {
		l.compressing.Go(func() { _ = compressLog(l.dir, whole) })
	}
}

func (l *logWriter) close() {
	if l.queue != nil {
		l.queue.flush()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.compressing.Wait()
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.broken = nil, true
}

// logNumbers are the files of a log, compressed or not, the oldest first.
func logNumbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), compressedLog)); err == nil && n >= 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

// wholeLog is the size of a log up to its last whole record. Only a monitor that
// was killed, or the machine, can have left a part of one.
func wholeLog(f *os.File) (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := fi.Size()
	if _, ok := recordBefore(f, size); ok || size == 0 {
		return size, nil
	}
	at := int64(0)
	for {
		r, ok := recordAt(f, at, size)
		if !ok {
			return at, nil
		}
		at = r.end()
	}
}

// logRecord is where a record lies, and what its header says.
type logRecord struct {
	at     int64 // of the header
	length int
	stream byte
	time   time.Time
}

func (r logRecord) end() int64 { return r.at + int64(logHeader+r.length+logTrailer) }

// recordAt reads the record at an offset of a log of this size. It is false
// where there is no whole one.
func recordAt(f *os.File, at, size int64) (logRecord, bool) {
	var head [logHeader]byte
	if at < 0 || at+logHeader+logTrailer > size {
		return logRecord{}, false
	}
	if _, err := f.ReadAt(head[:], at); err != nil {
		return logRecord{}, false
	}
	r := logRecord{
		at: at, length: int(binary.LittleEndian.Uint32(head[:])), stream: head[4],
		time: time.Unix(0, int64(binary.LittleEndian.Uint64(head[8:]))),
	}
	if r.length > maxLogData || (r.stream != streamOut && r.stream != streamErr) || r.end() > size {
		return logRecord{}, false
	}
	var tail [logTrailer]byte
	if _, err := f.ReadAt(tail[:], r.end()-logTrailer); err != nil || !bytes.Equal(tail[:], head[:logTrailer]) {
		return logRecord{}, false
	}
	return r, true
}

// recordBefore reads the record that ends at an offset.
func recordBefore(f *os.File, end int64) (logRecord, bool) {
	var tail [logTrailer]byte
	if end < logHeader+logTrailer {
		return logRecord{}, false
	}
	if _, err := f.ReadAt(tail[:], end-logTrailer); err != nil {
		return logRecord{}, false
	}
	at := end - logHeader - logTrailer - int64(binary.LittleEndian.Uint32(tail[:]))
	r, ok := recordAt(f, at, end)
	return r, ok && r.end() == end
}
