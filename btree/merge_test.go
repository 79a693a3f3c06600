package btree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// kindOf returns the kind of a type.
func kindOf(t *testing.T, id arrow.Type) kind {
	t.Helper()
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.dt.ID() == id })
	require.GreaterOrEqual(t, i, 0)
	return all[i]
}

// segment writes an index of sorted places; the id of entry i is its source times 2^20 plus i.
func (k kind) segment(t testing.TB, st object.Store, source int, places []int) *Index {
	t.Helper()
	ctx, name := context.Background(), fmt.Sprintf("s%d", source)
	w, err := Create(ctx, st, name, k.dt, WriterOptions{PageRows: 64})
	require.NoError(t, err)
	defer w.Abort()
	values := k.build(places)
	defer values.Release()
	ids := make([]uint64, len(places))
	for i := range ids {
		ids[i] = uint64(source)<<20 + uint64(i)
	}
	require.NoError(t, w.Add(ctx, values, ids))
	_, err = w.Finish(ctx)
	require.NoError(t, err)
	x, err := Open(ctx, st, name, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.Close()) })
	return x
}

// TestMerge merges random indexes of every kind, with nulls and repeated values, of which some entries go and the ids of
// others change, against a sort of all that stays.
func TestMerge(t *testing.T) {
	for seed, k := range kinds() {
		t.Run(k.dt.String(), func(t *testing.T) {
			ctx, st := context.Background(), object.NewMem()
			random := rand.New(rand.NewPCG(uint64(seed), 3))
			type entry struct {
				place int
				id    uint64
			}
			for round, lengths := range [][]int{{}, {0}, {500}, {300, 0, 9000}, {1, 1, 1, 1, 1}, {5000, 200, 3, 4096, 700, 1}} {
				var sources []*Index
				var want []entry
				stays := func(id uint64) bool { return id%7 != 3 || round%2 == 0 }
				for s, n := range lengths {
					places := make([]int, n)
					for i := range places {
						places[i] = random.IntN(2100) - 100
					}
					if round == 3 && s == 2 { // in a range of its own, and in long runs
						for i := range places {
							places[i] = 1999
						}
					}
					slices.SortFunc(places, func(a, b int) int { return max(a, -1) - max(b, -1) })
					x := k.segment(t, st, 10*round+s, places)
					sources = append(sources, x)
					for i, p := range places {
						if id := uint64(10*round+s)<<20 + uint64(i); stays(id) {
							want = append(want, entry{max(p, -1), id + 1})
						}
					}
				}
				name := fmt.Sprintf("merged%d", round)
				w, err := Create(ctx, st, name, k.dt, WriterOptions{PageRows: 64})
				require.NoError(t, err)
				err = Merge(ctx, w, sources, func(source int, id uint64) (uint64, bool) {
					require.Equal(t, uint64(10*round+source), id>>20)
					return id + 1, stays(id)
				})
				require.NoError(t, err)
				_, err = w.Finish(ctx)
				require.NoError(t, err)
				x, err := Open(ctx, st, name, Options{})
				require.NoError(t, err)
				require.NoError(t, x.Verify(ctx))

				// Sorted by value, which several places may share, and then by source.
				byValue := k.build(places(want, func(e entry) int { return e.place }))
				defer byValue.Release()
				got := map[string]int{}
				expected := map[string]int{}
				for i, e := range want {
					expected[fmt.Sprint(byValue.ValueStr(i), e.id)]++
				}
				n := 0
				err = x.Scan(ctx, func(values arrow.Array, ids []uint64) error {
					for i, id := range ids {
						got[fmt.Sprint(values.ValueStr(i), id)]++
						n++
					}
					return nil
				})
				require.NoError(t, err)
				require.Len(t, want, n)
				require.Equal(t, expected, got)
				require.NoError(t, x.Close())
			}
		})
	}
}

// places returns something of each element of a list.
func places[T any](list []T, of func(T) int) []int {
	out := make([]int, len(list))
	for i, x := range list {
		out[i] = of(x)
	}
	return out
}

// TestMergeKeepsTheOrderOfSources among equal values.
func TestMergeKeepsTheOrderOfSources(t *testing.T) {
	ctx, st, k := context.Background(), object.NewMem(), kindOf(t, arrow.INT64)
	a, b := k.segment(t, st, 0, []int{5, 5, 6}), k.segment(t, st, 1, []int{4, 5, 6})
	w, err := Create(ctx, st, "m", k.dt, WriterOptions{})
	require.NoError(t, err)
	require.NoError(t, Merge(ctx, w, []*Index{a, b}, func(source int, id uint64) (uint64, bool) { return id, true }))
	_, err = w.Finish(ctx)
	require.NoError(t, err)
	x, err := Open(ctx, st, "m", Options{})
	require.NoError(t, err)
	defer x.Close()
	var got []uint64
	require.NoError(t, x.Scan(ctx, func(_ arrow.Array, ids []uint64) error { got = append(got, ids...); return nil }))
	require.Equal(t, []uint64{1 << 20, 0, 1, 1<<20 + 1, 2, 1<<20 + 2}, got)
}

