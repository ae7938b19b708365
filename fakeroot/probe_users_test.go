// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

func resuid() string {
	r, e, s := unix.Getresuid()
	return fmt.Sprint(r, e, s)
}

// raw makes a set*id call without the Go runtime's going through all threads.
func raw(nr uintptr, args ...int) error {
	var a [3]uintptr
	for i, v := range args {
		a[i] = uintptr(v)
	}
	_, _, errno := unix.RawSyscall(nr, a[0], a[1], a[2])
	if errno != 0 {
		return errno
	}
	return nil
}

func probeUsers([]string) error {
	if err := first(
		expect("start", resuid(), "0 0 0"),
		unix.Setgroups([]int{30, 10, 20}),
		raw(unix.SYS_SETREUID, -1, 1000), expect("effective", resuid(), "0 1000 1000"),
		raw(unix.SYS_SETREUID, -1, 0), expect("regained", resuid(), "0 0 1000"),
		raw(unix.SYS_SETRESUID, -1, 33, 0), expect("effective", resuid(), "0 33 0"),
		raw(unix.SYS_SETUID, 0), expect("regained by setuid", resuid(), "0 0 0"),
		raw(unix.SYS_SETRESGID, 5, 6, 7),
	); err != nil {
		return err
	}
	// Another thread is of the same process.
	var other string
	var wg sync.WaitGroup
	wg.Go(func() { other = fmt.Sprint(os.Getegid()) })
	wg.Wait()
	groups, err := unix.Getgroups()
	if err = first(err, expect("groups", fmt.Sprint(groups), "[10 20 30]"), expect("thread", other, "6")); err != nil {
		return err
	}
	// A child changes nothing of its parent, and keeps what it had over execve.
	cmd := exec.Command("/probe", "id")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1001, Groups: []uint32{4}}}
	out, err := cmd.Output()
	if err = first(err, expect("child", strings.TrimSpace(string(out)), "1000 1000 1000 1001 1001 1001 [4]"), expect("parent", resuid(), "0 0 0")); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := first(unix.Setgroups([]int{1}), unix.Setresgid(1001, 1001, 1001), unix.Setresuid(1000, 1000, 1000), expect("dropped", resuid(), "1000 1000 1000")); err != nil {
		return err
	}
	for what, got := range map[string]error{
		"setuid(0)":          raw(unix.SYS_SETUID, 0),
		"setgid(0)":          raw(unix.SYS_SETGID, 0),
		"setreuid":           raw(unix.SYS_SETREUID, 0, 0),
		"setresuid":          raw(unix.SYS_SETRESUID, -1, 0, -1),
		"setgroups":          unix.Setgroups([]int{0}),
		"seteuid of another": raw(unix.SYS_SETRESUID, -1, 5, -1),
	} {
		if got != unix.EPERM {
			return fmt.Errorf("%s as a user: %v", what, got)
		}
	}
	return expect("setuid(-1)", raw(unix.SYS_SETUID, -1), error(unix.EINVAL))
}

// probeSuid runs as user 1000.
func probeSuid(args []string) error {
	if len(args) > 0 && args[0] == "show" {
		fmt.Println(resuid(), os.Getegid())
		return nil
	}
	if len(args) > 0 {
		cmd := exec.Command("/suid/both", "suid", "show")
		cmd.Args[0] = "probe"
		out, err := cmd.CombinedOutput()
		fmt.Print(string(out))
		return err
	}
	for _, c := range []struct{ file, want string }{
		{"/suid/both", "1000 5 5 6"},
		{"/suid/group", "1000 1000 1000 6"},
		{"/suid/plain", "1000 1000 1000 1001"},
		{"/suid/lockable", "1000 1000 1000 1001"}, // S_ISGID without S_IXGRP
		{"/suid/script", "1000 1000 1000 1001"},
	} {
		cmd := exec.Command(c.file, "suid", "show")
		cmd.Args[0] = "probe"
		out, err := cmd.CombinedOutput()
		if err := first(err, expect(c.file, strings.TrimSpace(string(out)), c.want)); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	// What cannot be executed changes nobody.
	for _, file := range []string{"/suid/missing", "/suid/forbidden", "/suid/dir"} {
		err := unix.Exec(file, []string{file}, nil)
		if err == nil || resuid() != "1000 1000 1000" {
			return fmt.Errorf("after failed exec of %s (%v): %s", file, err, resuid())
		}
	}
	return nil
}

func prepareSuid() error {
	data, err := os.ReadFile("/probe")
	if err != nil {
		return err
	}
	if err := enter("/suid"); err != nil {
		return err
	}
	for name, mode := range map[string]uint32{"both": 0o6755, "group": 0o2755, "plain": 0o755, "lockable": 0o2745, "script": 0o6755, "forbidden": 0o6644} {
		content := data
		if name == "script" {
			content = []byte("#!/probe\n")
		}
		if err := first(os.WriteFile(name, content, 0o755), os.Chown(name, 5, 6), unix.Chmod(name, mode)); err != nil {
			return err
		}
	}
	return first(os.Mkdir("dir", 0o755), os.Chown("dir", 5, 6), unix.Chmod("dir", 0o6755))
}

func probeLimits([]string) error {
	if err := unix.Setresuid(33, 33, 33); err != nil {
		return err
	}
	limit := unix.Rlimit{Cur: 5, Max: 5}
	var got unix.Rlimit
	if err := first(
		unix.Setrlimit(unix.RLIMIT_LOCKS, &limit), expect("after setrlimit", resuid(), "33 33 33"),
		unix.Prlimit(0, unix.RLIMIT_LOCKS, &limit, &got), expect("after prlimit", resuid(), "33 33 33"),
		expect("old limit", got.Cur, uint64(unix.RLIM_INFINITY)),
		unix.Getrlimit(unix.RLIMIT_LOCKS, &got), expect("limit", got.Max, uint64(unix.RLIM_INFINITY)),
	); err != nil {
		return err
	}
	// Another limit is what it was.
	before := got
	return first(unix.Getrlimit(unix.RLIMIT_NOFILE, &before), unix.Setrlimit(unix.RLIMIT_NOFILE, &before), unix.Getrlimit(unix.RLIMIT_NOFILE, &got), expect("files", got, before))
}

// listenUnix binds a socket to a path. Package net would make the test binary
// need a dynamic loader.
func listenUnix(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	return fd, first(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 1))
}

// probePeer accepts a child that has become another user.
func probePeer(args []string) error {
	if len(args) > 0 { // the child
		if err := first(unix.Setresgid(34, 34, 34), unix.Setresuid(33, 33, 33)); err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		return first(unix.Connect(fd, &unix.SockaddrUnix{Name: args[0]}), second(unix.Read(fd, make([]byte, 1))))
	}
	l, err := listenUnix("/tmp/peer")
	if err != nil {
		return err
	}
	cmd := exec.Command("/probe", "peer", "/tmp/peer")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	c, _, err := unix.Accept(l)
	if err != nil {
		return err
	}
	cred, err := unix.GetsockoptUcred(c, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	err = first(expect("pid", int(cred.Pid), cmd.Process.Pid), expect("uid", cred.Uid, 33), expect("gid", cred.Gid, 34))
	unix.Close(c)
	return first(err, cmd.Wait())
}
