package lsm

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// columnDomain is some values of a type in DuckDB's order; those that it takes for equal have the same rank.
type columnDomain struct {
	name   string
	values arrow.Array
	ranks  []int
}

// columnDomains are those of keys, and of the types that columns with an index may have beside these.
func columnDomains(r *rand.Rand) []columnDomain {
	var out []columnDomain
	keys := keyTypes(r)
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		out = append(out, columnDomain{name: name, values: keys[name]})
	}
	floats := []float64{math.Inf(-1), -math.MaxFloat64, -1.5, -math.SmallestNonzeroFloat64, math.Copysign(0, -1), 0, math.SmallestNonzeroFloat64, 1, 1.5,
		math.MaxFloat64, math.Inf(1), math.Float64frombits(0xFFF8000000000000), math.NaN(), math.Float64frombits(0x7FF8000000000123)}
	small := []float64{math.Inf(-1), -60000, -1.5, -1.0 / 1024, math.Copysign(0, -1), 0, 1.0 / 1024, 1, 1.5, 60000, math.Inf(1), math.NaN(), math.NaN(), math.NaN()}
	ranks := []int{0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 10, 10}
	add := func(name string, t arrow.DataType, n int, ranks []int, put func(b array.Builder, i int)) {
		b := array.NewBuilder(memory.DefaultAllocator, t)
		defer b.Release()
		for i := range n {
			put(b, i)
		}
		out = append(out, columnDomain{name: name, values: b.NewArray(), ranks: ranks})
	}
	add("float64", arrow.PrimitiveTypes.Float64, len(floats), ranks, func(b array.Builder, i int) { b.(*array.Float64Builder).Append(floats[i]) })
	add("float32", arrow.PrimitiveTypes.Float32, len(small), ranks, func(b array.Builder, i int) { b.(*array.Float32Builder).Append(float32(small[i])) })
	add("float16", arrow.FixedWidthTypes.Float16, len(small), ranks, func(b array.Builder, i int) { b.(*array.Float16Builder).Append(float16.New(float32(small[i]))) })
	add("bool", arrow.FixedWidthTypes.Boolean, 2, nil, func(b array.Builder, i int) { b.(*array.BooleanBuilder).Append(i > 0) })
	add("time32", arrow.FixedWidthTypes.Time32s, 30, nil, func(b array.Builder, i int) { b.(*array.Time32Builder).Append(arrow.Time32(i * 1000)) })
	add("time64", arrow.FixedWidthTypes.Time64us, 30, nil, func(b array.Builder, i int) { b.(*array.Time64Builder).Append(arrow.Time64(i) << 30) })
	add("duration", arrow.FixedWidthTypes.Duration_us, 30, nil, func(b array.Builder, i int) { b.(*array.DurationBuilder).Append(arrow.Duration(i-15) << 50) })
	add("decimal256", &arrow.Decimal256Type{Precision: 76, Scale: 2}, 30, nil, func(b array.Builder, i int) {
		b.(*array.Decimal256Builder).Append(decimal256.FromI64(int64(i-15) << 50).Mul(decimal256.FromI64(1 << 62)))
	})
	add("uuid", &arrow.FixedSizeBinaryType{ByteWidth: 16}, 30, nil, func(b array.Builder, i int) {
		b.(*array.FixedSizeBinaryBuilder).Append([]byte{byte(i / 7), 0, 0, 0, 0, 0, 0, 0, 0, byte(i), 0, 0, 0, 0, 0, 0})
	})
	return out
}

// rank returns the rank of a value.
func (d *columnDomain) rank(place int) int {
	if d.ranks != nil {
		return d.ranks[place]
	}
	return place
}

// columnTable is a table with a column of each domain and a model of it: by id the place of each column's value, -1 for
// a null.
type columnTable struct {
	t       *testing.T
	r       *rand.Rand
	db      *DB
	dir     string
	key     []string
	schema  *arrow.Schema
	domains []columnDomain
	rows    map[int64][]int
	next    int64
}

func (c *columnTable) open() {
	var err error
	c.db, err = Open(context.Background(), Options{Dir: c.dir, sortBytes: 1 << 14})
	require.NoError(c.t, err)
}

// TestColumnSets compares scans by sets of values of every type with a model, for tables with a key of one column, of
// two, and of none, and with indexes that memtables keep, that they do not keep and that come late, while rows are
// replaced, deleted, flushed, merged and replayed.
func TestColumnSets(t *testing.T) {
	for _, key := range [][]string{{"id"}, {"part", "id"}, nil} {
		if testing.Short() && len(key) == 1 { // a key of two columns does all of it, too
			continue
		}
		t.Run(fmt.Sprint("key=", key), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(len(key)), 77))
			c := &columnTable{t: t, r: r, dir: t.TempDir(), key: key, domains: columnDomains(r), rows: map[int64][]int{}}
			fields := []arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "part", Type: arrow.BinaryTypes.String}}
			var maintain []string
			var born []IndexDef
			for i, d := range c.domains {
				fields = append(fields, arrow.Field{Name: d.name, Type: d.values.DataType(), Nullable: true})
				if i%2 == 0 {
					maintain = append(maintain, d.name)
				}
				if i%3 == 0 {
					born = append(born, c.def(d))
				}
			}
			c.schema = arrow.NewSchema(fields, nil)
			c.open()
			require.NoError(t, c.db.CreateTable(context.Background(), TableDef{Name: TableName{Name: "t"}, Schema: c.schema, Key: key, Indexes: born, Maintain: maintain}))
			for step := range fewer[int64](14, 2) { // the sixth makes the indexes that come late
				c.step(int(step))
				c.compare()
			}
			for _, d := range c.domains {
				require.NoError(t, mustTable(t, c.db, "t").OptimizeIndex(context.Background(), d.name, nil))
			}
			c.compare()
			require.NoError(t, c.db.Close())
			requireSound(t, c.dir)
		})
	}
}

