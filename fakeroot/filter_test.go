// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sbx/seccomp"
)

// The numbers of the system calls as root-emulation.md has them, written down a
// second time on purpose: {amd64, arm64}, -1 where there is none.
var always = map[string][2]int{
	"stat": {4, -1}, "lstat": {6, -1}, "fstat": {5, 80}, "newfstatat": {262, 79}, "statx": {332, 291},
	"chown": {92, -1}, "lchown": {94, -1}, "fchown": {93, 55}, "fchownat": {260, 54},
	"chmod": {90, -1}, "fchmod": {91, 52}, "fchmodat": {268, 53}, "fchmodat2": {452, 452},
	"getuid": {102, 174}, "geteuid": {107, 175}, "getgid": {104, 176}, "getegid": {108, 177},
	"getresuid": {118, 148}, "getresgid": {120, 150}, "getgroups": {115, 158},
	"setuid": {105, 146}, "setgid": {106, 144}, "setreuid": {113, 145}, "setregid": {114, 143},
	"setresuid": {117, 147}, "setresgid": {119, 149}, "setfsuid": {122, 151}, "setfsgid": {123, 152}, "setgroups": {116, 159},
	"bind": {49, 200}, "clone3": {435, 435}, "execve": {59, 221}, "execveat": {322, 281}, "creat": {85, -1}, "openat2": {437, 437},
	"mkdir": {83, -1}, "mkdirat": {258, 34}, "symlink": {88, -1}, "symlinkat": {266, 36}, "mknod": {133, -1}, "mknodat": {259, 33},
	"setxattr": {188, 5}, "lsetxattr": {189, 6}, "fsetxattr": {190, 7}, "setxattrat": {463, 463},
	"removexattr": {197, 14}, "lremovexattr": {198, 15}, "fremovexattr": {199, 16}, "removexattrat": {466, 466},
	"chroot": {161, 51}, "pivot_root": {155, 41}, "setns": {308, 268},
}

// looked are those that mode IDs leaves alone.
var looked = []string{"stat", "lstat", "fstat", "newfstatat", "statx"}

// tested are calls that are handed over only with some arguments.
var tested = []struct {
	name    string
	numbers [2]int
	yes, no [6]uint64
}{
	{"open", [2]int{2, -1}, [6]uint64{1: 0x40 | 2}, [6]uint64{1: 0x8000 | 2, 2: 0x40}},
	{"openat", [2]int{257, 56}, [6]uint64{2: 0x40}, [6]uint64{1: 0x40, 2: 0x10000, 3: 0x40}},
	{"openat tmpfile", [2]int{257, 56}, [6]uint64{2: 0o20000000 | unix.O_DIRECTORY}, [6]uint64{2: unix.O_DIRECTORY}},
	{"openat with rubbish", [2]int{257, 56}, [6]uint64{2: 0xdead_0000_0000_0040}, [6]uint64{2: 0x40_0000_0000}},
	{"getsockopt", [2]int{55, 209}, [6]uint64{1: 1, 2: 17}, [6]uint64{1: 1, 2: 16}},
	{"getsockopt level", [2]int{55, 209}, [6]uint64{1: 1<<32 | 1, 2: 1<<40 | 17}, [6]uint64{1: 6, 2: 17}},
	{"prlimit64", [2]int{302, 261}, [6]uint64{1: 10}, [6]uint64{0: 10, 1: 7}},
	{"setrlimit", [2]int{160, 164}, [6]uint64{0: 10}, [6]uint64{0: 7, 1: 10}},
	{"getrlimit", [2]int{97, 163}, [6]uint64{0: 10}, [6]uint64{0: 0}},
	{"unshare", [2]int{272, 97}, [6]uint64{0: 0x20000 | 0x10000000}, [6]uint64{0: 0x10000000}},
	{"prctl", [2]int{157, 167}, [6]uint64{0: 8, 1: 1}, [6]uint64{0: 7}},
	{"clone", [2]int{56, 220}, [6]uint64{0: 0x20011}, [6]uint64{0: 0x11}},
}

