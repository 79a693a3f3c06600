//go:build !purego

#include "textflag.h"

// Registers of the packed kernels:
//
//	SI R9-R11  one vector or four
//	DI         block of points; with R12 R13 R15 the four blocks of a step of one vector, R10 bytes of a block
//	BX         byte offset of the element
//	R8         bytes of a vector, that is dim*4
//	R14        bytes between vectors
//	CX         vectors left
//	AX         blocks left
//	DX         output; with four vectors R12 bytes of a row of it, R13 of three
//
// INVARIANT: a lane sums the elements of its point in their order, in the step of four vectors and in both steps of one.

#define L2LANES(x, points, tmp, sum) \
	VSUBPS	points, x, tmp; \
	VFMADD231PS	tmp, tmp, sum

#define DOTLANES(x, points, tmp, sum) \
	VFMADD231PS	points, x, sum

#define L2FINISH(sum)

// DOTFINISH makes a distance of a product; Y15 holds ones.
#define DOTFINISH(sum) \
	VSUBPS	sum, Y15, sum

#define ZERO8 \
	VXORPS	Y0, Y0, Y0; \
	VXORPS	Y1, Y1, Y1; \
	VXORPS	Y2, Y2, Y2; \
	VXORPS	Y3, Y3, Y3; \
	VXORPS	Y4, Y4, Y4; \
	VXORPS	Y5, Y5, Y5; \
	VXORPS	Y6, Y6, Y6; \
	VXORPS	Y7, Y7, Y7

#define PACKED(LANES, FINISH) \
	MOVQ	x+0(FP), SI; \
	MOVQ	stride+8(FP), R14; \
	MOVQ	n+16(FP), CX; \
	MOVQ	dim+32(FP), R8; \
	MOVQ	out+40(FP), DX; \
	SHLQ	$2, R14; \
	SHLQ	$2, R8; \
	MOVL	$0x3f800000, AX; \
	VMOVD	AX, X15; \
	VBROADCASTSS	X15, Y15; \
	CMPQ	blocks+48(FP), $0; \
	JLE	done; \
	CMPQ	CX, $4; \
	JLT	single; \
four: \
	MOVQ	data+24(FP), DI; \
	MOVQ	blocks+48(FP), AX; \
	LEAQ	(SI)(R14*1), R9; \
	LEAQ	(SI)(R14*2), R10; \
	LEAQ	(R9)(R14*2), R11; \
	MOVQ	AX, R12; \
	SHLQ	$6, R12; \
	LEAQ	(R12)(R12*2), R13; \
fourblock: \
	ZERO8; \
	XORQ	BX, BX; \
fourloop: \
	VMOVUPS	(DI), Y8; \
	VMOVUPS	32(DI), Y9; \
	VBROADCASTSS	(SI)(BX*1), Y10; \
	VBROADCASTSS	(R9)(BX*1), Y11; \
	LANES(Y10, Y8, Y12, Y0); \
	LANES(Y10, Y9, Y13, Y1); \
	LANES(Y11, Y8, Y12, Y2); \
	LANES(Y11, Y9, Y13, Y3); \
	VBROADCASTSS	(R10)(BX*1), Y10; \
	VBROADCASTSS	(R11)(BX*1), Y11; \
	LANES(Y10, Y8, Y12, Y4); \
	LANES(Y10, Y9, Y13, Y5); \
	LANES(Y11, Y8, Y12, Y6); \
	LANES(Y11, Y9, Y13, Y7); \
	ADDQ	$64, DI; \
	ADDQ	$4, BX; \
	CMPQ	BX, R8; \
	JLT	fourloop; \
	FINISH(Y0); \
	FINISH(Y1); \
	FINISH(Y2); \
	FINISH(Y3); \
	FINISH(Y4); \
	FINISH(Y5); \
	FINISH(Y6); \
	FINISH(Y7); \
	VMOVUPS	Y0, (DX); \
	VMOVUPS	Y1, 32(DX); \
	VMOVUPS	Y2, (DX)(R12*1); \
	VMOVUPS	Y3, 32(DX)(R12*1); \
	VMOVUPS	Y4, (DX)(R12*2); \
	VMOVUPS	Y5, 32(DX)(R12*2); \
	VMOVUPS	Y6, (DX)(R13*1); \
	VMOVUPS	Y7, 32(DX)(R13*1); \
	ADDQ	$64, DX; \
	DECQ	AX; \
	JNZ	fourblock; \
	ADDQ	R13, DX; \
	LEAQ	(SI)(R14*4), SI; \
	SUBQ	$4, CX; \
	CMPQ	CX, $4; \
	JGE	four; \
single: \
	TESTQ	CX, CX; \
	JLE	done; \
	MOVQ	data+24(FP), DI; \
	MOVQ	blocks+48(FP), AX; \
	MOVQ	R8, R10; \
	SHLQ	$4, R10; \
	CMPQ	AX, $4; \
	JLT	oneblock; \
wide: \
	LEAQ	(DI)(R10*1), R12; \
	LEAQ	(DI)(R10*2), R13; \
	LEAQ	(R12)(R10*2), R15; \
	ZERO8; \
	XORQ	BX, BX; \
