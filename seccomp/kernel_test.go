// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childVariable makes the test binary the program that is put under filters.
const childVariable = "SBX_SECCOMP_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(childMain())
	}
	os.Exit(m.Run())
}

// errand is what a child is to do: install the default filter, make calls, and say
// what came of them.
type errand struct {
	Caps    []string
	Witness bool // no call is made: see witness
	Before  bool // make the calls before the filter is installed, too
	Calls   []Data
	Getpids int // time that many calls of getpid, with and without the filter
}

type outcome struct {
	Before, After []uint32 // errors by call
	Bare, Behind  time.Duration
}

// The witness is a second filter, installed first. The kernel asks both, and of
// two errors takes the later filter's: calls that carry the mark return the
// witness's error exactly if the filter under test allows them, and none is ever
// made. So even exit and reboot can be tried.
const (
	witnessed   = unix.Errno(1234)
	witnessMark = 0x5b8c0de
	witnessArg  = 5
)

func witness() *Filter {
	f := &Filter{Foreign: Allow}
	for _, arch := range []Arch{AMD64, I386, ARM64, ARM} {
		rule := Rule{0, maxNumber, []Test{{witnessArg, Low32, Equal, witnessMark}}, Errno(witnessed)}
		f.Tables = append(f.Tables, Table{Arch: arch, Rules: []Rule{rule}, Default: Allow})
	}
	return f
}

