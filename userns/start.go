// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Process is a child that runs, or ran, a start program.
type Process struct {
	PID    int
	image  *image
	report *os.File // read end; end of file when every program has reached its execve
}

// Start clones a child with the namespaces of flags (CLONE_NEWUSER is added),
// maps the rung's IDs into it, and lets it run p with all capabilities there.
// It returns as soon as the child lives: Started tells how its programs went.
//
// Runs in: the host's namespaces, as the user. The error is a *SetupError with
// a hint when the host refuses the namespace or the map.
func Start(ctx context.Context, r Rung, flags uintptr, p *Prog) (*Process, error) {
	reportR, reportW, err := pipe()
	if err != nil {
		return nil, err
	}
	defer reportW.Close()
	prelude, m, err := r.prelude()
	if err != nil {
		reportR.Close()
		return nil, err
	}
	defer m.close()
	im, err := link(prelude, p, reportW.Fd())
	if err != nil {
		reportR.Close()
		return nil, err
	}
	defer im.close()
	pid, err := im.fork(flags|unix.CLONE_NEWUSER, nil)
	if err != nil {
		reportR.Close()
		return nil, explain("create user namespace", err)
	}
	child := &Process{PID: pid, image: im, report: reportR}
	if err := m.mapIDs(ctx, r, pid); err != nil {
		child.Kill()
		child.Wait()
		reportR.Close()
		return nil, err
	}
	return child, nil
}

// StartIn is Start in a user namespace of the rung that is there already, behind
// the descriptor user of 20 or more: it is how a program comes to share what that
// owns.
//
// A process in between enters it, clones the child as its own sibling, and ends;
// so the child is ours to wait for.
func StartIn(ctx context.Context, r Rung, user int, flags uintptr, p *Prog) (*Process, error) {
	toldR, toldW, err := pipe()
	if err != nil {
		return nil, err
	}
	defer toldR.Close()
	defer toldW.Close()
	between := &Prog{}
	child, number := between.Reg(), new(int32)
	// A root in there could read the copy of our memory, see Join.
	between.Call("hide memory", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	between.Call("enter user namespace", unix.SYS_SETNS, user, unix.CLONE_NEWUSER)
	r.BecomeRoot(between)
	between.Fork("clone program", flags|unix.CLONE_PARENT, nil, p).Into(child)
	between.Store(number, child)
	between.Call("tell pid", unix.SYS_WRITE, int(toldW.Fd()), unsafe.Pointer(number), int(unsafe.Sizeof(*number)))
	between.Exit(0)
	process, err := Fork(between)
	if err != nil {
		return nil, err
	}
	toldW.Close()
	stop := context.AfterFunc(ctx, func() { toldR.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var pid [4]byte
	_, readErr := io.ReadFull(toldR, pid[:])
	if readErr != nil {
		process.Kill()
		err := process.Started(ctx)
		_, waitErr := process.Wait()
		return nil, cmp.Or(err, waitErr, readErr)
	}
	if _, err := process.Wait(); err != nil {
		return nil, err
	}
	process.PID = int(int32(binary.NativeEndian.Uint32(pid[:])))
	return process, nil
}

// Fork runs p in a plain child of this process, in the namespaces that it is in.
// The program may enter others by itself.
func Fork(p *Prog) (*Process, error) { return Clone(0, p) }

// Clone is Fork with namespaces of flags, which this process has the capability
// to make: it is how a role starts a program of its own.
//
// Runs in: a user namespace in which this process is root.
func Clone(flags uintptr, p *Prog) (*Process, error) {
	reportR, reportW, err := pipe()
	if err != nil {
		return nil, err
	}
	defer reportW.Close()
	im, err := link(&Prog{}, p, reportW.Fd())
	if err == nil {
		defer im.close()
		var pid int
		if pid, err = im.fork(flags, nil); err == nil {
			return &Process{PID: pid, image: im, report: reportR}, nil
		}
	}
	reportR.Close()
	return nil, fmt.Errorf("fork: %w", err)
}

// Started waits until every program of the process has given way to the program
// that it executes, and returns nil, or the *StepError of the first that failed.
func (p *Process) Started(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.report.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	defer p.report.Close()
	var buf [8]byte
	_, err := io.ReadFull(p.report, buf[:])
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("read report of start program: %w", err)
	}
	i := binary.NativeEndian.Uint32(buf[:4])
	errno := unix.Errno(binary.NativeEndian.Uint32(buf[4:]))
	step := &StepError{Step: p.image.name(i), Errno: errno}
	if step.Step == stepMapIDs || step.Step == stepReadMap {
		return explain("map IDs", step)
	}
	return step
}

// Kill ends the process.
func (p *Process) Kill() { _ = unix.Kill(p.PID, unix.SIGKILL) }

// Wait waits for the end of the process and returns its status. It must be
// called once.
func (p *Process) Wait() (unix.WaitStatus, error) {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(p.PID, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		return ws, nil
	}
}

// Execve adds the start of this binary in a role: files become its descriptors
// 3, 4, .. and everything else above 2 is closed. The registers and descriptors
// in files must be 20 or more, or registers.
func (p *Prog) Execve(role string, arg string, env []string, files ...any) {
	argv := p.roleArgs(role, arg, files)
	p.Call("execute /proc/self/exe", unix.SYS_EXECVE, "/proc/self/exe", argv, env)
}

// ExecveFile is Execve where this binary cannot be named, because the program
// has changed its root: exe is a descriptor of it.
func (p *Prog) ExecveFile(exe any, role, arg string, env []string, files ...any) {
	argv := p.roleArgs(role, arg, files)
	p.Call("execute this binary", unix.SYS_EXECVEAT, exe, "", argv, env, unix.AT_EMPTY_PATH)
}

func (p *Prog) roleArgs(role, arg string, files []any) []string {
	for i, f := range files {
		p.Call("place descriptor "+strconv.Itoa(3+i), unix.SYS_DUP3, f, 3+i, 0)
	}
	p.CloseFrom(3 + len(files))
	p.EmptyMask()
	argv := []string{rolePrefix + role}
	if arg != "" {
		argv = append(argv, arg)
	}
	return argv
}

// CloseFrom marks every descriptor from first up to be closed by the execve.
func (p *Prog) CloseFrom(first int) {
	p.add("close descriptors", step{op: opClose, out: -1, args: [6]uintptr{uintptr(first)}})
}

// EmptyMask lets every signal through again; the clone had blocked them.
func (p *Prog) EmptyMask() {
	p.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, make([]byte, 8), nil, 8)
}

// HighFile duplicates f's descriptor above those that Execve hands out. The
// result is closed by the caller after the start.
func HighFile(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 20)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// pipe is a close-on-exec pipe with ends that deadlines work on.
func pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}
