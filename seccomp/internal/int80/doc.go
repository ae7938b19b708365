// SPDX-License-Identifier: Apache-2.0

// Package int80 makes system calls of 32-bit x86 from a 64-bit program, as hostile
// programs do. It is for tests of filters.
//
// It never runs on other architectures, where it is empty, and never in sbx.
package int80
