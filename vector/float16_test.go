package vector

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWidenKnowsEveryNumber compares both implementations with the definition, for all 65,536 bit patterns.
func TestWidenKnowsEveryNumber(t *testing.T) {
	halves := make([]uint16, 1<<16)
	for i := range halves {
		halves[i] = uint16(i)
	}
	got, twin := make([]float32, len(halves)), make([]float32, len(halves))
	WidenFloat16(got, halves)
	widenGo(twin, halves)
	for i, h := range halves {
		require.Equal(t, math.Float32bits(twin[i]), math.Float32bits(got[i]), "%#04x", h)
		exponent, fraction := int(h>>10&0x1f), float64(h&0x3ff)
		var want float64
		switch exponent {
		case 0x1f:
			require.Equal(t, fraction != 0, math.IsNaN(float64(got[i])), "%#04x", h)
			require.Equal(t, fraction == 0, math.IsInf(float64(got[i]), 0), "%#04x", h)
			continue
		case 0:
			want = math.Ldexp(fraction, -24)
		default:
			want = math.Ldexp(1024+fraction, exponent-25)
		}
		if h&0x8000 != 0 {
			want = math.Copysign(want, -1)
		}
		require.Equal(t, math.Float64bits(want), math.Float64bits(float64(got[i])), "%#04x", h)
	}
}

// TestNarrowRoundsToNearestEven looks at both sides of each border between two neighbours, at the border itself, and at
// each number.
func TestNarrowRoundsToNearestEven(t *testing.T) {
	var in []float32
	var want []uint16
	add := func(f float32, h uint16) {
		in, want = append(in, f, -f), append(want, h, h|0x8000)
	}
	for h := uint16(0); h < 0x7c00; h++ {
		here, next := float64(widenOne(h)), float64(widenOne(h+1))
		if h+1 == 0x7c00 {
			next = 65536
		}
		border := float32((here + next) / 2)
		even := h + h&1
		add(float32(here), h)
		add(border, even)
		add(math.Nextafter32(border, 0), h)
		add(math.Nextafter32(border, float32(math.Inf(1))), h+1)
	}
	add(math.MaxFloat32, 0x7c00)
	add(float32(math.Inf(1)), 0x7c00)
	add(math.SmallestNonzeroFloat32, 0)
	add(math.Float32frombits(0x7fc02000), 0x7e01)
	add(math.Float32frombits(0x7f802000), 0x7e01)
	got, twin := make([]uint16, len(in)), make([]uint16, len(in))
	NarrowFloat16(got, in)
	narrowGo(twin, in)
	for i, f := range in {
		require.Equal(t, want[i], twin[i], "twin of %v (%#08x)", f, math.Float32bits(f))
		require.Equal(t, want[i], got[i], "%v (%#08x)", f, math.Float32bits(f))
	}
}

func TestNarrowAgreesWithItsTwinOnRandomBits(t *testing.T) {
	r := seeded(6)
	in := make([]float32, 1<<16)
	for i := range in {
		in[i] = math.Float32frombits(r.Uint32())
	}
	got, twin := make([]uint16, len(in)), make([]uint16, len(in))
	NarrowFloat16(got, in)
	narrowGo(twin, in)
	require.Equal(t, twin, got)
}