func childMain() int {
	// The filter is this thread's alone, as are the calls.
	runtime.LockOSThread()
	var e errand
	var o outcome
	err := json.NewDecoder(os.Stdin).Decode(&e)
	if err == nil {
		err = e.run(&o)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (e *errand) run(o *outcome) error {
	program, err := Default(e.Caps)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if e.Before {
		o.Before = makeCalls(e.Calls)
	}
	o.Bare = getpid(e.Getpids)
	if e.Witness {
		w, err := witness().Compile()
		if err != nil {
			return err
		}
		if err := install(w); err != nil {
			return err
		}
		for i := range e.Calls {
			e.Calls[i].Args[witnessArg] = witnessMark
		}
	}
	if err := install(program); err != nil {
		return err
	}
	o.After = makeCalls(e.Calls)
	o.Behind = getpid(e.Getpids)
	return nil
}

func install(p *Program) error {
	fprog := p.Fprog()
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, p.Flags(), uintptr(unsafe.Pointer(fprog)))
	runtime.KeepAlive(fprog)
	if errno != 0 {
		return fmt.Errorf("install filter: %w", errno)
	}
	return nil
}

func ownArch() Arch {
	own, _, err := native(runtime.GOARCH)
	if err != nil {
		return 0
	}
	return own
}

func makeCalls(calls []Data) []uint32 {
	own := ownArch()
	errnos := make([]uint32, len(calls))
	for i, d := range calls {
		if d.Arch != own {
			errnos[i] = uint32(compatCall(d))
			continue
		}
		var a [6]uintptr
		for j, v := range d.Args {
			a[j] = uintptr(v)
		}
		_, _, errno := unix.RawSyscall6(uintptr(d.Number), a[0], a[1], a[2], a[3], a[4], a[5])
		errnos[i] = uint32(errno)
	}
	return errnos
}

// getpid is the time of one, the best of many rounds.
func getpid(n int) time.Duration {
	const rounds = 50
	best := time.Duration(0)
	for range rounds {
		if n == 0 {
			break
		}
		start := time.Now()
		for range n {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		}
		if took := time.Since(start) / time.Duration(n); best == 0 || took < best {
			best = took
		}
	}
	return best
}

// do runs an errand in a process of its own.
func do(t testing.TB, e errand) outcome {
	t.Helper()
	o, err := tryTo(t, e)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func tryTo(t testing.TB, e errand) (outcome, error) {
	t.Helper()
	in, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var out, said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"=1", "GODEBUG=asyncpreemptoff=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &said
	var o outcome
	if err := cmd.Run(); err != nil {
		return o, fmt.Errorf("%w\n%.2000s", err, said.Bytes())
	}
	return o, json.Unmarshal(out.Bytes(), &o)
}

// compatEntry reports whether calls of the 32-bit architecture can be made here.
func compatEntry(t *testing.T) bool {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		return false
	}
	_, err := tryTo(t, errand{Calls: []Data{{Number: 20, Arch: I386}}})
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Logf("there is no way into the 32-bit table here: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return err == nil
}

// wantErrno is what a call returns when it is not made: the filter's error, or the
// witness's.
func wantErrno(o *oracle, d Data) unix.Errno {
	if refusedByUs(d) {
		return unix.EPERM
	}
	raw := o.answer(d)
	if raw == rawAllow {
		return witnessed
	}
	return unix.Errno(raw & 0xffff)
}

// TestKernel has the kernel judge every number of every table that can be entered
// from here, and all arguments that matter.
func TestKernel(t *testing.T) {
	profile := mobyJSON(t)
	entries := []Arch{ownArch()}
	if compatEntry(t) {
		entries = append(entries, I386)
	}
	for _, name := range []string{"usual", "none", "all", "CAP_SYS_ADMIN"} {
		t.Run(name, func(t *testing.T) {
			o, err := newOracle(t, profile, Target{Machine: runtime.GOARCH, Caps: capSets()[name]})
			if err != nil {
				t.Fatal(err)
			}
			e := errand{Caps: o.target.Caps, Witness: true}
			for _, arch := range entries {
				e.Calls = append(e.Calls, callsOf(o, arch)...)
			}
			after := do(t, e).After
			mismatches := judge(o, e.Calls, after)
			for _, m := range mismatches[:min(len(mismatches), 10)] {
				t.Error(m)
			}
			t.Logf("%d calls of %v as user %d, %d mismatches", len(e.Calls), entries, os.Getuid(), len(mismatches))
			// A comparison that could not fail would prove nothing.
			for _, twin := range []twin{lowHalf, noNewest} {
				o.twin = twin
				if len(judge(o, e.Calls, after)) == 0 {
					t.Errorf("the twin that %s went unseen", twin)
				}
			}
		})
	}
}

// judge compares what the kernel made of calls with what the oracle says.
func judge(o *oracle, calls []Data, after []uint32) []string {
	var mismatches []string
	for i, d := range calls {
		d.Args[witnessArg] = witnessMark
		if got, want := unix.Errno(after[i]), wantErrno(o, d); got != want {
			mismatches = append(mismatches, fmt.Sprintf("%s %d %#x: got %d, want %d", d.Arch, d.Number, d.Args, got, want))
		}
	}
	return mismatches
}

// callsOf are calls that cover a table.
func callsOf(o *oracle, arch Arch) []Data {
	var all []Data
	for _, n := range numbersToTry() {
		if !pastFilters(arch, n) {
			all = append(all, Data{Number: n, Arch: arch})
		}
	}
	for _, name := range []string{"socket", "clone", "personality", "ioctl", "socketcall"} {
		n, ok := o.numbers[arch][name]
		if !ok {
			continue
		}
		for _, v := range argumentsToTry() {
			for i := range 2 {
				d := Data{Number: uint32(n), Arch: arch}
				d.Args[i] = v
				all = append(all, d)
			}
		}
	}
	return all
}

// pastFilters are uretprobe and uprobe, which Linux 6.14 and later let through
// without asking any filter (seccomp_uprobe_exception): a probed program could not
// allow them. Anywhere but in a probe they end the caller.
func pastFilters(arch Arch, n uint32) bool { return arch == AMD64 && (n == 335 || n == 336) }

// notHarmless are calls that do something even when every argument is -1.
var notHarmless = []string{
	"exit", "exit_group", "fork", "vfork", "clone", "clone3", "pause", "rt_sigreturn", "restart_syscall", "msgget", "sync", "setsid",
	"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "alarm", "umask", "nanosleep", "vhangup", "reboot",
}

// TestKernelMakesCalls really makes the calls, with arguments that none can use:
// what is allowed must fail as it does without the filter. The kernel answers most
// of them from what it has learnt of the filter beforehand, not from the filter.
func TestKernelMakesCalls(t *testing.T) {
	o, err := newOracle(t, mobyJSON(t), Target{Machine: runtime.GOARCH, Caps: capSets()["usual"]})
	if err != nil {
		t.Fatal(err)
	}
	arch := ownArch()
	allowed, denied := errand{Caps: o.target.Caps, Before: true}, errand{Caps: o.target.Caps}
	for name, n := range o.numbers[arch] {
		d := Data{Number: uint32(n), Arch: arch, Args: [6]uint64{All64, All64, All64, All64, All64, All64}}
		switch want := wantErrno(o, d); {
		case slices.Contains(notHarmless, name), pastFilters(arch, d.Number):
		case want == witnessed:
			allowed.Calls = append(allowed.Calls, d)
		default:
			denied.Calls = append(denied.Calls, d)
		}
	}
	got := do(t, allowed)
	for i, d := range allowed.Calls {
		if got.After[i] != got.Before[i] {
			t.Errorf("%s %d: %d behind the filter, %d before it", arch, d.Number, got.After[i], got.Before[i])
		}
	}
	for i, errno := range do(t, denied).After {
		if want := wantErrno(o, denied.Calls[i]); unix.Errno(errno) != want {
			t.Errorf("%s %d: got %d, want %d", arch, denied.Calls[i].Number, errno, want)
		}
	}
	t.Logf("%d allowed, %d denied, as user %d", len(allowed.Calls), len(denied.Calls), os.Getuid())
}

// TestKernelByHand makes calls whose outcome tells by itself that they were
// refused: AF_ALG, say, is EAFNOSUPPORT on a kernel without it.
func TestKernelByHand(t *testing.T) {
	const high = 1 << 32
	for _, tt := range []struct {
		name string
		args [6]uint64
		want unix.Errno
	}{
		{"socket", [6]uint64{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC}, 0},
		{"socket", [6]uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC}, 0},
		{"socket", [6]uint64{unix.AF_ALG, unix.SOCK_SEQPACKET}, unix.EPERM},
		{"socket", [6]uint64{unix.AF_ALG | high, unix.SOCK_SEQPACKET}, unix.EPERM},
		{"socket", [6]uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, unix.EPERM},
		{"socket", [6]uint64{unix.AF_VSOCK | high<<7, unix.SOCK_STREAM}, unix.EPERM},
		{"ioctl", [6]uint64{All64, unix.TCGETS}, unix.EBADF},
		{"ioctl", [6]uint64{All64, unix.TIOCSTI}, unix.EPERM},
		{"ioctl", [6]uint64{All64, unix.TIOCSTI | high}, unix.EPERM},
		{"ioctl", [6]uint64{All64, unix.TIOCSTI | (All64 - Low32)}, unix.EPERM},
		{"ioctl", [6]uint64{All64, unix.TIOCLINUX}, unix.EPERM},
		{"ioctl", [6]uint64{All64, unix.TIOCLINUX | high}, unix.EPERM},
		{"unshare", [6]uint64{unix.CLONE_NEWUSER}, unix.EPERM},
		{"unshare", [6]uint64{unix.CLONE_FILES}, unix.EPERM},
		{"clone", [6]uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, unix.EPERM},
		{"clone", [6]uint64{unix.CLONE_NEWNS | high}, unix.EPERM},
		{"clone3", [6]uint64{}, unix.ENOSYS},
		{"setns", [6]uint64{All64}, unix.EPERM},
		{"mount", [6]uint64{}, unix.EPERM},
		{"io_uring_setup", [6]uint64{1}, unix.EPERM},
		{"io_uring_enter", [6]uint64{All64}, unix.EPERM},
		{"io_uring_register", [6]uint64{All64}, unix.EPERM},
		{"keyctl", [6]uint64{All64}, unix.EPERM},
		{"add_key", [6]uint64{}, unix.EPERM},
		{"request_key", [6]uint64{}, unix.EPERM},
		{"bpf", [6]uint64{All64}, unix.EPERM},
		{"userfaultfd", [6]uint64{All64}, unix.EPERM},
		{"personality", [6]uint64{0x0040000}, unix.EPERM},
		{"file_getattr", [6]uint64{All64}, unix.ENOSYS}, // newer than the profile
	} {
		n, ok := ownArch().Number(tt.name)
		if !ok {
			t.Fatalf("there is no %s", tt.name)
		}
		got := do(t, errand{Caps: capSets()["usual"], Calls: []Data{{Number: n, Arch: ownArch(), Args: tt.args}}})
		if errno := unix.Errno(got.After[0]); errno != tt.want {
			t.Errorf("%s %#x: got %q, want %q", tt.name, tt.args, errno, tt.want)
		}
	}
}

// BenchmarkGetpid tells what the filter adds to a call (G06).
func BenchmarkGetpid(b *testing.B) {
	for b.Loop() {
		o := do(b, errand{Caps: capSets()["usual"], Getpids: 2000})
		b.ReportMetric(float64(o.Bare.Nanoseconds()), "bare-ns")
		b.ReportMetric(float64(o.Behind.Nanoseconds()), "behind-ns")
	}
}
