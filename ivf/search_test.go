package ivf

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

// twin answers a search by decoding everything.
func twin(t *testing.T, x *Index, q []float32, o SearchOptions) []vector.Neighbor {
	model, dim := x.Model(), x.Model().Dim()
	query := make([]float32, dim)
	model.Prepare(query, q)
	probed := map[int]bool{}
	for _, nb := range model.Probe(query, o.NProbes, nil) {
		probed[int(nb.ID)] = true
	}
	top := vector.NewTopK(o.Limit)
	require.NoError(t, x.Scan(context.Background(), func(part int, ids []uint64, codes []byte) error {
		row := make([]float32, dim)
		for i, id := range ids {
			if !probed[part] || o.Keep != nil && !o.Keep(id) {
				continue
			}
			code := codes[i*x.RowBytes() : (i+1)*x.RowBytes()]
			if model.PQ() == nil {
				for j := range row {
					row[j] = x.elem.get(code[j*x.elem.bytes:])
				}
				top.Push(id, vector.Distance(model.Metric(), query, row))
				continue
			}
			model.PQ().Decode(code, row)
			if model.Residual() {
				for j, v := range model.Centroids().Row(part) {
					row[j] += v
				}
			}
			top.Push(id, model.Distance(vector.Distance(model.Centroids().Metric(), query, row)))
		}
		return nil
	}))
	return top.AppendSorted(nil)
}

func TestASearchFindsWhatItsPartitionsHave(t *testing.T) {
	const dim, n = 16, 5000
	rows, queries := clustered(10, n, dim, 12), clustered(11, 6, dim, 12)
	for _, o := range []TrainOptions{{}, {Bits: 4}, {Metric: vector.Cosine}, {Metric: vector.Dot}, {Metric: vector.Dot, Bits: 4}, {Kind: Flat}, {Kind: Flat, Metric: vector.Cosine}} {
		o.Partitions = 12
		model := train(t, rows, dim, o)
		st := object.NewMem()
		build(t, st, "x", model, rows, BuildOptions{})
		for _, cache := range []int64{-1, 5000, 1 << 20} {
			x := open(t, st, "x", Options{CacheBytes: cache})
			for _, so := range []SearchOptions{
				{NProbes: 1, Limit: 10}, {NProbes: 5, Limit: 50}, {NProbes: 1000, Limit: 10},
				{NProbes: 12, Limit: 30, Keep: func(id uint64) bool { return id%7 == 0 }}, {NProbes: 12, Limit: 30, Keep: func(uint64) bool { return false }},
			} {
				for i := range 6 {
					q := queries[i*dim : (i+1)*dim]
					want := twin(t, x, q, so)
					got, err := x.Search(context.Background(), q, so)
					require.NoError(t, err)
					require.Len(t, got, len(want))
					bound := 1e-3
					if o.Bits == 4 {
						bound = 0.3 // half a step for each sub-vector
					}
					for j := range got {
						require.InDelta(t, want[j].Distance, got[j].Distance, bound, "%+v %+v query %d neighbour %d", o, so, i, j)
					}
				}
			}
		}
	}
}

// TestTheNearestPartitionMayBeEmpty leaves the rows of a query's nearest partition out: the others are searched by its own distances, be
// it the first search of the index or one behind a search for something else.
func TestTheNearestPartitionMayBeEmpty(t *testing.T) {
	const dim, n = 16, 2000
	rows, queries := clustered(12, n, dim, 6), clustered(13, 2, dim, 6)
	for _, o := range []TrainOptions{{Metric: vector.Dot}, {Metric: vector.Dot, Bits: 4}, {Metric: vector.Cosine, Bits: 4}, {Bits: 4}, {Metric: vector.Dot, Kind: Flat}} {
		o.Partitions = 6
		model := train(t, rows, dim, o)
		q, other := queries[:dim], queries[dim:]
		query := make([]float32, dim)
		model.Prepare(query, q)
		nearest := int32(model.Probe(query, 1, nil)[0].ID)
		var some []float32
		parts := make([]int32, n)
		model.Assign(rows, parts)
		for i, p := range parts {
			if p != nearest {
				some = append(some, rows[i*dim:(i+1)*dim]...)
			}
		}
		st := object.NewMem()
		build(t, st, "x", model, some, BuildOptions{})
		so := SearchOptions{NProbes: 6, Limit: 20}
		for _, warm := range []bool{false, true} {
			x := open(t, st, "x", Options{})
			if warm {
				_, err := x.Search(context.Background(), other, so)
				require.NoError(t, err)
			}
			got, err := x.Search(context.Background(), q, so)
			require.NoError(t, err)
			want := twin(t, x, q, so)
			require.Len(t, got, len(want))
			for j := range got {
				require.InDelta(t, want[j].Distance, got[j].Distance, 0.3, "%+v warm %v neighbour %d", o, warm, j)
			}
		}
	}
}

