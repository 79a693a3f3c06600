package query

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
)

// queryMaker writes random queries over the tables t and u of wideSchema.
type queryMaker struct{ r *rand.Rand }

func (q queryMaker) pick(list ...string) string { return list[q.r.IntN(len(list))] }

// column is a random column of a table.
func (q queryMaker) column() string { return wideSchema.Field(q.r.IntN(wideSchema.NumFields())).Name }

// predicate is a random condition on the table with the alias.
func (q queryMaker) predicate(a string) string {
	p := q.pick(
		"$.i32 > 0", "$.i32 BETWEEN -10 AND 10", "$.u8 < 50", "$.b", "NOT $.b", "$.s IS NULL", "$.s < 'b'", "$.s LIKE '%a%'", "length($.s) > 5", "$.s IN ('a', 'b', '')",
		"$.f32 < 60", "$.f64 >= 1000.5", "$.d < DATE '2000-01-01'", "$.ts > TIMESTAMP '1980-01-01'", "$.tz IS NOT NULL", "$.de < 0", "$.emb IS NOT NULL", "$.emb[1] > 50",
		"$.pix[2] < 100", "octet_length($.bl) = 3", "$.id % 3 = 1", "$.id < 700", "$.id IN (1, 2, 3, 500, 1200)", "coalesce($.i32, 0) = 0",
	)
	return strings.ReplaceAll(p, "$", a)
}

// where is a random condition of one to three predicates.
func (q queryMaker) where(aliases ...string) string {
	var parts []string
	for range 1 + q.r.IntN(3) {
		parts = append(parts, q.predicate(q.pick(aliases...)))
	}
	return strings.Join(parts, q.pick(" AND ", " OR "))
}

// query is a random query whose rows do not depend on any order.
func (q queryMaker) query() string {
	switch q.r.IntN(6) {
	case 0:
		return fmt.Sprintf("SELECT %s, %s, id FROM t WHERE %s", q.column(), q.column(), q.where("t"))
	case 1:
		c := q.pick("i32", "u8", "b", "length(s)", "d", "s")
		return fmt.Sprintf("SELECT %s AS g, count(*), count(%s), min(%s), max(id), sum(i32) FROM t WHERE %s GROUP BY g", c, q.column(), q.column(), q.where("t"))
	case 2:
		on := q.pick("t.id = u.id", "t.i32 = u.i32 AND t.u8 = u.u8", "t.s = u.s", "t.id = u.id + 1 AND t.b = u.b")
		return fmt.Sprintf("SELECT t.%s, u.%s, t.id, u.id FROM t %s JOIN u ON %s WHERE %s", q.column(), q.column(), q.pick("", "LEFT", "RIGHT", "FULL"), on, q.where("t", "u"))
	case 3:
		return fmt.Sprintf("SELECT %s, id FROM t WHERE %s ORDER BY %s, id LIMIT %d OFFSET %d", q.column(), q.where("t"), q.pick("i32", "s DESC", "u8 NULLS FIRST", "ts"), q.r.IntN(60), q.r.IntN(9))
	case 4:
		in := q.pick("IN", "NOT IN")
		return fmt.Sprintf("SELECT id, %s FROM t WHERE id %s (SELECT id FROM u WHERE %s) AND %s", q.column(), in, q.where("u"), q.where("t"))
	}
	return fmt.Sprintf("WITH x AS (SELECT * FROM t WHERE %s), y AS MATERIALIZED (SELECT id, %s AS c FROM x) SELECT a.id, b.c FROM y a JOIN y b USING (id) UNION ALL SELECT id, %s FROM x WHERE FALSE",
		q.where("t"), "s", "s")
}

// TestRandomQueries compares random queries with a DuckDB that has the rows in tables of its own.
func TestRandomQueries(t *testing.T) {
	for seed := range uint64(3) {
		m := rowMaker{}.withSeed(seed)
		s := &memStore{}
		rows := map[string][]string{
			"t": m.table(t, s, "t", wideSchema, morselPlan{sizes: []int{900, 1, 1300, 40}, alive: []float64{1, 0.6, 0.9, 0.1}, slice: seed != 0}),
			"u": m.table(t, s, "u", wideSchema, morselPlan{sizes: []int{600, 300}, alive: []float64{0.8, 1}, slice: true}),
		}
		twin := newTwin(t, wideSchema, rows)
		e := newTestEngine(t, s)
		q := queryMaker(m)
		for range 60 {
			sql := q.query()
			want := comparable(sql, twinRows(t, twin, sql))
			rec := collectRows(t, e, sql, nil)
			got := comparable(sql, printRows(rec))
			rec.Release()
			requireRows(t, want, got, fmt.Sprintf("seed %d: %s", seed, sql))
		}
	}
}

// TestListValuesWithAnOffset reads lists whose values begin in the middle of their array, as slices of pages do.
func TestListValuesWithAnOffset(t *testing.T) {
	for _, elem := range []arrow.DataType{arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Float32, arrow.FixedWidthTypes.Boolean, arrow.BinaryTypes.String, arrow.FixedWidthTypes.Float16} {
		dt := arrow.FixedSizeListOf(3, elem)
		r := rowMaker{}.seeded(9)
		values := randomArray(r, elem, 3*3000+11)
		cut := array.NewSlice(values, 11, 3*3000+11)
		data := array.NewData(dt, 2990, []*memory.Buffer{nil}, []arrow.ArrayData{cut.Data()}, 0, 10)
		lists := array.MakeFromData(data)
		ids := array.NewInt64Builder(offheap.Default)
		for i := range 2990 {
			ids.Append(int64(i))
		}
		schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "c", Type: dt, Nullable: true}}, nil)
		rec := array.NewRecordBatch(schema, []arrow.Array{ids.NewArray(), lists}, 2990)
		s := &memStore{}
		s.add(t, "x", schema, nil, memMorsel{rec: rec})
		e := newTestEngine(t, s)
		got := collectRows(t, e, "SELECT c FROM x ORDER BY id", nil)
		requireColumn(t, rec, got, 1, 0, "values with an offset")
		got.Release()
		got = collectRows(t, e, "SELECT c[2] FROM x WHERE id = 2500", nil)
		require.Equal(t, lists.(*array.FixedSizeList).ListValues().IsNull(3*(10+2500)+1), got.Column(0).IsNull(0))
		got.Release()
		for _, x := range []arrow.Array{values, cut} {
			x.Release()
		}
		data.Release()
	}
}
