// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// pipes are the program's three standard streams without a terminal: its own
// ends, and those for the monitor. With a terminal there are none.
type pipes struct {
	program [3]*os.File
	stdin   *os.File // the write end; nil when the program's input is empty
	stdout  *os.File // the read ends
	stderr  *os.File
}

func openPipes(c *Config) (*pipes, error) {
	p := &pipes{}
	if c.TTY {
		return p, nil
	}
	if err := p.open(c.OpenStdin); err != nil {
		p.close()
		return nil, fmt.Errorf("open streams: %w", err)
	}
	return p, nil
}

func (p *pipes) open(withInput bool) (err error) {
	if withInput {
		p.program[0], p.stdin, err = pipe()
	} else {
		p.program[0], err = os.Open(os.DevNull)
	}
	if err == nil {
		p.stdout, p.program[1], err = pipe()
	}
	if err == nil {
		p.stderr, p.program[2], err = pipe()
	}
	return err
}

// closeProgramEnds gives up what only the program may hold: as long as a copy is
// open here, no reader sees the end.
func (p *pipes) closeProgramEnds() {
	for i, f := range p.program {
		if f != nil {
			f.Close()
			p.program[i] = nil
		}
	}
}

func (p *pipes) close() {
	p.closeProgramEnds()
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// pipe makes a pipe whose ends block: they are for programs that expect that.
func pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// highFiles are duplicates of descriptors at numbers that the start programs do
// not use: channel, program end, /dev/null and the program's three, then others.
type highFiles []*os.File

func openHighFiles(channel, programEnd *os.File, stdio [3]*os.File, others ...*os.File) (highFiles, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	var high highFiles
	for _, f := range append([]*os.File{channel, programEnd, null, stdio[0], stdio[1], stdio[2]}, others...) {
		if f == nil {
			f = null
		}
		h, err := userns.HighFile(f)
		if err != nil {
			high.close()
			return nil, err
		}
		high = append(high, h)
	}
	return high, nil
}

func (h highFiles) fd(i int) int { return int(h[i].Fd()) }

// other is the number of one of the other files.
func (h highFiles) other(i int) int { return h.fd(6 + i) }

func (h highFiles) descriptors() descriptors {
	return descriptors{channel: h.fd(0), programEnd: h.fd(1), null: h.fd(2), stdio: [3]int{h.fd(3), h.fd(4), h.fd(5)}}
}

func (h highFiles) close() {
	for _, f := range h {
		f.Close()
	}
}
