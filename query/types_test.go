package query

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
)

// scalarTypes are the types that a column, or the elements of a fixed-size list, can have.
var scalarTypes = []arrow.DataType{
	arrow.FixedWidthTypes.Boolean,
	arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64,
	arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64,
	arrow.FixedWidthTypes.Float16, arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64,
	arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Date64,
	arrow.FixedWidthTypes.Time32s, arrow.FixedWidthTypes.Time32ms, arrow.FixedWidthTypes.Time64us, arrow.FixedWidthTypes.Time64ns,
	&arrow.TimestampType{Unit: arrow.Second}, &arrow.TimestampType{Unit: arrow.Millisecond},
	&arrow.TimestampType{Unit: arrow.Microsecond}, &arrow.TimestampType{Unit: arrow.Nanosecond},
	&arrow.TimestampType{Unit: arrow.Second, TimeZone: "UTC"}, &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "Europe/Berlin"},
	&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "America/New_York"}, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "Etc/UTC"},
	&arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}, &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "+05:30"},
	arrow.FixedWidthTypes.Duration_s, arrow.FixedWidthTypes.Duration_ns,
	&arrow.Decimal256Type{Precision: 60, Scale: 2}, &arrow.Decimal128Type{Precision: 5, Scale: -3}, &arrow.Decimal128Type{Precision: 5, Scale: 7},
	&arrow.Decimal128Type{Precision: 4, Scale: 2}, &arrow.Decimal128Type{Precision: 9, Scale: 0},
	&arrow.Decimal128Type{Precision: 18, Scale: 3}, &arrow.Decimal128Type{Precision: 38, Scale: 10},
}

// blobTypes are the types of variable length, and bytes of fixed length.
var blobTypes = []arrow.DataType{
	arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString, arrow.BinaryTypes.Binary, arrow.BinaryTypes.LargeBinary,
	&arrow.FixedSizeBinaryType{ByteWidth: 16}, &arrow.FixedSizeBinaryType{ByteWidth: 3},
}

// allTypes are all types that a table can have.
func allTypes() []arrow.DataType {
	out := append(append([]arrow.DataType{}, scalarTypes...), blobTypes...)
	for i, dt := range scalarTypes {
		out = append(out, arrow.FixedSizeListOf(int32(1+i%5), dt))
	}
	out = append(out, arrow.FixedSizeListOf(64, arrow.PrimitiveTypes.Uint8), arrow.FixedSizeListOf(2, arrow.BinaryTypes.LargeString),
		arrow.FixedSizeListOf(3, &arrow.FixedSizeBinaryType{ByteWidth: 5}))
	out = append(out, arrow.Null, arrow.FixedSizeListOf(2, arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Float32)))
	return append(out, nestedTypes()...)
}

