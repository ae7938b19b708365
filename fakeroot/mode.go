// SPDX-License-Identifier: Apache-2.0

package fakeroot

import "fmt"

// Mode says how much of root is emulated. The zero Mode is Auto.
type Mode uint8

// The modes, as --root-emulation takes them.
const (
	Auto       Mode = iota // Notify, or what the kernel can do of it
	Notify                 // every identity, ownership and mode is answered consistently
	NotifyFast             // the same but for files that are asked about by an open descriptor: tar records root's owners
	IDs                    // the same without stat: identities and records, but ls shows root's files
	Zero                   // calls that would fail are said to have succeeded, and nothing else
	None                   // nothing
)

var modeNames = [...]string{"auto", "notify", "notify-fast", "ids", "zero", "none"}

func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// ParseMode reads the value of --root-emulation; empty is Auto.
func ParseMode(s string) (Mode, error) {
	if s == "" {
		return Auto, nil
	}
	for i, name := range modeNames {
		if s == name {
			return Mode(i), nil
		}
	}
	return Auto, &modeError{s}
}

type modeError struct{ given string }

func (e *modeError) Error() string {
	return fmt.Sprintf("parse root emulation %q: no such mode", e.given)
}

// Hint lists the modes.
func (e *modeError) Hint() string {
	return "it is one of auto, notify, notify-fast, ids, zero and none"
}

// Listens reports whether the filter of the mode has a listener, which a
// Supervisor must serve.
func (m Mode) Listens() bool { return m == Notify || m == NotifyFast || m == IDs }

// MarshalText writes the name.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what ParseMode does.
func (m *Mode) UnmarshalText(text []byte) error {
	var err error
	*m, err = ParseMode(string(text))
	return err
}

// APTConfig is the text of a file that the environment variable APT_CONFIG must
// name in mode Zero, and in no other: apt drops to its own user for downloads
// and, other than most programs, looks whether that worked.
const APTConfig = "APT::Sandbox::User \"root\";\n"

// ZeroWarning is what a user of mode Zero should read once.
const ZeroWarning = "root emulation is faked success here: chown, setuid and mknod report success and do nothing, so files keep no owners"
