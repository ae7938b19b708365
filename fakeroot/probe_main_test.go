// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// probes are what runs inside of a container without any image, by name.
var probes = map[string]func(args []string) error{
	"id":           probeID,
	"bench":        probeBench,
	"stat":         probeStat,
	"owners":       probeOwners,
	"modes":        probeModes,
	"users":        probeUsers,
	"create":       probeCreate,
	"inherit":      probeInherit,
	"mksuid":       func([]string) error { return prepareSuid() },
	"devices":      probeDevices,
	"suid":         probeSuid,
	"limits":       probeLimits,
	"paths":        probePaths,
	"hostile":      probeHostile,
	"storm":        probeStorm,
	"race":         probeRace,
	"hog":          probeHog,
	"forks":        probeForks,
	"peer":         probePeer,
	"layertable":   probeLayerTable,
	"fuse":         probeFuse,
	"roots":        probeRoots,
	"restart":      probeRestart,
	"xattrs":       probeXattrs,
	"expect-id":    func(args []string) error { return probeExpectID(args[0]) },
	"expect-owner": func(args []string) error { return expect("owner", ownerOf(args[0]), args[1]) },
	"give":         func(args []string) error { return probeGive(args[0]) },
	"sleep":        func([]string) error { fmt.Println("ready"); time.Sleep(time.Hour); return nil },
	"true":         func([]string) error { return nil },
}

func probeMain(name string, args []string) error {
	if name == "/suid/script" { // as the interpreter of that
		name, args = args[0], args[1:]
	}
	p, ok := probes[name]
	if !ok {
		return fmt.Errorf("no such probe")
	}
	runtime.LockOSThread()
	return p(args)
}

// expect makes an error of a difference.
func expect[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

// first is the first error of a list.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func ownerOf(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d:%d:%o", st.Uid, st.Gid, st.Mode&0o7777)
}

func probeStat(args []string) error {
	for _, path := range args {
		fmt.Println(ownerOf(path))
	}
	return nil
}

// probeGive makes files beside each other, one that can carry a record and one that
// cannot, and gives them to 8:9.
func probeGive(dir string) error {
	return first(enter(dir), touch("f"), os.Symlink("f", "l"), os.Chown("f", 8, 9), os.Lchown("l", 8, 9))
}

func probeExpectID(want string) error {
	groups, err := unix.Getgroups()
	r, e, s := unix.Getresgid()
	return first(err, expect("IDs", fmt.Sprint(resuid(), " ", r, e, s, " ", groups), want))
}

func probeID([]string) error {
	r, e, s := unix.Getresuid()
	gr, ge, gs := unix.Getresgid()
	groups, err := unix.Getgroups()
	fmt.Println(r, e, s, gr, ge, gs, groups)
	return first(err,
		expect("getuid", os.Getuid(), r), expect("geteuid", os.Geteuid(), e),
		expect("getgid", os.Getgid(), gr), expect("getegid", os.Getegid(), ge))
}

// probeBench measures one call, in nanoseconds.
func probeBench(args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var st unix.Stat_t
	f, err := os.Open("/probe")
	if err != nil {
		return err
	}
	fd := int(f.Fd())
	os.MkdirAll("/bench/dir", 0o755)
	os.WriteFile("/bench/dir/recorded", nil, 0o644)
	os.Chown("/bench/dir/recorded", 7, 8)
	calls := map[string]func(){
		"getppid":  func() { unix.RawSyscallNoError(unix.SYS_GETPPID, 0, 0, 0) },
		"geteuid":  func() { unix.RawSyscallNoError(unix.SYS_GETEUID, 0, 0, 0) },
		"lstat":    func() { unix.Lstat("/probe", &st) },
		"relative": func() { unix.Lstat("probe", &st) },
		"recorded": func() { unix.Lstat("/bench/dir/recorded", &st) },
		"missing":  func() { unix.Lstat("/bench/dir/missing", &st) },
		"fstat":    func() { unix.Fstat(fd, &st) },
		"creat": func() {
			fd, err := unix.Open("/bench/dir/recorded", unix.O_CREAT|unix.O_RDWR, 0o644)
			if err == nil {
				unix.Close(fd)
			}
		},
		"open": func() {
			fd, err := unix.Open("/bench/dir/recorded", unix.O_RDWR, 0o644)
			if err == nil {
				unix.Close(fd)
			}
		},
		"chown": func() { unix.Chown("/bench/dir/recorded", 7, 9) },
	}
	call := calls[args[0]]
	if call == nil {
		return fmt.Errorf("no such call")
	}
	best := time.Hour
	var all []string
	for range 5 {
		start := time.Now()
		for range count {
			call()
		}
		each := time.Since(start) / time.Duration(count)
		all = append(all, each.String())
		best = min(best, each)
	}
	fmt.Println(best.Nanoseconds(), strings.Join(all, " "))
	return nil
}
