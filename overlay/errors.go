// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrInUse says that a tree on NFS cannot be removed yet, because some process
// still has a file of it open or runs it.
var ErrInUse = errors.New("a program still runs from it or has a file open")

// EntryError says which entry of an archive could not be unpacked, and wraps the
// cause; an errno (no space left, quota exceeded) is found with errors.Is.
type EntryError struct {
	Op   string // what was done, "create"
	Name string // as the archive has it
	Err  error
}

func (e *EntryError) Error() string { return e.Op + " " + quote(e.Name) + ": " + e.Err.Error() }

func (e *EntryError) Unwrap() error { return e.Err }

// Hint is the hint of the cause, if it has one.
func (e *EntryError) Hint() string { return hintOf(e.Err) }

// ArchiveError says that an archive is damaged, ambiguous, or no archive.
type ArchiveError struct {
	Entries int64 // how many entries were read before
	Err     error
}

func (e *ArchiveError) Error() string {
	where := "read archive: "
	if e.Entries > 0 {
		where = "read archive after " + strconv.FormatInt(e.Entries, 10) + " entries: "
	}
	if errors.Is(e.Err, io.ErrUnexpectedEOF) {
		return where + "it ends too early"
	}
	return where + e.Err.Error()
}

func (e *ArchiveError) Unwrap() error { return e.Err }

// LimitError says that an archive is larger, in some way, than Limits allow.
type LimitError struct {
	What string // what there is too much of
	Max  int64
}

func (e *LimitError) Error() string {
	return "more than " + strconv.FormatInt(e.Max, 10) + " " + e.What
}

// Hint says what such an archive is.
func (e *LimitError) Hint() string {
	return "no ordinary image is like this; the archive may be made to fill the disk"
}

// IDError says that an owner does not exist in the user namespace.
type IDError struct {
	UID, GID uint32
	Err      error
}

func (e *IDError) Error() string {
	return fmt.Sprintf("change owner to %d:%d: not mapped into this user namespace (%v)", e.UID, e.GID, e.Err)
}

func (e *IDError) Unwrap() error { return e.Err }

// Hint says which range would hold the owner.
func (e *IDError) Hint() string {
	need := max(e.UID, e.GID)
	if need >= 1<<24 { // nobody hands out ranges like that
		return "no range of subordinate IDs holds that owner; --rung single needs none"
	}
	return fmt.Sprintf("your range in /etc/subuid and /etc/subgid is too small for owner %d; --rung single needs none", need)
}

// FeatureError says what a filesystem or kernel does not do.
type FeatureError struct {
	Feature string // "user attributes"
	Where   string // the directory
	Err     error
	Remedy  string
}

func (e *FeatureError) Error() string {
	return "use " + e.Feature + " in " + e.Where + ": " + e.Err.Error()
}

func (e *FeatureError) Unwrap() error { return e.Err }

// Hint says what would help.
func (e *FeatureError) Hint() string { return e.Remedy }

// quote makes a name from an archive safe to print, and no longer than a line.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		return strconv.Quote(name[:most]) + ".."
	}
	return strconv.Quote(name)
}

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// named says what a system call was for, as "set attribute user.x: no space".
func named(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", op, err)
}

// chownError explains the errno of a chown to u:g.
func chownError(u, g uint32, err error) error {
	if err == unix.EINVAL || err == unix.EOVERFLOW {
		return &IDError{UID: u, GID: g, Err: err}
	}
	return named(fmt.Sprintf("change owner to %d:%d", u, g), err)
}
