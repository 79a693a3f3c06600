//go:build !purego

#include "textflag.h"

// func hammingRowsSIMD(q, rows *byte, out *float32, dim, n int)
// Sixteen bytes at a time, then eight, then single ones.
TEXT ·hammingRowsSIMD(SB), NOSPLIT, $0-40
	MOVD	q+0(FP), R0
	MOVD	rows+8(FP), R1
	MOVD	out+16(FP), R2
	MOVD	dim+24(FP), R3
	MOVD	n+32(FP), R4
	CMP	$0, R4
	BLE	done

row:
	MOVD	R0, R5
	MOVD	ZR, R6                    // bits so far
	LSR	$4, R3, R7
	CBZ	R7, word

wide:
	VLD1.P	16(R5), [V0.B16]
	VLD1.P	16(R1), [V1.B16]
	VEOR	V0.B16, V1.B16, V0.B16
	VCNT	V0.B16, V0.B16
	VUADDLV	V0.B16, V0
	VMOV	V0.H[0], R8
	ADD	R8, R6
	SUB	$1, R7
	CBNZ	R7, wide

word:
	TBZ	$3, R3, bytes
	VLD1.P	8(R5), [V0.B8]
	VLD1.P	8(R1), [V1.B8]
	VEOR	V0.B8, V1.B8, V0.B8
	VCNT	V0.B8, V0.B8
	VUADDLV	V0.B8, V0
	VMOV	V0.H[0], R8
	ADD	R8, R6

bytes:
	AND	$7, R3, R7
	CBZ	R7, store

byte:
	MOVBU.P	1(R5), R8
	MOVBU.P	1(R1), R9
	EOR	R8, R9, R8
	FMOVS	R8, F0
	VCNT	V0.B8, V0.B8
	VMOV	V0.B[0], R8
	ADD	R8, R6
	SUB	$1, R7
	CBNZ	R7, byte

store:
	SCVTFS	R6, F0
	FMOVS.P	F0, 4(R2)
	SUB	$1, R4
	CBNZ	R4, row

done:
	RET
