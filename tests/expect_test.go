// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// patience is how long a terminal is watched for what a script expects. It is a
// bound for a broken program, not a delay.
const patience = 2 * time.Minute

// Exit statuses of expect itself.
const (
	expectBroken  = 96 // the dialogue cannot be read
	expectTimeout = 98 // what was expected did not come
	expectRaw     = 99 // the terminal was not left as it was found
)

// expectMain is the command `expect DIALOGUE PROGRAM ARGS...`: it runs a program
// in a terminal of its own, follows the dialogue, prints what the terminal
// showed and exits as the program did. The dialogue is a file of lines:
//
//	size ROWS COLUMNS   the terminal's size; before the program starts, if first
//	expect REGEXP       waits until the screen shows it, after the last match
//	send TEXT           types; a Go string's escapes without the quotes: \r, \x03
//	signal NAME         sends a signal to the program
//	sh COMMAND          runs a shell command, with $PID of the program
//	raw                 waits until the program has the terminal in raw mode
//	restore             puts the terminal back, as a user does after a kill -9
//	hangup              closes the terminal
//
// After the program's end the terminal must be as before its start.
func expectMain() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: expect DIALOGUE PROGRAM ARGS...")
		os.Exit(expectBroken)
	}
	steps, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "expect:", err)
		os.Exit(expectBroken)
	}
	status, err := converse(strings.Split(strings.TrimSpace(string(steps)), "\n"), os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "expect:", err)
	}
	os.Exit(status)
}

func converse(steps, command []string) (int, error) {
	master, slave, err := openTerminal()
	if err != nil {
		return expectBroken, err
	}
	if strings.HasPrefix(steps[0], "size ") {
		if err := resize(master, steps[0]); err != nil {
			return expectBroken, err
		}
		steps = steps[1:]
	}
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		return expectBroken, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return expectBroken, err
	}
	s := watch(master)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	hungUp := false
	for _, step := range steps {
		if step == "hangup" {
			hungUp = true
			slave.Close()
		}
		if step == "restore" {
			err = unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, before)
		} else {
			err = s.do(step, cmd.Process.Pid)
		}
		if err != nil {
			_ = cmd.Process.Kill()
			fmt.Print(s.text())
			return expectTimeout, fmt.Errorf("%s: %w", step, err)
		}
	}
	select {
	case err = <-ended:
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		fmt.Print(s.text())
		return expectTimeout, errors.New("the program does not end")
	}
	if hungUp {
		fmt.Print(s.text())
		return exitStatus(err), nil
	}
	after, termErr := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	slave.Close()
	s.drain()
	fmt.Print(s.text())
	if termErr != nil {
		return expectBroken, termErr
	}
	if *before != *after {
		return expectRaw, fmt.Errorf("the terminal was left changed: %+v, was %+v", *after, *before)
	}
	return exitStatus(err), nil
}

func exitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled():
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return expectBroken
}

// openTerminal makes a terminal whose master can be closed while it is read.
func openTerminal() (master, slave *os.File, err error) {
	blocking, slave, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer blocking.Close()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	return os.NewFile(uintptr(fd), "terminal"), slave, err
}

// control calls f with the descriptor, which stays as it is.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var own error
	if err := raw.Control(func(fd uintptr) { own = f(int(fd)) }); err != nil {
		return err
	}
	return own
}

func resize(master *os.File, step string) error {
	var w unix.Winsize
	if _, err := fmt.Sscanf(step, "size %d %d", &w.Row, &w.Col); err != nil {
		return err
	}
	return control(master, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &w) })
}

// screen is everything a terminal has shown.
type screen struct {
	master *os.File
	mu     sync.Mutex
	all    bytes.Buffer
	seen   int           // where the last match ended
	more   chan struct{} // something was shown
	closed chan struct{}
}

func watch(master *os.File) *screen {
	s := &screen{master: master, more: make(chan struct{}, 1), closed: make(chan struct{})}
	go func() {
		defer close(s.closed)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.all.Write(buf[:n])
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
			if err != nil {
				return // EIO: nobody has the terminal open any more
			}
		}
	}()
	return s
}

func (s *screen) do(step string, pid int) error {
	verb, rest, _ := strings.Cut(step, " ")
	switch verb {
	case "expect":
		return s.expect(rest)
	case "send":
		text, err := strconv.Unquote(`"` + rest + `"`)
		if err != nil {
			return err
		}
		_, err = io.WriteString(s.master, text)
		return err
	case "size":
		return resize(s.master, step)
	case "signal":
		return unix.Kill(pid, unix.SignalNum("SIG"+rest))
	case "sh":
		cmd := exec.Command("sh", "-c", rest)
		cmd.Env = append(os.Environ(), "PID="+strconv.Itoa(pid))
		cmd.Stderr = os.Stderr
		return cmd.Run()
	case "raw":
		return s.raw()
	case "hangup":
		return s.master.Close()
	}
	return errors.New("no such step")
}

// raw waits until keys are passed on one by one.
func (s *screen) raw() error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var t *unix.Termios
		err := control(s.master, func(fd int) (err error) {
			t, err = unix.IoctlGetTermios(fd, unix.TCGETS)
			return err
		})
		if err != nil {
			return err
		}
		if t.Lflag&unix.ICANON == 0 {
			return nil
		}
	}
	return errors.New("it is not")
}

func (s *screen) expect(pattern string) error {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return err
	}
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		at := re.FindIndex(s.all.Bytes()[s.seen:])
		if at != nil {
			s.seen += at[1]
		}
		s.mu.Unlock()
		if at != nil {
			return nil
		}
		select {
		case <-s.more:
		case <-s.closed:
			return errors.New("the terminal was closed before")
		case <-timeout:
			return errors.New("it did not come")
		}
	}
}

// drain waits until nobody has the terminal open.
func (s *screen) drain() {
	select {
	case <-s.closed:
	case <-time.After(patience):
	}
}

// lineEnd is how a terminal ends a line: once for itself, and once more for a
// program whose terminal did so already.
var lineEnd = regexp.MustCompile("\r+\n")

// text is what was shown, with the terminal's line ends made a file's.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return lineEnd.ReplaceAllString(s.all.String(), "\n")
}