func TestAWidenedSearchLooksAtEachRowOnce(t *testing.T) {
	const dim, n, partitions = 8, 3000, 30
	rows := clustered(12, n, dim, 30)
	model := train(t, rows, dim, TrainOptions{Kind: Flat, Partitions: partitions})
	st := object.NewMem()
	build(t, st, "x", model, rows, BuildOptions{})
	x := open(t, st, "x", Options{})
	for _, steps := range [][]int{{1, 1, 1, 100}, {7, 0, 50}, {30}, {3, 27, 4}} {
		seen := map[uint64]int{}
		s, err := x.Start(rows[:dim], SearchOptions{Limit: n, Keep: func(id uint64) bool { seen[id]++; return true }})
		require.NoError(t, err)
		probed := 0
		for _, step := range steps {
			did, err := s.Probe(context.Background(), step)
			require.NoError(t, err)
			require.Equal(t, min(step, partitions-probed), did)
			probed += did
			require.Equal(t, partitions-probed, s.Left())
		}
		require.Len(t, seen, n)
		for id, times := range seen {
			require.Equal(t, 1, times, "row %d", id)
		}
		require.EqualValues(t, n, s.Seen())
		require.Equal(t, n, s.Len())
		all := s.Neighbors(nil)
		require.True(t, slices.IsSortedFunc(all, func(a, b vector.Neighbor) int {
			if a.Distance < b.Distance {
				return -1
			} else if a.Distance > b.Distance {
				return 1
			}
			return 0
		}))
		s.Close()
		s.Close()
	}
}

func TestQueriesThatHaveNoNeighboursAreRefused(t *testing.T) {
	const dim = 4
	rows := clustered(13, 300, dim, 3)
	st := object.NewMem()
	build(t, st, "x", train(t, rows, dim, TrainOptions{Partitions: 3, SubVectors: 2, Metric: vector.Cosine}), rows, BuildOptions{})
	x := open(t, st, "x", Options{})
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for want, q := range map[string][]float32{
		"a query of 3 dimensions": {1, 2, 3}, "with NaN in element 0": {nan, 1, 1, 1}, "with -Inf in element 2": {1, 1, inf, 1}, "of length 0 has no neighbours under cosine": {0, 0, 0, 0},
		"of length +Inf": {3e38, 3e38, 3e38, 0},
	} {
		_, err := x.Search(context.Background(), q, SearchOptions{Limit: 1})
		require.ErrorContains(t, err, want)
	}
	_, err := x.Search(context.Background(), rows[:dim], SearchOptions{})
	require.ErrorContains(t, err, "rows are at least 1")
	_, err = x.Search(context.Background(), rows[:dim], SearchOptions{Limit: 1, NProbes: -1})
	require.Error(t, err)
	got, err := x.Search(context.Background(), rows[:dim], SearchOptions{Limit: math.MaxInt, NProbes: math.MaxInt})
	require.NoError(t, err)
	require.Len(t, got, 300)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = x.Search(ended, rows[:dim], SearchOptions{Limit: 1})
	require.ErrorIs(t, err, context.Canceled)
}

func TestSearchesBesideEachOtherShareTheCache(t *testing.T) {
	const dim, n = 8, 2000
	rows := clustered(14, n, dim, 20)
	st := object.NewMem()
	build(t, st, "x", train(t, rows, dim, TrainOptions{Partitions: 20}), rows, BuildOptions{})
	x := open(t, st, "x", Options{CacheBytes: 6000})
	want, err := x.Search(context.Background(), rows[:dim], SearchOptions{NProbes: 20, Limit: 15})
	require.NoError(t, err)
	errs := make(chan error)
	for range 4 {
		go func() {
			for range 30 {
				got, err := x.Search(context.Background(), rows[:dim], SearchOptions{NProbes: 20, Limit: 15})
				if err == nil && !slices.Equal(want, got) {
					err = fmt.Errorf("%v, expected %v", got, want)
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 4 {
		require.NoError(t, <-errs)
	}
	require.LessOrEqual(t, x.cache.bytes, int64(6000))
}
