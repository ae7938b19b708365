// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func echo(args []string) error {
	fmt.Println(strings.Join(args, " "))
	return nil
}

func cwd([]string) error {
	dir, err := os.Getwd()
	fmt.Println(dir)
	return err
}

func environment([]string) error {
	env := os.Environ()
	slices.Sort(env)
	for _, e := range env {
		fmt.Println(e)
	}
	return nil
}

func identity([]string) error {
	groups, err := os.Getgroups()
	slices.Sort(groups)
	effective := ""
	if os.Geteuid() != os.Getuid() || os.Getegid() != os.Getgid() {
		effective = fmt.Sprintf("euid=%d egid=%d ", os.Geteuid(), os.Getegid())
	}
	fmt.Printf("uid=%d gid=%d %sgroups=%v pid=%d ppid=%d\n", os.Getuid(), os.Getgid(), effective, groups, os.Getpid(), os.Getppid())
	return err
}

func hostname([]string) error {
	name, err := os.Hostname()
	fmt.Println(name)
	return err
}

// caps prints what the kernel says of this process's privileges.
func caps([]string) error {
	return grepStatus("self", "Cap", "NoNewPrivs", "Seccomp:")
}

func grepStatus(pid string, prefixes ...string) error {
	data, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) }) {
			fmt.Print(strings.ReplaceAll(line, "\t", " "))
		}
	}
	return nil
}

func namespaces([]string) error {
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		link, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			return err
		}
		fmt.Println(link)
	}
	return nil
}

func interfaces([]string) error {
	list, err := net.Interfaces()
	for _, i := range list {
		fmt.Println(i.Name, i.Flags)
	}
	return err
}

// processes lists what /proc shows: pid, state, parent, command line.
func processes([]string) error {
	list, err := pids()
	if err != nil {
		return err
	}
	for _, pid := range list {
		command, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil {
			continue
		}
		fmt.Println(pid, state(pid), strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " ")))
	}
	return nil
}

func pids() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	var list []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list, err
}

// state is the letter that /proc has for a process, or "-" when it is gone.
func state(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "-"
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return rest[:1]
}

func parent(pid int) int {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return -1
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	n, _ := strconv.Atoi(strings.Fields(rest)[1])
	return n
}

// kill sends a signal: "kill SIGNAL PID". PID may be -1, or self.
func kill(args []string) error {
	s := unix.SignalNum("SIG" + args[0])
	if s == 0 {
		return fmt.Errorf("no signal %q", args[0])
	}
	pid := os.Getpid()
	if args[1] != "self" {
		var err error
		if pid, err = strconv.Atoi(args[1]); err != nil {
			return err
		}
	}
	if err := unix.Kill(pid, s); err != nil {
		return err
	}
	fmt.Println("sent", args[0])
	return nil
}

// trap says "ready", waits for one of the signals and tells which it was. With
// "-n N" first it waits for N of them.
func trap(args []string) error {
	n := 1
	if len(args) > 1 && args[0] == "-n" {
		n, _ = strconv.Atoi(args[1])
		args = args[2:]
	}
	var list []os.Signal
	for _, name := range args {
		list = append(list, unix.SignalNum("SIG"+name))
	}
	got := make(chan os.Signal, 16)
	signal.Notify(got, list...)
	fmt.Println("ready")
	for range n {
		s := <-got
		fmt.Println("got", unix.SignalName(s.(unix.Signal)))
	}
	return nil
}

// terminal tells of each standard descriptor whether it is a terminal, and
// whether there is a controlling one.
func terminal([]string) error {
	for fd := range 3 {
		w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err != nil {
			fmt.Println(fd, "no")
			continue
		}
		name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		fmt.Println(fd, "yes", name, w.Row, w.Col)
	}
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		fmt.Println("controlling no")
		return nil
	}
	fmt.Println("controlling yes")
	return f.Close()
}

// winsize prints the terminal's size, and again whenever it changes, until a
// line is typed.
func winsize([]string) error {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	typed := make(chan struct{})
	go func() {
		bufio.NewScanner(os.Stdin).Scan()
		close(typed)
	}()
	for {
		w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return err
		}
		fmt.Println("size", w.Row, w.Col)
		select {
		case <-changed:
		case <-typed:
			return nil
		}
	}
}

// orphan makes a process whose parent dies first, lets it end, and tells who its
// parent became and whether somebody reaped it.
func orphan([]string) error {
	middle := exec.Command("/proc/self/exe", "orphaned")
	out, err := middle.StdoutPipe()
	if err != nil {
		return err
	}
	in, err := middle.StdinPipe()
	if err != nil {
		return err
	}
	if err := middle.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	// The orphan ends with its input, and must be one before.
	for parent(pid) == middle.Process.Pid {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("parent", parent(pid))
	in.Close()
	_ = middle.Wait()
	fate := "left"
	for range 2000 {
		if s := state(pid); s == "-" {
			fate = "reaped"
			break
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Println("orphan", fate)
	return nil
}

// orphaned is the middle of orphan: it starts the orphan, tells its pid and ends.
func orphaned([]string) error {
	child := exec.Command("/proc/self/exe", "cat")
	child.Stdin = os.Stdin
	if err := child.Start(); err != nil {
		return err
	}
	fmt.Println(child.Process.Pid)
	return nil
}

// timeCalls prints how long a system call takes, the best of five rounds: "time
// geteuid|getpid|getppid|lstat COUNT".
func timeCalls(args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var st unix.Stat_t
	call := map[string]func(){
		"geteuid": func() { unix.RawSyscallNoError(unix.SYS_GETEUID, 0, 0, 0) },
		"getpid":  func() { unix.RawSyscallNoError(unix.SYS_GETPID, 0, 0, 0) },
		"getppid": func() { unix.RawSyscallNoError(unix.SYS_GETPPID, 0, 0, 0) },
		"lstat":   func() { _ = unix.Lstat("/etc", &st) },
	}[args[0]]
	if call == nil {
		return fmt.Errorf("time %s: no such call", args[0])
	}
	best := time.Duration(1<<63 - 1)
	for range 5 {
		begin := time.Now()
		for range count {
			call()
		}
		best = min(best, time.Since(begin)/time.Duration(count))
	}
	fmt.Println(best)
	return nil
}
