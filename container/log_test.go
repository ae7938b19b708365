// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// logged is a container with nothing but a log.
func logged(t *testing.T, config LogConfig) *Container {
	t.Helper()
	return &Container{Config: Config{Name: "one", Log: config}, dir: t.TempDir()}
}

// readLog returns what logs writes to its two streams.
func readLog(t *testing.T, c *Container, o LogOptions) (out, errs string) {
	t.Helper()
	var a, b bytes.Buffer
	if err := c.Logs(context.Background(), o, &a, &b); err != nil {
		t.Error(err)
	}
	return a.String(), b.String()
}

// lastLines is what tail(1) would print.
func lastLines(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

func TestLogKeepsEveryByte(t *testing.T) {
	c := logged(t, LogConfig{})
	random := rand.New(rand.NewPCG(1, 2))
	var want [3]strings.Builder
	for range 3 { // monitors, one after the other
		l := newLogWriter(c.dir, c.Config.Log)
		for range 40 {
			stream := byte(streamOut + random.IntN(2))
			data := make([]byte, random.IntN(200))
			for i := range data {
				data[i] = "ab\n\x00\xff"[random.IntN(5)]
			}
			if random.IntN(10) == 0 {
				data = bytes.Repeat(data, 3*maxLogData/(len(data)+1))
			}
			l.append(stream, data)
			want[stream].Write(data)
		}
		l.close()
	}
	out, errs := readLog(t, c, LogOptions{Tail: -1})
	if out != want[streamOut].String() || errs != want[streamErr].String() {
		t.Error("what was read differs from what was written")
	}
}

func TestLogTail(t *testing.T) {
	for _, text := range []string{"", "\n", "one", "one\n", "one\ntwo", "one\ntwo\n", "\n\n\n", "a\nb\nc\nd\ne\n", "a\n\nb\n"} {
		for _, size := range []int{1, 2, 3, 100} { // of the pieces that it is written in
			c := logged(t, LogConfig{})
			l := newLogWriter(c.dir, c.Config.Log)
			for rest := []byte(text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				l.append(streamOut, rest[:min(size, len(rest))])
			}
			l.close()
			for n := range 7 {
				if got, _ := readLog(t, c, LogOptions{Tail: n}); got != lastLines(text, n) {
					t.Errorf("%q in pieces of %d: the last %d are %q, want %q", text, size, n, got, lastLines(text, n))
				}
			}
		}
	}
}

func TestLogRotates(t *testing.T) {
	for _, config := range []LogConfig{{MaxSize: 100, MaxFiles: 3}, {MaxSize: 64, MaxFiles: 1}, {MaxSize: 1000}, {MaxSize: 500, MaxFiles: 4, Compress: true}} {
		c := logged(t, config)
		l := newLogWriter(c.dir, config)
		var all strings.Builder
		for i := range 200 {
			line := fmt.Sprintf("line %d\n", i)
			all.WriteString(line)
			l.append(streamOut, []byte(line))
		}
		l.close()
		numbers, err := logNumbers(filepath.Join(c.dir, logDir))
		if err != nil || len(numbers) > max(config.MaxFiles, 1) {
			t.Errorf("%+v: files %v, %v", config, numbers, err)
		}
		for _, n := range numbers {
			name := fmt.Sprint(n)
			if config.Compress && n != numbers[len(numbers)-1] {
				name += ".gz"
			}
			if fi, err := os.Stat(filepath.Join(c.dir, logDir, name)); err != nil || fi.Size() > config.MaxSize {
				t.Errorf("%+v: file %d: %v bytes, %v", config, n, fi.Size(), err)
			}
		}
		got, _ := readLog(t, c, LogOptions{Tail: -1})
		if got == "" || !strings.HasSuffix(all.String(), got) {
			t.Errorf("%+v: what is left is not the end of what was written: %q", config, got)
		}
		for _, lines := range []int{1, 5, 20, strings.Count(got, "\n")} {
			if tail, _ := readLog(t, c, LogOptions{Tail: lines}); tail != lastLines(got, lines) {
				t.Errorf("%+v: the last %d lines are %q, want %q", config, lines, tail, lastLines(got, lines))
			}
		}
	}
}

// A monitor that is killed while it writes leaves part of a record.
func TestLogCutAnywhere(t *testing.T) {
	c := logged(t, LogConfig{})
	l := newLogWriter(c.dir, c.Config.Log)
	for _, s := range []string{"one\n", "two\n", "three\n"} {
		l.append(streamOut, []byte(s))
	}
	l.close()
	path := filepath.Join(c.dir, logDir, "0")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		kept, _ := readLog(t, c, LogOptions{Tail: -1})
		if !strings.HasPrefix("one\ntwo\n", kept) {
			t.Errorf("cut at %d: %q", cut, kept)
		}
		l := newLogWriter(c.dir, c.Config.Log)
		l.append(streamErr, []byte("four\n"))
		l.close()
		if out, errs := readLog(t, c, LogOptions{Tail: -1}); out != kept || errs != "four\n" {
			t.Errorf("cut at %d: after the next run %q and %q", cut, out, errs)
		}
	}
}

