//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// Registers of the row kernels:
//
//	R0      query; R9 the place in it
//	R1      rows; R5-R8 the places in four of them
//	R2 R10  outputs
//	R3      dim; R14 whole steps of eight in it; R15 bytes of a row
//	R4      rows left
//	V0-V7   two sums for each row; V8-V15 two of squares
//	V16-V25 elements at hand
//
// INVARIANT: a row gets the same operations in the same order in the step of four rows and in the step of one, so its
// distance has the same bits in both.

#define L2OP(q, row, sum) \
	FSUB4(q, row, row); \
	FMLA4(row, row, sum)

#define DOTOP(q, row, sum) \
	FMLA4(q, row, sum)

#define SQUAREOP(q, row, sum) \
	FMLA4(q, row, sum); \
	FMLA4(row, row, (sum)+8)

// SUM4 adds the words of the four pairs of sums from s on into the words of s.
#define SUM4(s) \
	FADD4(s, (s)+1, s); \
	FADD4((s)+2, (s)+3, (s)+2); \
	FADD4((s)+4, (s)+5, (s)+4); \
	FADD4((s)+6, (s)+7, (s)+6); \
	FADDP4(s, (s)+2, s); \
	FADDP4((s)+4, (s)+6, (s)+4); \
	FADDP4(s, (s)+4, s)

// SUM1 does to the pair s what SUM4 does to it.
#define SUM1(s) \
	FADD4(s, (s)+1, s); \
	FADDP4(s, s, s); \
	FADDP4(s, s, s)

#define STORE4 \
	SUM4(0); \
	VST1.P	[V0.S4], 16(R2)

#define STORE1 \
	SUM1(0); \
	FMOVS.P	F0, 4(R2)

#define STOREBOTH4 \
	STORE4; \
	SUM4(8); \
	VST1.P	[V8.S4], 16(R10)

#define STOREBOTH1 \
	STORE1; \
	SUM1(8); \
	FMOVS.P	F8, 4(R10)

// ROWS is the body of a row kernel.
#define ROWS(OP, ZERO, FOUR, ONE) \
	LSR	$3, R3, R14; \
	LSL	$2, R3, R15; \
	CMP	$4, R4; \
	BLT	single; \
four: \
	MOVD	R0, R9; \
	MOVD	R1, R5; \
	ADD	R15, R5, R6; \
	ADD	R15, R6, R7; \
	ADD	R15, R7, R8; \
	ZERO; \
	MOVD	R14, R11; \
	CBZ	R11, four4; \
four8: \
	VLD1.P	32(R9), [V16.S4, V17.S4]; \
	VLD1.P	32(R5), [V18.S4, V19.S4]; \
	VLD1.P	32(R6), [V20.S4, V21.S4]; \
	VLD1.P	32(R7), [V22.S4, V23.S4]; \
	VLD1.P	32(R8), [V24.S4, V25.S4]; \
	OP(16, 18, 0); \
	OP(17, 19, 1); \
	OP(16, 20, 2); \
	OP(17, 21, 3); \
	OP(16, 22, 4); \
	OP(17, 23, 5); \
	OP(16, 24, 6); \
	OP(17, 25, 7); \
	SUB	$1, R11; \
	CBNZ	R11, four8; \
four4: \
	TBZ	$2, R3, fourtail; \
	VLD1.P	16(R9), [V16.S4]; \
	VLD1.P	16(R5), [V18.S4]; \
	VLD1.P	16(R6), [V20.S4]; \
	VLD1.P	16(R7), [V22.S4]; \
	VLD1.P	16(R8), [V24.S4]; \
	OP(16, 18, 0); \
	OP(16, 20, 2); \
	OP(16, 22, 4); \
	OP(16, 24, 6); \
fourtail: \
	AND	$3, R3, R11; \
	CBZ	R11, foursum; \
four1: \
	FMOVS.P	4(R9), F16; \
	FMOVS.P	4(R5), F18; \
	FMOVS.P	4(R6), F20; \
	FMOVS.P	4(R7), F22; \
	FMOVS.P	4(R8), F24; \
	OP(16, 18, 1); \
	OP(16, 20, 3); \
	OP(16, 22, 5); \
	OP(16, 24, 7); \
	SUB	$1, R11; \
	CBNZ	R11, four1; \
