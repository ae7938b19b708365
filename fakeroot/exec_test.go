// SPDX-License-Identifier: Apache-2.0

package fakeroot

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// exec runs a program beside the first one, as `exec` of package container does,
// and returns its status.
func (c *container) exec(user Credentials, argv ...string) int {
	c.w.t.Helper()
	t := c.w
	inner := &userns.Prog{}
	inner.Call("chdir", unix.SYS_CHDIR, "/")
	ours, theirs, err := userns.Pair()
	t.must(err)
	defer ours.Close()
	high, err := userns.HighFile(theirs)
	t.must(err)
	theirs.Close()
	inner.Call("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	inner.CloseFrom(3)
	t.finish(inner, int(high.Fd()), argv)
	pidfd := c.pidOne()
	outer := &userns.Prog{}
	pid := outer.Reg()
	flags := unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if !t.hostNetwork {
		flags |= unix.CLONE_NEWNET
	}
	outer.Join(int(pidfd.Fd()), flags)
	outer.Fork("clone program", 0, nil, inner).Into(pid)
	outer.Call("close", unix.SYS_CLOSE_RANGE, 0, uintptr(^uint32(0)), 0)
	outer.Reap(pid)
	middle, err := userns.Fork(outer)
	t.must(err)
	high.Close()
	var message struct{ What string }
	files, err := ours.Receive(t.t.Context(), &message)
	t.must(err)
	t.must(c.conn.Send(monitorRequest{What: "listener", User: user}, files[0]))
	files[0].Close()
	t.must(middle.Started(t.t.Context()))
	ws, err := middle.Wait()
	t.must(err)
	return ws.ExitStatus()
}

// pidOne is the container's first process, found from outside as the monitor's
// only child.
func (c *container) pidOne() *os.File {
	c.w.t.Helper()
	if c.pidfd != nil {
		return c.pidfd
	}
	monitor := strconv.Itoa(c.process.PID)
	data, err := os.ReadFile("/proc/" + monitor + "/task/" + monitor + "/children")
	c.w.must(err)
	pid, err := strconv.Atoi(strings.Fields(string(data))[0])
	c.w.must(err)
	fd, err := unix.PidfdOpen(pid, 0)
	c.w.must(err)
	c.pidfd = os.NewFile(uintptr(fd), "pidfd")
	return c.pidfd
}

func (c *container) figures() monitorEnd {
	c.w.t.Helper()
	c.w.must(c.conn.Send(monitorRequest{What: "figures"}))
	var f monitorEnd
	_, err := c.conn.Receive(c.w.t.Context(), &f)
	c.w.must(err)
	return f
}

// What exec adds shares owners with the rest, and starts as whoever it is asked to.
func TestExec(t *testing.T) {
	w := newWorld(t, "")
	c := w.start("/probe", "sleep")
	c.readUntil("ready")
	for _, p := range []struct {
		user Credentials
		argv []string
	}{
		{Credentials{}, []string{"/probe", "expect-id", "0 0 0 0 0 0 []"}},
		{User(5, 6, []uint32{7}), []string{"/probe", "expect-id", "5 5 5 6 6 6 [7]"}},
		{Credentials{}, []string{"/probe", "give", "/tmp"}},
		{User(5, 6, nil), []string{"/probe", "expect-owner", "/tmp/f", "8:9:644"}},
		{Credentials{}, []string{"/probe", "expect-owner", "/tmp/l", "8:9:777"}},
	} {
		if status := c.exec(p.user, p.argv...); status != 0 {
			t.Errorf("%v as %v: status %d", p.argv, p.user, status)
		}
	}
	c.process.Kill()
	c.process.Wait()
}