// nestedTypes are lists and structs of types that DuckDB has, and of those that it has not.
func nestedTypes() []arrow.DataType {
	field := func(name string, dt arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: dt, Nullable: true}
	}
	point := arrow.StructOf(field("x", arrow.PrimitiveTypes.Int64), field("half", arrow.FixedWidthTypes.Float16), field("big text", arrow.BinaryTypes.LargeString))
	words := arrow.ListOfField(field("element", arrow.BinaryTypes.String))
	vectors := arrow.StructOf(field("v", arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32)), field("l", arrow.ListOf(arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Uint8))))
	wide := &arrow.Decimal256Type{Precision: 76, Scale: 10}
	scores := arrow.MapOf(arrow.BinaryTypes.LargeString, arrow.PrimitiveTypes.Float64)
	return []arrow.DataType{
		scores, arrow.ListOf(scores), arrow.StructOf(field("m", scores), field("n", arrow.PrimitiveTypes.Int8)), arrow.MapOf(arrow.PrimitiveTypes.Uint32, scores),
		arrow.MapOf(arrow.FixedWidthTypes.Float16, arrow.LargeListOf(point)), arrow.MapOf(arrow.PrimitiveTypes.Uint16, arrow.StructOf(field("in", vectors), field("p", point))),
		arrow.MapOf(arrow.PrimitiveTypes.Int64, wide), arrow.MapOf(arrow.PrimitiveTypes.Int32, arrow.Null), arrow.ListOf(arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32)),
		arrow.ListOf(arrow.StructOf(field("in", point), field("out", arrow.MapOf(arrow.BinaryTypes.String, point)))),
		arrow.ListOf(arrow.Null), arrow.ListOf(wide), arrow.StructOf(field("wide", wide), field("nothing", arrow.Null), field("wides", arrow.LargeListOf(wide))),
		arrow.StructOf(field("A", arrow.PrimitiveTypes.Int8), field("a", arrow.PrimitiveTypes.Int16), field("", arrow.PrimitiveTypes.Int32)),
		vectors, arrow.ListOf(vectors), arrow.ListOf(arrow.StructOf(field("in", vectors), field("b", arrow.FixedWidthTypes.Boolean))),
		arrow.StructOf(field("in", arrow.StructOf(field("b", arrow.FixedWidthTypes.Boolean), field("in", vectors)))),
		arrow.ListOf(arrow.PrimitiveTypes.Int32), arrow.ListOf(arrow.FixedWidthTypes.Boolean), words, arrow.LargeListOf(arrow.BinaryTypes.LargeBinary), point,
		arrow.ListOf(point), arrow.LargeListOf(point), arrow.ListOf(words), arrow.LargeListOf(arrow.LargeListOf(&arrow.FixedSizeBinaryType{ByteWidth: 3})),
		arrow.ListOf(arrow.FixedSizeListOf(2, arrow.FixedWidthTypes.Float16)), arrow.ListOf(&arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}),
		arrow.ListOfNonNullable(arrow.FixedWidthTypes.Duration_s),
		arrow.StructOf(field("words", words), field("point", point), field("deep", arrow.StructOf(field("points", arrow.LargeListOf(point)), field("day", arrow.FixedWidthTypes.Date64)))),
	}
}

// randomArray makes n values with any bits that the type allows, and nulls.
func randomArray(r *rand.Rand, dt arrow.DataType, n int) arrow.Array {
	validity := memory.NewResizableBuffer(offheap.Default)
	validity.Resize(int(bitutil.BytesForBits(int64(n))))
	defer validity.Release()
	nulls := 0
	for i := range n {
		if r.IntN(5) == 0 {
			nulls++
		} else {
			bitutil.SetBit(validity.Bytes(), i)
		}
	}
	if dt.ID() == arrow.NULL {
		return array.NewNull(n)
	}
	if list, ok := dt.(*arrow.FixedSizeListType); ok {
		child := randomArray(r, list.Elem(), n*int(list.Len()))
		defer child.Release()
		data := array.NewData(dt, n, []*memory.Buffer{validity}, []arrow.ArrayData{child.Data()}, nulls, 0)
		defer data.Release()
		return array.MakeFromData(data)
	}
	if s, ok := dt.(*arrow.StructType); ok {
		return randomStructs(r, s, n, validity, nulls)
	}
	if m, ok := dt.(*arrow.MapType); ok {
		return randomMaps(r, m, n, validity, nulls)
	}
	if list, ok := dt.(arrow.ListLikeType); ok {
		data := randomLists(r, list, n, validity, nulls)
		defer data.Release()
		return array.MakeFromData(data)
	}
	if fixed, ok := dt.(arrow.FixedWidthDataType); ok {
		buf := memory.NewResizableBuffer(offheap.Default)
		buf.Resize(max(n*fixed.BitWidth()/8, (n+7)/8))
		defer buf.Release()
		for i := range buf.Bytes() {
			buf.Bytes()[i] = byte(r.Uint32())
		}
		limitValues(r, dt, buf.Bytes(), n)
		data := array.NewData(dt, n, []*memory.Buffer{validity, buf}, nil, nulls, 0)
		defer data.Release()
		return array.MakeFromData(data)
	}
	b := array.NewBuilder(offheap.Default, dt)
	defer b.Release()
	for i := range n {
		if !bitutil.BitIsSet(validity.Bytes(), i) {
			b.AppendNull()
			continue
		}
		text := rowMaker{r}.text()
		switch b := b.(type) {
		case array.StringLikeBuilder:
			b.Append(text)
		case *array.BinaryBuilder:
			b.Append([]byte(text))
		}
	}
	return b.NewArray()
}

