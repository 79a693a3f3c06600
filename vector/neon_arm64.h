// The assembler has no names for these vector instructions of four words, so they are written as numbers: d = n op m.
#define FSUB4(n, m, d) WORD $(0x4EA0D400 | (m)<<16 | (n)<<5 | (d))
#define FADD4(n, m, d) WORD $(0x4E20D400 | (m)<<16 | (n)<<5 | (d))
#define FMLA4(n, m, d) WORD $(0x4E20CC00 | (m)<<16 | (n)<<5 | (d))
// FADDP4 adds neighbours: the sums of n, then those of m.
#define FADDP4(n, m, d) WORD $(0x6E20D400 | (m)<<16 | (n)<<5 | (d))
// FCMGT4 sets the words of d in which n > m to ones.
#define FCMGT4(n, m, d) WORD $(0x6EA0E400 | (m)<<16 | (n)<<5 | (d))
#define FCMEQ4(n, m, d) WORD $(0x4E20E400 | (m)<<16 | (n)<<5 | (d))
#define FMIN4(n, m, d) WORD $(0x4EA0F400 | (m)<<16 | (n)<<5 | (d))
#define SMIN4(n, m, d) WORD $(0x4EA06C00 | (m)<<16 | (n)<<5 | (d))
// FMINV4 and SMINV4 set the first word of d to the least word of n.
#define FMINV4(n, d) WORD $(0x6EB0F800 | (n)<<5 | (d))
#define SMINV4(n, d) WORD $(0x4EB1A800 | (n)<<5 | (d))
// The conversions take the low or the high (2) four halves.
#define FCVTL(n, d) WORD $(0x0E217800 | (n)<<5 | (d))
#define FCVTL2(n, d) WORD $(0x4E217800 | (n)<<5 | (d))
#define FCVTN(n, d) WORD $(0x0E216800 | (n)<<5 | (d))
#define FCVTN2(n, d) WORD $(0x4E216800 | (n)<<5 | (d))

// ZERO8 and ZERO16 clear V0-V7 and V0-V15.
#define ZERO8 \
	VEOR	V0.B16, V0.B16, V0.B16; \
	VEOR	V1.B16, V1.B16, V1.B16; \
	VEOR	V2.B16, V2.B16, V2.B16; \
	VEOR	V3.B16, V3.B16, V3.B16; \
	VEOR	V4.B16, V4.B16, V4.B16; \
	VEOR	V5.B16, V5.B16, V5.B16; \
	VEOR	V6.B16, V6.B16, V6.B16; \
	VEOR	V7.B16, V7.B16, V7.B16

#define ZERO16 \
	ZERO8; \
	VEOR	V8.B16, V8.B16, V8.B16; \
	VEOR	V9.B16, V9.B16, V9.B16; \
	VEOR	V10.B16, V10.B16, V10.B16; \
	VEOR	V11.B16, V11.B16, V11.B16; \
	VEOR	V12.B16, V12.B16, V12.B16; \
	VEOR	V13.B16, V13.B16, V13.B16; \
	VEOR	V14.B16, V14.B16, V14.B16; \
	VEOR	V15.B16, V15.B16, V15.B16
