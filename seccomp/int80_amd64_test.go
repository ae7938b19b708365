// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"golang.org/x/sys/unix"

	"sbx/seccomp/internal/int80"
)

// compatCall makes a call of the machine's 32-bit architecture.
func compatCall(d Data) unix.Errno {
	if r := int32(int80.Call(uint64(d.Number), d.Args)); r < 0 && r >= -maxErrno {
		return unix.Errno(-r)
	}
	return 0
}