// randomStructs makes structs, with values under nulls, too.
func randomStructs(r *rand.Rand, dt *arrow.StructType, n int, validity *memory.Buffer, nulls int) arrow.Array {
	var children []arrow.ArrayData
	for _, f := range dt.Fields() {
		child := randomArray(r, f.Type, n)
		defer child.Release()
		children = append(children, child.Data())
	}
	data := array.NewData(dt, n, []*memory.Buffer{validity}, children, nulls, 0)
	defer data.Release()
	return array.MakeFromData(data)
}

// randomMaps makes maps of 0 to 3 entries, also under nulls. No key comes twice.
func randomMaps(r *rand.Rand, dt *arrow.MapType, n int, validity *memory.Buffer, nulls int) arrow.Array {
	offsets := memory.NewResizableBuffer(offheap.Default)
	defer offsets.Release()
	offsets.Resize((n + 1) * 4)
	ends := arrow.Int32Traits.CastFromBytes(offsets.Bytes())
	for i := range n {
		ends[i+1] = ends[i] + r.Int32N(4)
	}
	items := int(ends[n])
	b := array.NewBuilder(offheap.Default, dt.KeyType())
	defer b.Release()
	for i := range items {
		if err := b.AppendValueFromString(fmt.Sprint(i % 1000)); err != nil {
			panic(err)
		}
	}
	keys, values := b.NewArray(), randomArray(r, dt.ItemType(), items)
	defer keys.Release()
	defer values.Release()
	entries := array.NewData(dt.Elem(), items, []*memory.Buffer{nil}, []arrow.ArrayData{keys.Data(), values.Data()}, 0, 0)
	defer entries.Release()
	data := array.NewData(dt, n, []*memory.Buffer{validity, offsets}, []arrow.ArrayData{entries}, nulls, 0)
	defer data.Release()
	return array.MakeFromData(data)
}

// randomLists makes lists of 0 to 3 values, also under nulls.
func randomLists(r *rand.Rand, dt arrow.ListLikeType, n int, validity *memory.Buffer, nulls int) arrow.ArrayData {
	offsets := memory.NewResizableBuffer(offheap.Default)
	defer offsets.Release()
	items := 0
	offsets.Resize((n + 1) * dt.Layout().Buffers[1].ByteWidth)
	for i := range n {
		if items += r.IntN(4); dt.ID() == arrow.LARGE_LIST {
			arrow.Int64Traits.CastFromBytes(offsets.Bytes())[i+1] = int64(items)
		} else {
			arrow.Int32Traits.CastFromBytes(offsets.Bytes())[i+1] = int32(items)
		}
	}
	elem := dt.Elem()
	child := randomArray(r, elem, items)
	if !dt.ElemField().Nullable {
		d := array.NewData(elem, items, []*memory.Buffer{nil, child.Data().Buffers()[1]}, nil, 0, 0)
		child.Release()
		child = array.MakeFromData(d)
		d.Release()
	}
	defer child.Release()
	return array.NewData(dt, n, []*memory.Buffer{validity, offsets}, []arrow.ArrayData{child.Data()}, nulls, 0)
}

