// SPDX-License-Identifier: Apache-2.0

package seccomp

import "fmt"

// ProfileError is a profile that cannot be applied, with what its author can do.
type ProfileError struct {
	cause error
	hint  string
}

func (e *ProfileError) Error() string { return e.cause.Error() }

// Unwrap is the cause.
func (e *ProfileError) Unwrap() error { return e.cause }

// Hint is a remedy, or empty.
func (e *ProfileError) Hint() string { return e.hint }

func tooLong() error {
	return &ProfileError{
		cause: fmt.Errorf("build seccomp filter: it is longer than the %d instructions that the kernel takes", maxLen),
		hint:  "let rules that test arguments name fewer system calls",
	}
}