// untouched are some that must never be slowed down.
var untouched = [2][]int{
	{0, 1, 3, 8, 9, 12, 16, 39, 60, 110, 202, 231},
	{63, 64, 57, 62, 222, 214, 29, 172, 93, 173, 98, 94},
}

// compatCalls are those of 32-bit programs: faked, and handed over {i386, arm}.
var compatCalls = struct{ fakes, notifies [][2]int }{
	fakes: [][2]int{
		{182, 182}, {212, 212}, {16, 16}, {198, 198}, {95, 95}, {207, 207}, {298, 325}, {23, 23}, {213, 213}, {46, 46}, {214, 214},
		{70, 70}, {203, 203}, {71, 71}, {204, 204}, {164, 164}, {208, 208}, {170, 170}, {210, 210}, {81, 81}, {206, 206},
		{138, 138}, {215, 215}, {139, 139}, {216, 216},
	},
	notifies: [][2]int{{11, 11}, {358, 387}, {15, 15}, {94, 94}, {306, 333}, {452, 452}, {61, 61}},
}

// differences are all points in which a program is not the filter of the mode.
func differences(p *seccomp.Program, m Mode, arch int) []string {
	own := []seccomp.Arch{seccomp.AMD64, seccomp.ARM64}[arch]
	compat := []seccomp.Arch{seccomp.I386, seccomp.ARM}[arch]
	var wrong []string
	want := func(what string, a seccomp.Arch, number int, args [6]uint64, action seccomp.Action) {
		if number < 0 {
			return
		}
		if got := p.Run(seccomp.Data{Number: uint32(number), Arch: a, Args: args}); got != action {
			wrong = append(wrong, fmt.Sprintf("%s %s %d %v: %v, not %v", a, what, number, args, got, action))
		}
	}
	faked := seccomp.Errno(0)
	for name, numbers := range always {
		action := seccomp.Notify
		switch {
		case m == IDs && slices.Contains(looked, name), m == NotifyFast && name == "fstat":
			action = seccomp.Allow
		case m == Zero && slices.Contains(zeroNames, name):
			action = faked
		case m == Zero:
			action = seccomp.Allow
		}
		want(name, own, numbers[arch], [6]uint64{}, action)
	}
	for _, t := range tested {
		action := seccomp.Notify
		if m == Zero {
			action = seccomp.Allow
		}
		want(t.name, own, t.numbers[arch], t.yes, action)
		want("not "+t.name, own, t.numbers[arch], t.no, seccomp.Allow)
	}
	for _, c := range []struct {
		name   string
		number int
		flags  [6]uint64
	}{{"newfstatat", always["newfstatat"][arch], [6]uint64{3: unix.AT_EMPTY_PATH | unix.AT_SYMLINK_NOFOLLOW}}, {"statx", always["statx"][arch], [6]uint64{2: unix.AT_EMPTY_PATH}}} {
		action := seccomp.Allow
		if m == Notify {
			action = seccomp.Notify
		}
		want(c.name+" of a descriptor", own, c.number, c.flags, action)
	}
	for _, number := range untouched[arch] {
		want("untouched", own, number, [6]uint64{10, 10, 0x40, 10, 10, 10}, seccomp.Allow)
	}
	for _, n := range compatCalls.fakes {
		want("compat", compat, n[arch], [6]uint64{}, faked)
	}
	for _, n := range compatCalls.notifies {
		action := seccomp.Notify
		if m == Zero {
			action = seccomp.Allow
		}
		want("compat", compat, n[arch], [6]uint64{}, action)
	}
	null, whiteout := uint64(1<<8|3), uint64(0)
	want("compat mknod", compat, 14, [6]uint64{1: unix.S_IFCHR | 0o666, 2: null}, faked)
	want("compat mkfifo", compat, 14, [6]uint64{1: unix.S_IFIFO, 2: null}, seccomp.Allow)
	want("compat geteuid", compat, 201, [6]uint64{}, seccomp.Allow)
	if m == Zero {
		want("capset", own, []int{126, 91}[arch], [6]uint64{}, faked)
		want("mknodat of a device", own, []int{259, 33}[arch], [6]uint64{2: unix.S_IFBLK | 0o600, 3: null}, faked)
		want("mknodat of a whiteout", own, []int{259, 33}[arch], [6]uint64{2: unix.S_IFCHR, 3: whiteout}, seccomp.Allow)
		want("mknodat of a file", own, []int{259, 33}[arch], [6]uint64{2: unix.S_IFREG, 3: null}, seccomp.Allow)
	} else {
		want("compat setrlimit", compat, 75, [6]uint64{0: 10}, faked)
		want("compat setrlimit", compat, 75, [6]uint64{0: 7}, seccomp.Allow)
	}
	if arch == 0 {
		want("x32", own, 0x40000000|102, [6]uint64{}, seccomp.Errno(unix.ENOSYS))
	}
	want("foreign", seccomp.Arch(unix.AUDIT_ARCH_RISCV64), 79, [6]uint64{}, seccomp.Allow)
	return wrong
}