// limitValues keeps values in the range that their type has by definition, or that SQL has for instants.
func limitValues(r *rand.Rand, dt arrow.DataType, raw []byte, n int) {
	switch t := dt.(type) {
	case *arrow.Time32Type:
		for i := range n {
			arrow.Int32Traits.CastFromBytes(raw)[i] = r.Int32N(int32(86400 * 1_000_000_000 / int64(t.Unit.Multiplier())))
		}
	case *arrow.Time64Type:
		for i := range n {
			arrow.Int64Traits.CastFromBytes(raw)[i] = r.Int64N(86400 * 1_000_000_000 / int64(t.Unit.Multiplier()))
		}
	case *arrow.TimestampType:
		for i := range n {
			if t.TimeZone != "" && t.Unit < arrow.Microsecond {
				arrow.Int64Traits.CastFromBytes(raw)[i] /= 1_000_000
			}
		}
	case *arrow.Decimal128Type:
		for i := range n {
			v := decimal128.FromI64(r.Int64N(9999) - 5000)
			if t.Precision > 20 {
				v = decimal128.New(r.Int64N(1<<60)-1<<59, r.Uint64())
			}
			arrow.Decimal128Traits.CastFromBytes(raw)[i] = v
		}
	}
}

// rawCell writes the bits of a value.
func rawCell(arr arrow.Array, row int) string {
	if arr.IsNull(row) || arr.DataType().ID() == arrow.NULL { // whose rows arrow-go calls valid
		return "NULL"
	}
	switch a := arr.(type) {
	case array.ListLike:
		out := "["
		from, to := a.ValueOffsets(row)
		for i := from; i < to; i++ {
			out += rawCell(a.ListValues(), int(i)) + ","
		}
		return out
	case *array.Struct:
		out := "{"
		for i := range a.NumField() {
			out += rawCell(a.Field(i), row) + ","
		}
		return out
	case *array.Boolean:
		return fmt.Sprint(a.Value(row))
	case array.StringLike:
		return fmt.Sprintf("%q", a.Value(row))
	case interface{ Value(int) []byte }:
		return fmt.Sprintf("%x", a.Value(row))
	}
	width := arr.DataType().(arrow.FixedWidthDataType).BitWidth() / 8
	at := (arr.Data().Offset() + row) * width
	return fmt.Sprintf("%x", arr.Data().Buffers()[1].Bytes()[at:at+width])
}

// typesTable makes a table with a column of each type.
func typesTable(t *testing.T, s *memStore, name string, types []arrow.DataType, rows int) arrow.RecordBatch {
	r := rand.New(rand.NewPCG(3, 4))
	fields := []arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}
	ids := array.NewInt64Builder(offheap.Default)
	for i := range rows + 5 {
		ids.Append(int64(i))
	}
	columns := []arrow.Array{ids.NewArray()}
	for i, dt := range types {
		fields = append(fields, arrow.Field{Name: fmt.Sprintf("c%d", i), Type: dt, Nullable: true})
		columns = append(columns, randomArray(r, dt, rows+5))
	}
	whole := array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, int64(rows+5))
	for _, c := range columns {
		c.Release()
	}
	defer whole.Release()
	rec := whole.NewSlice(5, int64(rows+5))
	s.add(t, name, rec.Schema(), []string{"id"}, memMorsel{rec: rec})
	return rec
}

// requireColumn compares a result's column with the table's, to the bit.
func requireColumn(t *testing.T, rec, got arrow.RecordBatch, column int, at int, note string) {
	t.Helper()
	want := rec.Column(column)
	require.True(t, arrow.TypeEqual(want.DataType(), got.Column(at).DataType()), "%s: %s came back as %s", note, want.DataType(), got.Column(at).DataType())
	require.Equal(t, rec.NumRows(), got.NumRows(), note)
	for row := range int(rec.NumRows()) {
		require.Equal(t, rawCell(want, row), rawCell(got.Column(at), row), "%s: %s, row %d", note, want.DataType(), row)
	}
}

