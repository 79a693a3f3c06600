package ivf

import (
	"bytes"
	"context"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

// What is written, merged and searched in pieces is what would be written, merged and found as a whole.
func TestLargePartitionsAreTheSameInPieces(t *testing.T) {
	const dim, n = 8, 900
	ctx := context.Background()
	rows := clustered(25, n, dim, 2)
	copy(rows[n/2*dim:], rows[:n/4*dim]) // some rows are equal
	for _, o := range []TrainOptions{{}, {Bits: 4}, {SubVectors: 1}, {Metric: vector.Cosine, SubVectors: 8}, {Metric: vector.Dot}, {Kind: Flat}, {Kind: Flat, Element: arrow.FixedWidthTypes.Float16}} {
		o.Partitions = 3
		model := train(t, rows, dim, o)
		for _, large := range []int64{300, 5000} {
			st := object.NewMem()
			whole := BuildOptions{WriterOptions: WriterOptions{Element: o.Element}}
			pieces := whole
			pieces.large = large
			build(t, st, "whole", model, rows, whole)
			build(t, st, "pieces", model, rows, pieces)
			want, err := st.Get(ctx, "whole/"+dataFile)
			require.NoError(t, err)
			got, err := st.Get(ctx, "pieces/"+dataFile)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "%+v in pieces of %d bytes", o, large)

			a, b := open(t, st, "whole", Options{}), open(t, st, "pieces", Options{large: large})
			require.Equal(t, contents(t, a), contents(t, b))
			require.NoError(t, b.Verify(ctx, nil))
			for _, q := range []int{0, 77, 800} {
				s := SearchOptions{NProbes: 2, Limit: 50}
				want, err := a.Search(ctx, rows[q*dim:(q+1)*dim], s)
				require.NoError(t, err)
				got, err := b.Search(ctx, rows[q*dim:(q+1)*dim], s)
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
			mergeInPieces(t, st, a, b, model, pieces)
		}
	}
}

// mergeInPieces takes an index over twice, of one copy every other row only.
func mergeInPieces(t *testing.T, st object.Store, a, b *Index, model *vector.IVF, pieces BuildOptions) {
	ctx := context.Background()
	merge := func(dir string, x *Index, o BuildOptions) []byte {
		w, err := NewBuilder(ctx, st, dir, model, o)
		require.NoError(t, err)
		defer w.Abort()
		require.NoError(t, w.AddIndex(x, func(id uint64) (uint64, bool) { return id + 1e6, id%2 == 0 }))
		require.NoError(t, w.AddIndex(x, nil))
		_, err = w.Finish(ctx)
		require.NoError(t, err)
		out, err := st.Get(ctx, dir+"/"+dataFile)
		require.NoError(t, err)
		return out
	}
	whole := pieces
	whole.large = 0
	require.True(t, bytes.Equal(merge("m1", a, whole), merge("m2", b, pieces)))
}

// All vectors equal are one partition with all rows. What lives on the heap while it is written, merged and searched is a piece of it.
func TestAPartitionWithAllRowsIsNotHeldWhole(t *testing.T) {
	const dim, n, width = 16, 2_000_000, 16
	ctx := context.Background()
	model := train(t, equalRows(1000, dim), dim, TrainOptions{Partitions: 4, SubVectors: width})
	st := object.NewLocal(t.TempDir())
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	base := liveHeap()
	most := uint64(0)
	look := func() { most = max(most, liveHeap()-min(base, liveHeap())) }

	o := BuildOptions{Scratch: object.NewScratch(t.TempDir()), Shuffle: ShuffleOptions{BufferBytes: 4 << 20}}
	w, err := NewBuilder(ctx, st, "x", model, o)
	require.NoError(t, err)
	defer w.Abort()
	rows := equalRows(8000, dim)
	ids := make([]uint64, 8000)
	for at := 0; at < n; at += len(ids) {
		for i := range ids {
			ids[i] = uint64(at + i)
		}
		require.NoError(t, w.Add(ctx, ids, rows))
	}
	_, err = w.Finish(ctx)
	require.NoError(t, err)
	x := open(t, st, "x", Options{CacheBytes: 256 << 20})
	require.EqualValues(t, n, x.Rows())
	require.Contains(t, x.Sizes(), int64(n))

	m, err := NewBuilder(ctx, st, "merged", model, BuildOptions{})
	require.NoError(t, err)
	defer m.Abort()
	calls := 0
	require.NoError(t, m.AddIndex(x, func(id uint64) (uint64, bool) {
		if calls++; calls%(n/2) == 1 {
			look()
		}
		return id, true
	}))
	_, err = m.Finish(ctx)
	require.NoError(t, err)
	found, err := x.Search(ctx, rows[:dim], SearchOptions{NProbes: 4, Limit: 10, Keep: func(id uint64) bool {
		if id%(n/4) == 0 {
			look()
		}
		return true
	}})
	require.NoError(t, err)
	require.Len(t, found, 10)
	look()
	require.NotZero(t, calls)
	// The partition has 48 MB; a piece is 4 MiB, a page of the file 8 MiB.
	require.Less(t, most, uint64(32<<20))
}

// equalRows are n equal rows.
func equalRows(n, dim int) []float32 {
	rows := make([]float32, n*dim)
	for i := range rows {
		rows[i] = float32(i%dim) + 1
	}
	return rows
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
