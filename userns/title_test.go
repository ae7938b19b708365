// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestTitle(t *testing.T) {
	for _, tt := range []struct {
		name             string
		args             []string
		own, environment int
		want             string
	}{
		{"room for all", []string{"init", "--", "a b"}, 14, 0, "init\x00--\x00a b\x00\x00\x00"},
		{"just enough", []string{"init", "--"}, 8, 50, "init\x00--\x00"},
		{"over the environment", []string{"init", "--", "cmd"}, 8, 50, "init -- cmd\x00"},
		{"cut", []string{"init", "--", "cmd"}, 4, 5, "init -- \x00"},
		{"cut, without an environment", []string{"init", "--"}, 4, 0, "ini\x00"},
		{"no room", []string{"init"}, 0, 50, ""},
	} {
		if got := title(tt.args, tt.own, tt.environment); string(got) != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestContiguous(t *testing.T) {
	area := []byte("one\x00two\x00three\x00")
	part := func(from, to int) string { return unsafe.String(&area[from], to-from) }
	for _, tt := range []struct {
		list []string
		want int
	}{
		{[]string{part(0, 3), part(4, 7), part(8, 13)}, 14},
		{[]string{part(0, 3), part(8, 13)}, 4},
		{[]string{part(0, 3), "two"}, 4},
		{[]string{part(4, 7), part(8, 13)}, 10},
		{[]string{"one"}, 4},
		{[]string{""}, 0},
		{nil, 0},
	} {
		if got := contiguous(tt.list); got != tt.want {
			t.Errorf("%q: %d bytes, want %d", tt.list, got, tt.want)
		}
	}
}

// What ps shows of a process that runs a program is what the program says; its
// parent's is as it was. Its status reaches whoever wants it, before its end.
func TestRetitleAndTell(t *testing.T) {
	before, err := os.ReadFile("/proc/self/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	gateR, gateW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	statusR, statusW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	high, err := HighFile(statusW)
	if err != nil {
		t.Fatal(err)
	}
	program := &Prog{}
	program.Call("wait", unix.SYS_READ, int(gateR.Fd()), make([]byte, 1), 1)
	program.Exit(9)
	p := &Prog{}
	pid := p.Reg()
	p.Fork("clone program", 0, nil, program).Into(pid)
	p.Retitle("titled", []string{"t", "--", "x"})
	p.ReapAndTell(pid, int(high.Fd()))
	child, err := Fork(p)
	if err != nil {
		t.Fatal(err)
	}
	high.Close()
	statusW.Close()
	// The program ends when this process's end has been closed, and it has not yet.
	dir := "/proc/" + strconv.Itoa(child.PID)
	for {
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil {
			t.Fatal(err)
		}
		cmdline, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		if string(comm) == "titled\n" && bytes.HasPrefix(cmdline, []byte("t\x00--\x00x\x00")) {
			break
		}
	}
	if after, err := os.ReadFile("/proc/self/cmdline"); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the parent's arguments are %q, were %q: %v", after, before, err)
	}
	if _, err := gateW.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(statusR); err != nil || !bytes.Equal(got, []byte{9}) {
		t.Errorf("told %v, %v; want 9", got, err)
	}
	if ws, err := child.Wait(); err != nil || ws.ExitStatus() != 9 {
		t.Errorf("status %v, %v; want 9", ws, err)
	}
}
