// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Prog is a program of system calls: what a forked child does between its birth
// and its execve.
//
// It is built by ordinary Go code that reads from top to bottom, and run by a
// loop that does nothing else (see run.go), because a forked child of a Go
// process must not run Go code. The zero Prog is empty and ready to use.
type Prog struct {
	steps    []step
	names    []string
	children []*Prog // of its forks, in order
	keep     []any   // what the steps point at
	regs     int
	left     int // the step after which it is this binary no more, see Leave
	err      error
}

// Reg is a place that takes the result of a call, and stands for it in the
// arguments of later ones. Registers are not shared between a forked child of
// the program and its parent: each has the values of the moment of the fork.
type Reg int8

const maxRegs = 24

// maxKeep is how many descriptors CloseBut can keep.
const maxKeep = 8

// Operations that are not a system call of the same number.
const (
	opCall  = iota
	opFork  // clone; the child goes on at step args[1]
	opStore // *(*int32)(args[0]) = regs[args[1]]
	opLoad  // regs[out] = *(*int32)(args[0])
	opCheck // *(*int32)(args[0]) is a negative errno, or no error
	opFail  // report the errno that the tolerated attempts left behind
	opClose // every descriptor from args[0] up is closed by the execve
	opReset // every signal back to its default action
	opReap  // pid 1 for args[0]: reap, forward signals, exit with its status
	opExit  // end without a report
	opKeep  // close every descriptor but the report's and those in keep
)

// step is one instruction in the form the child can use: numbers only.
type step struct {
	op       uint8
	regArgs  uint8            // bit i: args[i] is a register's index
	out      int8             // register for the result, or -1
	skip     uint8            // steps to pass over when the call succeeds
	skipErr  uint8            // steps to pass over when the call fails with a tolerated error
	any      bool             // every error is tolerated
	attempt  bool             // a tolerated error is remembered for opFail
	keep     [maxKeep]uintptr // of opKeep
	kept     uint8            // how many those are
	keepRegs uint8            // bit i: keep[i] is a register's index
	nonzero  bool             // a result of zero is an error (end of file where a byte was due)
	tolerate [3]uint8
	nr       uintptr
	args     [6]uintptr
	given    []any // what args were made of, of a step after Leave
}

// Step changes how the call that was added last is taken.
type Step struct{ s *step }

// Reg reserves a register.
func (p *Prog) Reg() Reg {
	if p.regs == maxRegs {
		p.fail(fmt.Errorf("build start program: more than %d registers", maxRegs))
		return 0
	}
	p.regs++
	return Reg(p.regs - 1)
}

// Call adds the system call nr. The name is what its error will say, as in
// "mount proc on /proc". Arguments are ints, uintptrs, flags, strings and
// NULL-terminated lists of strings (passed as C does), byte slices, Regs,
// pointers kept alive by the caller through Keep, and nil.
func (p *Prog) Call(name string, nr uintptr, args ...any) Step {
	s := step{op: opCall, out: -1, nr: nr}
	if len(args) > len(s.args) {
		p.fail(fmt.Errorf("build start program: %s: %d arguments", name, len(args)))
		return p.add(name, s)
	}
	if p.left > 0 {
		s.given = args
	}
	for i, a := range args {
		if r, ok := a.(Reg); ok {
			s.regArgs |= 1 << i
			s.args[i] = uintptr(r)
			continue
		}
		s.args[i] = p.word(name, a)
	}
	return p.add(name, s)
}

// Fork adds a clone with these flags (SIGCHLD is added). The child runs child's
// steps and must end in an execve or an Exit; the parent goes on with what is
// added next. The result (the child's pid) goes to the Step's register. With
// CLONE_PIDFD, pidfd is where the kernel writes the descriptor.
func (p *Prog) Fork(name string, flags uintptr, pidfd *int32, child *Prog) Step {
	var at uintptr
	if pidfd != nil {
		at = uintptr(unsafe.Pointer(pidfd))
		p.keep = append(p.keep, pidfd)
	}
	p.children = append(p.children, child)
	return p.add(name, step{op: opFork, out: -1, args: [6]uintptr{flags | uintptr(unix.SIGCHLD), 0, at}})
}