// TestColumnsPassThrough asks for columns in ways that leave them as they are: they have the table's type and bits.
func TestColumnsPassThrough(t *testing.T) {
	s := &memStore{}
	types := allTypes()
	rec := typesTable(t, s, "x", types, 2100)
	e := newTestEngine(t, s)

	st, err := e.Prepare(t.Context(), nil, "SELECT * FROM x")
	require.NoError(t, err)
	for i, f := range rec.Schema().Fields() {
		require.True(t, arrow.TypeEqual(f.Type, st.DatasetSchema().Field(i).Type), "prepared %s as %s", f.Type, st.DatasetSchema().Field(i).Type)
	}
	got := collectRows(t, e, "SELECT * FROM x ORDER BY id", nil)
	for i := range rec.NumCols() {
		requireColumn(t, rec, got, int(i), int(i), "*")
	}
	got.Release()
	for i, dt := range types {
		c := fmt.Sprintf("c%d", i)
		for _, sql := range []string{
			"SELECT $ FROM x ORDER BY id",
			"SELECT a.$ FROM x a JOIN x b ON a.id = b.id WHERE a.id >= 0 ORDER BY b.id",
			"WITH y AS MATERIALIZED (SELECT id, $ AS q FROM x) SELECT q FROM y ORDER BY id",
			"SELECT $ FROM (SELECT id, $ FROM x GROUP BY id, $) ORDER BY id",
			"SELECT v FROM (SELECT id, $ AS v FROM x WHERE id % 2 = 0 UNION ALL SELECT id, $ FROM x WHERE id % 2 = 1) ORDER BY id",
			"SELECT $ FROM (SELECT *, row_number() OVER (ORDER BY id) AS n FROM x) ORDER BY n LIMIT 100000",
			"SELECT x.$ FROM x WHERE EXISTS (SELECT 1 FROM x y WHERE y.id = x.id) ORDER BY id",
		} {
			if i%7 != len(sql)%7 && sql != "SELECT $ FROM x ORDER BY id" && exact(arrow.Field{Type: dt}) {
				continue
			}
			q := strings.ReplaceAll(sql, "$", c)
			got := collectRows(t, e, q, nil)
			requireColumn(t, rec, got, i+1, 0, q)
			got.Release()
		}
	}
}

// TestComputedColumnsHaveDuckDBTypes checks that an expression over a column is not mistaken for the column.
func TestComputedColumnsHaveDuckDBTypes(t *testing.T) {
	s := &memStore{}
	typesTable(t, s, "x", []arrow.DataType{
		arrow.BinaryTypes.LargeString, arrow.FixedWidthTypes.Float16, &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"},
		arrow.FixedWidthTypes.Date64, &arrow.FixedSizeBinaryType{ByteWidth: 16}, &arrow.TimestampType{Unit: arrow.Second, TimeZone: "UTC"},
		arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64,
	}, 100)
	e := newTestEngine(t, s)
	us := &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	for sql, want := range map[string]arrow.DataType{
		"upper(c0)": arrow.BinaryTypes.String, "c1 + c1": arrow.PrimitiveTypes.Float32, "c3 + INTERVAL 1 DAY": &arrow.TimestampType{Unit: arrow.Microsecond},
		"coalesce(c0, c6)": arrow.BinaryTypes.String, "max(c5)": us, "c4 || c4": arrow.BinaryTypes.Binary, "count(c2)": arrow.PrimitiveTypes.Int64,
		"c2::TIMESTAMPTZ": us, "(SELECT c0 FROM x LIMIT 1)": arrow.BinaryTypes.String, "c0 COLLATE NOCASE": arrow.BinaryTypes.LargeString,
		"min(c0)": arrow.BinaryTypes.String, "c7 + 1": arrow.PrimitiveTypes.Int64,
	} {
		rec, err := tryRows(e, "SELECT "+sql+" FROM x LIMIT 0", nil)
		require.NoError(t, err, sql)
		require.True(t, arrow.TypeEqual(want, rec.Schema().Field(0).Type), "%s is %s", sql, rec.Schema().Field(0).Type)
		rec.Release()
	}
	rec := collectRows(t, e, "SELECT c0 AS v FROM x UNION ALL SELECT c6 FROM x", nil)
	require.Equal(t, arrow.BinaryTypes.String, rec.Schema().Field(0).Type)
	rec.Release()
}

