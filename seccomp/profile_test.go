// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var profileNames = []string{
	"read", "getpid", "socket", "clone", "personality", "ioctl", "stat64", "socketcall", "arch_prctl", "removexattrat", "cachestat", "cacheflush",
	"set_tls", "no_such_call", "openat2", "arm_sync_file_range", "sync_file_range2",
}

// profile makes one in Docker's format, with all that may go together in it.
func (d dice) profile() []byte {
	p := moby.Seccomp{}
	p.DefaultAction, p.DefaultErrnoRet = d.jsonAction()
	switch d.IntN(4) {
	case 0:
		p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchARM, specs.ArchS390}[:d.IntN(5)]
	case 1, 2:
		p.ArchMap = []moby.Architecture{
			{Arch: specs.ArchS390X, SubArches: []specs.Arch{specs.ArchS390}},
			{Arch: specs.ArchX86_64, SubArches: []specs.Arch{specs.ArchX86, specs.ArchX32}[:d.IntN(3)]},
			{Arch: specs.ArchX86_64, SubArches: []specs.Arch{specs.ArchX86}},
			{Arch: specs.ArchAARCH64, SubArches: []specs.Arch{specs.ArchARM}},
		}[:1+d.IntN(4)]
	}
	for range d.IntN(12) {
		r := &moby.Syscall{}
		r.Action, r.ErrnoRet = d.jsonAction()
		if d.IntN(8) == 0 {
			r.Name = pick(d, profileNames...)
		} else {
			for range d.IntN(4) {
				r.Names = append(r.Names, pick(d, profileNames...))
			}
		}
		for range max(0, d.IntN(5)-2) {
			r.Args = append(r.Args, specs.LinuxSeccompArg{
				Index: uint(d.IntN(3)), Value: d.value(), ValueTwo: d.value(),
				Op: pick(d, specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual),
			})
		}
		if d.IntN(4) == 0 {
			r.Includes = d.jsonFilter()
		}
		if d.IntN(4) == 0 {
			r.Excludes = d.jsonFilter()
		}
		p.Syscalls = append(p.Syscalls, r)
	}
	data, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return data
}

func (d dice) jsonAction() (specs.LinuxSeccompAction, *uint) {
	errno := uint(d.IntN(60))
	switch d.IntN(6) {
	case 0:
		return specs.ActErrno, &errno
	case 1:
		return specs.ActTrace, &errno
	}
	return pick(d, specs.ActAllow, specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActTrap, specs.ActLog, specs.ActTrace), nil
}

func (d dice) jsonFilter() *moby.Filter {
	f := &moby.Filter{
		Caps:   []string{"CAP_A", "CAP_B"}[:d.IntN(3)],
		Arches: []string{"amd64", "arm64"}[:d.IntN(3)],
	}
	if d.IntN(2) == 0 {
		f.MinKernel = &moby.KernelVersion{Kernel: 4, Major: uint64(8 + d.IntN(3))}
	}
	return f
}

func (d dice) target() Target {
	return Target{
		Machine: pick(d, "amd64", "amd64", "arm64"),
		Caps:    []string{"CAP_B", "CAP_A"}[:d.IntN(3)],
		Kernel:  pick(d, Kernel{}, Kernel{4, 8}, Kernel{4, 9}, Kernel{3, 99}, Kernel{6, 1}),
	}
}

// callOf is one that the profile has rules for, more often than not.
func (d dice) callOf(o *oracle) Data {
	c := Data{Number: d.Uint32N(520), Arch: pick(d, AMD64, I386, ARM64, ARM, 7)}
	for i := range c.Args {
		c.Args[i] = d.value()
	}
	if d.IntN(8) == 0 {
		c.Number = d.number()
	}
	if len(o.profile.Syscalls) == 0 || d.IntN(6) == 0 {
		return c
	}
	r := pick(d, o.profile.Syscalls...)
	names := append([]string{r.Name}, r.Names...)
	if n, ok := o.numbers[c.Arch][pick(d, names...)]; ok {
		c.Number = uint32(n) + pick[uint32](d, 0, 0, 0, 0, 0, 1, X32Bit)
	}
	for _, a := range r.Args {
		if v := pick(d, a.Value, a.ValueTwo, a.Value&a.ValueTwo); d.IntN(3) > 0 && a.Index < 6 {
			c.Args[a.Index] = v + pick[uint64](d, 0, 0, 0, 1, ^uint64(0), 1<<32)
		}
	}
	return c
}

