// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// gate is something of the machine that decides what a user without privileges
// can do, and how it stands.
type gate struct {
	Name  string
	State string
}

// machine describes this machine, by what it says of itself in files.
func (r *infoReport) machine() {
	r.OSType, r.Architecture, r.NCPU = runtime.GOOS, architecture(), runtime.NumCPU()
	r.KernelVersion = readLine("/proc/sys/kernel/osrelease")
	r.OperatingSystem = or(osRelease("PRETTY_NAME"), "Linux")
	r.MemTotal = memory()
	r.Gates = gates()
}

// gates are the switches that distributions and administrators use, with what
// they are set to here. Those that this kernel does not have are left out.
func gates() []gate {
	var all []gate
	for _, name := range []string{
		"user.max_user_namespaces", "user.max_net_namespaces", "kernel.unprivileged_userns_clone",
		"kernel.apparmor_restrict_unprivileged_userns", "kernel.unprivileged_userns_apparmor_policy",
	} {
		if value := readLine("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); value != "" {
			all = append(all, gate{name, value})
		}
	}
	return append(all, gate{"seccomp filter around us", seccompMode()}, gate{"/dev/net/tun", openable("/dev/net/tun")})
}

func seccompMode() string {
	data, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(data)) {
		if mode, ok := strings.CutPrefix(line, "Seccomp:"); ok && strings.TrimSpace(mode) != "0" {
			return "yes"
		}
	}
	return "no"
}

func openable(path string) string {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return withoutPath(err).Error()
	}
	f.Close()
	return "can be opened"
}

func readLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

// osRelease is a value of os-release(5).
func osRelease(name string) string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

func memory() int64 {
	fields := strings.Fields(readLine("/proc/meminfo")) // MemTotal: N kB
	if len(fields) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(fields[1], 10, 64)
	return n << 10
}

// architecture is uname's word for this machine's.
func architecture() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// binarySize gives bytes as Docker gives memory: 15.5GiB.
func binarySize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	size := float64(n)
	i := 0
	for size >= 1024 && i < len(units)-1 {
		size /= 1024
		i++
	}
	return fmt.Sprintf("%.4g%s", size, units[i])
}
