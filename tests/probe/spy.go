// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// spy looks into every process that comes to be beside this one, as fast as it can, until
// it is told to end: "spy CANARY". It tells of each that shows the canary, in its
// environment or in a file that it has open, or that can be traced and is no program of
// the container's, nor bound as one.
func spy(args []string) error {
	runtime.LockOSThread() // ptrace(2) is a matter of threads
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	canary, own := []byte(args[0]), os.Getpid()
	seen := map[int]bool{own: true}
	looks := 0
	fmt.Println("looking")
	for {
		select {
		case <-stop:
			fmt.Println("seen", len(seen)-1, "looks", looks)
			return nil
		default:
		}
		list, err := pids()
		if err != nil {
			return err
		}
		for _, pid := range list {
			if pid == own {
				continue
			}
			seen[pid] = true
			looks++
			lookInto(pid, canary)
		}
	}
}

func lookInto(pid int, canary []byte) {
	dir := "/proc/" + strconv.Itoa(pid)
	if environ, err := os.ReadFile(dir + "/environ"); err == nil && bytes.Contains(environ, canary) {
		fmt.Println("hit: environment of", pid)
	}
	names, _ := filepath.Glob(dir + "/fd/*")
	for _, name := range names {
		if to, err := os.Readlink(name); err != nil || to[0] != '/' {
			continue // a pipe would be waited for
		}
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(fd), name)
		if data, _ := io.ReadAll(io.LimitReader(f, 4096)); bytes.Contains(data, canary) {
			fmt.Println("hit: file of", pid)
		}
		f.Close()
	}
	traced(pid, dir)
}

// traced stops a process, if it can be traced, and looks what it executes.
func traced(pid int, dir string) {
	if unix.PtraceSeize(pid) != nil {
		return
	}
	defer func() { _ = unix.PtraceDetach(pid) }()
	if unix.PtraceInterrupt(pid) != nil {
		return
	}
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		return
	}
	exe, err := os.Readlink(dir + "/exe")
	if err != nil || exe == "/bin/probe" {
		return
	}
	if exe == "/memfd:sbx-start (deleted)" && confinement(dir) == confinement("/proc/self") {
		return // it is what comes before a program, in the same bonds
	}
	fmt.Println("hit: traced", pid, exe, confinement(dir))
}

// confinement is what the kernel says that a process may not do.
func confinement(dir string) string {
	status, _ := os.ReadFile(dir + "/status")
	var said []string
	for line := range strings.Lines(string(status)) {
		if name, value, _ := strings.Cut(line, ":"); strings.HasPrefix(name, "Cap") || strings.HasPrefix(name, "Seccomp") || name == "NoNewPrivs" {
			said = append(said, name, strings.TrimSpace(value))
		}
	}
	return strings.Join(said, " ")
}
