// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// StepError is the failure of one call of a start program: which, and why. It
// unwraps to the errno.
type StepError struct {
	Step  string // as the program names it, "mount proc on /proc"
	Errno unix.Errno
}

func (e *StepError) Error() string { return e.Step + ": " + e.Errno.Error() }

func (e *StepError) Unwrap() error { return e.Errno }

// SetupError says that a user namespace could not be had on this host. Its hint
// names the gate that is shut and what an administrator can do.
type SetupError struct {
	Op   string
	Err  error
	Gate string // a line for the user; may be empty
}

func (e *SetupError) Error() string { return e.Op + ": " + e.Err.Error() }

func (e *SetupError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *SetupError) Hint() string { return e.Gate }

// RemoteError is the failure of a role, as it told it: text, hint and errno are
// those of the error there, so that it reads as if it had happened here.
type RemoteError struct {
	Text  string     `json:"text"`
	Help  string     `json:"hint,omitempty"`
	Errno unix.Errno `json:"errno,omitempty"`
}

func (e *RemoteError) Error() string { return e.Text }

// Hint is the hint of the error in the role, or empty.
func (e *RemoteError) Hint() string { return e.Help }

func (e *RemoteError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Remote turns an error into the form that travels.
func Remote(err error) *RemoteError {
	r := &RemoteError{Text: err.Error()}
	errors.As(err, &r.Errno)
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		r.Help = h.Hint()
	}
	return r
}

// explain finds the gate behind the errno of a clone or of a map that was
// refused (user_namespaces(7), and the sysctls that distributions added).
func explain(op string, err error) error {
	e := &SetupError{Op: op, Err: err}
	switch {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS):
		e.Err = fmt.Errorf("the limit on user namespaces is reached (%w)", unix.ENOSPC)
		e.Gate = "user namespaces are switched off or used up here (user.max_user_namespaces=" + sysctl("user/max_user_namespaces") +
			"); an administrator can raise it: sysctl user.max_user_namespaces=15000"
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS):
		e.Gate = "this kernel was built without user namespaces (CONFIG_USER_NS)"
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		e.Gate = permissionGate()
	}
	return e
}

func permissionGate() string {
	if sysctl("kernel/unprivileged_userns_clone") == "0" {
		return "user namespaces are closed to users here (kernel.unprivileged_userns_clone=0); an administrator can open them: sysctl kernel.unprivileged_userns_clone=1"
	}
	if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		return "AppArmor restricts user namespaces here (kernel.apparmor_restrict_unprivileged_userns=1); an administrator can allow them with a profile for this binary, or: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	}
	if data, err := os.ReadFile("/proc/self/status"); err == nil && strings.Contains(string(data), "\nSeccomp:\t2") {
		return "a seccomp filter around this process refuses user namespaces; inside a container, its creator must allow them (docker run --security-opt seccomp=unconfined)"
	}
	return "a security module or the surrounding container refuses user namespaces; ask the administrator, and see sbx info"
}

// sysctl reads a value under /proc/sys, or returns "" where there is none.
func sysctl(name string) string {
	data, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
