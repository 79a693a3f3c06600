package vector

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func randomBytes(seed uint64, n int) []byte {
	r, out := seeded(seed), make([]byte, n)
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

func TestAFastScanAddsWhatItsTwinAdds(t *testing.T) {
	for width := range 66 {
		for _, blocks := range []int{0, 1, 2, 5} {
			steps := guarded(t, randomBytes(70, width*32))
			codes := guarded(t, randomBytes(71, width*BlockRows*blocks))
			got, want := guarded(t, make([]uint16, blocks*BlockRows)), make([]uint16, blocks*BlockRows)
			fastScan(steps, codes, got)
			fastScanGo(steps, codes, want)
			require.Equal(t, want, append([]uint16{}, got...), "%d bytes, %d blocks", width, blocks)
		}
	}
}

func TestAFastScanDoesNotSaturate(t *testing.T) {
	// Every byte 255: the largest sums there can be, for as many sub-vectors as fit 16 bits.
	const width = 128
	steps, codes := make([]byte, width*32), make([]byte, width*BlockRows)
	for i := range steps {
		steps[i] = 255
	}
	sums := make([]uint16, BlockRows)
	fastScan(steps, codes, sums)
	for _, sum := range sums {
		require.Equal(t, uint16(2*width*255), sum)
	}
}

func FuzzFastScan(f *testing.F) {
	f.Add(uint8(32), uint8(3), uint64(1))
	f.Fuzz(func(t *testing.T, width, blocks uint8, seed uint64) {
		w, n := int(width%129), int(blocks%9)
		steps, codes := randomBytes(seed, w*32), randomBytes(seed+1, w*n*BlockRows)
		got, want := make([]uint16, n*BlockRows), make([]uint16, n*BlockRows)
		fastScan(steps, codes, got)
		fastScanGo(steps, codes, want)
		require.Equal(t, want, got)
	})
}

func TestAFastScanIsAScanInSteps(t *testing.T) {
	var table Table
	var fast FastTable
	for _, m := range []Metric{L2, Dot} {
		for _, shape := range []struct{ dim, m int }{{2, 2}, {128, 64}, {768, 768}, {4096, 4096}} {
			p := randomPQ(t, 72, shape.dim, shape.m, 4)
			const n = 100
			codes, q := randomBytes(73, n*p.CodeBytes()), randomFloats(seeded(74), shape.dim)
			exact, sums := make([]float32, n), make([]uint16, 128)
			p.Table(m, q, &table)
			table.Scan(codes, exact)
			table.Fast(&fast)
			blocks := make([]byte, BlockBytes(n, p.CodeBytes()))
			PackBlocks(blocks, codes, n)
			fast.Scan(blocks, sums)
			for i, want := range exact {
				bound := float64(fast.step)*float64(shape.m)/2 + 1e-5*(1+math.Abs(float64(want)))*float64(shape.m)
				require.InDelta(t, want, fast.Distance(sums[i]), bound)
			}
			top, all := NewTopK(7), NewTopK(7)
			fast.Search(blocks, n, 1000, top)
			for i := range n {
				all.Push(uint64(1000+i), fast.Distance(sums[i]))
			}
			require.Equal(t, all.AppendSorted(nil), top.AppendSorted(nil))
			// A step of 1/255 of the widest distance, unless sums would not fit: the whole range is used.
			require.LessOrEqual(t, int(sums[0]), math.MaxUint16)
		}
	}
}

func TestAFastSearchFindsWhatAllRowsWouldGive(t *testing.T) {
	r := seeded(75)
	p := randomPQ(t, 76, 16, 8, 4)
	var table Table
	var fast FastTable
	for range 100 {
		n, k := r.IntN(900), r.IntN(200)
		codes := randomBytes(r.Uint64(), n*p.CodeBytes())
		p.Table(L2, randomFloats(r, 16), &table)
		table.Fast(&fast)
		blocks, sums := make([]byte, BlockBytes(n, p.CodeBytes())), make([]uint16, BlockBytes(n, 1))
		PackBlocks(blocks, codes, n)
		fast.Scan(blocks, sums)
		// The later rows come first, so that ties are won by rows that come last.
		top, all := NewTopK(k), NewTopK(k)
		cut := r.IntN(n/BlockRows+1) * BlockRows
		fast.Search(blocks[cut*p.CodeBytes():], n-cut, uint64(cut), top)
		fast.Search(blocks[:cut*p.CodeBytes()], cut, 0, top)
		for i, sum := range sums[:n] {
			all.Push(uint64(i), fast.Distance(sum))
		}
		require.Equal(t, all.AppendSorted(nil), top.AppendSorted(nil))
	}
}

func TestAFastTableOfOddQueries(t *testing.T) {
	var table Table
	var fast FastTable
	p := randomPQ(t, 77, 4, 2, 4)
	sums := make([]uint16, BlockRows)
	for _, x := range []float32{float32(math.NaN()), float32(math.Inf(1)), 3e38} {
		p.Table(L2, []float32{1, x, 1, 1}, &table)
		table.Fast(&fast)
		top := NewTopK(3)
		fast.Search(make([]byte, 32), 32, 0, top)
		require.Zero(t, top.Len())
		fast.Scan(make([]byte, 32), sums)
		require.True(t, math.IsNaN(float64(fast.Distance(sums[0]))))
	}
	// All words equal: no step, one distance.
	p, err := NewPQ(2, 2, 4, make([]float32, 32))
	require.NoError(t, err)
	p.Table(L2, []float32{3, 4}, &table)
	table.Fast(&fast)
	fast.Scan(make([]byte, 32), sums)
	require.Equal(t, float32(25), fast.Distance(sums[5]))
	top := NewTopK(3)
	fast.Search(make([]byte, 32), 9, 0, top)
	require.Equal(t, []Neighbor{{0, 25}, {1, 25}, {2, 25}}, top.AppendSorted(nil))
}