wideloop: \
	VBROADCASTSS	(SI)(BX*1), Y10; \
	SHLQ	$4, BX; \
	VMOVUPS	(DI)(BX*1), Y8; \
	VMOVUPS	32(DI)(BX*1), Y9; \
	LANES(Y10, Y8, Y12, Y0); \
	LANES(Y10, Y9, Y13, Y1); \
	VMOVUPS	(R12)(BX*1), Y8; \
	VMOVUPS	32(R12)(BX*1), Y9; \
	LANES(Y10, Y8, Y12, Y2); \
	LANES(Y10, Y9, Y13, Y3); \
	VMOVUPS	(R13)(BX*1), Y8; \
	VMOVUPS	32(R13)(BX*1), Y9; \
	LANES(Y10, Y8, Y12, Y4); \
	LANES(Y10, Y9, Y13, Y5); \
	VMOVUPS	(R15)(BX*1), Y8; \
	VMOVUPS	32(R15)(BX*1), Y9; \
	LANES(Y10, Y8, Y12, Y6); \
	LANES(Y10, Y9, Y13, Y7); \
	SHRQ	$4, BX; \
	ADDQ	$4, BX; \
	CMPQ	BX, R8; \
	JLT	wideloop; \
	FINISH(Y0); \
	FINISH(Y1); \
	FINISH(Y2); \
	FINISH(Y3); \
	FINISH(Y4); \
	FINISH(Y5); \
	FINISH(Y6); \
	FINISH(Y7); \
	VMOVUPS	Y0, (DX); \
	VMOVUPS	Y1, 32(DX); \
	VMOVUPS	Y2, 64(DX); \
	VMOVUPS	Y3, 96(DX); \
	VMOVUPS	Y4, 128(DX); \
	VMOVUPS	Y5, 160(DX); \
	VMOVUPS	Y6, 192(DX); \
	VMOVUPS	Y7, 224(DX); \
	ADDQ	$256, DX; \
	LEAQ	(DI)(R10*4), DI; \
	SUBQ	$4, AX; \
	CMPQ	AX, $4; \
	JGE	wide; \
	TESTQ	AX, AX; \
	JZ	next; \
oneblock: \
	VXORPS	Y0, Y0, Y0; \
	VXORPS	Y1, Y1, Y1; \
	XORQ	BX, BX; \
oneloop: \
	VBROADCASTSS	(SI)(BX*1), Y10; \
	VMOVUPS	(DI), Y8; \
	VMOVUPS	32(DI), Y9; \
	LANES(Y10, Y8, Y12, Y0); \
	LANES(Y10, Y9, Y13, Y1); \
	ADDQ	$64, DI; \
	ADDQ	$4, BX; \
	CMPQ	BX, R8; \
	JLT	oneloop; \
	FINISH(Y0); \
	FINISH(Y1); \
	VMOVUPS	Y0, (DX); \
	VMOVUPS	Y1, 32(DX); \
	ADDQ	$64, DX; \
	DECQ	AX; \
	JNZ	oneblock; \
next: \
	ADDQ	R14, SI; \
	DECQ	CX; \
	JMP	single; \
done: \
	VZEROUPPER; \
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

// LEAST looks at the eight numbers off bytes on: each lane keeps its least number and where it was. VMINPS returns its first operand
// here when the number is NaN.
#define LEAST(off, places, least, at, number, mask) \
	VMOVUPS	off(SI), number; \
	VCMPPS	$0x11, least, number, mask; \
	VMINPS	least, number, least; \
	VBLENDVPS	mask, places, at, at

// func argminSIMD(v *float32, n int) (at int32, least float32)
// Two chains of eight lanes, since the latency of a chain is what it takes.
TEXT ·argminSIMD(SB), NOSPLIT, $0-24
	MOVQ	v+0(FP), SI
	MOVQ	n+8(FP), CX
	MOVL	$0x7f800000, AX
	VMOVD	AX, X0
	VBROADCASTSS	X0, Y0            // least so far: +Inf
	VMOVAPS	Y0, Y1
	VPCMPEQD	Y2, Y2, Y2        // its place: -1
	VMOVDQA	Y2, Y3
	VMOVDQU	places<>(SB), Y4          // the places at hand
	MOVL	$8, AX
	VMOVD	AX, X6
	VPBROADCASTD	X6, Y6
	VPADDD	Y6, Y4, Y5
	VPADDD	Y6, Y6, Y6
	SHRQ	$4, CX
	JZ	reduce

loop:
	LEAST(0, Y4, Y0, Y2, Y7, Y8)
	LEAST(32, Y5, Y1, Y3, Y9, Y10)
	VPADDD	Y6, Y4, Y4
	VPADDD	Y6, Y5, Y5
	ADDQ	$64, SI
	DECQ	CX
	JNZ	loop

reduce:
	VMINPS	Y0, Y1, Y7
	VEXTRACTF128	$1, Y7, X8
	VMINPS	X8, X7, X7
	VPERMILPS	$0x4e, X7, X8
	VMINPS	X8, X7, X7
	VPERMILPS	$0xb1, X7, X8
	VMINPS	X8, X7, X7
	VBROADCASTSS	X7, Y8

	// The lowest of the places where that is; other lanes count as the largest integer.
	MOVL	$0x7fffffff, AX
	VMOVD	AX, X9
	VPBROADCASTD	X9, Y9
	VCMPPS	$0, Y8, Y0, Y10
	VCMPPS	$0, Y8, Y1, Y11
	VBLENDVPS	Y10, Y2, Y9, Y2
	VBLENDVPS	Y11, Y3, Y9, Y3
	VPMINSD	Y3, Y2, Y2
	VEXTRACTI128	$1, Y2, X3
	VPMINSD	X3, X2, X2
	VPSHUFD	$0x4e, X2, X3
	VPMINSD	X3, X2, X2
	VPSHUFD	$0xb1, X2, X3
	VPMINSD	X3, X2, X2
	VMOVD	X2, AX
	MOVL	AX, at+16(FP)
	VMOVSS	X7, least+20(FP)
	VZEROUPPER
	RET
