// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A start program runs in a process whose /proc/self/exe is the file of this binary,
// on the host's mount. Were it the one to execute the user's program, a script with
// that very name as its interpreter would have the kernel execute this binary inside
// of the container, whose other processes could then open its file by theirs: not to
// write it, but to change its mode. So the last steps, from Prog.Leave on, are run
// by the trampoline: the few instructions of trampoline_*.s, in a program that is
// made for each start and lies in a sealed memory file.
//
// The program is an ELF file of one segment, mapped where it says and never written:
//
//	0x400000  headers
//	0x4000c0  the instructions, and what happens to lie behind them in this binary
//	0x400200  the descriptor for the report
//	0x400208  the calls, each of 11 words, and what their pointers point at
//
// and the words of a call are its number (negative: the end, to be reported), six
// arguments, the set of the errors to go on after, the least result that is none,
// how many bytes to go forward after such an error, and its step, for the report.
const (
	trampolineBase  = 0x400000
	trampolineEntry = 0xc0
	trampolineFD    = 0x200
	trampolineTable = trampolineFD + 8
	callWords       = 11
)

// trampolineCode is the machine code, in this binary.
var trampolineCode *[trampolineFD - trampolineEntry]byte

// ofReport stands for the descriptor of the report in arguments.
const ofReport Reg = maxRegs

// Leave adds the end of this binary in the process: what is added after it is run by
// the trampoline. That can be calls whose arguments are known by now, and
// FailAttempts. Every descriptor must be set to be closed by an execve; those in
// keep are open up to the next one. The mark is an argument more than execveat(2)
// has, by which a filter can know it.
//
// Where memory files cannot be executed (vm.memfd_noexec=2, or a filter or a security
// module that was there before), the process runs the rest by itself.
func (p *Prog) Leave(mark uintptr, keep ...int) {
	const step = "leave start program"
	if p.left > 0 {
		p.fail(errors.New("build start program: it leaves twice"))
	}
	fds := []any{ofReport}
	for _, fd := range keep {
		fds = append(fds, fd)
	}
	for _, fd := range fds {
		p.Call(step, unix.SYS_FCNTL, fd, unix.F_SETFD, 0)
	}
	// The descriptor of the file is filled in by place.
	p.Call(step, unix.SYS_EXECVEAT, -1, "", []string{"sbx-start"}, []string{}, unix.AT_EMPTY_PATH, mark).
		Ignore(unix.EPERM, unix.EACCES, unix.ENOSYS)
	p.left = len(p.steps)
	for _, fd := range fds {
		p.Call(step, unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	}
}

// TryLeave looks whether Leave works here, by doing it.
func TryLeave(ctx context.Context) error {
	const step = "look for descriptor"
	file, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer file.Close()
	p := &Prog{}
	p.CloseFrom(3)
	p.Leave(0)
	// What the execve has closed is there as long as this binary is.
	p.Call(step, unix.SYS_FCNTL, file.Fd(), unix.F_GETFD)
	p.Call("exit", unix.SYS_EXIT_GROUP, 0)
	child, err := Fork(p)
	if err != nil {
		return err
	}
	err = child.Started(ctx)
	_, waitErr := child.Wait()
	var failed *StepError
	switch {
	case errors.As(err, &failed) && failed.Step == step:
		return waitErr
	case err != nil:
		return err
	}
	return errors.New("files in memory cannot be executed")
}

// leave makes the file that the program, which was laid out at step at, becomes.
func (im *image) leave(p *Prog, at int) error {
	if im.exe != nil {
		return errors.New("build start program: two of its programs leave")
	}
	s := &im.steps[at+p.left-1]
	text, err := passage(p, at, im.reportFD)
	if err != nil {
		return err
	}
	im.exe, err = memoryProgram(text)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		s.tolerate[0] = uint8(unix.EBADF)
		return nil
	}
	if err != nil {
		return err
	}
	im.exeFD = im.exe.Fd()
	s.args[0] = im.exeFD
	return nil
}

// memoryProgram is an executable file in memory that nobody can change any more.
func memoryProgram(text []byte) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_EXEC
	fd, err := unix.MemfdCreate("sbx-start", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // Linux before 6.3
		seals &^= unix.F_SEAL_EXEC
		fd, err = unix.MemfdCreate("sbx-start", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	// Lower numbers are what start programs place descriptors at.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 20)
	unix.Close(fd)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(high), "start program")
	if _, err = f.Write(text); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write start program: %w", err)
	}
	return f, nil
}

