//go:build !purego

#include "textflag.h"

// nibbles holds the number of bits of 0 to 15, for each half of a register.
DATA nibbles<>+0(SB)/8, $0x0302020102010100
DATA nibbles<>+8(SB)/8, $0x0403030203020201
DATA nibbles<>+16(SB)/8, $0x0302020102010100
DATA nibbles<>+24(SB)/8, $0x0403030203020201
GLOBL nibbles<>(SB), RODATA|NOPTR, $32

DATA halves<>+0(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA halves<>+8(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA halves<>+16(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA halves<>+24(SB)/8, $0x0f0f0f0f0f0f0f0f
GLOBL halves<>(SB), RODATA|NOPTR, $32

// func hammingRowsSIMD(q, rows *byte, out *float32, dim, n int)
// Whole steps of 32 bytes by shuffles (Muła, Kurz, Lemire: Faster population counts using AVX2 instructions, 2018), then 8
// bytes at a time, then single ones.
TEXT ·hammingRowsSIMD(SB), NOSPLIT, $0-40
	MOVQ	q+0(FP), SI
	MOVQ	rows+8(FP), DI
	MOVQ	out+16(FP), DX
	MOVQ	dim+24(FP), R8
	MOVQ	n+32(FP), CX
	MOVQ	R8, R9
	ANDQ	$~31, R9                  // end of the steps of 32
	MOVQ	R8, R10
	ANDQ	$~7, R10                  // end of the steps of 8
	VMOVDQU	nibbles<>(SB), Y14
	VMOVDQU	halves<>(SB), Y15
	VPXOR	Y13, Y13, Y13
	TESTQ	CX, CX
	JLE	done

row:
	XORQ	BX, BX
	XORQ	AX, AX
	TESTQ	R9, R9
	JZ	words
	VPXOR	Y0, Y0, Y0

wide:
	VMOVDQU	(SI)(BX*1), Y1
	VPXOR	(DI)(BX*1), Y1, Y1
	VPSRLW	$4, Y1, Y2
	VPAND	Y15, Y1, Y1
	VPAND	Y15, Y2, Y2
	VPSHUFB	Y1, Y14, Y1
	VPSHUFB	Y2, Y14, Y2
	VPADDB	Y1, Y2, Y1
	VPSADBW	Y13, Y1, Y1
	VPADDQ	Y1, Y0, Y0
	ADDQ	$32, BX
	CMPQ	BX, R9
	JLT	wide
	VEXTRACTI128	$1, Y0, X1
	VPADDQ	X1, X0, X0
	VPSRLDQ	$8, X0, X1
	VPADDQ	X1, X0, X0
	VMOVQ	X0, AX

words:
	CMPQ	BX, R10
	JGE	bytes
	MOVQ	(SI)(BX*1), R11
	XORQ	(DI)(BX*1), R11
	POPCNTQ	R11, R11
	ADDQ	R11, AX
	ADDQ	$8, BX
	JMP	words

bytes:
	CMPQ	BX, R8
	JGE	store
	MOVBLZX	(SI)(BX*1), R11
	MOVBLZX	(DI)(BX*1), R12
	XORQ	R12, R11
	POPCNTQ	R11, R11
	ADDQ	R11, AX
	INCQ	BX
	JMP	bytes

store:
	VXORPS	X3, X3, X3
	VCVTSI2SSQ	AX, X3, X3
	VMOVSS	X3, (DX)
	ADDQ	R8, DI
	ADDQ	$4, DX
	DECQ	CX
	JNZ	row

done:
	VZEROUPPER
	RET
