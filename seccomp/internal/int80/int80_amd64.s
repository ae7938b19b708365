// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// func Call(number uint64, args [6]uint64) (result uint64)
TEXT ·Call(SB), NOSPLIT, $0-64
	MOVQ number+0(FP), AX
	MOVQ args_0+8(FP), BX
	MOVQ args_1+16(FP), CX
	MOVQ args_2+24(FP), DX
	MOVQ args_3+32(FP), SI
	MOVQ args_4+40(FP), DI
	MOVQ BP, R12
	MOVQ args_5+48(FP), BP
	INT  $0x80
	MOVQ R12, BP
	MOVQ AX, result+56(FP)
	RET
