package vector

import (
	"math"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDistancesAreLances has the values that pylance returns as _distance for these vectors; of the zero vector under
// cosine it returns no row.
func TestDistancesAreLances(t *testing.T) {
	a, b := []float32{1, 2, 3}, []float32{2, 0, 1}
	require.InDelta(t, 9, Distance(L2, a, b), 1e-6)
	require.InDelta(t, 1-5/math.Sqrt(14*5), Distance(Cosine, a, b), 1e-6)
	require.InDelta(t, -4, Distance(Dot, a, b), 1e-6)
	require.Equal(t, float32(3), HammingDistance([]byte{0b1011, 0}, []byte{0b0010, 0x80}))
	require.True(t, math.IsNaN(float64(Distance(Cosine, a, make([]float32, 3)))))
}

func TestMetricsHaveNames(t *testing.T) {
	for _, m := range []Metric{L2, Cosine, Dot, Hamming} {
		parsed, err := ParseMetric(m.String())
		require.NoError(t, err)
		require.Equal(t, m, parsed)
	}
	m, err := ParseMetric("Euclidean")
	require.NoError(t, err)
	require.Equal(t, L2, m)
	_, err = ParseMetric("manhattan")
	require.EqualError(t, err, `unknown metric "manhattan": it is one of l2, cosine, dot, hamming`)
}

func TestManyDistancesAreThoseOfOneAtATime(t *testing.T) {
	r := seeded(10)
	for _, m := range []Metric{L2, Cosine, Dot} {
		for _, dim := range []int{1, 8, 13, 128, 5000} {
			n := chunkRows + 7
			q, rows := randomFloats(r, dim), randomFloats(r, n*dim)
			halves, wide := make([]uint16, len(rows)), make([]float32, len(rows))
			NarrowFloat16(halves, rows)
			WidenFloat16(wide, halves)
			all, narrow, at := make([]float32, n), make([]float32, n), make([]float32, n)
			Distances(m, q, rows, all)
			DistancesFloat16(m, q, halves, narrow)
			places := make([]uint32, n)
			for i, p := range r.Perm(n) {
				places[i] = uint32(p)
			}
			DistancesAt(m, q, rows, places, at)
			for i := range n {
				require.Equal(t, Distance(m, q, rows[i*dim:(i+1)*dim]), all[i])
				require.Equal(t, Distance(m, q, wide[i*dim:(i+1)*dim]), narrow[i])
				require.Equal(t, all[places[i]], at[i])
			}
		}
	}
}

func TestNormalizedRowsHaveLengthOne(t *testing.T) {
	const dim = 19
	rows := randomFloats(seeded(11), 5*dim)
	clear(rows[2*dim : 3*dim])
	Normalize(dim, rows, rows)
	for i := range 5 {
		norm := float64(Norm(rows[i*dim : (i+1)*dim]))
		if i == 2 {
			require.True(t, math.IsNaN(norm))
			continue
		}
		require.InDelta(t, 1, norm, 1e-6)
	}
}

func TestHammingCountsBits(t *testing.T) {
	for dim := range 140 {
		const n = 5
		q, rows := guarded(t, randomBytes(12, dim)), guarded(t, randomBytes(13, n*dim))
		got, twin := guarded(t, make([]float32, n)), make([]float32, n)
		HammingDistances(q, rows, got)
		hammingRowsGo(q, rows, twin)
		for i := range n {
			want := 0
			for j, b := range q {
				want += bits.OnesCount8(b ^ rows[i*dim+j])
			}
			require.Equal(t, float32(want), got[i], "%d bytes", dim)
			require.Equal(t, float32(want), twin[i], "%d bytes", dim)
		}
	}
	all := make([]byte, 5000)
	for i := range all {
		all[i] = 0xff
	}
	require.Equal(t, float32(40000), HammingDistance(all, make([]byte, 5000)))
}

func TestShapesThatDoNotFitPanic(t *testing.T) {
	three, four := make([]float32, 3), make([]float32, 4)
	require.Panics(t, func() { Distances(L2, three, four, three[:1]) })
	require.Panics(t, func() { Distance(L2, three, four) })
	require.Panics(t, func() { Distances(Hamming, three, three, three[:1]) })
	require.Panics(t, func() { DistancesFloat16(Dot, three, make([]uint16, 4), three[:1]) })
	require.Panics(t, func() { DistancesAt(L2, three, three, []uint32{1}, three[:1]) })
	require.Panics(t, func() { DistancesAt(L2, three, three, []uint32{0}, three[:2]) })
	require.Panics(t, func() { HammingDistances(make([]byte, 2), make([]byte, 3), three[:1]) })
	require.Panics(t, func() { HammingDistance(make([]byte, 2), make([]byte, 3)) })
	require.Panics(t, func() { WidenFloat16(three, make([]uint16, 4)) })
	require.Panics(t, func() { NarrowFloat16(make([]uint16, 4), three) })
	require.Panics(t, func() { Normalize(2, three, three) })
}

// TestDistancesFloat64 compares with float32 where that is exact, and with sums that float32 would round.
func TestDistancesFloat64(t *testing.T) {
	q, rows := []float64{1, 2, 3}, []float64{1, 2, 3, -1, 0, 2, 0, 0, 0}
	narrow := func(v []float64) []float32 {
		out := make([]float32, len(v))
		for i, x := range v {
			out[i] = float32(x)
		}
		return out
	}
	for _, m := range []Metric{L2, Dot, Cosine} {
		got, want := make([]float32, 3), make([]float32, 3)
		DistancesFloat64(m, q, rows, got)
		Distances(m, narrow(q), narrow(rows), want)
		if m == Cosine {
			require.True(t, math.IsNaN(float64(got[2])))
			got, want = got[:2], want[:2]
		}
		require.InDeltaSlice(t, want, got, 1e-6, m)
	}
	var one [1]float32
	DistancesFloat64(L2, []float64{1e9 + 1}, []float64{1e9}, one[:])
	require.Equal(t, float32(1), one[0])
	require.Panics(t, func() { DistancesFloat64(Hamming, q, rows, make([]float32, 3)) })
	require.Panics(t, func() { DistancesFloat64(L2, q, rows, make([]float32, 2)) })
}
