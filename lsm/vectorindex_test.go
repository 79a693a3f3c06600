package lsm

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/vector"
)

// ivfTable is a table with a column of vectors, some of which no index takes.
type ivfTable struct {
	t     *testing.T
	r     *rand.Rand
	db    *DB
	dir   string
	keyed bool
	dim   int
	next  int64
	// manual has nothing merged but by order.
	manual bool
}

func newIVFTable(t *testing.T, seed uint64, keyed bool, dim int, item arrow.DataType, indexes ...IndexDef) *ivfTable {
	v := &ivfTable{t: t, r: rand.New(rand.NewPCG(seed, 3)), dir: t.TempDir(), keyed: keyed, dim: dim}
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "v", Type: arrow.FixedSizeListOf(int32(dim), item), Nullable: true}}, nil)
	v.open()
	d := TableDef{Name: TableName{Name: "t"}, Schema: schema, Indexes: indexes}
	if keyed {
		d.Key = []string{"id"}
	}
	require.NoError(t, v.db.CreateTable(context.Background(), d))
	return v
}

func (v *ivfTable) open() {
	var err error
	v.db, err = Open(context.Background(), Options{Dir: v.dir, manual: v.manual})
	require.NoError(v.t, err)
}

// restart opens the folder again, as after a crash if it is to be so.
func (v *ivfTable) restart(crash bool) {
	next := v.dir
	if crash {
		next = crashCopy(v.t, v.dir)
	}
	require.NoError(v.t, v.db.Close())
	requireSound(v.t, next)
	v.dir = next
	v.open()
}

