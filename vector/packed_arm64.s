//go:build !purego

#include "textflag.h"
#include "neon_arm64.h"

// Registers of the packed kernels:
//
//	R0      vectors; R7-R10 the places in one or four of them
//	R1      bytes between vectors
//	R2      vectors left
//	R3      points
//	R4      dim
//	R5      output; R12-R14 its rows for the other three vectors; R15 bytes of a row
//	R6      blocks left
//	V0-V15  sums; V16-V19 elements of sixteen points; V20-V23 of vectors; V31 ones
//
// INVARIANT: a lane sums the elements of its point in their order, for four vectors and for one.

#define L2LANES(x, sum) \
	FSUB4(x, 16, 24); \
	FSUB4(x, 17, 25); \
	FSUB4(x, 18, 26); \
	FSUB4(x, 19, 27); \
	FMLA4(24, 24, sum); \
	FMLA4(25, 25, (sum)+1); \
	FMLA4(26, 26, (sum)+2); \
	FMLA4(27, 27, (sum)+3)

#define DOTLANES(x, sum) \
	FMLA4(x, 16, sum); \
	FMLA4(x, 17, (sum)+1); \
	FMLA4(x, 18, (sum)+2); \
	FMLA4(x, 19, (sum)+3)

#define L2FINISH(sum)

// DOTFINISH makes distances of products.
#define DOTFINISH(sum) \
	FSUB4(31, sum, sum); \
	FSUB4(31, (sum)+1, (sum)+1); \
	FSUB4(31, (sum)+2, (sum)+2); \
	FSUB4(31, (sum)+3, (sum)+3)

#define PACKED(LANES, FINISH) \
	MOVD	x+0(FP), R0; \
	MOVD	stride+8(FP), R1; \
	MOVD	n+16(FP), R2; \
	MOVD	dim+32(FP), R4; \
	MOVD	out+40(FP), R5; \
	MOVD	blocks+48(FP), R15; \
	LSL	$2, R1; \
	LSL	$6, R15; \
	FMOVS	$1.0, F31; \
	VDUP	V31.S[0], V31.S4; \
	CBZ	R15, done; \
	CMP	$4, R2; \
	BLT	single; \
four: \
	MOVD	data+24(FP), R3; \
	MOVD	blocks+48(FP), R6; \
	ADD	R15, R5, R12; \
	ADD	R15, R12, R13; \
	ADD	R15, R13, R14; \
fourblock: \
	MOVD	R0, R7; \
	ADD	R1, R7, R8; \
	ADD	R1, R8, R9; \
	ADD	R1, R9, R10; \
	ZERO16; \
	MOVD	R4, R11; \
fourloop: \
	VLD1.P	64(R3), [V16.S4, V17.S4, V18.S4, V19.S4]; \
	VLD1R.P	4(R7), [V20.S4]; \
	VLD1R.P	4(R8), [V21.S4]; \
	VLD1R.P	4(R9), [V22.S4]; \
	VLD1R.P	4(R10), [V23.S4]; \
	LANES(20, 0); \
	LANES(21, 4); \
	LANES(22, 8); \
	LANES(23, 12); \
	SUB	$1, R11; \
	CBNZ	R11, fourloop; \
	FINISH(0); \
	FINISH(4); \
	FINISH(8); \
	FINISH(12); \
	VST1.P	[V0.S4, V1.S4, V2.S4, V3.S4], 64(R5); \
	VST1.P	[V4.S4, V5.S4, V6.S4, V7.S4], 64(R12); \
	VST1.P	[V8.S4, V9.S4, V10.S4, V11.S4], 64(R13); \
	VST1.P	[V12.S4, V13.S4, V14.S4, V15.S4], 64(R14); \
	SUB	$1, R6; \
	CBNZ	R6, fourblock; \
	MOVD	R14, R5; \
	ADD	R1<<2, R0, R0; \
	SUB	$4, R2; \
	CMP	$4, R2; \
	BGE	four; \
