// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxProfile bounds what is parsed. Docker's own has 18 kB.
const maxProfile = 1 << 20

// The form of Docker's profiles (github.com/moby/profiles/seccomp). As there,
// fields of other names mean nothing.
type (
	profileJSON struct {
		DefaultAction   string   `json:"defaultAction"`
		DefaultErrnoRet *uint64  `json:"defaultErrnoRet"`
		Architectures   []string `json:"architectures"`
		ArchMap         []struct {
			Architecture     string   `json:"architecture"`
			SubArchitectures []string `json:"subArchitectures"`
		} `json:"archMap"`
		Flags    []string    `json:"flags"`
		Syscalls []*ruleJSON `json:"syscalls"`
	}
	ruleJSON struct {
		Name     string         `json:"name"`
		Names    []string       `json:"names"`
		Action   string         `json:"action"`
		ErrnoRet *uint64        `json:"errnoRet"`
		Args     []testJSON     `json:"args"`
		Includes *conditionJSON `json:"includes"`
		Excludes *conditionJSON `json:"excludes"`
	}
	testJSON struct {
		Index    uint64 `json:"index"`
		Value    uint64 `json:"value"`
		ValueTwo uint64 `json:"valueTwo"`
		Op       string `json:"op"`
	}
	conditionJSON struct {
		Caps      []string `json:"caps"`
		Arches    []string `json:"arches"`
		MinKernel *string  `json:"minKernel"`
	}
)

// Parse reads a profile in Docker's format. Unlike Docker it refuses one without
// a default action, which there switches seccomp off.
func Parse(data []byte) (*Profile, error) {
	p, err := parse(data)
	if err == nil {
		return p, nil
	}
	wrapped := fmt.Errorf("parse seccomp profile: %w", err)
	var typed *ProfileError
	if errors.As(err, &typed) {
		return nil, &ProfileError{wrapped, typed.hint}
	}
	return nil, &ProfileError{cause: wrapped}
}

func parse(data []byte) (*Profile, error) {
	if len(data) > maxProfile {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(data), maxProfile)
	}
	var j profileJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, err
	}
	if j.DefaultAction == "" {
		return nil, &ProfileError{errors.New("it has no defaultAction"), "to run without a filter, say seccomp=unconfined"}
	}
	if len(j.Architectures) > 0 && len(j.ArchMap) > 0 {
		return nil, errors.New("it has both architectures and archMap")
	}
	p := &Profile{}
	var err error
	if p.action, err = parseAction(j.DefaultAction, j.DefaultErrnoRet); err != nil {
		return nil, fmt.Errorf("defaultAction: %w", err)
	}
	if err := p.setArches(&j); err != nil {
		return nil, err
	}
	for _, name := range j.Flags {
		flag, err := parseFlag(name)
		if err != nil {
			return nil, err
		}
		p.flags |= flag
	}
	for i, r := range j.Syscalls {
		rule, err := r.parse()
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		p.rules = append(p.rules, rule)
	}
	return p, nil
}

// parseFlag has no flag where it makes no difference: the thread that installs the
// filter is the only one of its process, SPEC_ALLOW is always set, and there is no
// listener.
func parseFlag(name string) (uintptr, error) {
	switch name {
	case "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":
		return 0, nil
	case "SECCOMP_FILTER_FLAG_LOG":
		return unix.SECCOMP_FILTER_FLAG_LOG, nil
	}
	return 0, fmt.Errorf("flag %q is not known", name)
}

// parseArches reads names of architectures. Those that no machine of ours runs
// programs of are left out: no call can come from there.
func parseArches(names ...string) ([]Arch, error) {
	var arches []Arch
	for _, name := range names {
		switch name {
		case "SCMP_ARCH_X86_64":
			arches = append(arches, AMD64)
		case "SCMP_ARCH_X86":
			arches = append(arches, I386)
		case "SCMP_ARCH_AARCH64":
			arches = append(arches, ARM64)
		case "SCMP_ARCH_ARM":
			arches = append(arches, ARM)
		default:
			if !strings.HasPrefix(name, "SCMP_ARCH_") {
				return nil, fmt.Errorf("architecture %q is not known", name)
			}
		}
	}
	return arches, nil
}

