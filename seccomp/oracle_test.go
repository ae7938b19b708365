// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// oracle answers calls from a profile in Docker's own types, rule by rule in the
// order of the file. It shares nothing with what it judges: no table of numbers, no
// action, no comparison. Its faults are those of naive twins, which a comparison
// with it must find.
type oracle struct {
	profile moby.Seccomp
	target  Target
	numbers map[Arch]map[string]int32
	twin    twin
	seen    map[Arch]*named
}

// named is what of a profile is about one architecture.
type named struct {
	rules  map[uint32][]*moby.Syscall
	newest int32
}

// twin is a mistake that someone could make.
type twin string

const (
	exact         twin = ""
	lowHalf       twin = "compares low halves only"
	wideOn32      twin = "looks at the high halves of 32-bit arguments"
	firstMatch    twin = "takes the first rule that holds, not the strictest"
	alwaysTests   twin = "lets tests stand beside a rule without"
	allTests      twin = "wants all tests of one argument"
	noNewest      twin = "answers newer numbers as denied ones"
	defaultTwice  twin = "takes a rule that says what the default says"
	orEqual       twin = "takes less for less or equal"
	openX32       twin = "lets x32 through"
	anyCap        twin = "is content with one capability"
	foreignAsMine twin = "judges other architectures by its own"
)

var twins = []twin{lowHalf, wideOn32, firstMatch, alwaysTests, allTests, noNewest, defaultTwice, orEqual, openX32, anyCap, foreignAsMine}

func newOracle(t testing.TB, data []byte, target Target) (*oracle, error) {
	o := &oracle{target: target, numbers: tables(t), seen: map[Arch]*named{}}
	return o, json.Unmarshal(data, &o.profile)
}

// Raw values of linux/seccomp.h.
const (
	rawKillProcess = 0x80000000
	rawEPERM       = 0x00050001
	rawENOSYS      = 0x00050026
	rawAllow       = 0x7fff0000
)

func rawAction(a specs.LinuxSeccompAction, errno *uint) uint32 {
	number := uint32(1)
	if errno != nil {
		number = uint32(*errno)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return 0
	case specs.ActKillProcess:
		return rawKillProcess
	case specs.ActTrap:
		return 0x00030000
	case specs.ActErrno:
		return 0x00050000 + number
	case specs.ActTrace:
		return 0x7ff00000 + number
	case specs.ActLog:
		return 0x7ffc0000
	case specs.ActAllow:
		return rawAllow
	}
	return 0xdead0000
}

func stricter(a, b uint32) bool { return int32(a&0xffff0000) < int32(b&0xffff0000) }

// own are the architectures of the target, as Docker and the kernel have them.
func (o *oracle) own() (machine Arch, subs map[Arch]specs.Arch) {
	if o.target.Machine == "arm64" {
		return 0xc00000b7, map[Arch]specs.Arch{0xc00000b7: specs.ArchAARCH64, 0x40000028: specs.ArchARM}
	}
	return 0xc000003e, map[Arch]specs.Arch{0xc000003e: specs.ArchX86_64, 0x40000003: specs.ArchX86}
}

func (o *oracle) judged(arch Arch) bool {
	machine, names := o.own()
	if arch == machine {
		return true
	}
	name, ok := names[arch]
	if !ok {
		return false
	}
	for _, m := range o.profile.ArchMap {
		if m.Arch == names[machine] {
			return slices.Contains(m.SubArches, name)
		}
	}
	return slices.Contains(o.profile.Architectures, name)
}

func (o *oracle) answer(d Data) uint32 {
	if !o.judged(d.Arch) {
		if o.twin != foreignAsMine {
			return rawKillProcess
		}
		d.Arch, _ = o.own()
	}
	if d.Arch == 0xc000003e && d.Number >= 1<<30 && o.twin != openX32 {
		return rawENOSYS
	}
	byDefault := rawAction(o.profile.DefaultAction, o.profile.DefaultErrnoRet)
	var plain, tested []uint32
	about := o.about(d.Arch)
	for _, r := range about.rules[d.Number] {
		action := rawAction(r.Action, r.ErrnoRet)
		switch {
		case action == byDefault && o.twin != defaultTwice:
		case len(r.Args) == 0:
			plain = append(plain, action)
		case o.hold(r.Args, d):
			tested = append(tested, action)
		}
	}
	return o.choose(plain, tested, byDefault, about.newest > 0 && int64(d.Number) > int64(about.newest))
}

func (o *oracle) about(arch Arch) *named {
	if about, ok := o.seen[arch]; ok {
		return about
	}
	about := &named{rules: map[uint32][]*moby.Syscall{}, newest: -1}
	o.seen[arch] = about
	for _, r := range o.profile.Syscalls {
		if !o.applies(r) {
			continue
		}
		names := r.Names
		if r.Name != "" {
			names = []string{r.Name}
		}
		for _, name := range names {
			if n, ok := o.numbers[arch][name]; ok {
				about.rules[uint32(n)] = append(about.rules[uint32(n)], r)
				if n < 0xf0000 {
					about.newest = max(about.newest, n)
				}
			}
		}
	}
	return about
}

