package vector

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// randomPQ has random code words, which is all that a test of shapes needs.
func randomPQ(t *testing.T, seed uint64, dim, m, bits int) *PQ {
	p, err := NewPQ(dim, m, bits, randomFloats(seeded(seed), dim<<bits))
	require.NoError(t, err)
	return p
}

func TestACodeIsTheNearestWord(t *testing.T) {
	for _, shape := range []struct{ dim, m, bits int }{{8, 1, 8}, {24, 3, 8}, {128, 16, 8}, {8, 2, 4}, {128, 64, 4}, {36, 12, 4}, {40, 2, 8}} {
		p := randomPQ(t, 60, shape.dim, shape.m, shape.bits)
		const n = chunkRows + 9
		rows := randomFloats(seeded(61), n*shape.dim)
		codes, decoded := make([]byte, n*p.CodeBytes()), make([]float32, len(rows))
		p.Encode(rows, codes)
		p.Decode(codes, decoded)
		sub := shape.dim / shape.m
		for i := range n {
			for j := range shape.m {
				at := i*shape.dim + j*sub
				got := Distance(L2, rows[at:at+sub], decoded[at:at+sub])
				least := float32(math.Inf(1))
				for c := range 1 << shape.bits {
					least = min(least, Distance(L2, rows[at:at+sub], p.word(j, c)))
				}
				require.InDelta(t, least, got, 1e-4)
			}
		}
		again := make([]byte, len(codes))
		p.Encode(decoded, again)
		require.Equal(t, codes, again, "a code word is its own nearest")
	}
}

func TestCodesHaveLancesForm(t *testing.T) {
	// Four sub-vectors of one element; word c of each is c.
	var codebook []float32
	for range 4 {
		for c := range 16 {
			codebook = append(codebook, float32(c))
		}
	}
	p, err := NewPQ(4, 4, 4, codebook)
	require.NoError(t, err)
	codes := make([]byte, 4)
	p.Encode([]float32{1, 2, 3, 15, 0, 9.4, float32(math.NaN()), 99}, codes)
	require.Equal(t, []byte{0x21, 0xf3, 0x90, 0xf0}, codes)
	columns := make([]byte, 4)
	TransposeCodes(columns, codes, 2)
	require.Equal(t, []byte{0x21, 0x90, 0xf3, 0xf0}, columns)
	TransposeCodes(codes, columns, 2)
	require.Equal(t, []byte{0x21, 0xf3, 0x90, 0xf0}, codes)
}

// TestAScanIsTheDistanceOfTheDecodedVector holds tables and all scans against decoding.
func TestAScanIsTheDistanceOfTheDecodedVector(t *testing.T) {
	var table Table // filled again and again, of all sizes
	for _, m := range []Metric{L2, Dot} {
		for _, shape := range []struct{ dim, m, bits int }{{128, 16, 8}, {8, 1, 8}, {30, 10, 8}, {98, 49, 8}, {16, 2, 4}, {128, 64, 4}} {
			for _, n := range []int{0, 1, 33, 700} {
				p := randomPQ(t, 62, shape.dim, shape.m, shape.bits)
				r := seeded(63)
				codes, q := make([]byte, n*p.CodeBytes()), randomFloats(r, shape.dim)
				for i := range codes {
					codes[i] = byte(r.Uint32())
				}
				decoded, want, got := make([]float32, n*shape.dim), make([]float32, n), make([]float32, n)
				p.Decode(codes, decoded)
				Distances(m, q, decoded, want)
				p.Table(m, q, &table)
				table.Scan(codes, got)
				for i := range want {
					require.InDelta(t, want[i], got[i], 1e-5*(1+math.Abs(float64(want[i]))+float64(shape.dim)), "%v, %+v, row %d", m, shape, i)
				}
				if shape.bits == 8 {
					columns, same := make([]byte, len(codes)), make([]float32, n)
					TransposeCodes(columns, codes, n)
					table.ScanColumns(columns, same)
					require.Equal(t, got, same, "%v, %+v", m, shape)
				}
			}
		}
	}
}

func TestTheErrorOfAQuantiserFalls(t *testing.T) {
	const n, dim = 3000, 32
	rows, _ := clustered(seeded(64), n, dim, 40, 0.4)
	loss := func(m, bits int) float64 {
		p, err := TrainPQ(t.Context(), rows, dim, PQOptions{SubVectors: m, Bits: bits, Workers: 3})
		require.NoError(t, err)
		codes, decoded := make([]byte, n*p.CodeBytes()), make([]float32, len(rows))
		p.Encode(rows, codes)
		p.Decode(codes, decoded)
		var sum float64
		for i := range n {
			sum += float64(Distance(L2, rows[i*dim:(i+1)*dim], decoded[i*dim:(i+1)*dim]))
		}
		return sum / n
	}
	few, more, most := loss(4, 8), loss(8, 8), loss(16, 8)
	require.Less(t, more, few*0.8)
	require.Less(t, most, more*0.8)
	require.Less(t, more, loss(8, 4)*0.8)
}

func TestTrainingDependsOnItsSeedAlone(t *testing.T) {
	rows := randomFloats(seeded(65), 2000*12)
	run := func(o PQOptions) []float32 {
		o.SubVectors, o.Bits = 6, 4
		p, err := TrainPQ(t.Context(), rows, 12, o)
		require.NoError(t, err)
		return p.Codebook()
	}
	one := run(PQOptions{Seed: 1})
	require.Equal(t, one, run(PQOptions{Seed: 1, Workers: 4}))
	require.NotEqual(t, one, run(PQOptions{Seed: 2}))
}

func TestTrainingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := TrainPQ(ctx, randomFloats(seeded(67), 500*4), 4, PQOptions{SubVectors: 2, Bits: 4, Workers: 2})
	require.ErrorIs(t, err, context.Canceled)
}

// TestRecallOfPQ is the whole way: partitions, residuals, codes, tables, and the exact distances of the best candidates.
func TestRecallOfPQ(t *testing.T) {
	const n, dim, k, queries, probes = 8000, 32, 10, 40, 6
	r := seeded(66)
	rows, points := clustered(r, n, dim, 100, 0.6)
	found, err := KMeans(t.Context(), rows, dim, KMeansOptions{Clusters: 24})
	require.NoError(t, err)
	c := found.Centroids
	parts, residuals := make([]int32, n), make([]float32, len(rows))
	c.Assign(rows, parts, nil)
	c.Residuals(residuals, rows, parts)
	for bits, m := range map[int]int{8: 16, 4: 32} {
		t.Run(fmt.Sprint(bits, " bits"), func(t *testing.T) {
			p, err := TrainPQ(t.Context(), residuals, dim, PQOptions{SubVectors: m, Bits: bits})
			require.NoError(t, err)
			codes := make([]byte, n*p.CodeBytes())
			p.Encode(residuals, codes)
			hits := 0
			for qi := range queries {
				q := make([]float32, dim)
				for d := range q {
					q[d] = points[qi*dim+d] + float32(0.6*r.NormFloat64())
				}
				exact := make([]float32, n)
				Distances(L2, q, rows, exact)
				want := NewTopK(k)
				want.PushRange(0, exact)
				truth := map[uint64]bool{}
				for _, hit := range want.AppendSorted(nil) {
					truth[hit.ID] = true
				}
				for _, hit := range searchIVF(c, p, parts, codes, rows, q, probes, k) {
					if truth[hit.ID] {
						hits++
					}
				}
			}
			require.Greater(t, float64(hits)/(queries*k), 0.9)
		})
	}
}

// searchIVF probes partitions by their codes and ranks four times k candidates by their exact distances.
func searchIVF(c *Centroids, p *PQ, parts []int32, codes []byte, rows, q []float32, probes, k int) []Neighbor {
	var table Table
	var fast FastTable
	candidates := NewTopK(4 * k)
	residual := make([]float32, c.Dim())
	for _, probe := range c.Probe(q, probes, nil) {
		c.Residuals(residual, q, []int32{int32(probe.ID)})
		p.Table(L2, residual, &table)
		var ids []uint64
		var mine []byte
		for i, part := range parts {
			if uint64(part) == probe.ID {
				ids = append(ids, uint64(i))
				mine = append(mine, codes[i*p.CodeBytes():(i+1)*p.CodeBytes()]...)
			}
		}
		if p.Bits() == 8 {
			dist := make([]float32, len(ids))
			table.Scan(mine, dist)
			candidates.PushAll(ids, dist)
			continue
		}
		table.Fast(&fast)
		blocks, sums := make([]byte, BlockBytes(len(ids), p.CodeBytes())), make([]uint16, (len(ids)+31)/32*32)
		PackBlocks(blocks, mine, len(ids))
		fast.Scan(blocks, sums)
		for i, id := range ids {
			candidates.Push(id, fast.Distance(sums[i]))
		}
	}
	var at []uint32
	for _, hit := range candidates.AppendSorted(nil) {
		at = append(at, uint32(hit.ID))
	}
	dist, best := make([]float32, len(at)), NewTopK(k)
	DistancesAt(L2, q, rows, at, dist)
	for i, d := range dist {
		best.Push(uint64(at[i]), d)
	}
	return best.AppendSorted(nil)
}

func TestQuantisersThatCannotBeAreRefused(t *testing.T) {
	for _, c := range []struct {
		dim, m, bits, elements int
		want                   string
	}{
		{16, 4, 5, 0, "product quantisation with 5 bits; it is 4 or 8"},
		{0, 4, 8, 0, "product quantisation of 0 dimensions"},
		{16, 3, 8, 0, "3 sub-vectors of 16 dimensions; their number divides the dimensions and is at most 4096"},
		{16, 0, 8, 0, "0 sub-vectors of 16 dimensions; their number divides the dimensions and is at most 4096"},
		{9, 3, 4, 0, "3 sub-vectors with 4 bits; two share a byte, so their number is even"},
		{16, 4, 4, 255, "a codebook of 255 elements; 16 dimensions with 4 bits have 256"},
	} {
		_, err := NewPQ(c.dim, c.m, c.bits, make([]float32, c.elements))
		require.EqualError(t, err, c.want)
	}
	codebook := make([]float32, 256)
	codebook[3] = float32(math.NaN())
	_, err := NewPQ(16, 4, 4, codebook)
	require.EqualError(t, err, "element 3 of the codebook is NaN")
	_, err = TrainPQ(t.Context(), make([]float32, 255*4), 4, PQOptions{SubVectors: 2, Bits: 8})
	require.EqualError(t, err, "sub-vector 0: k-means: 255 rows that are finite for 256 clusters; ask for fewer clusters or give more rows")
	_, err = TrainPQ(t.Context(), make([]float32, 7), 4, PQOptions{SubVectors: 2, Bits: 8})
	require.EqualError(t, err, "product quantisation: 7 elements are not rows of 4 dimensions")
}