// TestMergeRefusesAndEnds when types differ, and when its context ends.
func TestMergeRefusesAndEnds(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	ints, texts := kindOf(t, arrow.INT64), kindOf(t, arrow.STRING)
	a, b := ints.segment(t, st, 0, []int{1}), texts.segment(t, st, 1, []int{1})
	w, err := Create(ctx, st, "m", ints.dt, WriterOptions{})
	require.NoError(t, err)
	defer w.Abort()
	keep := func(_ int, id uint64) (uint64, bool) { return id, true }
	require.ErrorContains(t, Merge(ctx, w, []*Index{a, b}, keep), "of utf8 into one of int64")
	gone := errors.New("gone")
	done, cancel := context.WithCancelCause(ctx)
	cancel(gone)
	require.Error(t, Merge(done, w, []*Index{a}, keep))
}

// BenchmarkMerge merges eight indexes of a million integers in all, which lie between each other.
func BenchmarkMerge(b *testing.B) {
	const n = 1 << 17
	ctx, st, k := context.Background(), object.NewMem(), kind{arrow.PrimitiveTypes.Int64, func(b array.Builder, n int) { b.(*array.Int64Builder).Append(int64(n)) }}
	var sources []*Index
	for s := range 8 {
		list := make([]int, n)
		for i := range list {
			list[i] = 8*i + s
		}
		w, err := Create(ctx, st, fmt.Sprint("in", s), k.dt, WriterOptions{})
		require.NoError(b, err)
		require.NoError(b, w.Add(ctx, k.build(list), make([]uint64, n)))
		_, err = w.Finish(ctx)
		require.NoError(b, err)
		x, err := Open(ctx, st, fmt.Sprint("in", s), Options{})
		require.NoError(b, err)
		sources = append(sources, x)
	}
	b.ResetTimer()
	for i := range b.N {
		w, err := Create(ctx, st, fmt.Sprint("out", i), k.dt, WriterOptions{})
		require.NoError(b, err)
		require.NoError(b, Merge(ctx, w, sources, func(_ int, id uint64) (uint64, bool) { return id, true }))
		_, err = w.Finish(ctx)
		require.NoError(b, err)
	}
	b.ReportMetric(8*n*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mentries/s")
}

// TestMergesOfIntegers merges indexes without nulls, of which more is taken than one chunk has, against a sort of all that
// stays.
func TestMergesOfIntegers(t *testing.T) {
	ctx, random := context.Background(), rand.New(rand.NewPCG(11, 12))
	for name, next := range map[string]func(source, i int) int64{
		"random":      func(int, int) int64 { return random.Int64() - random.Int64() },
		"one by one":  func(source, i int) int64 { return int64(source*100_000 + i) },
		"alternating": func(source, i int) int64 { return int64(i*7 + source) },
		"few":         func(int, int) int64 { return random.Int64N(3) },
	} {
		for _, lengths := range [][]int{{40_000, 30_000, 0, 1, 20_000, 100}, {70_000}, {0, 0}} {
			t.Run(fmt.Sprintf("%s/%d", name, len(lengths)), func(t *testing.T) {
				st := object.NewMem()
				var sources []*Index
				type entry struct {
					value int64
					id    uint64
				}
				var want []entry
				for s, n := range lengths {
					values, ids := make([]int64, n), make([]uint64, n)
					for i := range values {
						values[i], ids[i] = next(s, i), uint64(s)<<20+uint64(i)
					}
					slices.Sort(values)
					for i, v := range values {
						if i%5 != 2 {
							want = append(want, entry{v, ids[i] + 1})
						}
					}
					folder := fmt.Sprintf("s%d", s)
					w, err := Create(ctx, st, folder, arrow.PrimitiveTypes.Int64, WriterOptions{})
					require.NoError(t, err)
					a := ints(values)
					require.NoError(t, w.Add(ctx, a, ids))
					a.Release()
					_, err = w.Finish(ctx)
					require.NoError(t, err)
					x, err := Open(ctx, st, folder, Options{})
					require.NoError(t, err)
					defer x.Close()
					sources = append(sources, x)
				}
				w, err := Create(ctx, st, "m", arrow.PrimitiveTypes.Int64, WriterOptions{})
				require.NoError(t, err)
				require.NoError(t, Merge(ctx, w, sources, func(source int, id uint64) (uint64, bool) {
					if int(id>>20) != source {
						t.Errorf("entry %d is of source %d", id, source)
					}
					return id + 1, (id&(1<<20-1))%5 != 2
				}))
				_, err = w.Finish(ctx)
				require.NoError(t, err)
				x, err := Open(ctx, st, "m", Options{})
				require.NoError(t, err)
				defer x.Close()
				require.NoError(t, x.Verify(ctx))
				var got []entry
				require.NoError(t, x.Scan(ctx, func(values arrow.Array, ids []uint64) error {
					for i, id := range ids {
						got = append(got, entry{values.(*array.Int64).Value(i), id})
					}
					return nil
				}))
				order := func(a, b entry) int { return cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.id, b.id)) }
				require.True(t, slices.IsSortedFunc(got, func(a, b entry) int { return cmp.Compare(a.value, b.value) }))
				slices.SortFunc(got, order)
				slices.SortFunc(want, order)
				if !slices.Equal(want, got) { // require would print all of it
					t.Fatalf("%d entries are not the %d that were merged", len(got), len(want))
				}
			})
		}
	}
}
