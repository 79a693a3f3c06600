package lsm

import (
	"cmp"
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

	"github.com/flightd/flightd/vector"
)

// vectorDim is the dimension of the vectors of tests: odd, so that kernels have a rest.
const vectorDim = 5

// vectorItems are the elements that vectors may have, and what ranks them.
var vectorItems = []struct {
	item    arrow.DataType
	metrics []vector.Metric
}{
	{arrow.PrimitiveTypes.Float32, []vector.Metric{vector.L2, vector.Cosine, vector.Dot}},
	{arrow.FixedWidthTypes.Float16, []vector.Metric{vector.L2, vector.Cosine, vector.Dot}},
	{arrow.PrimitiveTypes.Float64, []vector.Metric{vector.L2, vector.Cosine, vector.Dot}},
	{arrow.PrimitiveTypes.Uint8, []vector.Metric{vector.Hamming}},
}

// vectorRow is a row of the model: a vector for each column, nil for a null.
type vectorRow struct {
	tag     int64
	vectors [][]float32
}

// vectorTable is a table with a column of vectors for each kind of element, and a model of it.
type vectorTable struct {
	t    *testing.T
	r    *rand.Rand
	db   *DB
	dir  string
	key  []string
	rows map[int64]vectorRow
	next int64
}

// newVectorTable makes an empty table: id, part, tag, and the vectors.
func newVectorTable(t *testing.T, seed uint64, key []string, shards int, mode IndexMode) *vectorTable {
	c := &vectorTable{t: t, r: rand.New(rand.NewPCG(seed, 7)), dir: t.TempDir(), key: key, rows: map[int64]vectorRow{}}
	c.open()
	fields := []arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "part", Type: arrow.BinaryTypes.String}, {Name: "tag", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}
	for _, k := range vectorItems {
		fields = append(fields, arrow.Field{Name: k.item.Name(), Type: arrow.FixedSizeListOf(vectorDim, k.item), Nullable: true})
	}
	d := TableDef{Name: TableName{Name: "t"}, Schema: arrow.NewSchema(fields, nil), Key: key, Shards: shards, IndexMode: mode}
	require.NoError(t, c.db.CreateTable(context.Background(), d))
	return c
}

func (c *vectorTable) open() {
	var err error
	c.db, err = Open(context.Background(), Options{Dir: c.dir})
	require.NoError(c.t, err)
}

// vector returns a random vector of few values, so that many rows are at one distance.
func (c *vectorTable) vector() []float32 {
	if c.r.IntN(12) == 0 {
		return nil
	}
	v := make([]float32, vectorDim)
	for i := range v {
		v[i] = float32(c.r.IntN(4))
	}
	return v
}

