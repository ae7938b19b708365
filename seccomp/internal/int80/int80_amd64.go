// SPDX-License-Identifier: Apache-2.0

package int80

// Call makes a call through the old gate of 32-bit programs and returns what the
// kernel left in the register: errors are small negative numbers. The registers
// are set to all 64 bits of the arguments, of which the kernel means 32 and a
// filter is shown all. A kernel without the gate ends the process by SIGSEGV.
func Call(number uint64, args [6]uint64) (result uint64)
