package vector

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// randomIVF has random centroids and code words.
func randomIVF(t testing.TB, seed uint64, m Metric, dim, partitions, subVectors, bits int) *IVF {
	r := seeded(seed)
	rank := m
	if m == Cosine {
		rank = L2
	}
	c, err := NewCentroids(rank, dim, randomFloats(r, partitions*dim))
	require.NoError(t, err)
	var pq *PQ
	if subVectors > 0 {
		pq, err = NewPQ(dim, subVectors, bits, randomFloats(r, dim<<bits))
		require.NoError(t, err)
	}
	v, err := NewIVF(m, c, pq)
	require.NoError(t, err)
	return v
}

func TestAModelTreatsRowsAsLanceDoes(t *testing.T) {
	const dim, n = 24, 2*chunkRows + 7
	rows := randomFloats(seeded(80), n*dim)
	for _, bits := range []int{4, 8} {
		for _, m := range []Metric{L2, Cosine, Dot} {
			v := randomIVF(t, 81, m, dim, 9, 6, bits)
			before := append([]float32(nil), rows...)

			// Step by step, by what the types below are documented to do.
			prepared := append([]float32(nil), rows...)
			if m == Cosine {
				Normalize(dim, prepared, rows)
			}
			wantParts := make([]int32, n)
			v.Centroids().Assign(prepared, wantParts, nil)
			if m != Dot {
				v.Centroids().Residuals(prepared, prepared, wantParts)
			}
			wantCodes := make([]byte, n*v.CodeBytes())
			v.PQ().Encode(prepared, wantCodes)

			parts, codes := make([]int32, n), make([]byte, n*v.CodeBytes())
			v.AssignEncode(rows, parts, codes)
			require.Equal(t, wantParts, parts)
			require.Equal(t, wantCodes, codes)
			clear(parts)
			v.Assign(rows, parts)
			require.Equal(t, wantParts, parts)
			clear(codes)
			v.Encode(rows, parts, codes)
			require.Equal(t, wantCodes, codes)
			require.Equal(t, before, rows, "rows are read only")
		}
	}
}

func TestDistancesOfCodesAreThoseOfTheVectorsTheyStandFor(t *testing.T) {
	const dim, n = 32, 50
	r := seeded(82)
	rows, q := randomFloats(r, n*dim), randomFloats(r, dim)
	for _, m := range []Metric{L2, Cosine, Dot} {
		v := randomIVF(t, 83, m, dim, 5, 8, 8)
		require.Equal(t, m != Dot, v.Residual())
		parts, codes := make([]int32, n), make([]byte, n*v.CodeBytes())
		v.AssignEncode(rows, parts, codes)
		prepared, scratch, decoded := make([]float32, dim), make([]float32, dim), make([]float32, dim)
		v.Prepare(prepared, q)
		var table Table
		for i, p := range parts {
			code := codes[i*v.CodeBytes() : (i+1)*v.CodeBytes()]
			v.PQ().Decode(code, decoded)
			rank := Dot
			if m != Dot {
				rank = L2
				for j, x := range v.Centroids().Row(int(p)) {
					decoded[j] += x
				}
			}
			var got [1]float32
			v.Table(prepared, int(p), scratch, &table)
			table.Scan(code, got[:])
			want := Distance(rank, prepared, decoded)
			if m == Cosine {
				want /= 2
			}
			require.InDelta(t, want, v.Distance(got[0]), 1e-3)
		}
	}
}

func TestRowsThatNoIndexTakesHaveNoPartition(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	rows := []float32{1, 2, 0, 0, nan, 1, 1, -inf, 3e38, 3e38}
	for m, want := range map[Metric][]bool{L2: {true, true, false, false, false}, Cosine: {true, false, false, false, false}, Dot: {true, true, false, false, false}} {
		v := randomIVF(t, 84, m, 2, 3, 2, 4)
		parts, codes := make([]int32, 5), make([]byte, 5*v.CodeBytes())
		v.AssignEncode(rows, parts, codes)
		for i, indexed := range want {
			require.Equal(t, indexed, parts[i] >= 0, "row %d under %v", i, m)
		}
	}
}

func TestAModelWithoutCodesAssigns(t *testing.T) {
	v := randomIVF(t, 85, Cosine, 8, 4, 0, 0)
	require.Nil(t, v.PQ())
	require.Zero(t, v.CodeBytes())
	require.False(t, v.Residual())
	rows, a, b := randomFloats(seeded(86), 80), make([]int32, 10), make([]int32, 10)
	v.Assign(rows, a)
	v.AssignEncode(rows, b, nil)
	require.Equal(t, a, b)
}

func TestAModelThatDoesNotFitIsRefused(t *testing.T) {
	l2, err := NewCentroids(L2, 8, make([]float32, 16))
	require.NoError(t, err)
	dot, err := NewCentroids(Dot, 8, make([]float32, 16))
	require.NoError(t, err)
	pq := randomPQ(t, 87, 16, 4, 8)
	_, err = NewIVF(Hamming, l2, nil)
	require.ErrorContains(t, err, "no inverted file for metric hamming")
	_, err = NewIVF(Cosine, dot, nil)
	require.ErrorContains(t, err, "under cosine they rank by l2")
	_, err = NewIVF(Dot, l2, nil)
	require.ErrorContains(t, err, "under dot they rank by dot")
	_, err = NewIVF(L2, l2, pq)
	require.ErrorContains(t, err, "16 dimensions, centroids of 8")
}

func TestAssigningAllocatesNothing(t *testing.T) {
	v := randomIVF(t, 88, Cosine, 16, 8, 4, 8)
	rows, parts, codes := randomFloats(seeded(89), 100*16), make([]int32, 100), make([]byte, 400)
	allocs := testing.AllocsPerRun(20, func() { v.AssignEncode(rows, parts, codes) })
	// A garbage collection in between empties the pool.
	require.Less(t, allocs, 2.0)
}

func BenchmarkIVFAssignEncode(b *testing.B) {
	const dim, n = 128, 100
	v := randomIVF(b, 90, L2, dim, 256, 16, 8)
	rows, parts, codes := randomFloats(seeded(91), n*dim), make([]int32, n), make([]byte, n*16)
	b.ReportAllocs()
	for b.Loop() {
		v.AssignEncode(rows, parts, codes)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
