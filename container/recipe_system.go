// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// systemDirectory opens /proc, /dev or /sys of the image into register a. They
// must be real directories: a link in their place once steered mounts and
// writes elsewhere (CVE-2019-19921, CVE-2026-41579).
func (r *recipe) systemDirectory(name string) {
	what := "open /" + name + " of the image"
	r.openIn(what, name, dirOnly, noLinks).Into(r.a).Ignore(unix.ENOENT).SkipOnSuccess(2)
	r.Call("create /"+name, unix.SYS_MKDIRAT, r.root, name, 0o755)
	r.openIn(what, name, dirOnly, noLinks).Into(r.a)
	r.place(r.a, slotTarget)
}

func (r *recipe) mountProc() {
	r.systemDirectory("proc")
	r.Call("mount proc", unix.SYS_MOUNT, "proc", slot(slotTarget), "proc", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, nil)
}

// deviceNodes are bound from the host: a user namespace cannot make them.
var deviceNodes = []string{"null", "zero", "full", "random", "urandom", "tty"}

func (r *recipe) mountDev() {
	r.systemDirectory("dev")
	const guard = unix.MS_NOSUID | unix.MS_NOEXEC
	r.Call("mount /dev", unix.SYS_MOUNT, "tmpfs", slot(slotTarget), "tmpfs", guard, "size=65536k,mode=755")
	r.openIn("open /dev", "dev", dirOnly, noLinks).Into(r.a)
	r.place(r.a, slotDev)
	dev := slot(slotDev) + "/"
	for _, node := range deviceNodes {
		r.create("dev/"+node, 0o666)
		r.Call("bind /dev/"+node, unix.SYS_MOUNT, "/dev/"+node, dev+node, nil, unix.MS_BIND, nil)
		if r.config.Rung.UID == 0 {
			// Started by the real root, the container's root owns the host's nodes. A
			// read-only mount keeps their modes, and lets the devices be written.
			r.Call("protect /dev/"+node, unix.SYS_MOUNT, nil, dev+node, nil, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|mountFlags("/dev/"+node), nil)
		}
	}
	if r.config.TTY {
		r.create("dev/console", 0o600)
	}
	r.configureApt()
	for _, l := range [][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}, {"pts/ptmx", "ptmx"},
	} {
		r.Call("link /dev/"+l[1], unix.SYS_SYMLINKAT, l[0], r.a, l[1])
	}
	pts := "newinstance,ptmxmode=0666,mode=0620"
	if r.config.Rung.IsMapped() {
		pts += ",gid=5" // tty
	}
	for _, m := range []struct {
		dir, kind, options string
		flags              int
	}{
		{"pts", "devpts", pts, guard},
		{"shm", "tmpfs", "mode=1777,size=" + strconv.FormatInt(r.config.shmSize(), 10), guard | unix.MS_NODEV},
		{"mqueue", "mqueue", "", guard | unix.MS_NODEV},
	} {
		if m.dir == "shm" && r.config.Privileges.IPC == IPCNone {
			continue
		}
		if m.dir == "shm" && r.others.ipc != 0 {
			r.mountSharedMemory(dev + m.dir)
			continue
		}
		if m.dir != "pts" && r.config.Privileges.IPC == IPCHost {
			if isDirectory("/dev/" + m.dir) {
				r.Call("create /dev/"+m.dir, unix.SYS_MKDIRAT, r.a, m.dir, 0o755)
				r.Call("bind /dev/"+m.dir, unix.SYS_MOUNT, "/dev/"+m.dir, dev+m.dir, nil, unix.MS_BIND, nil)
				r.openIn("open /dev/"+m.dir, "dev/"+m.dir, dirOnly, noLinks).Into(r.work)
				r.tighten(r.work, unix.MS_NOSUID|unix.MS_NODEV, "/dev/"+m.dir)
			}
			continue
		}
		r.Call("create /dev/"+m.dir, unix.SYS_MKDIRAT, r.a, m.dir, 0o755)
		r.Call("mount /dev/"+m.dir, unix.SYS_MOUNT, m.kind, dev+m.dir, m.kind, m.flags, m.options)
	}
}

