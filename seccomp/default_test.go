// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// machines are those that sbx is built for, with their tables.
var machines = []struct {
	name   string
	arches []Arch
}{
	{"amd64", []Arch{AMD64, I386}},
	{"arm64", []Arch{ARM64, ARM}},
}

// capSets are bounding sets: the usual, none, Docker's, and each capability that
// the profile asks for by itself, then all.
func capSets() map[string][]string {
	asked := []string{
		"CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE",
		"CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_SYS_NICE", "CAP_SYSLOG", "CAP_BPF", "CAP_PERFMON",
	}
	sets := map[string][]string{
		"usual":  {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"},
		"docker": {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"},
		"none":   nil,
		"all":    asked,
	}
	for _, c := range asked {
		sets[c] = []string{c}
	}
	return sets
}

// refusedByUs is what the default filter refuses before Docker's profile is asked.
func refusedByUs(d Data) bool {
	low := func(i int) uint32 { return uint32(d.Args[i]) }
	ioctl := map[Arch]uint32{AMD64: 16, I386: 54, ARM64: 29, ARM: 54}
	socket := map[Arch]uint32{AMD64: 41, I386: 359, ARM64: 198, ARM: 281}
	switch d.Number {
	case ioctl[d.Arch]:
		return low(1) == 0x5412 || low(1) == 0x541c
	case socket[d.Arch]:
		return low(0) == 38 || low(0) == 40
	}
	return d.Arch == I386 && d.Number == 102
}

// numbersToTry are all that are in use on any architecture, what lies around, and
// x32.
func numbersToTry() []uint32 {
	var numbers []uint32
	for n := uint32(0); n < 600; n++ {
		numbers = append(numbers, n, 0x40000000+n)
	}
	for n := uint32(0xf0000); n < 0xf0010; n++ {
		numbers = append(numbers, n)
	}
	return append(numbers, 1000, 4000, 0xeffff, 0x3fffffff, 0x7fffffff, 0x80000000, 0xffffffff)
}

// argumentsToTry are values about which a test of the profile might err.
func argumentsToTry() []uint64 {
	values := []uint64{0x7e020000, 0x10000000, 0x40000000, 0x00020000, 0x1200011, 0x8000, 0x20000, 0x20008, 0x20001, 0x5401, 0x5411, 0x5412, 0x5413, 0x541b, 0x541c, 0x541d, 0xffffffff, 0xfffffffe, 0x80000000}
	for v := range uint64(64) {
		values = append(values, v)
	}
	for _, v := range slices.Clone(values) {
		values = append(values, v|1<<32, v|1<<63, v|0xffffffff<<32)
	}
	return values
}

// TestDefault compares the default program with Docker's JSON, for every number,
// capability and machine.
func TestDefault(t *testing.T) {
	profile := mobyJSON(t)
	for _, m := range machines {
		for name, caps := range capSets() {
			t.Run(m.name+"/"+name, func(t *testing.T) {
				target := Target{Machine: m.name, Caps: caps}
				program, err := DefaultFor(target, false)
				if err != nil {
					t.Fatal(err)
				}
				o, err := newOracle(t, profile, target)
				if err != nil {
					t.Fatal(err)
				}
				compareDefault(t, program, o, m.arches)
			})
		}
	}
}

func compareDefault(t *testing.T, program *Program, o *oracle, arches []Arch) {
	t.Helper()
	mismatches, calls := 0, 0
	check := func(d Data) {
		want := o.answer(d)
		if refusedByUs(d) {
			want = rawEPERM
		}
		calls++
		if got := program.Run(d); uint32(got) != want {
			if mismatches++; mismatches <= 10 {
				t.Errorf("%s %d %#x: got %s, want %s", d.Arch, d.Number, d.Args, got, Action(want))
			}
		}
	}
	for _, arch := range append(arches, Arch(0xc0000015), Arch(0)) {
		for _, n := range numbersToTry() {
			check(Data{Number: n, Arch: arch})
			check(Data{Number: n, Arch: arch, Args: [6]uint64{1 << 63, 1 << 63, 1 << 63, 1 << 63, 1 << 63, 1 << 63}})
		}
	}
	for _, arch := range arches {
		for _, name := range []string{"socket", "clone", "personality", "ioctl", "socketcall", "clone3"} {
			n, ok := o.numbers[arch][name]
			if !ok {
				continue
			}
			for _, v := range argumentsToTry() {
				for i := range 6 {
					d := Data{Number: uint32(n), Arch: arch}
					d.Args[i] = v
					check(d)
				}
			}
		}
	}
	t.Logf("%d calls, %d instructions, %d mismatches", calls, program.Len(), mismatches)
}

// TestDefaultByHand is the posture of security-and-reliability.md 1.2, written
// before the code.
func TestDefaultByHand(t *testing.T) {
	denied := strings.Fields(`add_key bpf fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr init_module finit_module delete_module
		io_uring_setup io_uring_enter io_uring_register kcmp kexec_load keyctl request_key mount mbind move_pages migrate_pages open_by_handle_at
		perf_event_open pidfd_getfd pivot_root process_madvise quotactl reboot setns sethostname setdomainname swapon swapoff syslog umount2 unshare
		userfaultfd acct settimeofday clock_settime vhangup lookup_dcookie fanotify_init quotactl_fd`)
	denied32 := strings.Fields("iopl ioperm umount stime socketcall uselib") // only there or on amd64
	allowed := strings.Fields(`read write openat close mmap brk execve exit_group futex getpid fork_or_not clone_or_not chroot ptrace socketpair connect
		bind listen accept4 sendmsg recvmsg epoll_pwait setuid setgid setgroups chown_or_not fchownat mknodat statx rseq getrandom memfd_create seccomp
		landlock_create_ruleset pidfd_open process_vm_readv name_to_handle_at sched_setaffinity prctl capset close_range openat2 fchmodat2`)
	for _, m := range machines {
		program, err := DefaultFor(Target{Machine: m.name, Caps: capSets()["usual"]}, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, arch := range m.arches {
			for _, names := range []struct {
				list []string
				want Action
			}{{denied, refused}, {denied32, refused}, {allowed, Allow}, {[]string{"clone3"}, unknown}} {
				for _, name := range names.list {
					n, ok := arch.Number(name)
					if !ok {
						continue
					}
					if got := program.Run(Data{Number: n, Arch: arch}); got != names.want {
						t.Errorf("%s %s: got %s, want %s", arch, name, got, names.want)
					}
				}
			}
		}
	}
}

func TestDefaultArguments(t *testing.T) {
	const high = 1 << 40
	for _, tt := range []struct {
		name string
		args [6]uint64
		want Action
	}{
		{"socket", [6]uint64{1}, Allow},
		{"socket", [6]uint64{2, 1, 6}, Allow},
		{"socket", [6]uint64{10, 2}, Allow},
		{"socket", [6]uint64{16, 3}, Allow},
		{"socket", [6]uint64{17, 3}, Allow}, // AF_PACKET takes a capability
		{"socket", [6]uint64{38, 5}, refused},
		{"socket", [6]uint64{40, 1}, refused},
		{"clone", [6]uint64{17}, Allow},
		{"clone", [6]uint64{0x003d0f00}, Allow}, // a thread
		{"clone", [6]uint64{0x10000000 | 17}, refused},
		{"clone", [6]uint64{0x00020000 | 17}, refused},
		{"clone", [6]uint64{0x40000000}, refused},
		{"personality", [6]uint64{0}, Allow},
		{"personality", [6]uint64{0xffffffff}, Allow},
		{"personality", [6]uint64{0x0040000}, refused}, // ADDR_NO_RANDOMIZE
		{"ioctl", [6]uint64{0, 0x5401}, Allow},
		{"ioctl", [6]uint64{0, 0x5412}, refused},
		{"ioctl", [6]uint64{0, 0x541c}, refused},
	} {
		for _, m := range machines {
			program, err := DefaultFor(Target{Machine: m.name, Caps: usualCaps()}, false)
			if err != nil {
				t.Fatal(err)
			}
			for _, arch := range m.arches {
				n, _ := arch.Number(tt.name)
				if got := program.Run(Data{Number: n, Arch: arch, Args: tt.args}); got != tt.want {
					t.Errorf("%s %s(%#x): got %s, want %s", arch, tt.name, tt.args, got, tt.want)
				}
				// What the kernel cuts off must not hide what is refused.
				hidden := tt.args
				for i := range hidden {
					hidden[i] |= high
				}
				if got := program.Run(Data{Number: n, Arch: arch, Args: hidden}); tt.want == refused && got != refused {
					t.Errorf("%s %s(%#x): got %s, want %s", arch, tt.name, hidden, got, tt.want)
				}
			}
		}
	}
}

func TestSocketcallOnRequest(t *testing.T) {
	call := Data{Number: 102, Arch: I386, Args: [6]uint64{1}}
	for _, tt := range []struct {
		socketcall bool
		want       Action
	}{{false, refused}, {true, Allow}} {
		program, err := DefaultFor(Target{Machine: "amd64", Caps: usualCaps()}, tt.socketcall)
		if err != nil {
			t.Fatal(err)
		}
		if got := program.Run(call); got != tt.want {
			t.Errorf("socketcall %t: got %s, want %s", tt.socketcall, got, tt.want)
		}
	}
}

// TestDefaultCompiledBeforehand holds the generated code to the compiler, and
// lets no other target have it.
func TestDefaultCompiledBeforehand(t *testing.T) {
	for _, m := range machines {
		for name, caps := range capSets() {
			target := Target{Machine: m.name, Caps: caps}
			got, err := DefaultFor(target, false)
			if err != nil {
				t.Fatal(err)
			}
			want, err := compileDefault(target, false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.code, got.code); diff != "" {
				t.Errorf("%s %s (-compiled +given):\n%s", m.name, name, diff)
			}
		}
	}
	here, err := Default(usualCaps())
	if err != nil {
		t.Fatal(err)
	}
	if want := usualCode(runtime.GOARCH); here.Len() != len(want) {
		t.Errorf("Default has %d instructions, want the %d compiled beforehand", here.Len(), len(want))
	}
}

// TestCost holds the filter to G06.
func TestCost(t *testing.T) {
	for _, m := range machines {
		program, err := DefaultFor(Target{Machine: m.name, Caps: usualCaps()}, false)
		if err != nil {
			t.Fatal(err)
		}
		number, _ := m.arches[0].Number("getpid")
		_, steps := program.run(&Data{Number: number, Arch: m.arches[0]})
		worst, sum := 0, 0
		for n := range uint32(470) {
			_, s := program.run(&Data{Number: n, Arch: m.arches[0]})
			worst, sum = max(worst, s), sum+s
		}
		t.Logf("%s: %d instructions; getpid %d, mean %.1f, worst %d", m.name, program.Len(), steps, float64(sum)/470, worst)
		if program.Len() > maxLen || steps > 10 || worst > 24 {
			t.Errorf("%s: %d instructions, getpid takes %d, the worst call %d", m.name, program.Len(), steps, worst)
		}
	}
}

// TestOracleAgreesWithDocker compares how the oracle resolves the profile with how
// Docker's own code does, on this machine.
func TestOracleAgreesWithDocker(t *testing.T) {
	data := mobyJSON(t)
	for name, caps := range capSets() {
		o, err := newOracle(t, data, Target{Machine: runtime.GOARCH, Caps: caps})
		if err != nil {
			t.Fatal(err)
		}
		spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
		resolved, err := moby.LoadProfile(string(data), spec)
		if err != nil {
			t.Fatal(err)
		}
		var got []specs.LinuxSyscall
		for _, r := range o.profile.Syscalls {
			if o.applies(r) {
				got = append(got, r.LinuxSyscall)
			}
		}
		if diff := cmp.Diff(resolved.Syscalls, got); diff != "" {
			t.Errorf("%s (-Docker +oracle):\n%s", name, diff)
		}
	}
}

// TestShippedJSON holds that the file which the module ships is what its code makes.
func TestShippedJSON(t *testing.T) {
	var shipped moby.Seccomp
	if err := json.Unmarshal(mobyJSON(t), &shipped); err != nil {
		t.Fatal(err)
	}
	file, err := json.Marshal(&shipped)
	if err != nil {
		t.Fatal(err)
	}
	code, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(code), string(file)); diff != "" {
		t.Error(diff)
	}
}

// TestNumbersAgainstHeaders compares the tables with the kernel's headers, where
// they are installed.
func TestNumbersAgainstHeaders(t *testing.T) {
	line := regexp.MustCompile(`(?m)^#define __NR_(\w+) (\d+)$`)
	for path, arch := range map[string]Arch{
		"/usr/include/x86_64-linux-gnu/asm/unistd_64.h": AMD64,
		"/usr/include/x86_64-linux-gnu/asm/unistd_32.h": I386,
		"/usr/include/asm-generic/unistd.h":             ARM64,
	} {
		if _, err := os.Stat(path); err != nil {
			t.Logf("not compared: %v", err)
			continue
		}
		numbers, err := readHeader(path, line)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range numbers {
			if got, ok := arch.Number(name); (!ok || got != uint32(want)) && !onlyElsewhere(arch, name) {
				t.Errorf("%s %s is %d (%t), the headers have %d", arch, name, got, ok, want)
			}
		}
	}
}

func readHeader(path string, line *regexp.Regexp) (map[string]int32, error) {
	numbers, err := readNumbers(path, line)
	if err != nil {
		return nil, fmt.Errorf("read kernel header: %w", err)
	}
	return numbers, nil
}

// onlyElsewhere are names of the generic table that arm64 does not have.
func onlyElsewhere(arch Arch, name string) bool {
	return arch == ARM64 && (strings.HasSuffix(name, "time64") || slices.Contains([]string{
		"renameat", "sync_file_range2", "syscalls", "arch_specific_syscall", "getrlimit", "setrlimit", "memfd_secret",
		"clock_settime64", "clock_adjtime64", "clock_gettime64", "timer_gettime64", "timer_settime64", "timerfd_gettime64", "timerfd_settime64",
	}, name))
}
