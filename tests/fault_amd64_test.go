// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setNumber has the call that begins be another one.
func setNumber(tid int, n int64) error {
	return pokeWord(tid, unsafe.Offsetof(unix.PtraceRegsAmd64{}.Orig_rax), n)
}

// setResult has the call that ends return something else.
func setResult(tid int, v int64) error {
	return pokeWord(tid, unsafe.Offsetof(unix.PtraceRegsAmd64{}.Rax), v)
}

// pokeWord writes a register by its place among all of them.
func pokeWord(tid int, at uintptr, v int64) error {
	_, err := unix.PtracePokeUser(tid, at, binary.NativeEndian.AppendUint64(nil, uint64(v)))
	return err
}