// shmSize is how many bytes /dev/shm holds; 64 MiB unless the user said so.
func (c *Config) shmSize() int64 {
	if c.Limits.ShmSize > 0 {
		return c.Limits.ShmSize
	}
	return 64 << 20
}

// create makes an empty file, which a bind mount needs as its target.
func (r *recipe) create(name string, mode int) {
	r.Call("create /"+name, unix.SYS_MKNODAT, r.root, name, unix.S_IFREG|mode, 0)
}

// mountSys mounts a sysfs of the container's own network namespace, read-only.
// With the host's network that would be the host's devices: then only the CPU
// and memory topology that programs read is shown.
func (r *recipe) mountSys() {
	r.systemDirectory("sys")
	const guard = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	if r.config.Network != NetworkHost {
		r.Call("mount /sys", unix.SYS_MOUNT, "sysfs", slot(slotTarget), "sysfs", guard|unix.MS_RDONLY, nil)
		return
	}
	r.Call("mount /sys", unix.SYS_MOUNT, "tmpfs", slot(slotTarget), "tmpfs", guard, "size=64k,mode=755")
	for _, dir := range []string{"/sys/devices/system/cpu", "/sys/devices/system/node"} {
		if isDirectory(dir) {
			r.mount(Mount{Type: Bind, Source: dir, Target: dir, ReadOnly: true})
		}
	}
}

// What a container may not read, and what it may not write: the union of what
// Docker and Podman hide, each for a leak of the past.
var (
	maskedFiles = []string{
		"proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/sched_debug", "proc/timer_list", "proc/timer_stats",
	}
	maskedDirectories = []string{
		"proc/acpi", "proc/asound", "proc/scsi", "sys/firmware", "sys/devices/virtual/powercap", "sys/fs/selinux", "sys/dev/block",
	}
	readOnlyPaths = []string{"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"}
)

// hide masks and write-protects paths of /proc and /sys. Every path is opened
// without links in what was just mounted there, so it can be no one else's. The
// sources are the host's /dev/null and one empty, read-only directory (as
// CVE-2025-31133 asks: nothing that the image could have replaced).
func (r *recipe) hide() {
	for _, name := range readOnlyPaths {
		r.system(name, 2)
		r.Call("bind /"+name, unix.SYS_MOUNT, slot(slotTarget), slot(slotTarget), nil, unix.MS_BIND|unix.MS_REC, nil)
		r.reopenReadOnly(name)
	}
	for _, name := range maskedFiles {
		r.system(name, 1)
		r.Call("mask /"+name, unix.SYS_MOUNT, "/dev/null", slot(slotTarget), nil, unix.MS_BIND, nil)
	}
	directories := maskedDirectories
	if r.config.Network == NetworkHost {
		directories = directories[:3]
	}
	for _, name := range append(directories[:len(directories):len(directories)], throttles()...) {
		r.system(name, 1)
		r.Call("mask /"+name, unix.SYS_MOUNT, r.stage+stageEmpty, slot(slotTarget), nil, unix.MS_BIND, nil)
	}
}

// system opens a path below /proc or /sys at the target slot; where the kernel
// has no such path, the next n steps are passed over.
func (r *recipe) system(name string, n int) {
	r.openIn("open /"+name, name, pathOnly, noLinks).Into(r.work).Ignore(unix.ENOENT, unix.EACCES).SkipOnIgnored(1 + n)
	r.place(r.work, slotTarget)
}

// reopenReadOnly is one step: it makes the mount that covers name read-only.
// Procfs keeps its nosuid, nodev and noexec, which a bind inherits.
func (r *recipe) reopenReadOnly(name string) {
	// The path is ours (see hide), and the working directory is the new root.
	r.Call("remount /"+name+" read-only", unix.SYS_MOUNT, nil, name, nil,
		unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, nil)
}

// throttles are the thermal counters of each CPU, where the machine has them.
func throttles() []string {
	const first = "/sys/devices/system/cpu/cpu0/thermal_throttle"
	if _, err := os.Lstat(first); err != nil {
		return nil
	}
	var list []string
	for n := range 1024 {
		name := "sys/devices/system/cpu/cpu" + strconv.Itoa(n) + "/thermal_throttle"
		if _, err := os.Lstat("/" + name); err != nil {
			break
		}
		list = append(list, name)
	}
	return list
}