// TestZonesOfNanoseconds refuses the one use of instants in nanoseconds that SQL would answer wrongly.
func TestZonesOfNanoseconds(t *testing.T) {
	s := &memStore{}
	b := array.NewTimestampBuilder(offheap.Default, &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "Europe/Berlin"})
	b.Append(1_577_836_800_000_000_001) // 2020-01-01 00:00 UTC and a nanosecond
	c := b.NewArray()
	defer c.Release()
	schema := arrow.NewSchema([]arrow.Field{{Name: "ts", Type: c.DataType()}}, nil)
	s.add(t, "x", schema, nil, memMorsel{rec: array.NewRecordBatch(schema, []arrow.Array{c}, 1)})
	e := newTestEngine(t, s)
	for _, sql := range []string{
		"SELECT ts AT TIME ZONE 'America/New_York' FROM x", "SELECT 1 FROM x WHERE hour(ts AT TIME ZONE 'America/New_York') = 3",
		"SELECT upper((timezone('UTC', y.t))::VARCHAR) FROM (SELECT ts AS t FROM x) y", "SELECT max(ts AT TIME ZONE 'UTC') FROM x", "WITH y AS MATERIALIZED (FROM x) SELECT ts AT TIME ZONE 'UTC' FROM y",
	} {
		_, err := tryRows(e, sql, nil)
		require.ErrorContains(t, err, "::TIMESTAMPTZ AT TIME ZONE", sql)
		require.Equal(t, InvalidArgument, codeOf(t, err), sql)
	}
	for sql, want := range map[string]string{
		"SELECT (ts::TIMESTAMPTZ AT TIME ZONE 'America/New_York')::VARCHAR FROM x": "2019-12-31 19:00:00",
		"SELECT count(*) FROM x WHERE ts > '2020-01-01 02:00:00+02'":               "1",
		"SELECT count(*) FROM x WHERE ts > '2020-01-01 02:00:00.000000001+02'":     "0",
		"SELECT count(*) FROM x WHERE ts::TIMESTAMPTZ < now()":                     "1",
		"SELECT epoch_ns(ts) FROM x":                                               "1577836800000000001",
	} {
		rec := collectRows(t, e, sql, nil)
		require.Equal(t, want, printRows(rec)[0], sql)
		rec.Release()
	}
	one := paramsOf(c)
	rec := collectRows(t, e, "SELECT count(*) FROM x WHERE ts = ?", one)
	require.Equal(t, "1", printRows(rec)[0])
	rec.Release()
	rec = collectRows(t, e, "SELECT ?::TIMESTAMPTZ = TIMESTAMPTZ '2020-01-01 00:00:00+00'", one)
	require.Equal(t, "true", printRows(rec)[0])
	rec.Release()
}

// TestHalfFloatsAreExact converts every half float to a float and back.
func TestHalfFloatsAreExact(t *testing.T) {
	for h := range 1 << 16 {
		back, ok := narrowBits(widenBits(uint16(h)))
		require.True(t, ok)
		require.Equal(t, uint16(h), back)
	}
	_, ok := narrowBits(0x3DCCCCCD) // 0.1
	require.False(t, ok)
}

