// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"syscall"
)

// The exit statuses, as Docker has them. A program that ran gives its own, and
// 128+n when signal n ended it.
const (
	statusFailed = 1   // a command that runs no program did not do what was asked
	statusSbx    = 125 // sbx could not start the program, or could not read the command line
	// 126, the program cannot be executed, and 127, it is not there, come with
	// the error: container.StartError.
	statusSignal = 128
)

// statusError is an error that settles the exit status. Without err it says
// nothing: the program has ended with that status, or the user interrupted us.
type statusError struct {
	status int
	err    error
	hint   string // instead of the error's own
}

func (e *statusError) Error() string {
	if e.err == nil {
		return "exit status"
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// Hint says what helps.
func (e *statusError) Hint() string {
	var h interface{ Hint() string }
	if e.hint == "" && errors.As(e.err, &h) {
		return h.Hint()
	}
	return e.hint
}

// exited is the end of a program, or nil for a good one.
func exited(status int) error {
	if status == 0 {
		return nil
	}
	return &statusError{status: status}
}

// interrupted is the end of a command that a signal ended.
func interrupted(s syscall.Signal) error { return exited(statusSignal + int(s)) }

// status is the exit status for err; otherwise is that of an error which has no
// opinion.
func status(err error, otherwise int) int {
	var settled *statusError
	var usage *usageError
	var start interface{ Status() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &settled):
		return settled.status
	case errors.As(err, &usage):
		return statusSbx
	case errors.As(err, &start) && start.Status() > 0:
		return start.Status()
	}
	return otherwise
}
