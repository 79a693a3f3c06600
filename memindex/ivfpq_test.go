package memindex

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/vector"
)

// testModel trains a model of random vectors.
func testModel(t testing.TB, metric vector.Metric, dim, partitions, sub, bits int) *vector.IVF {
	r := rand.New(rand.NewPCG(1, uint64(dim)))
	rows := make([]float32, 2000*dim)
	for i := range rows {
		rows[i] = float32(r.NormFloat64())
	}
	by := metric
	if metric == vector.Cosine {
		by = vector.L2
		vector.Normalize(dim, rows, rows)
	}
	k, err := vector.KMeans(context.Background(), rows, dim, vector.KMeansOptions{Clusters: partitions, Metric: by, Iterations: 3})
	require.NoError(t, err)
	var pq *vector.PQ
	if bits > 0 {
		pq, err = vector.TrainPQ(context.Background(), rows, dim, vector.PQOptions{SubVectors: sub, Bits: bits, Iterations: 2})
		require.NoError(t, err)
	}
	m, err := vector.NewIVF(metric, k.Centroids, pq)
	require.NoError(t, err)
	return m
}

// vectorBatch returns some vectors, some of them null, with a null in them, not finite or zero, and the numbers behind them.
func vectorBatch(r *rand.Rand, of arrow.DataType, dim, n int) (arrow.Array, []float32) {
	b := array.NewFixedSizeListBuilder(memory.DefaultAllocator, int32(dim), of)
	defer b.Release()
	var out []float32
	put := func(v float32, null bool) {
		switch e := b.ValueBuilder().(type) {
		case *array.Float32Builder:
			e.Append(v)
		case *array.Float16Builder:
			v = float16.New(v).Float32()
			e.Append(float16.New(v))
		case *array.Float64Builder:
			e.Append(float64(v))
		}
		if null {
			e := b.ValueBuilder()
			e.(interface{ SetNull(i int) }).SetNull(e.Len() - 1)
			v = float32(math.NaN())
		}
		out = append(out, v)
	}
	for range n {
		kind := r.IntN(30)
		b.Append(kind != 0)
		for j := range dim {
			v := float32(r.NormFloat64())
			switch {
			case kind == 1:
				v = 0
			case kind == 2 && j == 1:
				v = float32(math.NaN())
			case kind == 3 && j == 0:
				v = float32(math.Inf(-1))
			}
			put(v, kind == 4 && j == 2)
		}
		if kind == 0 {
			out[len(out)-1] = float32(math.NaN())
		}
	}
	return b.NewArray(), out
}

// TestIVFPQHoldsWhatItsModelSays compares the lists with partitions and codes that are computed row by row, for batches that are slices of
// others, too, and searches with the distances of these codes.
func TestIVFPQHoldsWhatItsModelSays(t *testing.T) {
	const dim, partitions = 8, 7
	for _, c := range []struct {
		name   string
		metric vector.Metric
		bits   int
		of     arrow.DataType
	}{
		{"l2", vector.L2, 8, arrow.PrimitiveTypes.Float32},
		{"cosine", vector.Cosine, 4, arrow.PrimitiveTypes.Float32},
		{"float64", vector.L2, 8, arrow.PrimitiveTypes.Float64},
		{"dot, float16", vector.Dot, 8, arrow.FixedWidthTypes.Float16},
		{"no codes", vector.Cosine, 0, arrow.FixedWidthTypes.Float16},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := testModel(t, c.metric, dim, partitions, 4, c.bits)
			r := rand.New(rand.NewPCG(5, 6))
			x := NewIVFPQ(m)
			defer x.Release()
			var all []float32
			for _, n := range []int{1, 100, 3, 0, 700, 1300, 2, 3000} {
				batch, rows := vectorBatch(r, c.of, dim, n+5)
				part := array.NewSlice(batch, 2, int64(2+n))
				x.Add(part, uint32(len(all)/dim))
				part.Release()
				batch.Release()
				all = append(all, rows[2*dim:(2+n)*dim]...)
			}
			requireLists(t, x, all)
			requireFound(t, x, all, r)
		})
	}
}

