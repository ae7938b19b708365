// SPDX-License-Identifier: Apache-2.0

package protohelpers

import "errors"

// Errors of decoding, which is never tried.
var (
	ErrInvalidLength = errors.New("protocol buffers are not linked in")
	ErrIntOverflow   = ErrInvalidLength
)

// EncodeVarint encodes nothing.
func EncodeVarint(_ []byte, offset int, _ uint64) int { return offset }

// SizeOfVarint is the size of nothing.
func SizeOfVarint(uint64) int { return 0 }

// Skip skips nothing.
func Skip([]byte) (int, error) { return 0, ErrInvalidLength }
