package memindex

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

var testInts = Values{Ints: func(dst []int64, a arrow.Array) []int64 { return append(dst, a.(*array.Int64).Values()...) }}

var testWide = Values{Wide: func(a arrow.Array) func(i int) []byte { return a.(*array.Binary).Value }}

// twin is what a BTree holds, row by row; nil is a null.
type twin struct {
	wide bool
	ints []*int64
	text [][]byte
}

// batch returns some rows more. Few values are drawn, so that many rows share one.
func (w *twin) batch(r *rand.Rand, n int) arrow.Array {
	if w.wide {
		b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
		defer b.Release()
		for range n {
			v := fmt.Appendf(nil, "%s%0*d", []string{"", "a", "a long prefix ", "a long prefix\x00"}[r.IntN(4)], r.IntN(4), r.IntN(300))
			if r.IntN(20) == 0 {
				b.AppendNull()
				w.text = append(w.text, nil)
				continue
			}
			b.Append(v)
			w.text = append(w.text, v)
		}
		return b.NewArray()
	}
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	for range n {
		v := r.Int64N(1000)*(1<<52) - 1<<61
		if r.IntN(20) == 0 {
			b.AppendNull()
			w.ints = append(w.ints, nil)
			continue
		}
		b.Append(v)
		w.ints = append(w.ints, &v)
	}
	return b.NewArray()
}

// query draws one; has tells which rows it wants.
func (w *twin) query(r *rand.Rand) (q *Query, has func(row int) bool) {
	q = &Query{}
	for range r.IntN(20) {
		if at := r.IntN(len(w.ints) + len(w.text)); w.wide && w.text[at] != nil {
			q.Wide = append(q.Wide, w.text[at])
		} else if !w.wide && w.ints[at] != nil {
			q.Ints = append(q.Ints, *w.ints[at])
		}
	}
	slices.Sort(q.Ints)
	slices.SortFunc(q.Wide, bytes.Compare)
	q.Ints, q.Wide = slices.Compact(q.Ints), slices.CompactFunc(q.Wide, bytes.Equal)
	for range r.IntN(3) {
		one := Range{LowInt: r.Int64() - 1<<62, LowOpen: r.IntN(2) == 0, HighOpen: r.IntN(2) == 0}
		one.HighInt = one.LowInt + r.Int64N(1<<61)
		if r.IntN(4) > 0 && w.wide {
			one.Low = w.text[r.IntN(len(w.text))]
		}
		if r.IntN(4) > 0 && w.wide {
			one.High = w.text[r.IntN(len(w.text))]
		}
		q.Ranges = append(q.Ranges, one)
	}
	return q, func(row int) bool {
		if !w.wide {
			v := w.ints[row]
			return v != nil && (slices.Contains(q.Ints, *v) || slices.ContainsFunc(q.Ranges, func(r Range) bool { return *v >= r.LowInt && *v <= r.HighInt }))
		}
		v := w.text[row]
		return v != nil && (slices.ContainsFunc(q.Wide, func(p []byte) bool { return bytes.Equal(p, v) }) || slices.ContainsFunc(q.Ranges, func(r Range) bool {
			low, high := bytes.Compare(v, r.Low), bytes.Compare(v, r.High)
			return (r.Low == nil || low > 0 || low == 0 && !r.LowOpen) && (r.High == nil || high < 0 || high == 0 && !r.HighOpen)
		}))
	}
}

// written is a sink that keeps what it is given.
type written struct {
	nulls, rows []uint32
	ints        []int64
	wide        [][]byte
}

func (w *written) Nulls(rows []uint32) error { w.nulls = append(w.nulls, rows...); return nil }
func (w *written) Ints(values []int64, rows []uint32) error {
	w.ints, w.rows = append(w.ints, values...), append(w.rows, rows...)
	return nil
}
func (w *written) Wide(values [][]byte, rows []uint32) error {
	w.wide, w.rows = append(w.wide, values...), append(w.rows, rows...)
	return nil
}