// TestOpaqueColumns carries values that SQL has no type for, and refuses to look into them.
func TestOpaqueColumns(t *testing.T) {
	s := &memStore{}
	wide := &arrow.Decimal256Type{Precision: 60, Scale: 2}
	in := arrow.StructOf(arrow.Field{Name: "d", Type: wide, Nullable: true}, arrow.Field{Name: "n", Type: arrow.PrimitiveTypes.Int32, Nullable: true})
	rec := typesTable(t, s, "x", []arrow.DataType{wide, arrow.PrimitiveTypes.Int8, in, arrow.BinaryTypes.Binary}, 10)
	e := newTestEngine(t, s)
	for _, sql := range []string{
		"SELECT c0 FROM x ORDER BY id", "SELECT c0 AS other FROM x WHERE c1 IS NULL OR id >= 0 ORDER BY id LIMIT 100",
		"SELECT b.c0 FROM x a LEFT JOIN x b ON a.id = b.id AND a.c1 IS NOT DISTINCT FROM b.c1 ORDER BY a.id", "SELECT a.c0 FROM x a JOIN x b USING (id) ORDER BY id",
		"WITH y AS (FROM x WHERE id < 5) SELECT c0 FROM (FROM y UNION ALL FROM x WHERE id >= 5) ORDER BY id",
		"SELECT c0 FROM (SELECT DISTINCT id, c0 FROM x) ORDER BY id", "SELECT c0 FROM (SELECT c0, min(id) AS i FROM x GROUP BY c0, id) ORDER BY i",
		"SELECT c0 FROM x WHERE id IN (SELECT id FROM x) ORDER BY id", "SELECT c0, count(c1) OVER (ORDER BY id) FROM x ORDER BY id",
	} {
		got := collectRows(t, e, sql, nil)
		requireColumn(t, rec, got, 1, 0, sql)
		got.Release()
	}
	for _, sql := range []string{
		"SELECT c0::VARCHAR FROM x", "SELECT c0 || c0 FROM x", "SELECT hex(c0) FROM x", "SELECT max(c0) FROM x", "SELECT count(c0) FROM x", "SELECT id FROM x ORDER BY c0",
		"SELECT id FROM x WHERE c0 IS NULL", "SELECT id FROM x WHERE c0 = c3", "SELECT a.id FROM x a JOIN x b ON a.c0 = b.c0", "SELECT a.id FROM x a JOIN x b ON a.id < b.id AND a.c0 < b.c0",
		"SELECT c0 FROM x UNION ALL SELECT c3 FROM x", "SELECT [c0] FROM x", "SELECT c2.n FROM x", "SELECT c2.d FROM x", "SELECT CASE WHEN id > 1 THEN c0 END FROM x",
		"SELECT id FROM x WHERE c0 IN (SELECT c0 FROM x)", "SELECT (SELECT c0 FROM x LIMIT 1)", "SELECT row_number() OVER (PARTITION BY c0) FROM x", "SELECT DISTINCT ON (c1) id FROM x ORDER BY c1, c0",
		"SELECT y.n FROM x, LATERAL (SELECT octet_length(x.c0) AS n) y", "WITH RECURSIVE y AS (SELECT id, c0 FROM x UNION ALL SELECT id + 100, c0 FROM y WHERE id < 3) SELECT hex(c0) FROM y",
		"WITH y AS MATERIALIZED (FROM x) SELECT hex(c0) FROM y", "SELECT unnest([c0]) FROM x", "PIVOT x ON c1 USING first(c0)", "SUMMARIZE x",
	} {
		_, err := tryRows(e, sql, nil)
		require.ErrorContains(t, err, `column "c`, sql)
		require.ErrorContains(t, err, "decimal256", sql)
		require.Equal(t, InvalidArgument, codeOf(t, err), sql)
	}
	collectRows(t, e, "SELECT id, c1, c3 FROM x", nil).Release()
	collectRows(t, e, "SELECT count(*) FROM x", nil).Release()
}

// TestInstantsOutOfRange fails rather than wrapping around.
func TestInstantsOutOfRange(t *testing.T) {
	s := &memStore{}
	b := array.NewTimestampBuilder(offheap.Default, &arrow.TimestampType{Unit: arrow.Second, TimeZone: "UTC"})
	b.Append(1 << 62)
	c := b.NewArray()
	defer c.Release()
	schema := arrow.NewSchema([]arrow.Field{{Name: "c", Type: c.DataType()}}, nil)
	s.add(t, "x", schema, nil, memMorsel{rec: array.NewRecordBatch(schema, []arrow.Array{c}, 1)})
	e := newTestEngine(t, s)
	_, err := tryRows(e, "SELECT c FROM x", nil)
	require.Error(t, err)
}
