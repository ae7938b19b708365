// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sbx/container"
)

// resourceFlags are those of run and create that bound a container, or open it.
type resourceFlags struct {
	limits      container.Limits
	privileges  container.Privileges
	annotations []string
	devices     []string
	sysctls     []string
	ulimits     []string
	gpus        string

	ipc, uts, pid, cgroupns string
}

func (f *resourceFlags) options() []option {
	l, p := &f.limits, &f.privileges
	return []option{
		{name: "annotation", kind: "map", usage: "Add an annotation to the container", value: (*list)(&f.annotations)},
		listFlag(&p.CapAdd, "cap-add", "", "Add Linux capabilities"),
		listFlag(&p.CapDrop, "cap-drop", "", "Drop Linux capabilities"),
		textFlag(&f.cgroupns, "cgroupns", "", `Cgroup namespace to use ("host", "private")`),
		{name: "cpu-period", kind: "int", usage: "Limit CPU CFS (Completely Fair Scheduler) period", value: (*integer)(&l.CPUPeriod)},
		{name: "cpu-quota", kind: "int", usage: "Limit CPU CFS (Completely Fair Scheduler) quota", value: (*integer)(&l.CPUQuota)},
		{name: "cpu-shares", short: "c", kind: "int", usage: "CPU shares (relative weight)", value: (*integer)(&l.CPUShares)},
		{name: "cpus", kind: "decimal", usage: "Number of CPUs", value: (*processors)(&l.NanoCPUs)},
		textFlag(&l.CPUSet, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)"),
		listFlag(&f.devices, "device", "", "Add a host device to the container"),
		{name: "gpus", kind: "gpu-request", usage: "GPU devices to add to the container ('all' to pass all GPUs)", value: (*text)(&f.gpus)},
		listFlag(&p.GroupAdd, "group-add", "", "Add additional groups to join (keep-groups: your own)"),
		textFlag(&f.ipc, "ipc", "", `IPC mode to use ("private", "shareable", "none", "host", "container:NAME")`),
		{name: "memory", short: "m", kind: "bytes", usage: "Memory limit", value: (*byteSize)(&l.Memory)},
		{name: "memory-reservation", kind: "bytes", usage: "Memory soft limit", value: (*byteSize)(&l.MemoryReservation)},
		{name: "memory-swap", kind: "bytes", usage: "Swap limit equal to memory plus swap: '-1' to enable unlimited swap", value: (*byteSize)(&l.MemorySwap)},
		numberFlag(&l.OOMScoreAdj, "oom-score-adj", "", "Tune host's OOM preferences (-1000 to 1000)"),
		textFlag(&f.pid, "pid", "", `PID namespace to use ("private", "container:NAME")`),
		{name: "pids-limit", kind: "int", usage: "Tune container pids limit (set -1 for unlimited)", value: (*integer)(&l.Pids)},
		switchFlag(&p.Privileged, "privileged", "", "Give all privileges that you have yourself to this container"),
		listFlag(&p.Options, "security-opt", "", "Security Options"),
		{name: "shm-size", kind: "bytes", usage: "Size of /dev/shm", value: (*byteSize)(&l.ShmSize)},
		{name: "sysctl", kind: "map", usage: "Sysctl options", value: (*list)(&f.sysctls)},
		{name: "ulimit", kind: "ulimit", usage: "Ulimit options", value: (*list)(&f.ulimits)},
		textFlag(&f.uts, "uts", "", `UTS namespace to use ("private", "host")`),
	}
}

// limitNames are the flags that update knows as well.
var limitNames = []string{"cpu-period", "cpu-quota", "cpu-shares", "cpus", "cpuset-cpus", "memory", "memory-reservation", "memory-swap", "pids-limit"}

