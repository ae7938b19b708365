// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// trampoline is never called: it is copied to the start of a program of its own,
// see trampoline.go, which has the layout that the numbers here are of. It uses no
// memory but the table, which it only reads, and a few bytes below the stack.
TEXT trampoline<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVD $0x400208, R19 // the call to make
	MOVD $2, R20        // what attempts have met; ENOENT if there are none

next:
	MOVD 0(R19), R8
	TBNZ $63, R8, exhausted
	LDP 8(R19), (R0, R1)
	LDP 24(R19), (R2, R3)
	LDP 40(R19), (R4, R5)
	SVC
	CMN $4095, R0
	BCS failed
	MOVD 64(R19), R1
	CMP R1, R0
	BLT short
	ADD $88, R19
	B next

short:
	MOVD $32, R0 // EPIPE
	B report

failed:
	NEG R0, R0
	CMP $63, R0
	BHI report
	MOVD 56(R19), R1
	LSR R0, R1, R1
	TBZ $0, R1, report
	CMP $13, R20 // EACCES, which tells more than the others
	BEQ skip
	MOVD R0, R20

skip:
	MOVD 72(R19), R1
	ADD R1, R19
	B next

exhausted:
	MOVD R20, R0

report:
	MOVD 80(R19), R1
	MOVW R1, -16(RSP)
	MOVW R0, -12(RSP)
	MOVD $64, R8 // write
	MOVD $0x400200, R0
	MOVD 0(R0), R0
	SUB $16, RSP, R1
	MOVD $8, R2
	SVC
	MOVD $94, R8 // exit_group
	MOVD $1, R0
	SVC
	UNDEF

DATA ·trampolineCode(SB)/8, $trampoline<>(SB)
GLOBL ·trampolineCode(SB), RODATA, $8