// TestBTreeAgainstScan puts random batches in, of sizes that go through tail, short and long runs, and compares each
// answer with that of a walk over all rows.
func TestBTreeAgainstScan(t *testing.T) {
	for _, wide := range []bool{false, true} {
		t.Run(fmt.Sprint("wide=", wide), func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, 8))
			v := testInts
			if wide {
				v = testWide
			}
			x, w := NewBTree(v), twin{wide: wide}
			defer x.Release()
			rows := 0
			for round := range 60 {
				for range 30 {
					n := 1 + r.IntN(120)
					a := w.batch(r, n)
					x.Add(a, uint32(rows))
					a.Release()
					rows += n
				}
				q, has := w.query(r)
				below := rows
				if round%3 == 0 {
					below = r.IntN(rows + 1)
				}
				got := map[uint32]bool{}
				x.Search(q, uint32(below), func(row uint32) bool { got[row] = true; return true })
				for row := range rows {
					if want := row < below && has(row); want != got[uint32(row)] {
						t.Fatalf("row %d of %d: wanted %v", row, below, want)
					}
				}
				if calls := 0; len(got) > 1 {
					x.Search(q, uint32(below), func(uint32) bool { calls++; return calls < 2 })
					require.Equal(t, 2, calls)
				}
			}
			require.GreaterOrEqual(t, x.MemoryBytes(), int64(rows*entryBytes)*9/10)
			require.LessOrEqual(t, x.MemoryBytes(), int64(rows+2*runRows)*entryBytes*5/4)
			requireSorted(t, x, &w, rows)
		})
	}
}

// requireSorted compares what an index writes with what it was given.
func requireSorted(t *testing.T, x *BTree, w *twin, rows int) {
	var out written
	require.NoError(t, x.Write(&out))
	require.True(t, slices.IsSorted(out.nulls))
	require.Equal(t, rows, len(out.nulls)+len(out.rows))
	seen := map[uint32]bool{}
	for _, row := range out.nulls {
		seen[row] = true
		require.True(t, w.wide && w.text[row] == nil || !w.wide && w.ints[row] == nil)
	}
	for i, row := range out.rows {
		seen[row] = true
		if w.wide {
			require.Equal(t, w.text[row], out.wide[i])
		} else {
			require.Equal(t, *w.ints[row], out.ints[i])
		}
		if i == 0 {
			continue
		}
		order := 0
		if w.wide {
			order = bytes.Compare(out.wide[i-1], out.wide[i])
		} else {
			order = compareInts(out.ints[i-1], out.ints[i])
		}
		require.True(t, order < 0 || order == 0 && out.rows[i-1] < row, "place %d", i)
	}
	require.Len(t, seen, rows)
}

// TestBTreeBesideReaders has readers search while rows come: each sees all rows that were in when it began.
func TestBTreeBesideReaders(t *testing.T) {
	x := NewBTree(testInts)
	defer x.Release()
	const rows = 200_000
	var mu sync.Mutex
	in := 0
	var done sync.WaitGroup
	for range 2 {
		done.Add(1)
		go func() {
			defer done.Done()
			for {
				mu.Lock()
				have := in
				mu.Unlock()
				n := 0
				x.Search(&Query{Ranges: []Range{{LowInt: 100, HighInt: 199}}}, uint32(have), func(uint32) bool { n++; return true })
				if want := have / 1000 * 100; n < want || n > want+100 {
					t.Errorf("%d rows of %d, want %d", n, have, want)
					return
				}
				if have == rows {
					return
				}
			}
		}()
	}
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	for at := 0; at < rows; at += 100 {
		for i := range 100 {
			b.Append(int64(at+i) * 7919 % 1000)
		}
		a := b.NewArray()
		x.Add(a, uint32(at))
		a.Release()
		mu.Lock()
		in = at + 100
		mu.Unlock()
	}
	done.Wait()
}

// BenchmarkBTreeAdd takes in batches of 100 rows of random values, and says what a row costs with and without writing
// all of it out at the end.
func BenchmarkBTreeAdd(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	const rows = 1 << 20
	var batches []arrow.Array
	builder := array.NewInt64Builder(memory.DefaultAllocator)
	for at := 0; at < rows; at += 128 {
		for range 128 {
			builder.Append(r.Int64())
		}
		batches = append(batches, builder.NewArray())
	}
	for _, write := range []bool{false, true} {
		b.Run(fmt.Sprint("write=", write), func(b *testing.B) {
			n := 0
			for b.Loop() {
				x := NewBTree(testInts)
				for i, a := range batches {
					x.Add(a, uint32(i*128))
				}
				if write {
					var out written
					require.NoError(b, x.Write(&out))
				}
				n += rows
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mrows/s")
		})
	}
}