func TestLogSinceUntil(t *testing.T) {
	c := logged(t, LogConfig{})
	l := newLogWriter(c.dir, c.Config.Log)
	l.append(streamOut, []byte("early\n"))
	between := time.Now()
	l.append(streamOut, []byte("late\n"))
	l.close()
	for _, test := range []struct {
		options LogOptions
		want    string
	}{
		{LogOptions{Tail: -1, Since: between}, "late\n"},
		{LogOptions{Tail: -1, Until: between}, "early\n"},
		{LogOptions{Tail: -1, Since: between, Until: between}, ""},
		{LogOptions{Tail: -1, Mark: func(time.Time) string { return "> " }}, "> early\n> late\n"},
	} {
		if got, _ := readLog(t, c, test.options); got != test.want {
			t.Errorf("%+v: %q, want %q", test.options, got, test.want)
		}
	}
}

// Whatever stands in the file, reading it ends, and what is written next is found.
func FuzzLog(f *testing.F) {
	c := &Container{dir: f.TempDir()}
	l := newLogWriter(c.dir, LogConfig{})
	l.append(streamOut, []byte("one\n"))
	l.append(streamErr, []byte("two\n"))
	l.close()
	path := filepath.Join(c.dir, logDir, "0")
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, 1)
	f.Add(good[:len(good)-1], -1)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 2)
	f.Fuzz(func(t *testing.T, data []byte, tail int) {
		c := logged(t, LogConfig{})
		if err := os.Mkdir(filepath.Join(c.dir, logDir), 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(c.dir, logDir, "0")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		_ = c.Logs(t.Context(), LogOptions{Tail: tail}, &out, &errs)
		l := newLogWriter(c.dir, LogConfig{})
		l.append(streamOut, []byte("fresh\n"))
		l.close()
		if got, _ := readLog(t, c, LogOptions{Tail: 1}); !strings.HasSuffix(got, "fresh\n") {
			t.Errorf("after %q: %q", data, got)
		}
	})
}

// TestLogQueue: what fits is written in order, however slow that is; what does not
// is lost, and nobody waits.
func TestLogQueue(t *testing.T) {
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	var got []string
	q := &logQueue{most: 10, write: func(_ byte, _ time.Time, data []byte) {
		begun <- struct{}{}
		<-goOn
		got = append(got, string(data))
	}}
	put := func(text string) { q.put(streamOut, time.Now(), []byte(text)) }
	put("larger than all of it")
	<-begun
	put("lost, for that is not written yet")
	close(goOn)
	q.flush()
	for _, text := range []string{"12345", "67890"} {
		put(text)
	}
	q.flush()
	if want := []string{"larger than all of it", "12345", "67890"}; !slices.Equal(got, want) {
		t.Errorf("written %q, want %q", got, want)
	}
}