func (p *Profile) setArches(j *profileJSON) error {
	var err error
	if p.listed, err = parseArches(j.Architectures...); err != nil {
		return err
	}
	for _, m := range j.ArchMap {
		own, err := parseArches(m.Architecture)
		if err != nil {
			return err
		}
		other, err := parseArches(m.SubArchitectures...)
		if err != nil {
			return err
		}
		if len(own) == 1 && !slices.ContainsFunc(p.arches, func(f archFamily) bool { return f.own == own[0] }) {
			p.arches = append(p.arches, archFamily{own[0], other})
		}
	}
	return nil
}

func (j *ruleJSON) parse() (profileRule, error) {
	var r profileRule
	if j == nil {
		return r, errors.New("it is null")
	}
	r.names = j.Names
	if j.Name != "" {
		if len(j.Names) > 0 {
			return r, errors.New("it has both name and names")
		}
		r.names = []string{j.Name}
	}
	if slices.Contains(r.names, "") {
		return r, errors.New("a name is empty")
	}
	var err error
	if r.action, err = parseAction(j.Action, j.ErrnoRet); err != nil {
		return r, err
	}
	for _, a := range j.Args {
		test, err := a.parse()
		if err != nil {
			return r, err
		}
		r.tests = append(r.tests, test)
	}
	if r.when, err = j.Includes.parse(); err != nil {
		return r, err
	}
	r.unless, err = j.Excludes.parse()
	return r, err
}

func parseAction(name string, errno *uint64) (Action, error) {
	action, takesErrno := Action(0), false
	switch name {
	case "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD":
		action = KillThread
	case "SCMP_ACT_KILL_PROCESS":
		action = KillProcess
	case "SCMP_ACT_TRAP":
		action = Trap
	case "SCMP_ACT_ERRNO":
		action, takesErrno = unix.SECCOMP_RET_ERRNO, true
	case "SCMP_ACT_TRACE":
		action, takesErrno = Trace, true
	case "SCMP_ACT_LOG":
		action = Log
	case "SCMP_ACT_ALLOW":
		action = Allow
	case "SCMP_ACT_NOTIFY":
		return 0, &ProfileError{errors.New("action SCMP_ACT_NOTIFY: there is no listener to answer it"), "SCMP_ACT_ERRNO refuses the call"}
	default:
		return 0, fmt.Errorf("action %q is not known", name)
	}
	switch {
	case !takesErrno && errno != nil:
		return 0, fmt.Errorf("action %s takes no errno", name)
	case !takesErrno:
		return action, nil
	case errno == nil:
		return action | Action(unix.EPERM), nil
	case *errno > unix.SECCOMP_RET_DATA:
		return 0, fmt.Errorf("errno %d is greater than %d", *errno, unix.SECCOMP_RET_DATA)
	}
	return action | Action(*errno), nil
}

func (j *testJSON) parse() (Test, error) {
	if j.Index >= argCount {
		return Test{}, fmt.Errorf("index %d: a system call has %d arguments", j.Index, argCount)
	}
	t := Test{Arg: int(j.Index), Mask: All64, Value: j.Value}
	switch j.Op {
	case "SCMP_CMP_EQ":
		t.Op = Equal
	case "SCMP_CMP_NE":
		t.Op = NotEqual
	case "SCMP_CMP_LT":
		t.Op = Less
	case "SCMP_CMP_LE":
		t.Op = LessOrEqual
	case "SCMP_CMP_GT":
		t.Op = Greater
	case "SCMP_CMP_GE":
		t.Op = GreaterOrEqual
	case "SCMP_CMP_MASKED_EQ":
		// The value is the mask; of the second value libseccomp takes its bits.
		t.Mask, t.Value = j.Value, j.ValueTwo&j.Value
	default:
		return Test{}, fmt.Errorf("operator %q is not known", j.Op)
	}
	return t, nil
}

func (j *conditionJSON) parse() (condition, error) {
	if j == nil {
		return condition{}, nil
	}
	c := condition{caps: j.Caps, arches: j.Arches}
	if j.MinKernel == nil || *j.MinKernel == "" {
		return c, nil
	}
	major, minor, ok := strings.Cut(*j.MinKernel, ".")
	a, errMajor := strconv.ParseUint(major, 10, 8)
	b, errMinor := strconv.ParseUint(minor, 10, 8)
	c.kernel = Kernel{int(a), int(b)}
	if !ok || errMajor != nil || errMinor != nil || c.kernel == (Kernel{}) {
		return c, fmt.Errorf("minKernel %q is not a version as in 5.10", *j.MinKernel)
	}
	return c, nil
}
