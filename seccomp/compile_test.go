// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// naive answers from a filter as its documentation says: rule by rule.
func naive(f *Filter, d Data) Action {
	for _, t := range f.Tables {
		if t.Arch != d.Arch {
			continue
		}
		for _, r := range t.Rules {
			if d.Number < r.First || d.Number > r.Last {
				continue
			}
			held := true
			for _, test := range r.Tests {
				v := d.Args[test.Arg]
				if t.Arch == I386 || t.Arch == ARM {
					v &= 0xffffffff
				}
				v &= test.Mask
				held = held && [...]bool{v == test.Value, v != test.Value, v < test.Value, v <= test.Value, v > test.Value, v >= test.Value}[test.Op]
			}
			if held {
				return r.Action
			}
		}
		return t.Default
	}
	return f.Foreign
}

// machine is the program in x/net's interpreter, whose words are big-endian.
type machine struct{ vm *bpf.VM }

func newMachine(t testing.TB, p *Program) machine {
	t.Helper()
	var raw []bpf.RawInstruction
	for _, is := range p.code {
		raw = append(raw, bpf.RawInstruction{Op: is.Code, Jt: is.Jt, Jf: is.Jf, K: is.K})
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program has instructions that x/net does not know")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return machine{vm}
}

func (m machine) run(t testing.TB, d Data) Action {
	t.Helper()
	packet := binary.BigEndian.AppendUint32(nil, d.Number)
	packet = binary.BigEndian.AppendUint32(packet, uint32(d.Arch))
	for _, v := range append([]uint64{d.IP}, d.Args[:]...) {
		packet = binary.BigEndian.AppendUint32(packet, uint32(v))
		packet = binary.BigEndian.AppendUint32(packet, uint32(v>>32))
	}
	action, err := m.vm.Run(packet)
	if err != nil {
		t.Fatal(err)
	}
	return Action(action)
}

// dice makes filters, profiles and calls that have something to do with one
// another: few numbers, and values about a few.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 1))} }

func pick[T any](d dice, from ...T) T { return from[d.IntN(len(from))] }

func (d dice) value() uint64 {
	v := pick[uint64](d, 0, 1, 2, 3, 5, 8, 0x7f, 0xff, 0x5412, 0x7e020000, 0x80000000, 0xfffffffe, 0xffffffff, d.Uint64())
	switch d.IntN(4) {
	case 0:
		v |= pick[uint64](d, 1, 2, 0x80000000, 0xffffffff) << 32
	case 1:
		v += pick[uint64](d, 1, ^uint64(0))
	}
	return v
}

func (d dice) action() Action {
	return pick(d, Allow, Log, Notify, Trap, KillThread, KillProcess, refused, unknown, Errno(0), Trace)
}

func (d dice) number() uint32 {
	return pick(d, d.Uint32N(20), d.Uint32N(500), d.Uint32(), 0, maxNumber, X32Bit, X32Bit-1)
}

func (d dice) filter() *Filter {
	f := &Filter{Foreign: d.action()}
	for _, arch := range []Arch{AMD64, I386, ARM}[:d.IntN(4)] {
		t := Table{Arch: arch, Default: d.action()}
		for range d.IntN(60) {
			r := Rule{First: d.number(), Action: d.action()}
			r.Last = r.First
			if d.IntN(4) == 0 {
				r.Last = max(r.First, d.number())
			}
			for range d.IntN(3) {
				r.Tests = append(r.Tests, Test{d.IntN(2), pick(d, All64, All64, Low32, Low32, d.value(), 0), Op(d.IntN(6)), d.value()})
			}
			t.Rules = append(t.Rules, r)
		}
		f.Tables = append(f.Tables, t)
	}
	return f
}

// call is one that the filter has rules for, more often than not.
func (d dice) call(f *Filter) Data {
	c := Data{Number: d.number(), Arch: pick(d, AMD64, I386, ARM, ARM64), IP: d.Uint64()}
	for i := range c.Args {
		c.Args[i] = d.value()
	}
	if len(f.Tables) == 0 || d.IntN(5) == 0 {
		return c
	}
	t := f.Tables[d.IntN(len(f.Tables))]
	c.Arch = t.Arch
	if len(t.Rules) == 0 {
		return c
	}
	r := t.Rules[d.IntN(len(t.Rules))]
	c.Number = r.First + pick[uint32](d, 0, 0, 0, 1, ^uint32(0), r.Last-r.First, r.Last-r.First+1)
	for _, test := range r.Tests {
		if d.IntN(3) > 0 {
			c.Args[test.Arg] = test.Value + pick[uint64](d, 0, 0, 1, ^uint64(0), 1<<32)
		}
	}
	return c
}

// TestCompile compares programs of random filters with the naive reading of the
// filter, in our interpreter and in x/net's.
func TestCompile(t *testing.T) {
	for seed := range uint64(1500) {
		d := newDice(seed)
		f := d.filter()
		p, err := f.Compile()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		checkShape(t, p)
		vm := newMachine(t, p)
		for range 200 {
			c := d.call(f)
			want := naive(f, c)
			if got := p.Run(c); got != want {
				t.Fatalf("seed %d: %s %d %#x: got %s, want %s", seed, c.Arch, c.Number, c.Args, got, want)
			}
			if got := vm.run(t, c); got != want {
				t.Fatalf("seed %d: %s %d %#x: x/net got %s, want %s", seed, c.Arch, c.Number, c.Args, got, want)
			}
		}
	}
}

// checkShape is what the kernel wants of a program (bpf_check_classic,
// seccomp_check_filter), and that nothing in it ends the walk by which it learns
// what is always allowed.
func checkShape(t *testing.T, p *Program) {
	t.Helper()
	if n := len(p.code); n == 0 || n > maxLen || p.code[n-1].Code != opReturn {
		t.Fatalf("%d instructions", n)
	}
	for i, is := range p.code {
		furthest := 0
		switch is.Code {
		case opReturn, opAnd:
		case opLoad:
			if is.K%4 != 0 || is.K > 60 {
				t.Fatalf("instruction %d loads from %d", i, is.K)
			}
		case opJump:
			furthest = int(is.K)
		case opIfEqual, opIfGreater, opIfGreaterOrEqual:
			furthest = int(max(is.Jt, is.Jf))
		default:
			t.Fatalf("instruction %d is %#x", i, is.Code)
		}
		if i+1+furthest >= len(p.code) && is.Code != opReturn {
			t.Fatalf("instruction %d leads out of the program", i)
		}
	}
}

// TestCompileFar makes jumps that a conditional jump cannot hold.
func TestCompileFar(t *testing.T) {
	f := &Filter{Foreign: Trap}
	for _, arch := range []Arch{AMD64, I386} {
		table := Table{Arch: arch, Default: refused}
		for n := uint32(0); n < 600; n += 2 {
			table.Rules = append(table.Rules, Rule{n, n, []Test{{0, All64, Equal, uint64(n) << 31}}, Errno(unix.Errno(n))})
		}
		f.Tables = append(f.Tables, table)
	}
	p, err := f.Compile()
	if err != nil {
		t.Fatal(err)
	}
	checkShape(t, p)
	for n := uint32(0); n < 610; n++ {
		for _, arch := range []Arch{AMD64, I386, ARM} {
			for _, v := range []uint64{0, uint64(n) << 31, uint64(n)<<31 | 1} {
				d := Data{Number: n, Arch: arch, Args: [6]uint64{v}}
				if got, want := p.Run(d), naive(f, d); got != want {
					t.Fatalf("%s %d %#x: got %s, want %s", arch, n, v, got, want)
				}
			}
		}
	}
	t.Logf("%d instructions", p.Len())
}

func TestCompileRefuses(t *testing.T) {
	long := Table{Arch: AMD64, Default: Allow}
	for n := range uint32(2000) {
		long.Rules = append(long.Rules, Rule{n, n, []Test{{int(n % 6), All64, Greater, uint64(n) << 20}}, refused})
	}
	for _, tt := range []struct {
		name string
		f    Filter
		want string
	}{
		{"two tables", Filter{Tables: []Table{{Arch: ARM}, {Arch: ARM}}}, "two tables for arm"},
		{"backwards", Filter{Tables: []Table{{Arch: ARM, Rules: []Rule{{First: 2, Last: 1}}}}}, "a rule for 2 to 1"},
		{"argument", Filter{Tables: []Table{{Arch: ARM, Rules: []Rule{{Tests: []Test{{Arg: 6}}}}}}}, "argument 6"},
		{"operator", Filter{Tables: []Table{{Arch: ARM, Rules: []Rule{{Tests: []Test{{Op: 6}}}}}}}, "operator 6"},
		{"too long", Filter{Tables: []Table{long}}, "longer than the 4096 instructions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.f.Compile()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
	var typed *ProfileError
	_, err := (&Filter{Tables: []Table{long}}).Compile()
	if !errors.As(err, &typed) || typed.Hint() == "" {
		t.Errorf("no hint in %v", err)
	}
}

// TestEmulationFilter compiles the kind of filter that emulates root: what is in
// its table is answered by somebody else, in part by its arguments, and all else
// is allowed.
func TestEmulationFilter(t *testing.T) {
	const creating = unix.O_CREAT | 0o20000000
	one := func(n uint32, a Action, tests ...Test) Rule { return Rule{n, n, tests, a} }
	f := &Filter{
		Foreign: Allow,
		Tables: []Table{
			{AMD64, []Rule{
				one(257, Notify, Test{2, creating, NotEqual, 0}),
				one(302, Errno(0), Test{1, Low32, Equal, unix.RLIMIT_LOCKS}),
				one(55, Notify, Test{1, Low32, Equal, unix.SOL_SOCKET}, Test{2, Low32, Equal, 17}),
				one(107, Notify),
				{X32Bit, maxNumber, nil, unknown},
			}, Allow},
			{I386, []Rule{one(212, Errno(0))}, Allow},
		},
	}
	p, err := f.Compile()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		d    Data
		want Action
	}{
		{Data{Number: 257, Arch: AMD64, Args: [6]uint64{0, 0, unix.O_RDONLY}}, Allow},
		{Data{Number: 257, Arch: AMD64, Args: [6]uint64{0, 0, unix.O_CREAT | unix.O_WRONLY}}, Notify},
		{Data{Number: 302, Arch: AMD64, Args: [6]uint64{0, 10 | 7<<32}}, Errno(0)},
		{Data{Number: 302, Arch: AMD64, Args: [6]uint64{0, 7}}, Allow},
		{Data{Number: 55, Arch: AMD64, Args: [6]uint64{3, 1, 17}}, Notify},
		{Data{Number: 55, Arch: AMD64, Args: [6]uint64{3, 1, 18}}, Allow},
		{Data{Number: 107, Arch: AMD64}, Notify},
		{Data{Number: 107 | X32Bit, Arch: AMD64}, unknown},
		{Data{Number: 107, Arch: I386}, Allow},
		{Data{Number: 212, Arch: I386}, Errno(0)},
		{Data{Number: 107, Arch: ARM}, Allow},
	} {
		if got := p.Run(tt.d); got != tt.want {
			t.Errorf("%s %d %#x: got %s, want %s", tt.d.Arch, tt.d.Number, tt.d.Args, got, tt.want)
		}
	}
}

func TestNilProgram(t *testing.T) {
	var p *Program
	if p.Fprog() != nil || p.Flags() != 0 || p.Len() != 0 || p.Run(Data{}) != Allow {
		t.Error("a nil program is not no filter")
	}
}

func TestRunOfWhatTheKernelRefuses(t *testing.T) {
	for _, code := range [][]unix.SockFilter{
		{},
		{{Code: opLoad, K: 2}, {Code: opReturn, K: uint32(Allow)}},
		{{Code: opLoad, K: 64}, {Code: opReturn, K: uint32(Allow)}},
		{{Code: opJump, K: 7}, {Code: opReturn, K: uint32(Allow)}},
		{{Code: unix.BPF_MISC}, {Code: opReturn, K: uint32(Allow)}},
	} {
		if got := (&Program{code: code}).Run(Data{}); got != KillProcess {
			t.Errorf("%v: got %s", code, got)
		}
	}
}

func TestActionString(t *testing.T) {
	for a, want := range map[Action]string{
		Allow: "allow", Log: "log", Trace | 3: "trace", Notify: "notify", Trap: "trap", KillThread: "kill thread", KillProcess: "kill process",
		refused: "EPERM", unknown: "ENOSYS", Errno(5000): "errno 4095", Errno(0): "errno 0", 0x12340000: "action 0x12340000",
	} {
		if got := a.String(); got != want {
			t.Errorf("%#x: got %q, want %q", uint32(a), got, want)
		}
	}
	order := []Action{KillProcess, KillThread, Trap, refused, Notify, Trace, Log, Allow}
	for i := range order[1:] {
		if order[i].Compare(order[i+1]) >= 0 {
			t.Errorf("%s is not stricter than %s", order[i], order[i+1])
		}
	}
}
