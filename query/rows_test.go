package query

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
)

// offHeap copies a batch out of the Go heap.
func offHeap(rec arrow.RecordBatch) arrow.RecordBatch {
	var buf bytes.Buffer
	w := ipc.NewWriter(&buf, ipc.WithSchema(rec.Schema()))
	if err := w.Write(rec); err != nil {
		panic(err)
	}
	_ = w.Close()
	// The reader copies the message's body into memory of its allocator.
	r, err := ipc.NewReader(bytes.NewReader(buf.Bytes()), ipc.WithAllocator(offheap.Default))
	if err != nil {
		panic(err)
	}
	defer r.Release()
	r.Next()
	out := r.RecordBatch()
	out.Retain()
	return out
}

// wideSchema has a column of each type that DuckDB holds as it is, and the key.
var wideSchema = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64},
	{Name: "i32", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
	{Name: "u8", Type: arrow.PrimitiveTypes.Uint8, Nullable: true},
	{Name: "f32", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
	{Name: "f64", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "b", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
	{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "bl", Type: arrow.BinaryTypes.Binary, Nullable: true},
	{Name: "d", Type: arrow.FixedWidthTypes.Date32, Nullable: true},
	{Name: "ts", Type: &arrow.TimestampType{Unit: arrow.Microsecond}, Nullable: true},
	{Name: "tz", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
	{Name: "de", Type: &arrow.Decimal128Type{Precision: 18, Scale: 3}, Nullable: true},
	{Name: "emb", Type: arrow.FixedSizeListOf(4, arrow.PrimitiveTypes.Float32), Nullable: true},
	{Name: "pix", Type: arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Uint8), Nullable: true},
}, nil)

// A rowMaker appends random values to a builder and writes the same values as SQL text.
type rowMaker struct{ r *rand.Rand }

// text is a random string of 0 to 100 bytes, often short, sometimes not ASCII.
func (m rowMaker) text() string {
	n := m.r.IntN(14)
	if m.r.IntN(3) == 0 {
		n = m.r.IntN(101)
	}
	var b strings.Builder
	for b.Len() < n {
		if m.r.IntN(20) == 0 {
			b.WriteString([]string{"ä", "☃", "'", "\""}[m.r.IntN(4)])
			continue
		}
		b.WriteByte(byte('a' + m.r.IntN(4)))
	}
	return b.String()
}

// value appends one value and returns its SQL text.
func (m rowMaker) value(b array.Builder, id int64) string {
	switch b := b.(type) {
	case *array.Int64Builder:
		b.Append(id)
		return fmt.Sprint(id)
	case *array.Int32Builder:
		v := int32(m.r.IntN(100) - 50)
		b.Append(v)
		return fmt.Sprint(v)
	case *array.Uint8Builder:
		v := uint8(m.r.IntN(256))
		b.Append(v)
		return fmt.Sprint(v)
	case *array.Float32Builder:
		v := float32(m.r.IntN(1000)) / 8
		b.Append(v)
		return fmt.Sprint(v)
	case *array.Float64Builder:
		v := float64(m.r.IntN(1_000_000)) / 64
		b.Append(v)
		return fmt.Sprint(v)
	case *array.BooleanBuilder:
		v := m.r.IntN(2) == 0
		b.Append(v)
		return fmt.Sprint(v)
	case *array.StringBuilder:
		v := m.text()
		b.Append(v)
		return quoteString(v)
	case *array.BinaryBuilder:
		v := make([]byte, m.r.IntN(30))
		for i := range v {
			v[i] = byte(m.r.IntN(256))
		}
		b.Append(v)
		return fmt.Sprintf("from_hex('%x')", v)
	case *array.Date32Builder:
		v := m.r.IntN(40000) - 10000
		b.Append(arrow.Date32(v))
		return fmt.Sprintf("DATE '1970-01-01' + %d", v)
	case *array.TimestampBuilder:
		v := m.r.Int64N(1<<51) - 1<<50
		b.Append(arrow.Timestamp(v))
		if b.Type().(*arrow.TimestampType).TimeZone != "" {
			return fmt.Sprintf("make_timestamptz(%d)", v)
		}
		return fmt.Sprintf("make_timestamp(%d)", v)
	case *array.Decimal128Builder:
		v := m.r.IntN(2_000_000) - 1_000_000
		text := fmt.Sprintf("%.3f", float64(v)/1000)
		if err := b.AppendValueFromString(text); err != nil {
			panic(err)
		}
		return text
	case *array.FixedSizeListBuilder:
		b.Append(true)
		var items []string
		for range b.Type().(*arrow.FixedSizeListType).Len() {
			items = append(items, m.value(b.ValueBuilder(), id))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	panic(fmt.Sprintf("no values for %T", b))
}

// batch makes n rows with keys from first on, and their SQL text.
func (m rowMaker) batch(schema *arrow.Schema, first int64, n int) (arrow.RecordBatch, []string) {
	b := array.NewRecordBuilder(offheap.Default, schema)
	defer b.Release()
	texts := make([]string, n)
	for row := range n {
		values := make([]string, schema.NumFields())
		for i, f := range schema.Fields() {
			if f.Nullable && m.r.IntN(6) == 0 {
				b.Field(i).AppendNull()
				values[i] = "NULL"
				continue
			}
			values[i] = m.value(b.Field(i), first+int64(row))
		}
		texts[row] = "(" + strings.Join(values, ",") + ")"
	}
	return b.NewRecordBatch(), texts
}

// morselPlan says how a random table is cut.
type morselPlan struct {
	sizes []int
	// alive is the share of live rows per morsel; 1 and more means that all live.
	alive []float64
	// slice lets batches begin in the middle of their buffers.
	slice bool
	// all runs every query, else it is half of them.
	all bool
}

// table makes a table of random rows in the store, and returns the SQL text of the rows that live.
func (m rowMaker) table(t testing.TB, s *memStore, name string, schema *arrow.Schema, p morselPlan) []string {
	var morsels []memMorsel
	var texts []string
	id := int64(0)
	for i, n := range p.sizes {
		skip := 0
		if p.slice {
			skip = 1 + m.r.IntN(70)
		}
		rec, rows := m.batch(schema, id, n+skip)
		id += int64(n + skip)
		if skip > 0 {
			cut := rec.NewSlice(int64(skip), int64(skip+n))
			rec.Release()
			rec, rows = cut, rows[skip:]
		}
		mm := memMorsel{rec: rec}
		if p.alive[i%len(p.alive)] >= 1 {
			texts = append(texts, rows...)
		} else {
			mm.live = []uint32{}
			for r := range rows {
				if m.r.Float64() < p.alive[i%len(p.alive)] {
					mm.live = append(mm.live, uint32(r))
					texts = append(texts, rows[r])
				}
			}
		}
		morsels = append(morsels, mm)
	}
	s.add(t, name, schema, []string{"id"}, morsels...)
	return texts
}

// newTwin opens a plain DuckDB with real tables of the same rows, loaded as SQL text: the oracle.
func newTwin(t testing.TB, schema *arrow.Schema, tables map[string][]string) *instance {
	in, err := openInstance(instanceOptions{threads: 2, memory: 1 << 30})
	require.NoError(t, err)
	t.Cleanup(in.release)
	for name, rows := range tables {
		require.NoError(t, in.exec(tableSQL("main", name, schema, nil, nil)))
		for chunk := range slices.Chunk(rows, 500) {
			require.NoError(t, in.exec(fmt.Sprintf("INSERT INTO %s VALUES %s", name, strings.Join(chunk, ","))))
		}
	}
	return in
}

// twinRows runs a query on the oracle.
func twinRows(t testing.TB, in *instance, sql string) []string {
	conn, err := in.connect()
	require.NoError(t, err)
	defer disconnect(&conn)
	x, err := in.extract(conn, sql)
	require.NoError(t, err, sql)
	defer destroyExtracted(&x)
	ps, err := in.prepare(conn, x, 0, sql)
	require.NoError(t, err, sql)
	defer destroyPrepare(&ps)
	recs, err := in.collect(conn, ps, sql)
	require.NoError(t, err, sql)
	defer releaseAll(recs)
	var out []string
	for _, rec := range recs {
		out = append(out, printRows(rec)...)
	}
	return out
}

// printRows writes each row of a batch as a line.
func printRows(rec arrow.RecordBatch) []string {
	out := make([]string, rec.NumRows())
	for r := range out {
		cells := make([]string, rec.NumCols())
		for i, c := range rec.Columns() {
			cells[i] = printCell(c, r)
		}
		out[r] = strings.Join(cells, " | ")
	}
	return out
}

// printCell writes a value; sums of floats depend on their order, so their last digits are left out.
func printCell(c arrow.Array, row int) string {
	if c.IsNull(row) {
		return "NULL"
	}
	if f, ok := c.(*array.Float64); ok && !math.IsInf(f.Value(row), 0) {
		return fmt.Sprintf("%.9g", f.Value(row))
	}
	return strings.Clone(c.ValueStr(row)) // an array's strings lie in its buffers
}

// requireRows compares rows and shows the first that differs.
func requireRows(t testing.TB, want, got []string, sql string) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		require.Equal(t, want[i], got[i], "row %d of %s", i, sql)
	}
	require.Len(t, got, len(want), sql)
}

// seeded returns a source of randomness.
func (rowMaker) seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

// withSeed returns a maker of its own randomness.
func (m rowMaker) withSeed(seed uint64) rowMaker { return rowMaker{m.seeded(seed)} }