foursum: \
	FOUR; \
	MOVD	R8, R1; \
	SUB	$4, R4; \
	CMP	$4, R4; \
	BGE	four; \
single: \
	CMP	$0, R4; \
	BLE	done; \
one: \
	MOVD	R0, R9; \
	ZERO; \
	MOVD	R14, R11; \
	CBZ	R11, one4; \
one8: \
	VLD1.P	32(R9), [V16.S4, V17.S4]; \
	VLD1.P	32(R1), [V18.S4, V19.S4]; \
	OP(16, 18, 0); \
	OP(17, 19, 1); \
	SUB	$1, R11; \
	CBNZ	R11, one8; \
one4: \
	TBZ	$2, R3, onetail; \
	VLD1.P	16(R9), [V16.S4]; \
	VLD1.P	16(R1), [V18.S4]; \
	OP(16, 18, 0); \
onetail: \
	AND	$3, R3, R11; \
	CBZ	R11, onesum; \
one1: \
	FMOVS.P	4(R9), F16; \
	FMOVS.P	4(R1), F18; \
	OP(16, 18, 1); \
	SUB	$1, R11; \
	CBNZ	R11, one1; \
onesum: \
	ONE; \
	SUB	$1, R4; \
	CBNZ	R4, one; \
done: \
	RET

// func l2RowsSIMD(q, rows, out *float32, dim, n int)
TEXT ·l2RowsSIMD(SB), NOSPLIT, $0-40
	MOVD	q+0(FP), R0
	MOVD	rows+8(FP), R1
	MOVD	out+16(FP), R2
	MOVD	dim+24(FP), R3
	MOVD	n+32(FP), R4
	ROWS(L2OP, ZERO8, STORE4, STORE1)

// func dotRowsSIMD(q, rows, out *float32, dim, n int)
TEXT ·dotRowsSIMD(SB), NOSPLIT, $0-40
	MOVD	q+0(FP), R0
	MOVD	rows+8(FP), R1
	MOVD	out+16(FP), R2
	MOVD	dim+24(FP), R3
	MOVD	n+32(FP), R4
	ROWS(DOTOP, ZERO8, STORE4, STORE1)

// func dotSquareRowsSIMD(q, rows, dots, squares *float32, dim, n int)
TEXT ·dotSquareRowsSIMD(SB), NOSPLIT, $0-48
	MOVD	q+0(FP), R0
	MOVD	rows+8(FP), R1
	MOVD	dots+16(FP), R2
	MOVD	squares+24(FP), R10
	MOVD	dim+32(FP), R3
	MOVD	n+40(FP), R4
	ROWS(SQUAREOP, ZERO16, STOREBOTH4, STOREBOTH1)

// func widenSIMD(dst *float32, src *uint16, n int)
// n is a multiple of 8.
TEXT ·widenSIMD(SB), NOSPLIT, $0-24
	MOVD	dst+0(FP), R0
	MOVD	src+8(FP), R1
	MOVD	n+16(FP), R2
	LSR	$3, R2
	CBZ	R2, done

loop:
	VLD1.P	16(R1), [V0.H8]
	FCVTL(0, 1)
	FCVTL2(0, 2)
	VST1.P	[V1.S4, V2.S4], 32(R0)
	SUB	$1, R2
	CBNZ	R2, loop

done:
	RET

// func narrowSIMD(dst *uint16, src *float32, n int)
// n is a multiple of 8. The floating-point control register, which Go leaves as it is at start, rounds to nearest, ties to even.
TEXT ·narrowSIMD(SB), NOSPLIT, $0-24
	MOVD	dst+0(FP), R0
	MOVD	src+8(FP), R1
	MOVD	n+16(FP), R2
	LSR	$3, R2
	CBZ	R2, done

loop:
	VLD1.P	32(R1), [V1.S4, V2.S4]
	FCVTN(1, 0)
	FCVTN2(2, 0)
	VST1.P	[V0.H8], 16(R0)
	SUB	$1, R2
	CBNZ	R2, loop

done:
	RET