func (c *columnTable) def(d columnDomain) IndexDef {
	return IndexDef{Name: d.name, Kind: BTreeIndex, Columns: []string{d.name}}
}

// step changes something.
func (c *columnTable) step(step int) {
	ctx, n := context.Background(), TableName{Name: "t"}
	c.put(100 + c.r.IntN(200))
	if step == 5 {
		for i, d := range c.domains {
			if i%3 != 0 {
				require.NoError(c.t, c.db.CreateIndex(ctx, n, c.def(d), CreateIndexOptions{}))
			}
		}
	}
	switch c.r.IntN(5) {
	case 0:
		require.NoError(c.t, c.db.Flush(ctx, n))
	case 1:
		require.NoError(c.t, c.db.Optimize(ctx, n))
	case 2:
		require.NoError(c.t, c.db.Close())
		c.open()
	case 3: // as after a crash
		next := crashCopy(c.t, c.dir)
		require.NoError(c.t, c.db.Close())
		c.dir = next
		c.open()
	}
	c.put(20)
}

// put writes rows, some of which replace or delete others when there is a key.
func (c *columnTable) put(rows int) {
	table := mustTable(c.t, c.db, "t")
	b := array.NewRecordBuilder(memory.DefaultAllocator, table.now().withTombstones(c.key != nil))
	defer b.Release()
	for range rows {
		id := c.next
		if c.next++; c.key != nil && c.r.IntN(3) == 0 {
			id = c.r.Int64N(c.next)
		}
		b.Field(0).(*array.Int64Builder).Append(id)
		b.Field(1).(*array.StringBuilder).Append(fmt.Sprint("p", id%3))
		places := make([]int, len(c.domains))
		for i, d := range c.domains {
			if places[i] = c.r.IntN(d.values.Len()+2) - 2; places[i] < 0 {
				places[i] = -1
				b.Field(i + 2).AppendNull()
				continue
			}
			require.NoError(c.t, appendOne(b.Field(i+2), d.values, places[i]))
		}
		c.rows[id] = places
		if c.key == nil {
			continue
		}
		dead := c.r.IntN(10) == 0
		b.Field(len(c.domains) + 2).(*array.BooleanBuilder).Append(dead)
		if dead {
			delete(c.rows, id)
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	lsn, err := table.Put(context.Background(), Batch{Record: rec})
	require.NoError(c.t, err)
	require.NoError(c.t, c.db.Wait(context.Background(), lsn))
}

// appendOne appends a value of an array.
func appendOne(b array.Builder, values arrow.Array, at int) error {
	if isInt(values.DataType()) {
		one := array.NewSlice(values, int64(at), int64(at)+1)
		defer one.Release()
		appendInt(b, appendInts(nil, one)[0])
		return nil
	}
	appendWide(b, wideKeys(values)(at))
	return nil
}

// compare asks for points and for ranges of every column.
func (c *columnTable) compare() {
	snap, err := c.db.Snapshot(context.Background())
	require.NoError(c.t, err)
	defer snap.Release()
	v, err := snap.Table(TableName{Name: "t"})
	require.NoError(c.t, err)
	for i, d := range c.domains {
		set := v.NewColumnSet(i + 2)
		require.NotNil(c.t, set, d.name)
		wanted := func(int) bool { return false }
		for range 1 + c.r.IntN(2) {
			before := wanted
			more := c.some(set, &d)
			wanted = func(rank int) bool { return before(rank) || more(rank) }
		}
		found := map[int64]bool{}
		sc, err := v.Scan(context.Background(), ScanOptions{Columns: []int{0}, Where: set})
		require.NoError(c.t, err)
		for m, err := sc.Next(context.Background()); err == nil; m, err = sc.Next(context.Background()) {
			for j, id := range m.Record.Column(0).(*array.Int64).Int64Values() {
				if m.lives(j) {
					require.NotNil(c.t, c.rows[id], "%s: row %d does not live", d.name, id)
					require.False(c.t, found[id], "%s: row %d comes twice", d.name, id)
					found[id] = true
				}
			}
			m.Release()
		}
		for id, places := range c.rows {
			if places[i] >= 0 && wanted(d.rank(places[i])) && !found[id] {
				c.t.Fatalf("%s: row %d with value %s is missing; %+v", d.name, id, d.values.ValueStr(places[i]), sc.Plan())
			}
		}
		sc.Close()
	}
}

// some adds points or a range to a set, and returns which ranks are in it.
func (c *columnTable) some(set *KeySet, d *columnDomain) func(rank int) bool {
	one := func() (arrow.Array, int) {
		at := c.r.IntN(d.values.Len())
		return array.NewSlice(d.values, int64(at), int64(at)+1), d.rank(at)
	}
	if c.r.IntN(2) == 0 {
		points := map[int]bool{}
		for range 1 + c.r.IntN(3) {
			v, rank := one()
			points[rank] = true
			require.NoError(c.t, set.Add([]arrow.Array{v}))
		}
		return func(rank int) bool { return points[rank] }
	}
	var from, to KeyBound
	low, high := math.MinInt, math.MaxInt
	if c.r.IntN(4) > 0 {
		from.Value, low = one()
		if from.Exclusive = c.r.IntN(2) == 0; from.Exclusive {
			low++
		}
	}
	if c.r.IntN(4) > 0 {
		to.Value, high = one()
		if to.Exclusive = c.r.IntN(2) == 0; to.Exclusive {
			high--
		}
	}
	require.NoError(c.t, set.AddRange(nil, from, to))
	return func(rank int) bool { return rank >= low && rank <= high }
}
