// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"sbx/seccomp"
)

// machine is an architecture with that of its 32-bit programs.
type machine struct{ own, compat seccomp.Arch }

func machineNamed(goarch string) (machine, error) {
	switch goarch {
	case "amd64":
		return machine{seccomp.AMD64, seccomp.I386}, nil
	case "arm64":
		return machine{seccomp.ARM64, seccomp.ARM}, nil
	}
	return machine{}, fmt.Errorf("build root emulation filter: architecture %s is not known", goarch)
}

// PassMark is the last argument, which the kernel does not look at, of an execveat(2)
// that is none of the container's: by it a start program makes way for what executes
// the container's own, and no monitor need be there yet.
const PassMark = 0x73627870

// Filter compiles the filter of a mode for the architecture that this binary was
// built for. It is nil for None.
//
// In the modes that listen it must be installed with FilterFlags; it adds to
// whatever other filter the program gets, of which the stricter answer wins. It
// denies nothing, and no rule that protects anyone may ever be put into it.
func Filter(m Mode) (*seccomp.Program, error) { return filterFor(m, runtime.GOARCH) }

func filterFor(m Mode, goarch string) (*seccomp.Program, error) {
	if m == None {
		return nil, nil
	}
	if m == Auto {
		return nil, fmt.Errorf("build root emulation filter: mode %s is not settled", m)
	}
	a, err := machineNamed(goarch)
	if err != nil {
		return nil, err
	}
	own := seccomp.Table{Arch: a.own, Default: seccomp.Allow}
	compat := seccomp.Table{Arch: a.compat, Default: seccomp.Allow}
	if a.own == seccomp.AMD64 {
		// x32 has numbers of its own, by which every trap could be passed by.
		own.Rules = append(own.Rules, seccomp.Rule{First: seccomp.X32Bit, Last: ^uint32(0), Action: seccomp.Errno(unix.ENOSYS)})
	}
	if m == Zero {
		fake(&own, zeroNames, "")
		fakeDevices(&own)
		fake(&own, []string{"capset"}, "")
		fake(&compat, []string{"capset"}, "")
	} else {
		for _, t := range traps {
			if t.group&m.groups() != 0 {
				add(&own, t.name, t.when, seccomp.Notify)
			}
		}
		for _, t := range compatTraps {
			action := seccomp.Notify
			if t.call == callNone {
				action = seccomp.Errno(0)
			}
			add(&compat, t.name, t.when, action)
		}
	}
	fake(&compat, zeroNames, "")
	fake(&compat, zeroNames, "32")
	fakeDevices(&compat)
	filter := seccomp.Filter{Tables: []seccomp.Table{own, compat}, Foreign: seccomp.Allow}
	return filter.Compile()
}

// add adds a rule for the call of that name, where the architecture has it.
func add(t *seccomp.Table, name string, when []seccomp.Test, action seccomp.Action) {
	if n, ok := t.Arch.Number(name); ok {
		t.Rules = append(t.Rules, seccomp.Rule{First: n, Last: n, Tests: when, Action: action})
	}
}

func fake(t *seccomp.Table, names []string, suffix string) {
	for _, name := range names {
		add(t, name+suffix, nil, seccomp.Errno(0))
	}
}

func fakeDevices(t *seccomp.Table) {
	for _, d := range deviceTraps {
		add(t, d.name, d.when, seccomp.Errno(0))
	}
}

// FilterFlags are the flags for seccomp(SECCOMP_SET_MODE_FILTER, ..) with the
// filter of a mode that listens, on a kernel with these features. The result of
// that call is the listener.
func (f Features) FilterFlags() int {
	flags := unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	if f.WaitKillable {
		flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	return flags
}