func TestFilter(t *testing.T) {
	for arch, name := range []string{"amd64", "arm64"} {
		for _, m := range []Mode{Notify, NotifyFast, IDs, Zero} {
			p, err := filterFor(m, name)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range differences(p, m, arch) {
				t.Errorf("%s, %s: %s", name, m, d)
			}
			t.Logf("%s, %s: %d instructions", name, m, p.Len())
		}
	}
	if p, err := Filter(None); p != nil || err != nil {
		t.Errorf("None: %v, %v", p, err)
	}
	if _, err := Filter(Auto); err == nil {
		t.Error("Auto has a filter")
	}
	if _, err := filterFor(Notify, "riscv64"); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("riscv64: %v", err)
	}
}

// A twin that is wrong in one point is told by the check.
func TestFilterCheckSees(t *testing.T) {
	before := traps
	defer func() { traps = before }()
	for name, spoil := range map[string]func([]trap) []trap{
		"a call is missing":      func(l []trap) []trap { return slices.Delete(l, 18, 19) },
		"a test is missing":      func(l []trap) []trap { l[0].when = nil; return l },
		"the wrong argument":     func(l []trap) []trap { l[0].when = []seccomp.Test{hasBits(1, creating)}; return l },
		"the wrong call":         func(l []trap) []trap { l[1].name = "read"; return l },
		"a test that is ignored": func(l []trap) []trap { l[14].when = l[14].when[:1]; return l },
	} {
		traps = spoil(slices.Clone(before))
		for arch, goarch := range []string{"amd64", "arm64"} {
			p, err := filterFor(Notify, goarch)
			if err != nil {
				t.Fatal(err)
			}
			if len(differences(p, Notify, arch)) == 0 {
				t.Errorf("%s: %s was not seen", goarch, name)
			}
		}
	}
	wrong, err := filterFor(Notify, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if len(differences(wrong, Notify, 0)) == 0 {
		t.Error("the other architecture's filter was not seen")
	}
}

// Every call that the filter hands over has a handler, and is found by its number.
func TestNumbers(t *testing.T) {
	n, err := newNumbers()
	if err != nil {
		t.Fatal(err)
	}
	if got := n.of(&notification{NR: unix.SYS_GETEUID, Arch: uint32(n.machine.own)}); got != callGeteuid {
		t.Errorf("geteuid: %d", got)
	}
	for _, number := range []int32{-1, 511, 512, 1 << 30, unix.SYS_READ} {
		if got := n.of(&notification{NR: number, Arch: uint32(n.machine.own)}); got != callNone {
			t.Errorf("%d: %d", number, got)
		}
	}
	if got := n.of(&notification{NR: unix.SYS_GETEUID, Arch: 77}); got != callNone {
		t.Errorf("foreign: %d", got)
	}
}

func BenchmarkFilter(b *testing.B) {
	for b.Loop() {
		if _, err := Filter(Notify); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		if f := Probe(); !f.Notify {
			b.Fatal(f.Reason)
		}
	}
}