// put writes rows. Of some of those that are there already it leaves the vectors as they are.
func (c *vectorTable) put(rows int) {
	table := mustTable(c.t, c.db, "t")
	b := array.NewRecordBuilder(memory.DefaultAllocator, table.now().withTombstones(c.key != nil))
	defer b.Release()
	keep := c.key != nil && c.r.IntN(4) == 0
	for range rows {
		id := c.next
		if c.next++; c.key != nil && c.r.IntN(3) == 0 {
			id = c.r.Int64N(c.next)
		}
		row := vectorRow{tag: c.r.Int64N(5), vectors: make([][]float32, len(vectorItems))}
		b.Field(0).(*array.Int64Builder).Append(id)
		b.Field(1).(*array.StringBuilder).Append(fmt.Sprint("p", id%3))
		b.Field(2).(*array.Int64Builder).Append(row.tag)
		for i := range vectorItems {
			row.vectors[i] = c.vector()
			appendVector(b.Field(3+i).(*array.FixedSizeListBuilder), row.vectors[i])
		}
		if old, ok := c.rows[id]; ok && keep {
			row.vectors = old.vectors
		}
		c.rows[id] = row
		if c.key == nil {
			continue
		}
		dead := c.r.IntN(10) == 0
		b.Field(3 + len(vectorItems)).(*array.BooleanBuilder).Append(dead)
		if dead {
			delete(c.rows, id)
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	batch := Batch{Record: rec}
	if keep {
		for i := range vectorItems {
			batch.Keep = append(batch.Keep, 3+i)
		}
	}
	lsn, err := table.Put(context.Background(), batch)
	require.NoError(c.t, err)
	require.NoError(c.t, c.db.Wait(context.Background(), lsn))
}

// appendVector appends a vector, nil for a null.
func appendVector(b *array.FixedSizeListBuilder, v []float32) {
	if v == nil {
		b.AppendNull()
		return
	}
	b.Append(true)
	for _, x := range v {
		switch items := b.ValueBuilder().(type) {
		case *array.Float32Builder:
			items.Append(x)
		case *array.Float16Builder:
			items.Append(float16.New(x))
		case *array.Float64Builder:
			items.Append(float64(x))
		case *array.Uint8Builder:
			items.Append(uint8(x))
		}
	}
}

// distance is what a search should say.
func distance(item arrow.DataType, m vector.Metric, q, v []float32) float32 {
	var out [1]float32
	switch {
	case m == vector.Hamming:
		a, b := make([]byte, len(q)), make([]byte, len(v))
		for i := range q {
			a[i], b[i] = byte(q[i]), byte(v[i])
		}
		return vector.HammingDistance(a, b)
	case item.ID() == arrow.FLOAT64:
		a, b := make([]float64, len(q)), make([]float64, len(v))
		for i := range q {
			a[i], b[i] = float64(q[i]), float64(v[i])
		}
		vector.DistancesFloat64(m, a, b, out[:])
		return out[0]
	}
	return vector.Distance(m, q, v)
}

// expected returns the ids and distances of the rows that fulfil a condition, the nearest first. Keys of part and id are in
// another order than ids.
func (c *vectorTable) expected(column int, m vector.Metric, q []float32, k int, only func(vectorRow) bool) (ids []int64, distances []float32) {
	for id, row := range c.rows {
		if v := row.vectors[column]; v != nil && only(row) && !math.IsNaN(float64(distance(vectorItems[column].item, m, q, v))) {
			ids = append(ids, id)
		}
	}
	at := func(id int64) float32 {
		return distance(vectorItems[column].item, m, q, c.rows[id].vectors[column])
	}
	slices.SortFunc(ids, func(a, b int64) int {
		byPart := 0
		if len(c.key) == 2 {
			byPart = cmp.Compare(a%3, b%3)
		}
		return cmp.Or(cmp.Compare(at(a), at(b)), byPart, cmp.Compare(a, b))
	})
	ids = ids[:min(k, len(ids))]
	for _, id := range ids {
		distances = append(distances, at(id))
	}
	return ids, distances
}

// check searches every column by every metric and compares with the model.
func (c *vectorTable) check() {
	ctx := context.Background()
	snap, err := c.db.Snapshot(ctx)
	require.NoError(c.t, err)
	defer snap.Release()
	v, err := snap.Table(TableName{Name: "t"})
	require.NoError(c.t, err)
	require.NoError(c.t, c.checkPlaces(v))
	for column, kind := range vectorItems {
		for _, m := range kind.metrics {
			o := VectorSearchOptions{Column: 3 + column, K: 1 + c.r.IntN(30), Metric: &m}
			if c.r.IntN(8) == 0 {
				o.K = 1 << 40
			}
			for range 1 + c.r.IntN(3) {
				q := c.vector()
				for q == nil || vector.Norm(q) == 0 {
					q = c.vector()
				}
				o.Queries = append(o.Queries, q...)
			}
			only := func(vectorRow) bool { return true }
			if tag := c.r.Int64N(8); tag < 5 {
				only = func(r vectorRow) bool { return r.tag == tag }
				o.Only = c.placesOf(v, tag)
			}
			found, err := v.VectorSearch(ctx, o)
			require.NoError(c.t, err)
			require.Len(c.t, found, len(o.Queries)/vectorDim)
			for i := range found {
				ids, distances := c.expected(column, m, o.Queries[i*vectorDim:(i+1)*vectorDim], o.K, only)
				c.compare(v, fmt.Sprint(kind.item.Name(), " ", m, " k ", o.K), found[i], ids, distances)
			}
		}
	}
}

// compare compares what a search found with what it should have. Rows of a table without a key have no order at one distance.
func (c *vectorTable) compare(v *View, what string, found []Neighbor, ids []int64, distances []float32) {
	places, got := make([]uint64, len(found)), make([]float32, len(found))
	for i, n := range found {
		places[i], got[i] = uint64(n.Place), n.Distance
	}
	rec, err := v.Take(context.Background(), []int{0, 2}, places)
	require.NoError(c.t, err)
	defer rec.Release()
	if distances == nil {
		distances = []float32{}
	}
	require.Equal(c.t, distances, got, what)
	gotIDs := rec.Column(0).(*array.Int64).Int64Values()
	if c.key == nil {
		seen := map[int64]bool{}
		for _, id := range gotIDs {
			require.Contains(c.t, c.rows, id, what)
			require.False(c.t, seen[id], "%s: row %d comes twice", what, id)
			seen[id] = true
		}
		return
	}
	require.Equal(c.t, append([]int64{}, ids...), append([]int64{}, gotIDs...), what)
	for i, id := range gotIDs {
		require.Equal(c.t, c.rows[id].tag, rec.Column(1).(*array.Int64).Value(i), what)
	}
}

// placesOf returns the places of the rows with a tag, as a scan gives them.
func (c *vectorTable) placesOf(v *View, tag int64) *Places {
	out := NewPlaces()
	require.NoError(c.t, scanPlaces(v, func(place uint64, _, rowTag int64) error {
		if rowTag == tag {
			out.Add([]uint64{place})
		}
		return nil
	}))
	return out
}

// checkPlaces takes all rows by their places, backwards.
func (c *vectorTable) checkPlaces(v *View) error {
	var places []uint64
	var ids []int64
	if err := scanPlaces(v, func(place uint64, id, _ int64) error {
		places, ids = append(places, place), append(ids, id)
		return nil
	}); err != nil {
		return err
	}
	slices.Reverse(places)
	slices.Reverse(ids)
	rec, err := v.Take(context.Background(), []int{0, 3}, places)
	if err != nil {
		return err
	}
	defer rec.Release()
	if got := rec.Column(0).(*array.Int64).Int64Values(); !slices.Equal(got, ids) || len(ids) != len(c.rows) {
		return fmt.Errorf("the rows at %d places are not those of %d", len(places), len(c.rows))
	}
	return nil
}

// scanPlaces calls fn for each row with its place, id and tag.
func scanPlaces(v *View, fn func(place uint64, id, tag int64) error) error {
	ctx := context.Background()
	sc, err := v.Scan(ctx, ScanOptions{Columns: []int{0, RowPlace, 2}})
	if err != nil {
		return err
	}
	defer sc.Close()
	for m, err := sc.Next(ctx); err == nil; m, err = sc.Next(ctx) {
		for j := range int(m.Record.NumRows()) {
			if !m.lives(j) {
				continue
			}
			place := m.Record.Column(1).(*array.Uint64).Value(j)
			if err := fn(place, m.Record.Column(0).(*array.Int64).Value(j), m.Record.Column(2).(*array.Int64).Value(j)); err != nil {
				return err
			}
		}
		m.Release()
	}
	return nil
}

// TestVectorSearchEqualsBruteForce compares searches with a model while rows are replaced, deleted, changed in part, flushed,
// merged and replayed: the same rows in the same order wherever they lie, over any number of shards and in both index modes.
func TestVectorSearchEqualsBruteForce(t *testing.T) {
	for i, key := range [][]string{{"id"}, {"part", "id"}, nil} {
		for shards := range 3 {
			mode := []IndexMode{Sync, Async}[(i+shards)%2]
			if key == nil && shards > 0 || testing.Short() && shards == 1 {
				continue
			}
			t.Run(fmt.Sprint("key=", key, " shards=", 2*shards), func(t *testing.T) {
				c := newVectorTable(t, uint64(10*i+shards), key, 2*shards, mode)
				c.check() // an empty table
				for range fewer[int64](12, 2) {
					c.put(30 + c.r.IntN(200))
					switch c.r.IntN(5) {
					case 0:
						require.NoError(t, c.db.Flush(context.Background(), TableName{Name: "t"}))
					case 1:
						require.NoError(t, c.db.Optimize(context.Background(), TableName{Name: "t"}))
					case 2:
						require.NoError(t, c.db.Close())
						c.open()
					}
					c.put(20)
					c.check()
				}
				require.NoError(t, c.db.Close())
			})
		}
	}
}

// TestVectorSearchRefusesBadQueries asks for what no table could answer.
func TestVectorSearchRefusesBadQueries(t *testing.T) {
	c := newVectorTable(t, 1, []string{"id"}, 0, "")
	c.put(10)
	snap, err := c.db.Snapshot(context.Background())
	require.NoError(t, err)
	v, err := snap.Table(TableName{Name: "t"})
	require.NoError(t, err)
	good := VectorSearchOptions{Column: 3, K: 3, Queries: []float32{1, 2, 3, 4, 5}}
	f := func(want string, change func(o *VectorSearchOptions)) {
		t.Helper()
		o := good
		change(&o)
		_, err := v.VectorSearch(context.Background(), o)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	metric := func(m vector.Metric) *vector.Metric { return &m }
	f(`the query has 4 elements, the vectors of column "float32" have 5`, func(o *VectorSearchOptions) { o.Queries = o.Queries[:4] })
	f("the query has 0 elements", func(o *VectorSearchOptions) { o.Queries = nil })
	f("element 2 of the query is NaN", func(o *VectorSearchOptions) { o.Queries = []float32{1, float32(math.NaN()), 3, 4, 5} })
	f("element 5 of the query is -Inf", func(o *VectorSearchOptions) { o.Queries = []float32{1, 1, 1, 1, float32(math.Inf(-1))} })
	f("a zero vector", func(o *VectorSearchOptions) { o.Queries, o.Metric = make([]float32, 5), metric(vector.Cosine) })
	f("k is 0", func(o *VectorSearchOptions) { o.K = 0 })
	f("k is -1", func(o *VectorSearchOptions) { o.K = -1 })
	f("no column number 99", func(o *VectorSearchOptions) { o.Column = 99 })
	f(`column "id" is int64, and vectors are fixed-size lists of float32, float16, float64 or uint8; the table has float32, float16, float64, uint8`,
		func(o *VectorSearchOptions) { o.Column = 0 })
	f("metric hamming is not for column", func(o *VectorSearchOptions) { o.Metric = metric(vector.Hamming) })
	f("metric l2 is not for column", func(o *VectorSearchOptions) { o.Column, o.Metric = 6, metric(vector.L2) })
	f("element 1 of the query is 300", func(o *VectorSearchOptions) { o.Column, o.Queries = 6, []float32{300, 0, 0, 0, 0} })
	f("element 1 of the query is 1e+06", func(o *VectorSearchOptions) { o.Column, o.Queries = 4, []float32{1e6, 0, 0, 0, 0} })
	_, err = v.VectorSearch(context.Background(), good)
	require.NoError(t, err)
	snap.Release()
	require.NoError(t, c.db.Close())
}
