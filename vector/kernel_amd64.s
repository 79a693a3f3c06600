//go:build !purego

#include "textflag.h"

// Registers of the row kernels:
//
//	SI        query
//	DI R9-R11 four rows
//	BX        byte offset of the next element, the same in the query and in each row
//	R8        bytes of a row
//	CX        rows left
//	DX        output; R12 second output
//	AX        byte offset of the end of the whole steps; R13 of the whole 32-byte steps
//	Y15       mask of the last dim%8 elements
//
// INVARIANT: a row gets the same operations in the same order in the step of four rows and in the step of one, so its
// distance has the same bits in both.

// tails + 32 - 4*t is a mask of eight words whose first t are set.
DATA tails<>+0(SB)/8, $-1
DATA tails<>+8(SB)/8, $-1
DATA tails<>+16(SB)/8, $-1
DATA tails<>+24(SB)/8, $-1
DATA tails<>+32(SB)/8, $0
DATA tails<>+40(SB)/8, $0
DATA tails<>+48(SB)/8, $0
DATA tails<>+56(SB)/8, $0
GLOBL tails<>(SB), RODATA|NOPTR, $64

// SETUP loads the shape: R8, AX, R13, Y15.
#define SETUP \
	MOVQ	R8, R14; \
	ANDQ	$7, R14; \
	SHLQ	$2, R14; \
	LEAQ	tails<>+32(SB), R13; \
	SUBQ	R14, R13; \
	VMOVUPS	(R13), Y15; \
	SHLQ	$2, R8; \
	MOVQ	R8, AX; \
	ANDQ	$~31, AX; \
	MOVQ	R8, R13; \
	ANDQ	$~63, R13

#define FOURROWS \
	LEAQ	(DI)(R8*1), R9; \
	LEAQ	(DI)(R8*2), R10; \
	LEAQ	(R9)(R8*2), R11

#define L2STEP(off, row, q, tmp, sum) \
	VSUBPS	off(row)(BX*1), q, tmp; \
	VFMADD231PS	tmp, tmp, sum

#define L2TAIL(row, sum) \
	VMASKMOVPS	(row)(BX*1), Y15, Y10; \
	VSUBPS	Y10, Y8, Y10; \
	VFMADD231PS	Y10, Y10, sum

#define DOTSTEP(off, row, q, tmp, sum) \
	VFMADD231PS	off(row)(BX*1), q, sum

#define DOTTAIL(row, sum) \
	VMASKMOVPS	(row)(BX*1), Y15, Y10; \
	VFMADD231PS	Y10, Y8, sum

// SUM4 adds the lanes of Y0, Y2, Y4 and Y6 into the words of X0.
#define SUM4 \
	VHADDPS	Y2, Y0, Y0; \
	VHADDPS	Y6, Y4, Y4; \
	VHADDPS	Y4, Y0, Y0; \
	VEXTRACTF128	$1, Y0, X1; \
	VADDPS	X1, X0, X0

// SUM1 does to Y0 what SUM4 does to it.
#define SUM1 \
	VHADDPS	Y0, Y0, Y0; \
	VHADDPS	Y0, Y0, Y0; \
	VEXTRACTF128	$1, Y0, X1; \
	VADDSS	X1, X0, X0

// ROWS is the body of a kernel with two sums a row.
#define ROWS(STEP, TAIL) \
	MOVQ	q+0(FP), SI; \
	MOVQ	rows+8(FP), DI; \
	MOVQ	out+16(FP), DX; \
	MOVQ	dim+24(FP), R8; \
	MOVQ	n+32(FP), CX; \
	SETUP; \
	CMPQ	CX, $4; \
	JLT	single; \
four: \
	FOURROWS; \
	VXORPS	Y0, Y0, Y0; \
	VXORPS	Y1, Y1, Y1; \
	VXORPS	Y2, Y2, Y2; \
	VXORPS	Y3, Y3, Y3; \
	VXORPS	Y4, Y4, Y4; \
	VXORPS	Y5, Y5, Y5; \
	VXORPS	Y6, Y6, Y6; \
	VXORPS	Y7, Y7, Y7; \
	XORQ	BX, BX; \
	CMPQ	BX, R13; \
	JGE	four8; \
