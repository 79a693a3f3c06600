package lsm

import (
	"context"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/vector"
)

// TestSearchesByIndexFindWhatComparingFinds searches by indexes of every metric while rows are replaced, deleted, flushed, merged and
// replayed: with all partitions and enough candidates it finds what comparing all rows finds; with few it finds k rows that live, each at its
// distance, and most of the nearest.
func TestSearchesByIndexFindWhatComparingFinds(t *testing.T) {
	for i, m := range []vector.Metric{vector.L2, vector.Cosine, vector.Dot} {
		for _, kind := range []IndexKind{IVFPQIndex, IVFFlatIndex} {
			if testing.Short() && (m == vector.Dot) != (kind == IVFFlatIndex) {
				continue
			}
			t.Run(fmt.Sprint(m, " ", kind), func(t *testing.T) {
				def := IndexDef{Name: "near", Kind: kind, Columns: []string{"v"}, Options: map[string]string{optionPartitions: "6", optionMetric: m.String()}}
				if kind == IVFPQIndex {
					def.Options[optionSubVectors] = "4"
				}
				c := newIVFTable(t, uint64(i), true, 8, arrow.PrimitiveTypes.Float32)
				ctx, n := context.Background(), TableName{Name: "t"}
				c.put(600)
				require.NoError(t, c.db.Optimize(ctx, n))
				require.NoError(t, c.db.CreateIndex(ctx, n, def, CreateIndexOptions{}))
				for step := range 5 {
					c.searchBoth(m)
					c.put(150)
					c.searchBoth(m)
					switch step {
					case 0, 2:
						require.NoError(t, c.db.Flush(ctx, n))
					case 1:
						require.NoError(t, c.db.Optimize(ctx, n))
					case 3:
						c.restart(true)
					}
				}
				require.NoError(t, c.db.Close())
			})
		}
	}
}

// searchBoth searches by the index and by comparing all rows.
func (v *ivfTable) searchBoth(m vector.Metric) {
	snap, err := v.db.Snapshot(context.Background())
	require.NoError(v.t, err)
	defer snap.Release()
	view, err := snap.Table(TableName{Name: "t"})
	require.NoError(v.t, err)
	require.Equal(v.t, m, view.SearchMetric(1))
	only := NewPlaces()
	require.NoError(v.t, eachPlace(view, func(place uint64, id int64) {
		if id%3 == 0 {
			only.Add([]uint64{place})
		}
	}))
	for _, among := range []*Places{nil, only} {
		o := VectorSearchOptions{Column: 1, K: 12, Only: among, fewer: fewRows}
		for range 3 * v.dim {
			o.Queries = append(o.Queries, float32(v.r.IntN(4))+float32(v.r.NormFloat64())/4)
		}
		o.NoIndex = true
		exact, err := view.VectorSearch(context.Background(), o)
		require.NoError(v.t, err)
		o.NoIndex, o.NProbes, o.Refine = false, 1<<20, 1<<20
		s, err := view.newSearch(context.Background(), o)
		require.NoError(v.t, err)
		if among == nil {
			require.NotEmpty(v.t, s.indexed())
		}
		whole, err := view.VectorSearch(context.Background(), o)
		require.NoError(v.t, err)
		require.Equal(v.t, exact, whole)
		o.NProbes, o.Refine = 1, 3
		some, err := view.VectorSearch(context.Background(), o)
		require.NoError(v.t, err)
		for q := range some {
			require.Len(v.t, some[q], len(exact[q]))
			at := map[Place]bool{}
			for i, n := range some[q] {
				require.False(v.t, at[n.Place])
				at[n.Place] = true
				require.GreaterOrEqual(v.t, n.Distance, exact[q][i].Distance)
			}
		}
	}
}

// eachPlace calls fn for each row with its place and id.
func eachPlace(v *View, fn func(place uint64, id int64)) error {
	ctx := context.Background()
	sc, err := v.Scan(ctx, ScanOptions{Columns: []int{0, RowPlace}})
	if err != nil {
		return err
	}
	defer sc.Close()
	for m, err := sc.Next(ctx); err == nil; m, err = sc.Next(ctx) {
		ids, places := m.Record.Column(0), m.Record.Column(1)
		for j := range int(m.Record.NumRows()) {
			if m.lives(j) {
				fn(places.(*array.Uint64).Value(j), ids.(*array.Int64).Value(j))
			}
		}
		m.Release()
	}
	return nil
}
