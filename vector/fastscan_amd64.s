//go:build !purego

#include "textflag.h"

DATA low<>+0(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA low<>+8(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA low<>+16(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA low<>+24(SB)/8, $0x0f0f0f0f0f0f0f0f
GLOBL low<>(SB), RODATA|NOPTR, $32

// func fastScanSIMD(steps, blocks *byte, width, n int, sums *uint16)
//
// Y0 sums pairs of bytes as words: even rows plus 256 times odd rows, modulo 2^16. Y1 sums the odd rows alone. What is left of
// Y0 when 256 times Y1 is taken off are the even rows. So a shuffle's 32 bytes cost three additions and shifts, none of which unpacks them.
TEXT ·fastScanSIMD(SB), NOSPLIT, $0-40
	MOVQ	steps+0(FP), SI
	MOVQ	blocks+8(FP), DI
	MOVQ	width+16(FP), R8
	MOVQ	n+24(FP), CX
	MOVQ	sums+32(FP), DX
	VMOVDQU	low<>(SB), Y15
	TESTQ	CX, CX
	JLE	done

block:
	VPXOR	Y0, Y0, Y0
	VPXOR	Y1, Y1, Y1
	VPXOR	Y2, Y2, Y2
	VPXOR	Y3, Y3, Y3
	MOVQ	SI, BX
	MOVQ	R8, AX
	TESTQ	AX, AX
	JZ	sum

column:
	VMOVDQU	(DI), Y4
	VBROADCASTI128	(BX), Y5
	VBROADCASTI128	16(BX), Y6
	VPSRLW	$4, Y4, Y7
	VPAND	Y15, Y4, Y4
	VPAND	Y15, Y7, Y7
	VPSHUFB	Y4, Y5, Y5
	VPSHUFB	Y7, Y6, Y6
	VPADDW	Y5, Y0, Y0
	VPADDW	Y6, Y2, Y2
	VPSRLW	$8, Y5, Y5
	VPSRLW	$8, Y6, Y6
	VPADDW	Y5, Y1, Y1
	VPADDW	Y6, Y3, Y3
	ADDQ	$32, DI
	ADDQ	$32, BX
	DECQ	AX
	JNZ	column

sum:
	VPADDW	Y2, Y0, Y0
	VPADDW	Y3, Y1, Y1
	VPSLLW	$8, Y1, Y4
	VPSUBW	Y4, Y0, Y0
	VPUNPCKLWD	Y1, Y0, Y4             // rows 0-7 and 16-23
	VPUNPCKHWD	Y1, Y0, Y5             // rows 8-15 and 24-31
	VPERM2I128	$0x20, Y5, Y4, Y6
	VPERM2I128	$0x31, Y5, Y4, Y7
	VMOVDQU	Y6, (DX)
	VMOVDQU	Y7, 32(DX)
	ADDQ	$64, DX
	DECQ	CX
	JNZ	block

done:
	VZEROUPPER
	RET
