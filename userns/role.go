// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Role is one way in which this binary starts itself. It runs where its starter
// put it and talks to it over c. It never parses flags.
type Role func(ctx context.Context, c *Conn) error

const (
	rolePrefix = "sbx-"
	roleFD     = 3
)

// Dispatch runs the role that argv[0] names and exits, or returns at once when
// this process is the command that a user typed. A role starts only when its
// descriptor 3 is a SOCK_SEQPACKET socket: argv[0] alone is anybody's to choose.
// (That is no security boundary: a role gives its starter nothing that the
// starter lacks.)
func Dispatch(roles map[string]Role) {
	name, ok := strings.CutPrefix(os.Args[0], rolePrefix)
	if !ok {
		return
	}
	role, ok := roles[name]
	if !ok {
		return
	}
	if kind, err := unix.GetsockoptInt(roleFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return
	}
	unix.CloseOnExec(roleFD)
	c, err := newConn(roleFD)
	if err != nil {
		os.Exit(1)
	}
	if err := role(context.Background(), c); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// RefuseSetID exits, with status 125, where this program is somebody else's
// set-user-ID or set-group-ID program: it is to come before everything else.
func RefuseSetID() {
	if isLent(os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid()) {
		fmt.Fprintln(os.Stderr, "sbx: start: this program is set-user-ID, which it is never to be\nsbx: hint: its owner can end that: chmod 755 and its path")
		os.Exit(125)
	}
}

// isLent reports whether this process has its rights of the owner of its file and
// not of who started it.
func isLent(uid, euid, gid, egid int) bool { return uid != euid || gid != egid }

// reply is how a job answers.
type reply struct {
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  *RemoteError    `json:"error,omitempty"`
}

// Answer makes a role of a function from one question to one answer. The files
// of the question are closed when it returns.
func Answer[Q, A any](f func(ctx context.Context, q Q, files []*os.File) (A, error)) Role {
	return func(ctx context.Context, c *Conn) error {
		var q Q
		files, err := c.Receive(ctx, &q)
		if err != nil {
			return err
		}
		defer closeAll(files)
		a, err := f(ctx, q, files)
		var r reply
		if err != nil {
			r.Error = Remote(err)
		} else if r.Answer, err = json.Marshal(a); err != nil {
			return err
		}
		return c.Send(r)
	}
}

// Call starts this binary in a role, in a new user and mount namespace of rung
// r, where it is uid 0 with all capabilities over the mapped IDs; it sends q and
// files, and returns the answer. An error of the role comes back as if it had
// happened here. When ctx ends, the role is killed.
func Call[Q, A any](ctx context.Context, r Rung, role string, q Q, files ...*os.File) (A, error) {
	var a A
	c, theirs, err := Pair()
	if err != nil {
		return a, err
	}
	defer c.Close()
	high, err := HighFile(theirs)
	theirs.Close()
	if err != nil {
		return a, err
	}
	// The parent whose death is told of is this thread (PR_SET_PDEATHSIG(2const)):
	// nobody else may have it meanwhile and end it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := &Prog{}
	p.Call("die with parent", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	p.Execve(role, "", nil, int(high.Fd()))
	child, err := Start(ctx, r, unix.CLONE_NEWNS, p)
	high.Close()
	if err != nil {
		return a, fmt.Errorf("start %s: %w", role, err)
	}
	defer child.Wait()
	defer child.Kill()
	if err := child.Started(ctx); err != nil {
		return a, fmt.Errorf("start %s: %w", role, err)
	}
	if err := c.Send(q, files...); err != nil {
		return a, fmt.Errorf("ask %s: %w", role, err)
	}
	var answer reply
	if _, err := c.Receive(ctx, &answer); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended without an answer")
		}
		return a, fmt.Errorf("ask %s: %w", role, err)
	}
	if answer.Error != nil {
		return a, answer.Error
	}
	if err := json.Unmarshal(answer.Answer, &a); err != nil {
		return a, fmt.Errorf("ask %s: %w", role, err)
	}
	return a, nil
}