// requireLists compares what Write hands out with the model.
func requireLists(t *testing.T, x *IVFPQ, all []float32) {
	m, dim := x.Model(), x.Model().Dim()
	n := len(all) / dim
	parts, width := make([]int32, n), m.CodeBytes()
	var codes []byte
	m.Assign(all, parts)
	if m.PQ() != nil {
		codes = make([]byte, n*width)
		m.Encode(all, parts, codes)
	}
	var want [][]uint32
	for range m.Partitions() {
		want = append(want, nil)
	}
	listed := 0
	for i, p := range parts {
		if p >= 0 {
			want[p] = append(want[p], uint32(i))
			listed++
		}
	}
	require.Less(t, listed, n)
	require.EqualValues(t, listed, x.Rows())
	got, last := make([][]uint32, m.Partitions()), 0
	require.NoError(t, x.Write(func(part int, rows []uint32, c []byte) error {
		require.GreaterOrEqual(t, part, last)
		last = part
		got[part] = append(got[part], rows...)
		for i, row := range rows {
			if !bytes.Equal(codes[int(row)*width:int(row+1)*width], c[i*width:(i+1)*width]) {
				t.Fatalf("row %d has another code", row)
			}
		}
		return nil
	}))
	require.Equal(t, want, got)
	boom := errors.New("boom")
	require.ErrorIs(t, x.Write(func(int, []uint32, []byte) error { return boom }), boom)
}

// requireFound searches: all partitions in two steps, up to some row, and one step that ends early.
func requireFound(t *testing.T, x *IVFPQ, all []float32, r *rand.Rand) {
	m, dim := x.Model(), x.Model().Dim()
	q := make([]float32, dim)
	for i := range q {
		q[i] = float32(r.NormFloat64())
	}
	m.Prepare(q, q)
	probe := m.Probe(q, m.Partitions(), nil)
	require.Len(t, probe, m.Partitions())
	below := uint32(len(all) / dim * 2 / 3)
	seen := map[uint32]float32{}
	collect := func(rows []uint32, dist []float32) bool {
		for i, row := range rows {
			if _, twice := seen[row]; twice || row >= below || (dist == nil) != (m.PQ() == nil) {
				t.Fatalf("row %d comes twice, or without being asked for, or with another kind of distance", row)
			}
			if seen[row] = 0; dist != nil {
				seen[row] = dist[i]
			}
		}
		return true
	}
	x.Search(q, probe[:3], below, collect)
	first := len(seen)
	x.Search(q, probe[3:], below, collect)
	require.Greater(t, first, 0)
	require.Greater(t, len(seen), first)
	require.NoError(t, x.Write(func(part int, rows []uint32, codes []byte) error {
		for i, row := range rows {
			d, ok := seen[row]
			if ok != (row < below) {
				t.Fatalf("row %d: found is %v", row, ok)
			}
			if !ok || m.PQ() == nil || row%16 > 0 {
				continue
			}
			var table vector.Table
			want := make([]float32, 1)
			m.Table(q, part, make([]float32, dim), &table)
			table.Scan(codes[i*m.CodeBytes():(i+1)*m.CodeBytes()], want)
			require.InDelta(t, want[0], d, 1e-5)
		}
		return nil
	}))
	calls := 0
	x.Search(q, probe, below, func([]uint32, []float32) bool { calls++; return false })
	require.Equal(t, 1, calls)
}

// TestIVFPQCountsItsMemory compares what an index says that it takes with what is out, and with what it said that it would grow to.
func TestIVFPQCountsItsMemory(t *testing.T) {
	for _, partitions := range []int{3, 300} {
		m := testModel(t, vector.L2, 8, partitions, 4, 8)
		r := rand.New(rand.NewPCG(7, 8))
		before := offheap.Default.InUse()
		x := NewIVFPQ(m)
		at := uint32(0)
		for i := range 60 {
			n := []int{1, 50, 4000}[i%3]
			batch, _ := vectorBatch(r, arrow.FixedWidthTypes.Float16, 8, n)
			most := x.MemoryBytes() + x.Growth(n)
			x.Add(batch, at)
			batch.Release()
			at += uint32(n)
			require.LessOrEqual(t, x.MemoryBytes(), most)
			out, blocks := offheap.Default.InUse()-before, int64(0)
			for p := range x.lists {
				if list := x.lists[p].blocks.Load(); list != nil {
					blocks += int64(len(*list))
				}
			}
			require.Equal(t, out+blocks*blockBytes+int64(partitions)*postingBytes+int64(4*cap(x.floats)+4*len(x.parts)+len(x.codes)), x.MemoryBytes())
		}
		require.Less(t, x.MemoryBytes(), 2*x.Rows()*int64(x.entry)+int64(partitions)*2000+1<<15, "half of it is empty")
		x.Release()
		require.Equal(t, before, offheap.Default.InUse())
		require.Zero(t, x.MemoryBytes())
	}
}

