// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
)

// accepted is a flag of docker run that has no effect here yet. A line copied
// from a tutorial works all the same: it gets a notice. Where going on would be
// unsafe or pointless, it gets an error.
type accepted struct {
	name, short, alias string
	kind               string // empty for a switch
	refused            bool
	hint               string   // beside the error
	met                []string // values that are so in any case, and need no word
}

// acceptedFlags are those of docker run (29) that containerFlags has not.
func acceptedFlags() []accepted {
	return []accepted{
		{name: "blkio-weight", kind: "uint16"},
		{name: "blkio-weight-device", kind: "list"},
		{name: "cgroup-parent", kind: "string"},
		{name: "cpu-count", kind: "int"},
		{name: "cpu-percent", kind: "int"},
		{name: "cpu-rt-period", kind: "int"},
		{name: "cpu-rt-runtime", kind: "int"},
		{name: "cpuset-mems", kind: "string"},
		{name: "device-cgroup-rule", kind: "list"},
		{name: "device-read-bps", kind: "list"},
		{name: "device-read-iops", kind: "list"},
		{name: "device-write-bps", kind: "list"},
		{name: "device-write-iops", kind: "list"},
		{name: "disable-content-trust", met: []string{"true", "false"}},
		{name: "isolation", kind: "string", met: []string{"", "default"}},
		{name: "kernel-memory", kind: "bytes"},
		{name: "link", kind: "list", refused: true, hint: "put both containers into a network of yours (sbx network create NAME), where they reach each other by name"},
		{name: "link-local-ip", kind: "list", refused: true, hint: "a container has the addresses that --ip and --ip6 ask for"},
		{name: "mac-address", kind: "string", refused: true, hint: "the network of a container carries no Ethernet frames; leave the flag out"},
		{name: "memory-swappiness", kind: "int"},
		{name: "oom-kill-disable"},
		{name: "runtime", kind: "string"},
		{name: "storage-opt", kind: "list"},
		{name: "use-api-socket", refused: true, hint: "there is no daemon, and so no socket of one"},
		{name: "volume-driver", kind: "string", met: []string{"", "local"}},
	}
}

// unmet collects the accepted flags that were given, in order.
type unmet struct {
	names []string
}

// options are the flags of the table. They are in no help: help shows what works.
func (u *unmet) options() []option {
	table := acceptedFlags()
	options := make([]option, len(table))
	for i := range table {
		f := &table[i]
		options[i] = option{name: f.name, short: f.short, alias: f.alias, kind: f.kind, hidden: true, value: &acceptedValue{f, u}}
	}
	return options
}

// add remembers something else that is accepted and has no effect.
func (u *unmet) add(names ...string) {
	for _, name := range names {
		if !slices.Contains(u.names, name) {
			u.names = append(u.names, name)
		}
	}
}

type acceptedValue struct {
	flag  *accepted
	unmet *unmet
}

func (v *acceptedValue) Set(s string) error {
	off := false
	if v.flag.kind == "" {
		var on toggle
		if err := on.Set(s); err != nil {
			return err
		}
		s = fmt.Sprint(bool(on))
		off = !bool(on)
	}
	switch {
	case off, slices.Contains(v.flag.met, s):
	case v.flag.refused:
		return &refusedError{v.flag}
	default:
		v.unmet.add("--" + v.flag.name)
	}
	return nil
}

// refusedError says that a flag cannot be done without and is not there yet.
type refusedError struct{ flag *accepted }

func (e *refusedError) Error() string { return "not supported" }

// Hint says what to do instead.
func (e *refusedError) Hint() string { return e.flag.hint }

// tell prints a line for each flag that has no effect here.
func (u *unmet) tell(c *client) {
	for _, name := range u.names {
		c.notice("%s is accepted but not enforced here", name)
	}
}
