package vector

import (
	"fmt"
	"math"
)

// WidenFloat16 converts binary16 numbers, given by their bits, to float32: exactly. The slices have one length.
func WidenFloat16(dst []float32, src []uint16) {
	if len(dst) != len(src) {
		panic(fmt.Sprintf("vector: %d numbers widened into %d", len(src), len(dst)))
	}
	widen(dst, src)
}

// NarrowFloat16 rounds float32 numbers to the nearest binary16, ties to even; what is too large becomes infinite. The
// slices have one length.
func NarrowFloat16(dst []uint16, src []float32) {
	if len(dst) != len(src) {
		panic(fmt.Sprintf("vector: %d numbers narrowed into %d", len(src), len(dst)))
	}
	narrow(dst, src)
}

// binary16 is sign, 5 bits of exponent biased by 15, 10 bits of fraction; float32 is sign, 8 biased by 127, 23.

func widenOne(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent, fraction := uint32(h>>10)&0x1f, uint32(h)&0x3ff
	switch {
	case exponent == 0x1f && fraction != 0:
		return math.Float32frombits(sign | 0x7fc00000 | fraction<<13)
	case exponent == 0x1f:
		return math.Float32frombits(sign | 0x7f800000)
	case exponent == 0:
		// Zero or subnormal: fraction · 2^-24, which float32 holds as a normal number.
		f := float32(fraction) * 0x1p-24
		return math.Float32frombits(sign | math.Float32bits(f))
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

func narrowOne(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits>>16) & 0x8000
	bits &= 0x7fffffff
	switch {
	case bits > 0x7f800000:
		return sign | 0x7e00 | uint16(bits>>13)&0x3ff
	case bits >= 0x477ff000: // 65520, half way to what would be 2^16
		return sign | 0x7c00
	case bits < 0x38800000: // below 2^-14: subnormal or zero
		// Adding 0.5 puts the last bit of the sum at 2^-24, so the adder does the rounding.
		return sign | uint16(math.Float32bits(math.Float32frombits(bits)+0.5)-0x3f000000)
	}
	bits -= (127 - 15) << 23
	bits += 0xfff + bits>>13&1
	return sign | uint16(bits>>13)
}