single: \
	CMP	$0, R2; \
	BLE	done; \
	MOVD	data+24(FP), R3; \
	MOVD	blocks+48(FP), R6; \
oneblock: \
	MOVD	R0, R7; \
	VEOR	V0.B16, V0.B16, V0.B16; \
	VEOR	V1.B16, V1.B16, V1.B16; \
	VEOR	V2.B16, V2.B16, V2.B16; \
	VEOR	V3.B16, V3.B16, V3.B16; \
	MOVD	R4, R11; \
oneloop: \
	VLD1.P	64(R3), [V16.S4, V17.S4, V18.S4, V19.S4]; \
	VLD1R.P	4(R7), [V20.S4]; \
	LANES(20, 0); \
	SUB	$1, R11; \
	CBNZ	R11, oneloop; \
	FINISH(0); \
	VST1.P	[V0.S4, V1.S4, V2.S4, V3.S4], 64(R5); \
	SUB	$1, R6; \
	CBNZ	R6, oneblock; \
	ADD	R1, R0; \
	SUB	$1, R2; \
	JMP	single; \
done: \
	RET

// func l2PackedSIMD(x *float32, stride, n int, data *float32, dim int, out *float32, blocks int)
TEXT ·l2PackedSIMD(SB), NOSPLIT, $0-56
	PACKED(L2LANES, L2FINISH)

// func dotPackedSIMD(x *float32, stride, n int, data *float32, dim int, out *float32, blocks int)
TEXT ·dotPackedSIMD(SB), NOSPLIT, $0-56
	PACKED(DOTLANES, DOTFINISH)

DATA places<>+0(SB)/8, $0x0000000100000000
DATA places<>+8(SB)/8, $0x0000000300000002
DATA places<>+16(SB)/8, $0x0000000500000004
DATA places<>+24(SB)/8, $0x0000000700000006
GLOBL places<>(SB), RODATA|NOPTR, $32

// func argminSIMD(v *float32, n int) (at int32, least float32)
// Each lane of two chains keeps its own least number and where it was.
TEXT ·argminSIMD(SB), NOSPLIT, $0-24
	MOVD	v+0(FP), R0
	MOVD	n+8(FP), R1
	MOVD	$0x7f800000, R4
	VDUP	R4, V0.S4                 // least so far: +Inf
	VDUP	R4, V1.S4
	MOVD	$-1, R4
	VDUP	R4, V2.S4                 // its place: -1
	VDUP	R4, V3.S4
	MOVD	$places<>(SB), R5
	VLD1	(R5), [V4.S4, V5.S4]      // the places at hand
	MOVD	$8, R4
	VDUP	R4, V6.S4
	LSR	$3, R1
	CBZ	R1, reduce

loop:
	VLD1.P	32(R0), [V16.S4, V17.S4]
	FCMGT4(0, 16, 18)
	FCMGT4(1, 17, 19)
	VBIT	V18.B16, V16.B16, V0.B16
	VBIT	V19.B16, V17.B16, V1.B16
	VBIT	V18.B16, V4.B16, V2.B16
	VBIT	V19.B16, V5.B16, V3.B16
	VADD	V6.S4, V4.S4, V4.S4
	VADD	V6.S4, V5.S4, V5.S4
	SUB	$1, R1
	CBNZ	R1, loop

reduce:
	FMIN4(0, 1, 16)
	FMINV4(16, 7)
	VDUP	V7.S[0], V16.S4

	// The lowest of the places where that is; other lanes count as the largest integer.
	FCMEQ4(0, 16, 18)
	FCMEQ4(1, 16, 19)
	MOVD	$0x7fffffff, R4
	VDUP	R4, V20.S4
	VDUP	R4, V21.S4
	VBIT	V18.B16, V2.B16, V20.B16
	VBIT	V19.B16, V3.B16, V21.B16
	SMIN4(20, 21, 20)
	SMINV4(20, 20)
	VMOV	V20.S[0], R4
	MOVW	R4, at+16(FP)
	FMOVS	F7, least+20(FP)
	RET
