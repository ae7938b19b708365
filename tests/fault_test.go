// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// faultMain is the command `fault PLACE ERRNO LOG PROGRAM ARGS...`: it runs a program
// and has one system call of its start programs fail, or every call of one number, as
// on a kernel that lacks it. It traces what the program forks, so nothing in the
// program is made for it, and no set-user-ID program that it starts loses its power.
//
// A place is PROCESS:N, the N-th call of a process between its fork and its execve;
// or a call's number; or "none". LOG gets all such calls, a line each, and "hit"
// where one failed so. The status is the program's.
func faultMain() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: fault PLACE ERRNO LOG PROGRAM ARGS...")
		os.Exit(expectBroken)
	}
	status, err := runFaulty(os.Args[1], os.Args[2], os.Args[3], os.Args[4:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "fault:", err)
		status = expectBroken
	}
	os.Exit(status)
}

func runFaulty(place, errno, log string, command []string) (int, error) {
	runtime.LockOSThread() // ptrace(2) is a matter of threads
	f, err := os.Create(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := strconv.Atoi(errno)
	if err != nil {
		return 0, err
	}
	// Where close_range(2) fails, each possible descriptor is closed by itself.
	few := unix.Rlimit{Cur: 1024, Max: 1024}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		return 0, err
	}
	// Who is left by a parent that failed is reaped here: a zombie keeps its container.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	w := bufio.NewWriter(f)
	t := &tracer{place: place, errno: unix.Errno(n), log: w, all: map[int]*tracee{}, forks: map[int]int{}, root: cmd.Process.Pid}
	status, err := t.run()
	return status, errors.Join(err, w.Flush())
}

// tracer follows a program and everything that it starts, to the end of the last.
type tracer struct {
	place string
	errno unix.Errno
	log   io.Writer
	all   map[int]*tracee
	forks map[int]int // by process: how many it has forked
	root  int
	over  bool // the one call has failed
}

// tracee is a thread.
type tracee struct {
	process int    // its process, by the first thread
	path    string // of the process: its parent's, and which fork of that it is
	recipe  bool   // it is between its fork and the program's execve
	let     bool   // it is none of our business
	known   bool   // whoever made it has told
	born    bool   // its first stop has been seen
	calls   int
	leaves  bool // its next execve is one after which the start goes on
	failing bool
}

func (t *tracer) run() (int, error) {
	status := 0
	for {
		var ws unix.WaitStatus
		tid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return status, nil
		case err != nil:
			return 0, err
		}
		if !ws.Stopped() {
			if tid == t.root {
				if status = ws.ExitStatus(); ws.Signaled() {
					status = 128 + int(ws.Signal())
				}
			}
			delete(t.all, tid)
			continue
		}
		// One that is killed meanwhile is told of next.
		if err := t.stopped(tid, ws); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, err
		}
	}
}

func (t *tracer) stopped(tid int, ws unix.WaitStatus) error {
	one := t.all[tid]
	if one == nil {
		one = &tracee{process: tid}
		t.all[tid] = one
	}
	if tid == t.root && !one.born {
		one.born, one.known, one.path = true, true, "client"
		const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
		if err := unix.PtraceSetOptions(tid, options); err != nil {
			return err
		}
		return t.resume(tid, one, 0)
	}
	signal := ws.StopSignal()
	switch {
	case !one.born:
		one.born = true // by a SIGSTOP, which is ptrace's own
		if one.known {
			return t.resume(tid, one, 0)
		}
		return nil
	case signal == unix.SIGTRAP|0x80:
		if err := t.call(tid, one); err != nil {
			return err
		}
		return t.resume(tid, one, 0)
	case signal == unix.SIGTRAP && ws.TrapCause() > 0:
		if err := t.event(tid, one, ws.TrapCause()); err != nil {
			return err
		}
		return t.resume(tid, one, 0)
	}
	return t.resume(tid, one, signal)
}

func (t *tracer) resume(tid int, one *tracee, signal unix.Signal) error {
	switch {
	case one.let:
		delete(t.all, tid)
		return unix.PtraceDetach(tid)
	case one.recipe && !t.over:
		return unix.PtraceSyscall(tid, int(signal))
	}
	return unix.PtraceCont(tid, int(signal))
}

// event is a fork, a thread or an execve. What the Go runtime starts, as newuidmap, it
// starts with vfork; a start program is a plain fork.
func (t *tracer) event(tid int, one *tracee, cause int) error {
	if cause == unix.PTRACE_EVENT_EXEC {
		one.recipe = one.leaves
		return nil
	}
	message, err := unix.PtraceGetEventMsg(tid)
	if err != nil {
		return err
	}
	made := t.all[int(message)]
	if made == nil {
		made = &tracee{}
		t.all[int(message)] = made
	}
	made.known, made.process, made.path = true, int(message), one.path
	switch cause {
	case unix.PTRACE_EVENT_CLONE:
		made.process = one.process
	case unix.PTRACE_EVENT_VFORK:
		made.let = true
	case unix.PTRACE_EVENT_FORK:
		t.forks[one.process]++
		made.path = fmt.Sprintf("%s.%d", one.path, t.forks[one.process])
		made.recipe = true
	}
	if made.born {
		return t.resume(int(message), made, 0)
	}
	return nil
}

// call is the begin of a system call of a start program, or its end.
func (t *tracer) call(tid int, one *tracee) error {
	info, err := syscallInfo(tid)
	if err != nil {
		return err
	}
	if info.Op == unix.PTRACE_SYSCALL_INFO_EXIT {
		if !one.failing {
			return nil
		}
		one.failing, t.over = false, strings.Contains(t.place, ":")
		return setResult(tid, -int64(t.errno))
	}
	one.calls++
	// The start program gives way to what runs its last steps with a sixth argument.
	one.leaves = info.Number == unix.SYS_EXECVEAT && info.Args[5] != 0
	place := fmt.Sprintf("%s:%d", one.path, one.calls)
	fmt.Fprintln(t.log, place, info.Number, strings.Trim(fmt.Sprint(info.Args), "[]"))
	number := strconv.FormatUint(info.Number, 10)
	if t.place != place && t.place != number {
		return nil
	}
	fmt.Fprintln(t.log, "hit")
	one.failing = true
	return setNumber(tid, -1)
}

// callInfo is struct ptrace_syscall_info of a begin, ptrace(2).
type callInfo struct {
	Op     uint8
	_      [3]uint8
	Arch   uint32
	_      [2]uint64
	Number uint64
	Args   [6]uint64
}

func syscallInfo(tid int) (callInfo, error) {
	var info callInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return info, errno
	}
	return info, nil
}