// Store adds the copying of a register's value into memory that a later call
// reads, such as the data of a control message.
func (p *Prog) Store(at *int32, r Reg) {
	p.keep = append(p.keep, at)
	p.add("store result", step{op: opStore, out: -1, args: [6]uintptr{uintptr(unsafe.Pointer(at)), uintptr(r)}})
}

// Load is Store's other direction: the register takes the value in memory,
// which an earlier call of the program wrote.
func (p *Prog) Load(r Reg, at *int32) {
	p.keep = append(p.keep, at)
	p.add("load value", step{op: opLoad, out: int8(r), args: [6]uintptr{uintptr(unsafe.Pointer(at))}})
}

// Check adds a look at a number in memory that an earlier call of the program
// wrote: a negative one is an errno, as netlink(7) answers.
func (p *Prog) Check(name string, at *int32) Step {
	p.keep = append(p.keep, at)
	return p.add(name, step{op: opCheck, out: -1, args: [6]uintptr{uintptr(unsafe.Pointer(at))}})
}

// ResetSignals adds the return of every signal to its default action: an
// ignored SIGINT or SIGHUP of the caller's shell must not reach the program.
func (p *Prog) ResetSignals() { p.add("reset signals", step{op: opReset, out: -1}) }

// FailAttempts adds the report of the calls marked Attempt that came before it:
// EACCES when one of them met it, else the last error.
func (p *Prog) FailAttempts(name string) { p.add(name, step{op: opFail, out: -1}) }

// Reap adds the life of a minimal pid 1 whose only child's pid is in r: it
// reaps orphans, passes signals on to the child, and exits with its status.
func (p *Prog) Reap(r Reg) {
	p.add("reap", step{op: opReap, out: -1, regArgs: 1, args: [6]uintptr{uintptr(r), noDescriptor}})
}

// ReapAndTell is Reap by a process that writes the status, one byte, to a descriptor
// before it exits with it.
func (p *Prog) ReapAndTell(r Reg, fd int) {
	p.add("reap", step{op: opReap, out: -1, regArgs: 1, args: [6]uintptr{uintptr(r), uintptr(fd)}})
}

const noDescriptor = ^uintptr(0)

// CloseBut closes every descriptor but these, which are numbers or Regs.
func (p *Prog) CloseBut(fds ...any) {
	s := step{op: opKeep, out: -1}
	if len(fds) > maxKeep {
		p.fail(fmt.Errorf("build start program: %d descriptors to keep", len(fds)))
		return
	}
	for i, fd := range fds {
		if r, ok := fd.(Reg); ok {
			s.keepRegs |= 1 << i
			s.keep[i] = uintptr(r)
			continue
		}
		s.keep[i] = p.word("close descriptors", fd)
	}
	s.kept = uint8(len(fds))
	p.add("close descriptors", s)
}

// Exit adds the end of the program with this status, without a report.
func (p *Prog) Exit(status int) {
	p.add("exit", step{op: opExit, out: -1, args: [6]uintptr{uintptr(status)}})
}

// Keep holds v, which a pointer argument points into, until the program has started.
func (p *Prog) Keep(v any) { p.keep = append(p.keep, v) }

// Into puts the result in r.
func (s Step) Into(r Reg) Step { s.s.out = int8(r); return s }

// Ignore goes on when the call fails with one of these errors (three at most).
func (s Step) Ignore(errnos ...unix.Errno) Step {
	for i, e := range errnos {
		if i < len(s.s.tolerate) {
			s.s.tolerate[i] = uint8(e)
		}
	}
	return s
}

// Any goes on whatever the error.
func (s Step) Any() Step { s.s.any = true; return s }

// Attempt remembers an ignored error for FailAttempts.
func (s Step) Attempt() Step { s.s.attempt = true; return s }

// SkipOnSuccess passes over the next n steps when the call succeeds.
func (s Step) SkipOnSuccess(n int) Step { s.s.skip = uint8(n); return s }

// SkipOnIgnored passes over the next n steps when the call fails with an ignored error.
func (s Step) SkipOnIgnored(n int) Step { s.s.skipErr = uint8(n); return s }