func (o *oracle) choose(plain, tested []uint32, byDefault uint32, isNewer bool) uint32 {
	if o.twin == alwaysTests && len(tested) > 0 {
		plain = nil
	}
	if len(plain) > 0 {
		return plain[0]
	}
	if len(tested) > 0 {
		best := tested[0]
		for _, a := range tested {
			if stricter(a, best) && o.twin != firstMatch {
				best = a
			}
		}
		return best
	}
	if isNewer && stricter(byDefault, 0x7ff00000) && o.twin != noNewest {
		return rawENOSYS
	}
	return byDefault
}

func (o *oracle) applies(r *moby.Syscall) bool {
	contains := func(c string) bool { return slices.Contains(o.target.Caps, c) }
	newer := func(k *moby.KernelVersion) bool {
		have := o.target.Kernel
		return have == Kernel{} || have.Major*1000+have.Minor >= int(k.Kernel)*1000+int(k.Major)
	}
	if in := r.Includes; in != nil {
		if len(in.Arches) > 0 && !slices.Contains(in.Arches, o.target.Machine) {
			return false
		}
		if o.twin == anyCap {
			if len(in.Caps) > 0 && !slices.ContainsFunc(in.Caps, contains) {
				return false
			}
		} else {
			for _, c := range in.Caps {
				if !contains(c) {
					return false
				}
			}
		}
		if in.MinKernel != nil && in.MinKernel.String() != "" && !newer(in.MinKernel) {
			return false
		}
	}
	if out := r.Excludes; out != nil {
		if slices.Contains(out.Arches, o.target.Machine) || slices.ContainsFunc(out.Caps, contains) {
			return false
		}
		if out.MinKernel != nil && out.MinKernel.String() != "" && newer(out.MinKernel) {
			return false
		}
	}
	return true
}

// hold reports whether the tests of a rule do.
func (o *oracle) hold(args []specs.LinuxSeccompArg, d Data) bool {
	byIndex := map[uint]int{}
	held := 0
	for _, a := range args {
		byIndex[a.Index]++
		if o.holds(a, d) {
			held++
		}
	}
	if len(byIndex) < len(args) && o.twin != allTests {
		return held > 0
	}
	return held == len(args)
}

func (o *oracle) holds(a specs.LinuxSeccompArg, d Data) bool {
	have, value, second := d.Args[a.Index], a.Value, a.ValueTwo
	is32 := d.Arch == 0x40000003 || d.Arch == 0x40000028
	if is32 {
		value, second = value&0xffffffff, second&0xffffffff
	}
	if is32 && o.twin != wideOn32 || o.twin == lowHalf {
		have &= 0xffffffff
	}
	switch a.Op {
	case specs.OpEqualTo:
		return have == value
	case specs.OpNotEqual:
		return have != value
	case specs.OpLessThan:
		return have < value || o.twin == orEqual && have == value
	case specs.OpLessEqual:
		return have <= value
	case specs.OpGreaterThan:
		return have > value
	case specs.OpGreaterEqual:
		return have >= value
	case specs.OpMaskedEqual:
		return have&value == second&value
	}
	return false
}

// tables are the numbers of all architectures, as x/sys has them.
func tables(t testing.TB) map[Arch]map[string]int32 {
	t.Helper()
	all, err := readTables()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var readTables = sync.OnceValues(func() (map[Arch]map[string]int32, error) {
	dir, err := moduleDir("golang.org/x/sys")
	if err != nil {
		return nil, err
	}
	all := map[Arch]map[string]int32{}
	line := regexp.MustCompile(`(?m)^\tSYS_(\w+)\s*=\s*(\d+)$`)
	for arch, name := range map[Arch]string{0xc000003e: "amd64", 0x40000003: "386", 0xc00000b7: "arm64", 0x40000028: "arm"} {
		if all[arch], err = readNumbers(filepath.Join(dir, "unix", "zsysnum_linux_"+name+".go"), line); err != nil {
			return nil, err
		}
	}
	// Calls that ARM's table does not have (asm/unistd.h there), and the second
	// name of one that libseccomp knows.
	for name, n := range map[string]int32{
		"breakpoint": 0xf0001, "cacheflush": 0xf0002, "usr26": 0xf0003, "usr32": 0xf0004, "set_tls": 0xf0005, "get_tls": 0xf0006,
		"sync_file_range2": 341,
	} {
		all[0x40000028][name] = n
	}
	// Constants of those headers that are no calls.
	delete(all[0xc00000b7], "arch_specific_syscall")
	delete(all[0x40000028], "syscall_mask")
	return all, nil
})

// readNumbers reads lines of a name and a number.
func readNumbers(path string, line *regexp.Regexp) (map[string]int32, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	numbers := map[string]int32{}
	for _, m := range line.FindAllStringSubmatch(string(data), -1) {
		n, err := strconv.ParseInt(m[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		numbers[strings.ToLower(m[1])] = int32(n)
	}
	if len(numbers) < 300 {
		return nil, fmt.Errorf("%s: only %d numbers", path, len(numbers))
	}
	return numbers, nil
}

// moduleDir is where a module's sources are.
func moduleDir(module string) (string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "-m", module).Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// mobyJSON is Docker's profile as the module ships it.
func mobyJSON(t testing.TB) []byte {
	t.Helper()
	dir, err := moduleDir("github.com/moby/profiles/seccomp")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "default.json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
