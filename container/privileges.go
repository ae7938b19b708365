// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/seccomp"
)

// Privileges are what the program may do beyond, or not, of what every container
// may. All of them stay within the user's own.
type Privileges struct {
	CapAdd     []string `json:"capAdd,omitempty"` // CAP_SYS_PTRACE, ALL
	CapDrop    []string `json:"capDrop,omitempty"`
	Privileged bool     `json:"privileged,omitempty"` // all capabilities, no filter, nothing masked
	NoNewPrivs bool     `json:"noNewPrivs,omitempty"`
	Seccomp    string   `json:"seccomp,omitempty"`  // "": the default; Unconfined; or a profile in Docker's format
	Unmasked   bool     `json:"unmasked,omitempty"` // nothing of /proc and /sys is hidden
	Devices    []Device `json:"devices,omitempty"`
	GroupAdd   []string `json:"groupAdd,omitempty"` // names or IDs, or KeepGroups
	// IPC is whose shared memory and message queues it has: one of the IPC modes, or
	// container:ID.
	IPC string `json:"ipc,omitempty"`
	PID string `json:"pid,omitempty"` // whose processes it has: its own when empty, or container:ID
	// HostUTS and HostCgroup share the host's namespaces of these kinds.
	HostUTS    bool              `json:"hostUTS,omitempty"`
	HostCgroup bool              `json:"hostCgroup,omitempty"`
	Sysctls    map[string]string `json:"sysctls,omitempty"`
	// Options are what --security-opt said, for inspect.
	Options []string `json:"options,omitempty"`
}

// Unconfined is no seccomp filter at all.
const Unconfined = "unconfined"

// KeepGroups as a group to add keeps the user's supplementary groups. Where there
// is only one ID they stay in any case.
const KeepGroups = "keep-groups"

// The IPC modes, beside another container's.
const (
	IPCPrivate   = "private"   // its own; so is an empty one
	IPCShareable = "shareable" // its own, which others may join
	IPCNone      = "none"      // its own, without /dev/shm
	IPCHost      = "host"
)

// Device is a device of the host that is shown in the container.
type Device struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// check refuses what cannot be.
func (p *Privileges) check(c *Config) error {
	if _, err := p.capabilities(); err != nil {
		return err
	}
	if p.Seccomp != "" && p.Seccomp != Unconfined {
		if _, err := seccomp.Parse([]byte(p.Seccomp)); err != nil {
			return fmt.Errorf("read seccomp profile: %w", err)
		}
	}
	for _, d := range p.Devices {
		if !filepath.IsAbs(d.Source) || !filepath.IsAbs(d.Target) {
			return fmt.Errorf("device %s: not an absolute path", d.Source)
		}
		if _, err := os.Stat(d.Source); err != nil {
			return fmt.Errorf("add device %s: %w", d.Source, errors.Unwrap(err))
		}
	}
	for name := range p.Sysctls {
		if err := checkSysctl(name, c, p); err != nil {
			return err
		}
	}
	return nil
}

// checkSysctl takes only what the container has for itself, as Docker does.
func checkSysctl(name string, c *Config, p *Privileges) error {
	switch {
	case strings.Contains(name, "..") || strings.ContainsAny(name, "/\x00 "):
		return fmt.Errorf("sysctl %q: not a name", name)
	case strings.HasPrefix(name, "net."):
		if c.Network == NetworkHost {
			return fmt.Errorf("sysctl %q not allowed in host network namespace", name)
		}
	case strings.HasPrefix(name, "fs.mqueue."), slices.Contains([]string{
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
	}, name):
		if p.IPC == IPCHost {
			return fmt.Errorf("sysctl %q not allowed in host ipc namespace", name)
		}
	default:
		return fmt.Errorf("sysctl %q is not in a separate kernel namespace", name)
	}
	return nil
}

// capabilities is the set that root has in the container.
func (p *Privileges) capabilities() (uint64, error) {
	const all = 1<<(unix.CAP_LAST_CAP+1) - 1
	set := uint64(0)
	for _, k := range keptCapabilities {
		set |= 1 << k.n
	}
	if p.Privileged {
		set = all
	}
	// Docker's order: ALL is dropped before others are added, and added before
	// others are dropped.
	if slices.ContainsFunc(p.CapAdd, isAll) {
		set = all
	}
	if slices.ContainsFunc(p.CapDrop, isAll) {
		set = 0
	}
	for _, name := range p.CapAdd {
		if isAll(name) {
			continue
		}
		n, err := capability(name)
		if err != nil {
			return 0, err
		}
		set |= 1 << n
	}
	for _, name := range p.CapDrop {
		if isAll(name) {
			continue
		}
		n, err := capability(name)
		if err != nil {
			return 0, err
		}
		set &^= 1 << n
	}
	return set, nil
}

func isAll(name string) bool { return strings.EqualFold(name, "ALL") }

func capability(name string) (int, error) {
	upper := strings.ToUpper(name)
	if !strings.HasPrefix(upper, "CAP_") {
		upper = "CAP_" + upper
	}
	n := slices.Index(capabilityTable[:], upper)
	if n < 0 {
		return 0, fmt.Errorf("unknown capability %q", name)
	}
	return n, nil
}

// capabilityTable has the names of capabilities(7) by number.
var capabilityTable = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

func namesOf(set uint64) []string {
	var names []string
	for n, name := range capabilityTable {
		if set&(1<<n) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// filter is the container's seccomp filter, nil for none.
func (c *Config) filter() (*seccomp.Program, error) {
	p := &c.Privileges
	if p.Seccomp == Unconfined || p.Privileged && p.Seccomp == "" {
		return nil, nil
	}
	set, err := p.capabilities()
	if err != nil {
		return nil, err
	}
	if p.Seccomp == "" {
		return seccomp.Default(namesOf(set))
	}
	profile, err := seccomp.Parse([]byte(p.Seccomp))
	if err != nil {
		return nil, err
	}
	return profile.Compile(seccomp.Target{Machine: runtime.GOARCH, Caps: namesOf(set)})
}

// device binds a device of the host. It is opened with the user's own rights;
// without the flag nodev, which every other bind has.
func (r *recipe) device(d Device) {
	name := "add device " + d.Target
	if isDirectory(d.Source) {
		r.directory(d.Target, name)
	} else {
		r.file(d.Target, name)
	}
	r.place(r.a, slotTarget)
	r.Call(name, unix.SYS_MOUNT, d.Source, slot(slotTarget), nil, unix.MS_BIND|unix.MS_REC, nil)
	if d.ReadOnly {
		r.openIn(name, strings.Join(split(d.Target), "/"), pathOnly, inRoot).Into(r.a)
		r.tighten(r.a, unix.MS_RDONLY, d.Source)
	}
}

// sysctls sets what the user asked for in the namespaces of the container.
func (r *recipe) sysctls() {
	names := make([]string, 0, len(r.config.Privileges.Sysctls))
	for name := range r.config.Privileges.Sysctls {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := r.config.Privileges.Sysctls[name]
		path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
		r.Call("set sysctl "+name, unix.SYS_OPENAT, unix.AT_FDCWD, path, unix.O_WRONLY|unix.O_CLOEXEC, 0).Into(r.work)
		r.Call("set sysctl "+name, unix.SYS_WRITE, r.work, []byte(value), len(value))
		r.Call("set sysctl "+name, unix.SYS_CLOSE, r.work)
	}
}