// NonZero makes a result of zero an error: end of file where a byte was due.
func (s Step) NonZero() Step { s.s.nonzero = true; return s }

func (p *Prog) add(name string, s step) Step {
	// The steps are appended one by one: a Step must be used before the next is
	// added, as the fluent form does.
	p.steps = append(p.steps, s)
	p.names = append(p.names, name)
	return Step{&p.steps[len(p.steps)-1]}
}

func (p *Prog) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// word turns an argument into what goes into a register of the CPU.
func (p *Prog) word(name string, a any) uintptr {
	switch a := a.(type) {
	case nil:
		return 0
	case int:
		return uintptr(a)
	case uintptr:
		return a
	case uint32:
		return uintptr(a)
	case uint64:
		return uintptr(a)
	case string:
		return p.cstring(name, a)
	case []string:
		list := make([]uintptr, 0, len(a)+1)
		for _, s := range a {
			list = append(list, p.cstring(name, s))
		}
		list = append(list, 0)
		p.keep = append(p.keep, list)
		return uintptr(unsafe.Pointer(&list[0]))
	case []byte:
		if len(a) == 0 {
			return 0
		}
		p.keep = append(p.keep, a)
		return uintptr(unsafe.Pointer(&a[0]))
	case unsafe.Pointer:
		p.keep = append(p.keep, a)
		return uintptr(a)
	case *unix.SockFprog:
		p.keep = append(p.keep, a)
		return uintptr(unsafe.Pointer(a))
	default:
		p.fail(fmt.Errorf("build start program: %s: argument of type %T", name, a))
		return 0
	}
}

func (p *Prog) cstring(name, s string) uintptr {
	b, err := unix.BytePtrFromString(s)
	if err != nil {
		p.fail(fmt.Errorf("%s: %q: NUL byte", name, s))
		return 0
	}
	p.keep = append(p.keep, b)
	return uintptr(unsafe.Pointer(b))
}

// image is a program laid out for the child: its own steps, then those of its
// forks' children.
type image struct {
	steps    []step
	names    []string
	regs     [maxRegs + 1]uintptr // the last is ofReport
	reportFD uintptr
	exeFD    uintptr  // of exe, or reportFD
	exe      *os.File // what a program becomes by Leave, or nil
	report   [2]uint32
	keep     []any
}

// link lays out prelude, then p, and behind each program those of its children. They
// report to this descriptor.
func link(prelude, p *Prog, report uintptr) (*image, error) {
	whole := &Prog{
		steps:    append(append([]step{}, prelude.steps...), p.steps...),
		names:    append(append([]string{}, prelude.names...), p.names...),
		children: append(append([]*Prog{}, prelude.children...), p.children...),
		keep:     []any{prelude.keep, p.keep},
		err:      errors.Join(prelude.err, p.err),
	}
	if whole.left = p.left; p.left > 0 {
		whole.left += len(prelude.steps)
	}
	im := &image{reportFD: report, exeFD: report}
	im.regs[ofReport] = report
	if err := im.place(whole); err != nil {
		im.close()
		return nil, err
	}
	return im, nil
}

// close gives up the file that the child, which has its own, becomes.
func (im *image) close() {
	if im.exe != nil {
		im.exe.Close()
	}
}

func (im *image) place(p *Prog) error {
	if p.err != nil {
		return p.err
	}
	at := len(im.steps)
	im.steps = append(im.steps, p.steps...)
	im.names = append(im.names, p.names...)
	im.keep = append(im.keep, p.keep)
	// A program that runs off its end must not run into its child's.
	im.steps = append(im.steps, step{op: opExit, out: -1})
	im.names = append(im.names, "end")
	if p.left > 0 {
		if err := im.leave(p, at); err != nil {
			return err
		}
	}
	child := 0
	for i := range p.steps {
		if p.steps[i].op != opFork {
			continue
		}
		im.steps[at+i].args[1] = uintptr(len(im.steps))
		if err := im.place(p.children[child]); err != nil {
			return err
		}
		child++
	}
	return nil
}

// name is what step i calls itself in an error.
func (im *image) name(i uint32) string {
	if int(i) < len(im.names) {
		return im.names[i]
	}
	return fmt.Sprintf("step %d", i)
}
