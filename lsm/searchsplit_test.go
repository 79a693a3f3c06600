package lsm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/vector"
)

// splitDim, splitRows and splitCentres are of the vectors that TestSearchesDoNotDependOnTheSplit lays into layers.
const splitDim, splitRows, splitCentres = 16, 1500, 40

// TestSearchesDoNotDependOnTheSplit writes the same rows, some replaced and some deleted on the way, into layers at random: some merged, before
// and after there is an index, some in generations, some fresh. Whatever the split, comparing all rows finds the same rows at the same
// distances in the same order, and the index finds most of them.
func TestSearchesDoNotDependOnTheSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(77, 1))
	centres := clusteredVectors(r, nil, splitCentres, splitDim)
	rows, before := clusteredVectors(r, centres, splitRows, splitDim), clusteredVectors(r, centres, splitRows, splitDim)
	queries := clusteredVectors(r, centres, 20, splitDim)
	for _, c := range []struct {
		kind   IndexKind
		metric vector.Metric
	}{{IVFPQIndex, vector.L2}, {IVFFlatIndex, vector.Cosine}} {
		var want [][]idAt
		for seed := range fewer[uint64](4, 2) {
			t.Run(fmt.Sprint(c.kind, " ", c.metric, " ", seed), func(t *testing.T) {
				s := splitTable{newIVFTable(t, seed, true, splitDim, arrow.PrimitiveTypes.Float32), rand.New(rand.NewPCG(seed, 2))}
				def := IndexDef{Name: "near", Kind: c.kind, Columns: []string{"v"}, Options: map[string]string{optionPartitions: "12", optionMetric: c.metric.String()}}
				if c.kind == IVFPQIndex {
					def.Options[optionSubVectors] = "8"
				}
				s.fill(def, rows, before)
				o := VectorSearchOptions{Column: 1, K: 10, Queries: queries, NoIndex: true}
				exact := s.search(o)
				if want == nil {
					want = exact
				}
				require.Equal(t, want, exact)
				o.NoIndex, o.NProbes, o.Refine, o.fewer = false, 4, 10, fewRows
				hits := 0
				for i, found := range s.search(o) {
					require.Len(t, found, o.K)
					for _, n := range found {
						if slices.Contains(want[i], n) {
							hits++
						}
					}
				}
				require.GreaterOrEqual(t, hits, 9*len(want), "recall@10 of %d queries is %d of %d", len(want), hits, 10*len(want))
				require.NoError(t, s.db.Close())
			})
		}
	}
}

// splitTable is a table whose rows go into layers at random.
type splitTable struct {
	*ivfTable
	random *rand.Rand
}

// idAt is a row that was found.
type idAt struct {
	id       int64
	distance float32
}

// fill writes the rows in an order of its own, a third of them with another vector before, and twice as many as are there at the end, of which
// the others are deleted. Between batches it flushes, merges, makes the index or does nothing.
func (s splitTable) fill(def IndexDef, rows, before []float32) {
	ctx, n := context.Background(), TableName{Name: "t"}
	require.NoError(s.t, s.db.CreateIndex(ctx, n, def, CreateIndexOptions{}))
	type change struct {
		id     int64
		vector []float32 // nil deletes
	}
	var first, second []change
	for i := range splitRows {
		v, old := rows[i*splitDim:(i+1)*splitDim], before[i*splitDim:(i+1)*splitDim]
		switch s.random.IntN(3) {
		case 0:
			first, second = append(first, change{int64(i), old}), append(second, change{int64(i), v})
		case 1:
			first = append(first, change{int64(i), v})
		default:
			second = append(second, change{int64(i), v})
		}
		first, second = append(first, change{int64(i + splitRows), old}), append(second, change{int64(i + splitRows), nil})
	}
	for _, part := range [][]change{first, second} {
		s.random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
		for len(part) > 0 {
			some := part[:min(len(part), 50+s.random.IntN(1500))]
			part = part[len(some):]
			table := mustTable(s.t, s.db, "t")
			b := array.NewRecordBuilder(memory.DefaultAllocator, table.now().withTombstones(true))
			for _, c := range some {
				b.Field(0).(*array.Int64Builder).Append(c.id)
				appendVector(b.Field(1).(*array.FixedSizeListBuilder), c.vector)
				b.Field(2).(*array.BooleanBuilder).Append(c.vector == nil)
			}
			rec := b.NewRecordBatch()
			b.Release()
			lsn, err := table.Put(ctx, Batch{Record: rec})
			rec.Release()
			require.NoError(s.t, err)
			require.NoError(s.t, s.db.Wait(ctx, lsn))
			switch s.random.IntN(5) {
			case 0:
				require.NoError(s.t, s.db.Flush(ctx, n))
			case 1:
				require.NoError(s.t, s.db.Optimize(ctx, n))
			case 2:
				s.restart(true)
			}
		}
	}
}

// search returns what a search finds by the ids of the rows.
func (s splitTable) search(o VectorSearchOptions) [][]idAt {
	snap, err := s.db.Snapshot(context.Background())
	require.NoError(s.t, err)
	defer snap.Release()
	view, err := snap.Table(TableName{Name: "t"})
	require.NoError(s.t, err)
	found, err := view.VectorSearch(context.Background(), o)
	require.NoError(s.t, err)
	out := make([][]idAt, len(found))
	for i, list := range found {
		places := make([]uint64, len(list))
		for j, n := range list {
			places[j] = uint64(n.Place)
		}
		rec, err := view.Take(context.Background(), []int{0}, places)
		require.NoError(s.t, err)
		for j, n := range list {
			out[i] = append(out[i], idAt{rec.Column(0).(*array.Int64).Value(j), n.Distance})
		}
		rec.Release()
	}
	return out
}