func parseUlimits(given []string) ([]container.Ulimit, error) {
	var all []container.Ulimit
	for _, s := range given {
		u, err := container.ParseUlimit(s)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// readUlimits reads limits and cuts them to what a user may set.
func readUlimits(c *client, given []string) ([]container.Ulimit, error) {
	all, err := parseUlimits(given)
	if err != nil {
		return nil, err
	}
	limits := container.Limits{Ulimits: all}
	notices, err := limits.Check()
	for _, n := range notices {
		c.notice("%s", n)
	}
	return limits.Ulimits, err
}

// apply puts what was given into the options of a container. unmet gets what has
// no effect here.
func (f *resourceFlags) apply(c *client, o *container.Options, unmet *unmet) error {
	var err error
	if f.limits.Ulimits, err = parseUlimits(f.ulimits); err != nil {
		return err
	}
	notices, err := f.limits.Check()
	if err != nil {
		return err
	}
	for _, n := range notices {
		c.notice("%s", n)
	}
	if f.privileges.Sysctls, err = pairs("sysctl", f.sysctls); err != nil {
		return err
	}
	if o.Annotations, err = pairs("annotation", f.annotations); err != nil {
		return err
	}
	if err := f.readDevices(c); err != nil {
		return err
	}
	if err := f.readNamespaces(o); err != nil {
		return err
	}
	if err := f.readSecurity(); err != nil {
		return err
	}
	if f.limits.MemoryReservation != 0 || f.limits.CPUShares > 1024 {
		f.unheld(unmet)
	}
	if f.privileges.Privileged {
		c.notice("--privileged gives the container what you may do yourself, and no device or right of this machine's root")
	}
	o.Limits, o.Privileges = f.limits, f.privileges
	return nil
}

// unheld finds the limits that only control groups hold, where there are none.
func (f *resourceFlags) unheld(unmet *unmet) {
	for _, l := range container.LimitsSupported() {
		switch {
		case l.How == container.Enforced:
		case l.Name == "MemoryReservation" && f.limits.MemoryReservation != 0:
			unmet.add("--memory-reservation")
		case l.Name == "CpuShares" && f.limits.CPUShares > 1024:
			unmet.add("--cpu-shares")
		}
	}
}

// pairs reads NAME=VALUE of each.
func pairs(what string, list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	set := make(map[string]string, len(list))
	for _, p := range list {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, &usageError{text: fmt.Sprintf("invalid %s %q", what, p), hint: "want NAME=VALUE"}
		}
		set[name] = value
	}
	return set, nil
}

// readDevices reads --device HOST[:CONTAINER[:rwm]] and --gpus.
func (f *resourceFlags) readDevices(c *client) error {
	for _, spec := range f.devices {
		parts := strings.Split(spec, ":")
		d := container.Device{Source: parts[0], Target: parts[0]}
		mode := "rwm"
		switch {
		case len(parts) > 3 || parts[0] == "":
			return &usageError{text: fmt.Sprintf("invalid device specification: %s", spec)}
		case len(parts) == 2 && isDeviceMode(parts[1]):
			mode = parts[1]
		case len(parts) >= 2:
			d.Target = parts[1]
		}
		if len(parts) == 3 {
			mode = parts[2]
		}
		if !isDeviceMode(mode) || !filepath.IsAbs(d.Source) || !filepath.IsAbs(d.Target) {
			return &usageError{text: fmt.Sprintf("invalid device specification: %s", spec), hint: "want /dev/NAME[:/dev/NAME[:rwm]]"}
		}
		d.ReadOnly = !strings.Contains(mode, "w")
		f.privileges.Devices = append(f.privileges.Devices, d)
	}
	if f.gpus == "" || f.gpus == "0" {
		return nil
	}
	found, err := filepath.Glob("/dev/nvidia*")
	if err != nil || len(found) == 0 {
		return &statusError{status: statusSbx, err: errors.New("--gpus: this machine has no /dev/nvidia*"), hint: "for another kind, name its devices: --device /dev/dri"}
	}
	for _, path := range found {
		f.privileges.Devices = append(f.privileges.Devices, container.Device{Source: path, Target: path})
	}
	c.notice("--gpus: the devices are passed on; the driver's libraries must be in the image, or bound with -v")
	return nil
}

func isDeviceMode(s string) bool { return s != "" && len(s) <= 3 && strings.Trim(s, "rwm") == "" }

// namespaceError says why a namespace cannot be shared.
func namespaceError(flag, value, why string) error {
	return &statusError{status: statusSbx, err: fmt.Errorf("--%s %s is not supported: %s", flag, value, why)}
}

func (f *resourceFlags) readNamespaces(o *container.Options) error {
	p := &f.privileges
	p.IPC = f.ipc
	switch f.uts {
	case "", "private":
	case "host":
		if o.Hostname != "" {
			return &usageError{text: "conflicting options: hostname and the UTS mode"}
		}
		p.HostUTS = true
	default:
		return &usageError{text: fmt.Sprintf("--uts: invalid UTS mode %q", f.uts)}
	}
	switch f.pid {
	case "", "private":
	case "host":
		return namespaceError("pid", f.pid, "a container without a pid namespace of its own could leave processes behind")
	default:
		p.PID = f.pid
	}
	switch f.cgroupns {
	case "", "private":
	case "host":
		p.HostCgroup = true
	default:
		return &usageError{text: fmt.Sprintf("--cgroupns: invalid CGROUP mode %q", f.cgroupns)}
	}
	return nil
}

// readSecurity reads --security-opt. An option that cannot be applied is an error.
func (f *resourceFlags) readSecurity() error {
	p := &f.privileges
	for _, o := range p.Options {
		name, value, ok := strings.Cut(o, "=")
		if !ok {
			name, value, ok = strings.Cut(o, ":")
		}
		switch {
		case name == "no-new-privileges" && !ok:
			p.NoNewPrivs = true
		case name == "no-new-privileges":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return &usageError{text: fmt.Sprintf("invalid --security-opt: %q", o)}
			}
			p.NoNewPrivs = on
		case name == "seccomp" && (value == "builtin" || value == ""):
			p.Seccomp = ""
		case name == "seccomp" && value == container.Unconfined:
			p.Seccomp = container.Unconfined
		case name == "seccomp":
			profile, err := os.ReadFile(value)
			if err != nil {
				return fmt.Errorf("opening seccomp profile (%s) failed: %w", value, withoutPath(err))
			}
			p.Seccomp = string(profile)
		case o == "systempaths=unconfined", o == "unmask=ALL", o == "unmask=all":
			p.Unmasked = true
		case name == "apparmor" && value == "unconfined", name == "label" && value == "disable":
			// None of ours is applied.
		case name == "apparmor", name == "label":
			return &statusError{status: statusSbx, err: fmt.Errorf("--security-opt %s: a user cannot apply it", o),
				hint: "profiles and labels are loaded by this machine's root; leave the option out"}
		default:
			return &usageError{text: fmt.Sprintf("invalid --security-opt: %q", o)}
		}
	}
	return nil
}

// integer is a number of 64 bits.
type integer int64

func (v *integer) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return errors.New("want a number")
	}
	*v = integer(n)
	return nil
}

// byteSize is a size as Docker reads it; -1 is none.
type byteSize int64

func (v *byteSize) Set(s string) error {
	if s == "-1" {
		*v = -1
		return nil
	}
	n, err := parseSize(s)
	if err != nil {
		return err
	}
	*v = byteSize(n)
	return nil
}

// processors is a number of processors with a fraction, kept in billionths.
type processors int64

func (v *processors) Set(s string) error {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return fmt.Errorf("failed to parse %v as a rational number", s)
	}
	nano := r.Mul(r, big.NewRat(1e9, 1))
	if !nano.IsInt() || !nano.Num().IsInt64() {
		return errors.New("value is too precise")
	}
	*v = processors(nano.Num().Int64())
	return nil
}