four16: \
	VMOVUPS	(SI)(BX*1), Y8; \
	VMOVUPS	32(SI)(BX*1), Y9; \
	STEP(0, DI, Y8, Y10, Y0); \
	STEP(32, DI, Y9, Y11, Y1); \
	STEP(0, R9, Y8, Y12, Y2); \
	STEP(32, R9, Y9, Y13, Y3); \
	STEP(0, R10, Y8, Y10, Y4); \
	STEP(32, R10, Y9, Y11, Y5); \
	STEP(0, R11, Y8, Y12, Y6); \
	STEP(32, R11, Y9, Y13, Y7); \
	ADDQ	$64, BX; \
	CMPQ	BX, R13; \
	JLT	four16; \
four8: \
	CMPQ	BX, AX; \
	JGE	fourtail; \
	VMOVUPS	(SI)(BX*1), Y8; \
	STEP(0, DI, Y8, Y10, Y0); \
	STEP(0, R9, Y8, Y11, Y2); \
	STEP(0, R10, Y8, Y12, Y4); \
	STEP(0, R11, Y8, Y13, Y6); \
	ADDQ	$32, BX; \
fourtail: \
	CMPQ	BX, R8; \
	JGE	foursum; \
	VMASKMOVPS	(SI)(BX*1), Y15, Y8; \
	TAIL(DI, Y1); \
	TAIL(R9, Y3); \
	TAIL(R10, Y5); \
	TAIL(R11, Y7); \
foursum: \
	VADDPS	Y1, Y0, Y0; \
	VADDPS	Y3, Y2, Y2; \
	VADDPS	Y5, Y4, Y4; \
	VADDPS	Y7, Y6, Y6; \
	SUM4; \
	VMOVUPS	X0, (DX); \
	LEAQ	(DI)(R8*4), DI; \
	ADDQ	$16, DX; \
	SUBQ	$4, CX; \
	CMPQ	CX, $4; \
	JGE	four; \
single: \
	TESTQ	CX, CX; \
	JLE	done; \
one: \
	VXORPS	Y0, Y0, Y0; \
	VXORPS	Y1, Y1, Y1; \
	XORQ	BX, BX; \
	CMPQ	BX, R13; \
	JGE	one8; \
one16: \
	VMOVUPS	(SI)(BX*1), Y8; \
	VMOVUPS	32(SI)(BX*1), Y9; \
	STEP(0, DI, Y8, Y10, Y0); \
	STEP(32, DI, Y9, Y11, Y1); \
	ADDQ	$64, BX; \
	CMPQ	BX, R13; \
	JLT	one16; \
one8: \
	CMPQ	BX, AX; \
	JGE	onetail; \
	VMOVUPS	(SI)(BX*1), Y8; \
	STEP(0, DI, Y8, Y10, Y0); \
	ADDQ	$32, BX; \
onetail: \
	CMPQ	BX, R8; \
	JGE	onesum; \
	VMASKMOVPS	(SI)(BX*1), Y15, Y8; \
	TAIL(DI, Y1); \
onesum: \
	VADDPS	Y1, Y0, Y0; \
	SUM1; \
	VMOVSS	X0, (DX); \
	ADDQ	R8, DI; \
	ADDQ	$4, DX; \
	DECQ	CX; \
	JNZ	one; \
done: \
	VZEROUPPER; \
	RET

// func l2RowsSIMD(q, rows, out *float32, dim, n int)
TEXT ·l2RowsSIMD(SB), NOSPLIT, $0-40
	ROWS(L2STEP, L2TAIL)

// func dotRowsSIMD(q, rows, out *float32, dim, n int)
TEXT ·dotRowsSIMD(SB), NOSPLIT, $0-40
	ROWS(DOTSTEP, DOTTAIL)

// Each row has a sum of products in Y0, Y2, Y4, Y6 and one of squares in Y1, Y3, Y5, Y7.
#define SQUARESTEP(row, dot, square) \
	VMOVUPS	(row)(BX*1), Y9; \
	VFMADD231PS	Y9, Y8, dot; \
	VFMADD231PS	Y9, Y9, square

#define SQUARETAIL(row, dot, square) \
	VMASKMOVPS	(row)(BX*1), Y15, Y9; \
	VFMADD231PS	Y9, Y8, dot; \
	VFMADD231PS	Y9, Y9, square

// func dotSquareRowsSIMD(q, rows, dots, squares *float32, dim, n int)
TEXT ·dotSquareRowsSIMD(SB), NOSPLIT, $0-48
	MOVQ	q+0(FP), SI
	MOVQ	rows+8(FP), DI
	MOVQ	dots+16(FP), DX
	MOVQ	squares+24(FP), R12
	MOVQ	dim+32(FP), R8
	MOVQ	n+40(FP), CX
	SETUP
	CMPQ	CX, $4
	JLT	single

