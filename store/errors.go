// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sbx/reference"
)

// ErrNotFound is the cause when no image has a name, digest or ID.
var ErrNotFound = errors.New("no such image")

// ErrAmbiguous is the cause when several image IDs begin with a prefix.
var ErrAmbiguous = errors.New("several images have an ID that begins so")

// DigestError says that content is not what its digest promised.
type DigestError struct {
	Want, Got reference.Digest
	advice    string
}

// Error implements error.
func (e *DigestError) Error() string {
	return fmt.Sprintf("wrong content: its digest is %s, not %s", e.Got, e.Want)
}

// Hint says what to do about it, or is "".
func (e *DigestError) Hint() string { return e.advice }

// SizeError says that content is shorter or longer than its descriptor promised.
type SizeError struct {
	Want int64
	Got  int64 // -1: more than Want
}

// Error implements error.
func (e *SizeError) Error() string {
	if e.Got < 0 {
		return fmt.Sprintf("wrong size: more than the promised %d bytes", e.Want)
	}
	return fmt.Sprintf("wrong size: %d bytes instead of %d", e.Got, e.Want)
}

// SpaceError says that the disk or the user's quota is full.
type SpaceError struct {
	Needed int64 // at least so many bytes; 0: not known
	Free   int64 // what this user may still write; -1: not known
	Err    error
}

// Error implements error.
func (e *SpaceError) Error() string {
	text := e.Err.Error()
	if e.Needed > 0 {
		text += fmt.Sprintf(": at least %s needed", formatSize(e.Needed))
	}
	if e.Free >= 0 {
		text += fmt.Sprintf(", %s free", formatSize(e.Free))
	}
	return text
}

// Unwrap returns the errno's chain.
func (e *SpaceError) Unwrap() error { return e.Err }

// Hint says what to do about it.
func (e *SpaceError) Hint() string {
	return "make room (sbx rmi IMAGE removes an image), or keep images on another disk (SBX_HOME)"
}

func isSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// spaceError makes a *SpaceError of one that says so and returns others as they are. One
// that is a *SpaceError already is told again what is free: more, after cleaning up.
func spaceError(err error, dir string, needed int64) error {
	if err == nil || !isSpace(err) {
		return err
	}
	if already, ok := errors.AsType[*SpaceError](err); ok {
		already.Free = freeSpace(dir)
		return err
	}
	return &SpaceError{Needed: needed, Free: freeSpace(dir), Err: err}
}

// freeSpace is what the filesystem has left for this user, or -1.
func freeSpace(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Bsize <= 0 || st.Bavail > 1<<50 {
		return -1
	}
	return int64(st.Bavail) * st.Bsize
}

// formatSize writes bytes as Docker does: decimal, four significant digits at most.
func formatSize(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	return fmt.Sprintf("%.4g%s", f, units[i])
}

// advise gives err a line for the user about what helps.
func advise(err error, hint string) error { return &advised{err, hint} }

type advised struct {
	error
	hint string
}

func (e *advised) Unwrap() error { return e.error }

func (e *advised) Hint() string { return e.hint }