// TestIVFPQIsReadWhileItIsWritten lets readers search beside the writer: what they have been told is there they find, with its code.
func TestIVFPQIsReadWhileItIsWritten(t *testing.T) {
	const dim, batches, size = 8, 200, 50
	m := testModel(t, vector.L2, dim, 5, 4, 8)
	x := NewIVFPQ(m)
	r := rand.New(rand.NewPCG(9, 9))
	var mu sync.Mutex
	known, listed := uint32(0), []uint32(nil) // rows below known are in the index if listed has them
	q := make([]float32, dim)
	probe := m.Probe(q, m.Partitions(), nil)
	ready := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			<-ready
			for done := false; !done; {
				mu.Lock()
				below, want := known, slices.Clone(listed)
				mu.Unlock()
				done = below == batches*size
				var got []uint32
				x.Search(q, probe, below, func(rows []uint32, dist []float32) bool {
					got = append(got, rows...)
					return !slices.ContainsFunc(dist, func(d float32) bool { return d < 0 })
				})
				slices.Sort(got)
				if !slices.Equal(want, got) {
					t.Errorf("%d rows below %d are found, want %d", len(got), below, len(want))
					return
				}
			}
		})
	}
	for i := range batches {
		batch, rows := vectorBatch(r, arrow.PrimitiveTypes.Float32, dim, size)
		first := uint32(i * size)
		x.Add(batch, first)
		batch.Release()
		parts := make([]int32, size)
		m.Assign(rows, parts)
		mu.Lock()
		for j, p := range parts {
			if p >= 0 {
				listed = append(listed, first+uint32(j))
			}
		}
		known = first + size
		mu.Unlock()
		if i == 0 {
			close(ready)
		}
	}
	readers.Wait()
	x.Release()
}

// BenchmarkIVFPQ takes in batches of 100 vectors of 128 numbers, and searches among 100,000 of them: 256 partitions, 16 sub-vectors of 8
// bits.
func BenchmarkIVFPQ(b *testing.B) {
	const dim, batch, rows = 128, 100, 100_000
	m := testModel(b, vector.L2, dim, 256, 16, 8)
	r := rand.New(rand.NewPCG(3, 4))
	var batches []arrow.Array
	for range 50 {
		a := array.NewFixedSizeListBuilder(memory.DefaultAllocator, dim, arrow.PrimitiveTypes.Float32)
		for range batch {
			a.Append(true)
			for range dim {
				a.ValueBuilder().(*array.Float32Builder).Append(float32(r.NormFloat64()))
			}
		}
		batches = append(batches, a.NewArray())
		a.Release()
	}
	b.Run("add", func(b *testing.B) {
		x := NewIVFPQ(m)
		i := 0
		for b.Loop() {
			x.Add(batches[i%len(batches)], uint32(i*batch))
			if i++; i == rows/batch {
				b.StopTimer()
				x.Release()
				x, i = NewIVFPQ(m), 0
				b.StartTimer()
			}
		}
		b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "rows/s")
		x.Release()
	})
	b.Run("search", func(b *testing.B) {
		x := NewIVFPQ(m)
		for i := range rows / batch {
			x.Add(batches[i%len(batches)], uint32(i*batch))
		}
		q := slices.Clone(batches[0].(*array.FixedSizeList).ListValues().(*array.Float32).Float32Values()[:dim])
		var probe []vector.Neighbor
		b.ResetTimer()
		for b.Loop() {
			probe = m.Probe(q, 16, probe[:0])
			top := vector.NewTopK(40)
			x.Search(q, probe, rows, func(rows []uint32, dist []float32) bool {
				for i, row := range rows {
					if dist[i] <= top.Limit() {
						top.Push(uint64(row), dist[i])
					}
				}
				return true
			})
		}
		b.ReportMetric(float64(x.MemoryBytes())/rows, "B/row")
		x.Release()
	})
}