// passage is the program that runs what comes after Leave in p, and reports to a
// descriptor.
func passage(p *Prog, at int, report uintptr) ([]byte, error) {
	steps := p.steps[p.left:]
	text := slices.Concat(elfHeader(), trampolineCode[:])
	text = binary.NativeEndian.AppendUint64(text, uint64(report))
	table := len(text)
	text = append(text, make([]byte, len(steps)*callWords*8)...)
	for i := range steps {
		words, err := (&tail{&text, report}).words(&steps[i])
		if err != nil {
			return nil, fmt.Errorf("build start program: %s: %w", p.names[p.left+i], err)
		}
		words[callWords-1] = uint64(at + p.left + i)
		for j, w := range words {
			binary.NativeEndian.PutUint64(text[table+(i*callWords+j)*8:], w)
		}
	}
	// The sizes of the segment, in the file and in memory.
	for _, field := range []int{64 + 32, 64 + 40} {
		binary.NativeEndian.PutUint64(text[field:], uint64(len(text)))
	}
	return text, nil
}

// elfHeader is the ELF header and those of the segments (elf(5)), but for the size of
// the first: the second says that the stack is not executable.
func elfHeader() []byte {
	const loaded, stack = 1, 0x6474e551 // PT_LOAD, PT_GNU_STACK
	const read, write, execute = 4, 2, 1
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...) // 64 bits, little-endian
	b = binary.NativeEndian.AppendUint16(b, 2)                     // ET_EXEC
	b = binary.NativeEndian.AppendUint16(b, elfMachine)
	b = binary.NativeEndian.AppendUint32(b, 1)
	for _, v := range []uint64{trampolineBase + trampolineEntry, 64, 0} { // entry, segments, sections
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	b = binary.NativeEndian.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 2, 64, 0, 0} { // sizes and numbers of headers
		b = binary.NativeEndian.AppendUint16(b, v)
	}
	for _, s := range []struct {
		kind, flags   uint32
		addr, aligned uint64
	}{{loaded, read | execute, trampolineBase, 1 << 16}, {stack, read | write, 0, 16}} {
		b = binary.NativeEndian.AppendUint32(b, s.kind)
		b = binary.NativeEndian.AppendUint32(b, s.flags)
		for _, v := range []uint64{0, s.addr, s.addr, 0, 0, s.aligned} {
			b = binary.NativeEndian.AppendUint64(b, v)
		}
	}
	return append(b, make([]byte, trampolineEntry-len(b))...)
}

// tail puts what the arguments of calls point at behind the table.
type tail struct {
	text   *[]byte
	report uintptr
}

// words is a step as the trampoline reads it, but for its number.
func (t *tail) words(s *step) (w [callWords]uint64, err error) {
	switch s.op {
	case opFail:
		w[0] = ^uint64(0)
		return w, nil
	case opCall:
	default:
		return w, errors.New("no call")
	}
	w[0] = uint64(s.nr)
	for i, a := range s.given {
		if w[1+i], err = t.word(a); err != nil {
			return w, err
		}
	}
	for _, e := range s.tolerate {
		if e != 0 && (e > 63 || !s.attempt) {
			return w, fmt.Errorf("%w is to be ignored", unix.Errno(e))
		}
		w[7] |= 1 << e
	}
	w[7] &^= 1 // none
	if s.nonzero {
		w[8] = 1
	}
	if s.any || s.skip != 0 || s.out >= 0 {
		return w, errors.New("its result is used")
	}
	w[9] = uint64(1+s.skipErr) * callWords * 8
	return w, nil
}

func (t *tail) word(a any) (uint64, error) {
	switch a := a.(type) {
	case nil:
		return 0, nil
	case int:
		return uint64(a), nil
	case uintptr:
		return uint64(a), nil
	case Reg:
		if a == ofReport {
			return uint64(t.report), nil
		}
	case string:
		return t.place(append([]byte(a), 0)), nil
	case []byte:
		return t.place(a), nil
	case []string:
		var list []byte
		for _, s := range a {
			list = binary.NativeEndian.AppendUint64(list, t.place(append([]byte(s), 0)))
		}
		return t.place(append(list, make([]byte, 8)...)), nil
	case *unix.SockFprog:
		return t.filter(a), nil
	}
	return 0, fmt.Errorf("argument of type %T", a)
}

func (t *tail) filter(f *unix.SockFprog) uint64 {
	var code []byte
	for _, i := range unsafe.Slice(f.Filter, f.Len) {
		code = binary.NativeEndian.AppendUint16(code, i.Code)
		code = append(code, i.Jt, i.Jf)
		code = binary.NativeEndian.AppendUint32(code, i.K)
	}
	head := binary.NativeEndian.AppendUint64(nil, uint64(f.Len))
	return t.place(binary.NativeEndian.AppendUint64(head, t.place(code)))
}

// place adds data, and returns its address.
func (t *tail) place(data []byte) uint64 {
	for len(*t.text)%8 != 0 {
		*t.text = append(*t.text, 0)
	}
	at := len(*t.text)
	*t.text = append(*t.text, data...)
	return uint64(trampolineBase + at)
}
