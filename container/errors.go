// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sbx/userns"
)

// Exit statuses of a container that did not run, as Docker has them.
const (
	statusFailed     = 125 // sbx itself
	statusNoExecute  = 126 // the program cannot be executed
	statusNoProgram  = 127 // the program is not there
	statusSignalBase = 128
)

// StartError says that a container could not be started, with the exit status
// for it. Without an Err it is advice only: the program ran, and met what the
// base does not allow.
type StartError struct {
	Err    error
	Code   int
	Advice string
}

func (e *StartError) Error() string {
	if e.Err == nil {
		return "exit status " + strconv.Itoa(e.Code)
	}
	return e.Err.Error()
}

func (e *StartError) Unwrap() error { return e.Err }

// Status is 125, 126 or 127.
func (e *StartError) Status() int { return e.Code }

// Hint says what to do about it, or is empty.
func (e *StartError) Hint() string { return e.Advice }

// startFailure reads the failure of a start program.
func startFailure(err error, program, dir string) (int, error) {
	if errors.Is(err, context.Canceled) {
		return statusFailed, err
	}
	e := explain(err, program, dir)
	return e.Code, e
}

func explain(err error, program, dir string) *StartError {
	e := &StartError{Err: err, Code: statusFailed, Advice: hintOf(err)}
	var step *userns.StepError
	if !errors.As(err, &step) {
		return e
	}
	switch {
	case dir != "" && step.Step == directoryStep(dir):
		e.Code, e.Advice = statusNoExecute, ""
		if step.Errno == unix.ENOENT {
			e.Code, e.Advice = statusNoProgram, "there is no such directory in the container"
		}
	case step.Step == executeStep(program):
		e.Code, e.Advice = executeFailure(step.Errno, program)
		e.Err = fmt.Errorf("execute %q: %w", program, step.Errno)
	case entersOther(step.Step) && step.Errno == unix.ESRCH:
		e.Advice = "it has just ended; start it, then this one"
	case entersOther(step.Step) && step.Errno == unix.EPERM:
		e.Advice = "it has been started anew; start this one anew as well (sbx restart)"
	case step.Step == "create namespaces" && step.Errno == unix.ENOSPC:
		e.Advice = "the limit on network or other namespaces is reached; an administrator can raise user.max_net_namespaces and its siblings"
	case step.Step == "mount proc" && step.Errno == unix.EPERM:
		e.Advice = "the surrounding container hides parts of /proc; its creator can show them (docker run --security-opt systempaths=unconfined)"
	case strings.HasPrefix(step.Step, "open /") && (step.Errno == unix.ELOOP || step.Errno == unix.ENOTDIR):
		e.Advice = "the image has a link or a file where a system directory belongs; it cannot be run"
	case strings.HasPrefix(step.Step, "mount ") && step.Errno == unix.ENOTDIR:
		e.Advice = "a directory can be mounted on a directory only, and a file on a file"
	}
	return e
}

func executeFailure(errno unix.Errno, program string) (int, string) {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		if strings.Contains(program, "/") {
			return statusNoProgram, "there is no such file in the image, or the interpreter that its first line names is missing"
		}
		return statusNoProgram, "the image has no such program in its PATH"
	case unix.ENOEXEC:
		return statusNoExecute, "it is built for another kind of machine, or a script without #! in its first line"
	case unix.EACCES:
		return statusNoExecute, "the file is a directory or has no execute permission"
	}
	return statusNoExecute, ""
}