// compareProfile looks for a call that the compiled profile and the oracle answer
// differently.
func compareProfile(p *Program, o *oracle, d dice, calls int) error {
	for range calls {
		c := d.callOf(o)
		if got, want := p.Run(c), o.answer(c); uint32(got) != want {
			return fmt.Errorf("%s %d %#x: got %s, want %s", c.Arch, c.Number, c.Args, got, Action(want))
		}
	}
	return nil
}

// TestProfile compares compiled profiles with the oracle.
func TestProfile(t *testing.T) {
	for seed := range uint64(1500) {
		d := newDice(seed)
		data, target := d.profile(), d.target()
		p, o := compiled(t, data, target)
		if err := compareProfile(p, o, d, 100); err != nil {
			t.Fatalf("seed %d: %v\n%+v\n%s", seed, err, target, data)
		}
	}
}

func compiled(t *testing.T, data []byte, target Target) (*Program, *oracle) {
	t.Helper()
	profile, err := Parse(data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	p, err := profile.Compile(target)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	o, err := newOracle(t, data, target)
	if err != nil {
		t.Fatal(err)
	}
	return p, o
}

// TestTwins wants the comparison to find each mistake that a twin of the oracle
// makes: one that it would not find in the oracle, it would not find in us.
func TestTwins(t *testing.T) {
	for _, twin := range twins {
		t.Run(string(twin), func(t *testing.T) {
			for seed := range uint64(4000) {
				d := newDice(seed)
				data, target := d.profile(), d.target()
				p, o := compiled(t, data, target)
				o.twin = twin
				if err := compareProfile(p, o, d, 50); err != nil {
					t.Logf("after %d profiles: %v", seed+1, err)
					return
				}
			}
			t.Error("it went unseen")
		})
	}
}

// TestProfilesOfOthers parses the profiles that come with Docker's module and, if
// installed, podman's, and compares them with the oracle.
func TestProfilesOfOthers(t *testing.T) {
	dir, err := moduleDir("github.com/moby/profiles/seccomp")
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "fixtures", "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range append(paths, filepath.Join(dir, "default.json"), "/usr/share/containers/seccomp.json") {
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			t.Logf("not compared: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(20) {
			d := newDice(seed)
			target := d.target()
			target.Caps = pick(d, nil, []string{"CAP_SYS_ADMIN"}, []string{"CAP_SYS_CHROOT", "CAP_AUDIT_WRITE"})
			p, o := compiled(t, data, target)
			if err := compareProfile(p, o, d, 2000); err != nil {
				t.Errorf("%s for %+v: %v", filepath.Base(path), target, err)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, want, hint string }{
		{"nothing", ``, "unexpected end of JSON input", ""},
		{"not JSON", `seccomp`, "invalid character", ""},
		{"empty", `{}`, "it has no defaultAction", "seccomp=unconfined"},
		{"null", `null`, "it has no defaultAction", "seccomp=unconfined"},
		{"list", `[]`, "cannot unmarshal array", ""},
		{"action", `{"defaultAction":"ALLOW"}`, `defaultAction: action "ALLOW" is not known`, ""},
		{"errno of allow", `{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}`, "takes no errno", ""},
		{"errno", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":65536}`, "errno 65536 is greater than 65535", ""},
		{"negative errno", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":-1}`, "cannot unmarshal number -1", ""},
		{"notify", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}`, "syscalls[0]: action SCMP_ACT_NOTIFY: there is no listener", "SCMP_ACT_ERRNO"},
		{"both arches", `{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}`, "both architectures and archMap", ""},
		{"arch", `{"defaultAction":"SCMP_ACT_LOG","architectures":["amd64"]}`, `architecture "amd64" is not known`, ""},
		{"arch in map", `{"defaultAction":"SCMP_ACT_LOG","archMap":[{"architecture":"amd64"}]}`, `architecture "amd64" is not known`, ""},
		{"sub arch", `{"defaultAction":"SCMP_ACT_LOG","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":[""]}]}`, `architecture "" is not known`, ""},
		{"flag", `{"defaultAction":"SCMP_ACT_LOG","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}`, "is not known", ""},
		{"both names", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_LOG"}]}`, "both name and names", ""},
		{"empty name", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":[""],"action":"SCMP_ACT_LOG"}]}`, "a name is empty", ""},
		{"no action", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["a"]}]}`, `action "" is not known`, ""},
		{"null rule", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[null]}`, "syscalls[0]: it is null", ""},
		{"index", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}`, "index 6", ""},
		{"operator", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"op":"=="}]}]}`, `operator "==" is not known`, ""},
		{"kernel", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","includes":{"minKernel":"five"}}]}`, `minKernel "five"`, ""},
		{"kernel 0", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","excludes":{"minKernel":"0.0"}}]}`, `minKernel "0.0"`, ""},
		{"large", `"` + strings.Repeat("x", maxProfile) + `"`, "more than 1048576", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse([]byte(tt.in))
			if err == nil || p != nil {
				t.Fatal("parsed")
			}
			var typed *ProfileError
			if !errors.As(err, &typed) || !strings.Contains(typed.Hint(), tt.hint) || (tt.hint == "") != (typed.Hint() == "") {
				t.Errorf("the hint of %v is not about %q", err, tt.hint)
			}
			if !strings.HasPrefix(err.Error(), "parse seccomp profile: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestProfileRefuses(t *testing.T) {
	p, err := Parse([]byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Compile(Target{Machine: "s390x"}); err == nil || err.Error() != "build seccomp filter: architecture s390x is not known" {
		t.Errorf("got %v", err)
	}
	long := moby.Seccomp{}
	long.DefaultAction = specs.ActErrno
	for i, c := range calls {
		for v := range uint64(6) {
			r := &moby.Syscall{}
			r.Names, r.Action = []string{c.name}, specs.ActAllow
			r.Args = []specs.LinuxSeccompArg{{Index: uint(v), Value: uint64(i) << 31, Op: specs.OpGreaterThan}}
			long.Syscalls = append(long.Syscalls, r)
		}
	}
	data, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = Parse(data); err != nil {
		t.Fatal(err)
	}
	var typed *ProfileError
	if _, err := p.Compile(Target{Machine: "amd64"}); !errors.As(err, &typed) {
		t.Errorf("got %v", err)
	}
}

// TestProfileBounded gives names and tests that would multiply to millions.
func TestProfileBounded(t *testing.T) {
	names := strings.Repeat(`"dup",`, 50000) + `"dup"`
	args := strings.Repeat(`{"op":"SCMP_CMP_EQ"},`, 20000) + `{"op":"SCMP_CMP_EQ"}`
	p, err := Parse([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"action":"SCMP_ACT_ALLOW","names":[` + names + `],"args":[` + args + `]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var typed *ProfileError
	if _, err := p.Compile(Target{Machine: "amd64"}); !errors.As(err, &typed) || typed.Hint() == "" {
		t.Errorf("got %v", err)
	}
}

func TestProfileFlags(t *testing.T) {
	for flags, want := range map[string]uintptr{
		``: 4, `"SECCOMP_FILTER_FLAG_TSYNC"`: 4, `"SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"`: 6,
	} {
		p, err := Parse([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","flags":[` + flags + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		program, err := p.Compile(Target{Machine: "arm64"})
		if err != nil {
			t.Fatal(err)
		}
		if got := program.Flags(); got != want {
			t.Errorf("%s: got %d, want %d", flags, got, want)
		}
	}
}

func TestParseKernel(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Kernel
	}{{"6.18.44-fc-v669", Kernel{6, 18}}, {"5.10", Kernel{5, 10}}, {"3.12-1-amd64", Kernel{3, 12}}, {"7", Kernel{}}, {"", Kernel{}}} {
		got, err := ParseKernel(tt.in)
		if diff := cmp.Diff(tt.want, got); diff != "" || (err != nil) != (tt.want == Kernel{}) {
			t.Errorf("%q: %v %s", tt.in, err, diff)
		}
	}
}

// FuzzProfile compares what is compiled of any text with the oracle.
func FuzzProfile(f *testing.F) {
	f.Add(mobyJSON(f), uint64(1))
	for seed := range uint64(30) {
		f.Add(newDice(seed).profile(), seed)
	}
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW","args":null}]}`), uint64(2))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		profile, err := Parse(data)
		if err != nil {
			return
		}
		d := newDice(seed)
		target := d.target()
		p, err := profile.Compile(target)
		if err != nil {
			var typed *ProfileError
			if !errors.As(err, &typed) {
				t.Fatal(err)
			}
			return
		}
		checkShape(t, p)
		o, err := newOracle(t, data, target)
		if err != nil || slices.Contains(o.profile.Syscalls, nil) {
			return // Docker reads more fields than we do, and refuses what is wrong in them
		}
		if err := compareProfile(p, o, d, 200); err != nil {
			t.Fatalf("%v\n%+v", err, target)
		}
	})
}