// put writes rows, some of which replace or delete others when there is a key.
func (v *ivfTable) put(rows int) {
	table := mustTable(v.t, v.db, "t")
	b := array.NewRecordBuilder(memory.DefaultAllocator, table.now().withTombstones(v.keyed))
	defer b.Release()
	for range rows {
		id := v.next
		if v.next++; v.keyed && v.r.IntN(4) == 0 {
			id = v.r.Int64N(v.next)
		}
		b.Field(0).(*array.Int64Builder).Append(id)
		list := b.Field(1).(*array.FixedSizeListBuilder)
		kind := v.r.IntN(40)
		list.Append(kind > 0)
		center := float64(v.r.IntN(4))
		for j := range v.dim {
			x := center + v.r.NormFloat64()/4
			switch {
			case kind == 1:
				x = 0
			case kind == 2 && j == 0:
				x = math.NaN()
			}
			switch e := list.ValueBuilder().(type) {
			case *array.Float32Builder:
				e.Append(float32(x))
			case *array.Float16Builder:
				e.Append(float16.New(float32(x)))
			case *array.Float64Builder:
				e.Append(x)
			}
		}
		if v.keyed {
			b.Field(2).(*array.BooleanBuilder).Append(v.r.IntN(12) == 0)
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	lsn, err := table.Put(context.Background(), Batch{Record: rec})
	require.NoError(v.t, err)
	require.NoError(v.t, v.db.Wait(context.Background(), lsn))
}

func (v *ivfTable) info(index string) IndexInfo {
	for _, x := range mustTable(v.t, v.db, "t").Indexes() {
		if x.Name == index {
			return x
		}
	}
	v.t.Fatalf("there is no index %s", index)
	return IndexInfo{}
}

// requireMemory compares what memtables have with what the model says of their rows.
func (v *ivfTable) requireMemory() {
	set := mustTable(v.t, v.db, "t").holdSet()
	defer set.unref()
	for _, c := range set.chains {
		for _, m := range c.memtables() {
			rows := m.rows.Load().indexed()
			for _, x := range m.vectors {
				got := map[uint32]int32{}
				require.NoError(v.t, x.index.Write(func(part int, rows []uint32, _ []byte) error {
					for _, row := range rows {
						require.NotContains(v.t, got, row)
						got[row] = int32(part)
					}
					return nil
				}))
				want := 0
				for _, b := range rows.batches {
					col, err := x.schema.pick(b.schema, b.rec, x.column)
					require.NoError(v.t, err)
					in := newVectorFeed(sinkOf(func(ids []uint64, rows []float32) error {
						parts := make([]int32, len(ids))
						x.ivf.Assign(rows, parts)
						for i, id := range ids {
							if parts[i] >= 0 {
								require.Equal(v.t, parts[i], got[uint32(id)])
								want++
							}
						}
						return nil
					}), v.dim)
					require.NoError(v.t, in.add(context.Background(), col, func(i int) (uint64, bool) { return uint64(b.first) + uint64(i), true }))
					col.Release()
				}
				require.Len(v.t, got, want)
			}
		}
	}
}

// TestVectorIndexesFollowTheirRows has indexes over vectors made early, late and again, while rows are replaced, deleted, flushed, merged,
// rewritten and replayed: at the end of each life of the table, each row that counts is in the segments of its layer once, where
// its vector belongs, which is what Check compares.
func TestVectorIndexesFollowTheirRows(t *testing.T) {
	for i, c := range []struct {
		keyed bool
		dim   int
		item  arrow.DataType
		def   IndexDef
	}{
		{true, 8, arrow.PrimitiveTypes.Float32, IndexDef{Name: "i", Kind: IVFPQIndex, Columns: []string{"v"}, Options: map[string]string{"num_bits": "4", "num_sub_vectors": "4", "max_iterations": "3", "num_partitions": "5"}}},
		{false, 6, arrow.FixedWidthTypes.Float16, IndexDef{Name: "i", Kind: IVFFlatIndex, Columns: []string{"v"}, Options: map[string]string{"metric_type": "cosine"}}},
		{true, 4, arrow.PrimitiveTypes.Float64, IndexDef{Name: "i", Kind: IVFPQIndex, Columns: []string{"v"}, Options: map[string]string{"metric_type": "dot", "num_sub_vectors": "2", "max_iterations": "2", "sample_rate": "4"}}},
	} {
		t.Run(fmt.Sprint(c.def.Kind, " ", c.item), func(t *testing.T) {
			ctx := context.Background()
			v := newIVFTable(t, uint64(i), c.keyed, c.dim, c.item, c.def)
			for range fewer[int64](20, 2) {
				v.put(20 + v.r.IntN(150))
				switch v.r.IntN(8) {
				case 0:
					require.NoError(t, v.db.Flush(ctx, TableName{Name: "t"}))
				case 1:
					require.NoError(t, v.db.Optimize(ctx, TableName{Name: "t"}))
				case 2, 7:
					v.restart(false)
				case 3:
					v.restart(true)
				case 4:
					require.NoError(t, mustTable(t, v.db, "t").RetrainIndex(ctx, "i", nil))
				case 5:
					require.NoError(t, v.db.CreateIndex(ctx, TableName{Name: "t"}, c.def, CreateIndexOptions{Replace: true}))
				}
				v.put(30)
				v.requireMemory()
			}
			require.NoError(t, mustTable(t, v.db, "t").OptimizeIndex(ctx, "i", nil))
			require.Positive(t, v.info("i").Vectors.Partitions)
			require.Zero(t, v.info("i").Uncovered)
			v.put(100)
			v.requireMemory()
			require.Zero(t, v.info("i").Uncovered)
			require.Positive(t, v.info("i").MemoryBytes)
			require.NoError(t, v.db.Flush(ctx, TableName{Name: "t"}))
			require.Zero(t, v.info("i").Uncovered)
			require.NoError(t, v.db.Close())
			requireSound(t, v.dir)
		})
	}
}

// TestAnIndexOverVectorsWaitsForRows defines one over an empty table: it is trained by the first OPTIMIZE that finds enough rows, whose
// merge encodes what the generations and the base have, and memtables keep it from then on.
func TestAnIndexOverVectorsWaitsForRows(t *testing.T) {
	ctx, n := context.Background(), TableName{Name: "t"}
	v := newIVFTable(t, 1, false, 8, arrow.PrimitiveTypes.Float32)
	def := IndexDef{Name: "i", Kind: IVFPQIndex, Columns: []string{"v"}, Options: map[string]string{"max_iterations": "2"}}
	require.NoError(t, v.db.CreateIndex(ctx, n, def, CreateIndexOptions{}))
	v.put(150)
	require.NoError(t, v.db.Optimize(ctx, n))
	require.Equal(t, &VectorIndexInfo{Metric: "l2"}, v.info("i").Vectors)
	require.EqualValues(t, 150, v.info("i").Uncovered)
	v.put(100)
	require.NoError(t, v.db.Flush(ctx, n))
	v.put(100)
	require.NoError(t, v.db.Optimize(ctx, n))
	require.Equal(t, &VectorIndexInfo{Metric: "l2", Partitions: 18, SubVectors: 1, Bits: 8}, v.info("i").Vectors)
	require.Zero(t, v.info("i").Uncovered)
	require.Equal(t, 1, v.info("i").Segments, "the merge has encoded all of them")
	v.put(10)
	require.Zero(t, v.info("i").Uncovered)
	v.requireMemory()
	require.NoError(t, v.db.Close())
	requireSound(t, v.dir)
}

// TestAnIndexOverVectorsGoesWithItsColumn drops the column under a memtable that keeps the index and a base that has it: the generation
// is without it, and memtables that are begun then do not wait for it.
func TestAnIndexOverVectorsGoesWithItsColumn(t *testing.T) {
	ctx, n := context.Background(), TableName{Name: "t"}
	v := newIVFTable(t, 1, true, 8, arrow.PrimitiveTypes.Float32)
	v.put(50)
	def := IndexDef{Name: "i", Kind: IVFFlatIndex, Columns: []string{"v"}, Options: map[string]string{optionPartitions: "2", optionIterations: "2"}}
	require.NoError(t, v.db.CreateIndex(ctx, n, def, CreateIndexOptions{}))
	v.manual = true // nothing is merged but by order
	v.restart(false)
	v.put(50)
	require.Positive(t, v.info("i").MemoryBytes)
	table := mustTable(t, v.db, "t")
	a := unchanged(table)
	a.Columns = slices.DeleteFunc(a.Columns, func(c AlteredColumn) bool { return c.Was == "v" })
	require.NoError(t, v.db.AlterTable(ctx, n, a))
	require.NoError(t, v.db.Flush(ctx, n))
	requireSound(t, crashCopy(t, v.dir))
	require.Empty(t, table.behind())
	require.NoError(t, v.db.Optimize(ctx, n))
	require.Empty(t, table.Indexes())
	require.NoError(t, v.db.Close())
	requireSound(t, v.dir)
}

// TestWhatMakesNoIndexOverVectorsIsRefused tries options and columns.
func TestWhatMakesNoIndexOverVectorsIsRefused(t *testing.T) {
	v := newIVFTable(t, 1, true, 6, arrow.PrimitiveTypes.Float32)
	defer func() { require.NoError(t, v.db.Close()) }()
	for _, c := range []struct {
		kind    IndexKind
		column  string
		options map[string]string
		message string
	}{
		{IVFPQIndex, "id", nil, `column "id" has type int64; an IVF_PQ is over vectors`},
		{BTreeIndex, "v", nil, "vectors are indexed USING IVF_PQ or IVF_FLAT"},
		{IVFPQIndex, "v", map[string]string{"num_sub_vectors": "4"}, "option num_sub_vectors is 4, which does not divide the 6 dimensions of the column; 3 does"},
		{IVFPQIndex, "v", map[string]string{"num_sub_vectors": "3", "num_bits": "4"}, "it has to be even"},
		{IVFPQIndex, "v", map[string]string{"num_bits": "5"}, `option num_bits is "5"; it may be 4 or 8`},
		{IVFPQIndex, "v", map[string]string{"num_partitions": "0"}, `option num_partitions is "0"; it may be a whole number from 1 to 65536`},
		{IVFPQIndex, "v", map[string]string{"metric_type": "hamming"}, `option metric_type is "hamming"; it may be l2, cosine or dot`},
		{IVFPQIndex, "v", map[string]string{"metric": "l2"}, `an IVF_PQ has no option "metric"; it has num_partitions`},
		{IVFFlatIndex, "v", map[string]string{"num_bits": "8"}, `an IVF_FLAT has no option "num_bits"`},
		{IVFFlatIndex, "v", map[string]string{"sample_rate": "many"}, `option sample_rate is "many"`},
		{"HNSW", "v", nil, "there is BTREE, IVF_PQ and IVF_FLAT"},
	} {
		err := v.db.CreateIndex(context.Background(), TableName{Name: "t"}, IndexDef{Name: "i", Kind: c.kind, Columns: []string{c.column}, Options: c.options}, CreateIndexOptions{})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, c.message)
	}
}

// TestASkewedStreamTrainsTheIndexAgain writes rows that all lie in one partition of a trained index: the statement that merges them finds that it has
// drifted, trains it again with all rows, and nothing of the old model stays.
func TestASkewedStreamTrainsTheIndexAgain(t *testing.T) {
	ctx, n := context.Background(), TableName{Name: "t"}
	def := IndexDef{Name: "near", Kind: IVFPQIndex, Columns: []string{"v"}, Options: map[string]string{optionPartitions: "8", optionSubVectors: "4"}}
	v := newIVFTable(t, 40, false, 8, arrow.PrimitiveTypes.Float32)
	v.manual = true
	v.restart(false)
	v.put(800)
	require.NoError(t, v.db.CreateIndex(ctx, n, def, CreateIndexOptions{}))
	first, sizes := v.trained()
	require.LessOrEqual(t, ivf.Imbalance(sizes), 3.0)

	v.put(300)
	require.NoError(t, v.db.Optimize(ctx, n))
	same, _ := v.trained()
	require.Equal(t, first, same, "rows like those that it was trained with are no reason")

	v.putNear(4000, 1.5)
	require.NoError(t, v.db.Optimize(ctx, n))
	again, sizes := v.trained()
	require.NotEqual(t, first, again)
	require.LessOrEqual(t, ivf.Imbalance(sizes), 3.0)
	v.searchBoth(vector.L2)
	require.NoError(t, v.db.Optimize(ctx, n))
	same, _ = v.trained()
	require.Equal(t, again, same, "it is at rest")
	require.NoError(t, v.db.Close())
	requireSound(t, v.dir)
}

// trained returns the model of the only index and the sizes of its partitions. All segments have that model.
func (v *ivfTable) trained() (modelID, []int64) {
	table := mustTable(v.t, v.db, "t")
	b, err := table.holdBase()
	require.NoError(v.t, err)
	defer b.unref()
	model, ok := b.modelOf(table.vectorEntries(b)[0])
	require.True(v.t, ok)
	sizes := make([]int64, model.ivf.Partitions())
	for _, s := range b.vectors {
		require.Equal(v.t, model.id, s.model)
		for p, n := range s.index.Sizes() {
			sizes[p] += n
		}
	}
	return model.id, sizes
}

// putNear writes rows around a point.
func (v *ivfTable) putNear(rows int, point float64) {
	table := mustTable(v.t, v.db, "t")
	b := array.NewRecordBuilder(memory.DefaultAllocator, table.now().arrow)
	defer b.Release()
	for range rows {
		b.Field(0).(*array.Int64Builder).Append(v.next)
		v.next++
		list := b.Field(1).(*array.FixedSizeListBuilder)
		list.Append(true)
		for range v.dim {
			list.ValueBuilder().(*array.Float32Builder).Append(float32(point + v.r.NormFloat64()/20))
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	lsn, err := table.Put(context.Background(), Batch{Record: rec})
	require.NoError(v.t, err)
	require.NoError(v.t, v.db.Wait(context.Background(), lsn))
}