four:
	FOURROWS
	VXORPS	Y0, Y0, Y0
	VXORPS	Y1, Y1, Y1
	VXORPS	Y2, Y2, Y2
	VXORPS	Y3, Y3, Y3
	VXORPS	Y4, Y4, Y4
	VXORPS	Y5, Y5, Y5
	VXORPS	Y6, Y6, Y6
	VXORPS	Y7, Y7, Y7
	XORQ	BX, BX
	CMPQ	BX, AX
	JGE	fourtail

four8:
	VMOVUPS	(SI)(BX*1), Y8
	SQUARESTEP(DI, Y0, Y1)
	SQUARESTEP(R9, Y2, Y3)
	SQUARESTEP(R10, Y4, Y5)
	SQUARESTEP(R11, Y6, Y7)
	ADDQ	$32, BX
	CMPQ	BX, AX
	JLT	four8

fourtail:
	CMPQ	BX, R8
	JGE	foursum
	VMASKMOVPS	(SI)(BX*1), Y15, Y8
	SQUARETAIL(DI, Y0, Y1)
	SQUARETAIL(R9, Y2, Y3)
	SQUARETAIL(R10, Y4, Y5)
	SQUARETAIL(R11, Y6, Y7)

foursum:
	VHADDPS	Y2, Y0, Y0
	VHADDPS	Y6, Y4, Y4
	VHADDPS	Y4, Y0, Y0
	VEXTRACTF128	$1, Y0, X9
	VADDPS	X9, X0, X0
	VMOVUPS	X0, (DX)
	VHADDPS	Y3, Y1, Y1
	VHADDPS	Y7, Y5, Y5
	VHADDPS	Y5, Y1, Y1
	VEXTRACTF128	$1, Y1, X9
	VADDPS	X9, X1, X1
	VMOVUPS	X1, (R12)
	LEAQ	(DI)(R8*4), DI
	ADDQ	$16, DX
	ADDQ	$16, R12
	SUBQ	$4, CX
	CMPQ	CX, $4
	JGE	four

single:
	TESTQ	CX, CX
	JLE	done

one:
	VXORPS	Y0, Y0, Y0
	VXORPS	Y1, Y1, Y1
	XORQ	BX, BX
	CMPQ	BX, AX
	JGE	onetail

one8:
	VMOVUPS	(SI)(BX*1), Y8
	SQUARESTEP(DI, Y0, Y1)
	ADDQ	$32, BX
	CMPQ	BX, AX
	JLT	one8

onetail:
	CMPQ	BX, R8
	JGE	onesum
	VMASKMOVPS	(SI)(BX*1), Y15, Y8
	SQUARETAIL(DI, Y0, Y1)

onesum:
	VHADDPS	Y0, Y0, Y0
	VHADDPS	Y0, Y0, Y0
	VEXTRACTF128	$1, Y0, X9
	VADDSS	X9, X0, X0
	VMOVSS	X0, (DX)
	VHADDPS	Y1, Y1, Y1
	VHADDPS	Y1, Y1, Y1
	VEXTRACTF128	$1, Y1, X9
	VADDSS	X9, X1, X1
	VMOVSS	X1, (R12)
	ADDQ	R8, DI
	ADDQ	$4, DX
	ADDQ	$4, R12
	DECQ	CX
	JNZ	one

done:
	VZEROUPPER
	RET

// func widenSIMD(dst *float32, src *uint16, n int)
// n is a multiple of 8.
TEXT ·widenSIMD(SB), NOSPLIT, $0-24
	MOVQ	dst+0(FP), DI
	MOVQ	src+8(FP), SI
	MOVQ	n+16(FP), CX
	SHRQ	$3, CX
	JZ	done

loop:
	VCVTPH2PS	(SI), Y0
	VMOVUPS	Y0, (DI)
	ADDQ	$16, SI
	ADDQ	$32, DI
	DECQ	CX
	JNZ	loop

done:
	VZEROUPPER
	RET

// func narrowSIMD(dst *uint16, src *float32, n int)
// n is a multiple of 8. The immediate 0 rounds to nearest, ties to even.
TEXT ·narrowSIMD(SB), NOSPLIT, $0-24
	MOVQ	dst+0(FP), DI
	MOVQ	src+8(FP), SI
	MOVQ	n+16(FP), CX
	SHRQ	$3, CX
	JZ	done

loop:
	VMOVUPS	(SI), Y0
	VCVTPS2PH	$0, Y0, (DI)
	ADDQ	$32, SI
	ADDQ	$16, DI
	DECQ	CX
	JNZ	loop

done:
	VZEROUPPER
	RET
