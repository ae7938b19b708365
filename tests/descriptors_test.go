// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inherited are how many descriptors a caller has open, and lets every program have.
const inherited = 50

// openOfAllKinds has directories, files, sockets, pipes and descriptors without any right
// open; every directory is the decoy.
func openOfAllKinds(t *testing.T, d decoy) []*os.File {
	t.Helper()
	var list []*os.File
	keep := func(fd int, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "inherited")
		t.Cleanup(func() { f.Close() })
		list = append(list, f)
	}
	for len(list) < inherited {
		for _, flags := range []int{unix.O_RDONLY | unix.O_DIRECTORY, unix.O_PATH, unix.O_PATH | unix.O_DIRECTORY} {
			keep(unix.Open(d.dir, flags|unix.O_CLOEXEC, 0))
		}
		keep(unix.Open(filepath.Join(d.dir, "secret"), unix.O_RDWR|unix.O_CLOEXEC, 0))
		keep(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
		keep(unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
		keep(unix.MemfdCreate("inherited", unix.MFD_CLOEXEC))
		keep(unix.InotifyInit1(unix.IN_CLOEXEC))
		keep(unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0))
		keep(unix.PidfdOpen(os.Getpid(), 0))
	}
	return list
}

// TestDescriptors gives the client 50 descriptors of everything. What runs in the
// container has its own three, as the host sees it, and no working directory is named
// by one of the others: F09.
func TestDescriptors(t *testing.T) {
	for _, rung := range []string{"single", "mapped"} {
		t.Run(rung, func(t *testing.T) {
			needRung(t, rung)
			p, d := newPlayground(t, rung), newDecoy(t)
			files := openOfAllKinds(t, d)
			start := func(args ...string) (string, error) {
				cmd := p.command(args...)
				cmd.ExtraFiles = files
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			started := map[string][]string{
				"one":   {"run", "-d", "--name", "one", "--network", "none", p.image, "probe", "sleep"},
				"child": {"run", "-d", "--name", "child", "--init", "--network", "none", p.image, "probe", "sleep"},
				"exec":  {"exec", "-d", "one", "probe", "sleep"},
			}
			for _, name := range []string{"one", "child", "exec"} {
				if out, err := start(started[name]...); err != nil {
					t.Fatalf("%s: %v %s", name, err, out)
				}
			}
			defer p.sbx("rm", "-f", "one", "child")
			programs := 0
			for pid := range sleepers(t) {
				programs++
				if numbers := descriptorsOf(t, pid); !slices.Equal(numbers, []string{"0", "1", "2"}) {
					t.Errorf("process %d has descriptors %v", pid, numbers)
				}
			}
			if programs != len(started) {
				t.Errorf("%d programs were found, want %d", programs, len(started))
			}
			workingDirectories(t, p, d, start)
		})
	}
}

// workingDirectories has each of 64 descriptors be a working directory, in every way.
func workingDirectories(t *testing.T, p *playground, d decoy, start func(...string) (string, error)) {
	t.Helper()
	p.sbx("tag", p.image, "img")
	before, refused := d.look(t), 0
	for n := range 64 {
		dir := fmt.Sprintf("/proc/self/fd/%d", n)
		context := t.TempDir()
		text := "FROM img\nWORKDIR " + dir + "\nRUN [\"probe\", \"all\", \"cwd\", \"+\", \"ls\", \".\"]\n"
		if err := os.WriteFile(filepath.Join(context, "Dockerfile"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		for what, args := range map[string][]string{
			"run":         {"run", "--rm", "--network", "none", "-w", dir, p.image, "probe", "all", "cwd", "+", "ls", "."},
			"run through": {"run", "--rm", "--network", "none", "-w", dir + "/sub/..", p.image, "probe", "all", "cwd", "+", "ls", "."},
			"exec":        {"exec", "-w", dir, "one", "probe", "all", "cwd", "+", "ls", "."},
			"build":       {"build", "--network", "none", "--no-cache", context},
		} {
			out, err := start(args...)
			if err == nil || strings.Contains(out, "secret") {
				t.Errorf("%s in %s: %v %s", what, dir, err, out)
			}
			if strings.Contains(out, "change directory to "+dir) || strings.Contains(out, dir+": ") {
				refused++
			}
		}
	}
	t.Logf("%d working directories were refused by their name", refused)
	if refused < 4*64 {
		t.Errorf("%d working directories were refused by their name, want all of %d", refused, 4*64)
	}
	if !maps.Equal(before, d.look(t)) {
		t.Error("the decoy was changed")
	}
}

// TestDescriptorsSeen has the looks find what a program inherits, and a working directory
// that is a descriptor's.
func TestDescriptorsSeen(t *testing.T) {
	d := newDecoy(t)
	files := openOfAllKinds(t, d)
	cmd := exec.CommandContext(t.Context(), probeBinary, "hold", "/dev/stdin")
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if n := len(descriptorsOf(t, cmd.Process.Pid)); n < inherited+3 {
		t.Errorf("%d descriptors of %d were seen", n, inherited+3)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Error(err)
	}
	inside := exec.CommandContext(t.Context(), probeBinary, "ls", ".")
	inside.Dir = "/proc/self/fd/" + strconv.Itoa(int(files[0].Fd()))
	if out, err := inside.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("secret")) {
		t.Errorf("a descriptor's directory was not reached: %v %s", err, out)
	}
}

// sleepers are the processes that this test has started, and that sleep.
func sleepers(t *testing.T) map[int]string {
	t.Helper()
	now, err := descendants()
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(now, func(_ int, command string) bool { return command != "probe sleep" })
	return now
}

// descriptorsOf are what a process has open, as its host sees it, but for the poller of
// its own runtime.
func descriptorsOf(t *testing.T, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []string
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && !strings.HasPrefix(link, "anon_inode:[event") {
			numbers = append(numbers, e.Name())
		}
	}
	return numbers
}
