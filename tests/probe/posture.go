// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// posture prints everything that keeps this process from the rest of the machine,
// a fact a line: "NAME: VALUE". The paths that must be hidden, or must not be
// written, are its arguments.
func posture(args []string) error {
	say := func(name, format string, a ...any) { fmt.Println(name + ": " + fmt.Sprintf(format, a...)) }
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if slices.Contains([]string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"}, name) {
			say(name, "%s", strings.TrimSpace(value))
		}
	}
	for _, name := range []string{"uid_map", "gid_map", "setgroups"} {
		data, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			return err
		}
		say(name, "%s", strings.Join(strings.Fields(string(data)), " "))
	}
	umask := unix.Umask(0)
	unix.Umask(umask)
	say("umask", "%04o", umask)
	wd, _ := os.Getwd()
	say("cwd", "%s", wd)
	numbers, err := openDescriptors()
	say("descriptors", "%s", strings.Join(numbers, " "))
	if err != nil {
		return err
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	say("dumpable", "%d", dumpable)
	if err != nil {
		return err
	}
	_, err = unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	say("AF_ALG", "%v", err)
	say("unshare", "%v", unix.Unshare(unix.CLONE_NEWUSER|unix.CLONE_FS))
	_, err = os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	say("terminal", "%v", err == nil)
	if err := sayMounts(say); err != nil {
		return err
	}
	if err := sayDevices(say); err != nil {
		return err
	}
	for _, path := range args {
		say(path, "%s", access(path))
	}
	return nil
}

func openDescriptors() ([]string, error) {
	names, err := os.ReadDir("/proc/self/fd")
	var numbers []string
	for _, n := range names {
		link, err := os.Readlink("/proc/self/fd/" + n.Name())
		if err != nil || strings.HasPrefix(link, "anon_inode:[event") || strings.HasSuffix(link, "/fd") {
			continue // the runtime's poller and the directory are this program's
		}
		numbers = append(numbers, n.Name())
	}
	return numbers, err
}

// sayMounts tells what is mounted but over paths of /proc, /sys and /etc, with the
// flags that keep something away.
func sayMounts(say func(name, format string, a ...any)) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		before, after, _ := strings.Cut(line, " - ")
		kind, _, _ := strings.Cut(after, " ")
		at := f[4]
		if strings.HasPrefix(at, "/proc/") || strings.HasPrefix(at, "/sys/") || strings.HasPrefix(at, "/etc/") || filepath.Dir(at) == "/dev" && kind == "devtmpfs" {
			continue
		}
		flags := "rw"
		if slices.Contains(strings.Split(f[5], ","), "ro") {
			flags = "ro"
		}
		for _, flag := range []string{"nosuid", "nodev", "noexec"} {
			if slices.Contains(strings.Split(f[5], ","), flag) {
				flags += " " + flag
			}
		}
		if strings.Contains(before, " shared:") {
			flags += " shared"
		}
		say("mount "+at, "%s %s", kind, flags)
	}
	return nil
}

// sayDevices tells what is in /dev. A node is named by what it is: its number is
// the kernel's word, its name only ours.
func sayDevices(say func(name, format string, a ...any)) error {
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := "/dev/" + e.Name()
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		switch kind := kind(st.Mode); kind {
		case "link":
			to, _ := os.Readlink(path)
			say(path, "-> %s", to)
		case "char", "block":
			say(path, "%s %d:%d", kind, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		default:
			say(path, "%s", kind)
		}
	}
	return nil
}

// access is what can be done with a path: hidden means that there is none, or that
// it is empty and cannot be written.
func access(path string) string {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, unix.ENOENT):
		return "hidden"
	case err != nil:
		return err.Error()
	}
	if kind(st.Mode) == "char" && st.Rdev == unix.Mkdev(1, 3) {
		return "hidden" // it is /dev/null
	}
	var mount unix.Statfs_t
	if err := unix.Statfs(path, &mount); err != nil {
		return err.Error()
	}
	if mount.Flags&unix.ST_RDONLY == 0 {
		return "writable mount"
	}
	if kind(st.Mode) == "dir" {
		if entries, err := os.ReadDir(path); err == nil && len(entries) == 0 {
			return "hidden"
		}
		return "read-only"
	}
	// The mount must hold for whoever is root, too.
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		f.Close()
		return "writable"
	}
	return "read-only"
}
