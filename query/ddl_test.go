package query

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

func TestCreateTableDefines(t *testing.T) {
	s := &memStore{}
	e := newTestEngine(t, s)
	f := func(sql, schema string, key ...string) {
		t.Helper()
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err, sql)
		got := s.list[len(s.list)-1].info
		require.Equal(t, schema, describe(got.arrow), sql)
		require.Equal(t, key, got.key, sql)
		for _, field := range got.arrow.Fields() {
			mark, _ := field.Metadata.GetValue(keyMetadata)
			require.Equal(t, mark == "true", !field.Nullable && contains(key, field.Name), sql)
		}
		// The canonical text makes the same table again.
		_, err = runUpdate(e, "DROP TABLE "+got.qualified(), nil)
		require.NoError(t, err)
		_, err = runUpdate(e, got.sql, nil)
		require.NoError(t, err, got.sql)
		again := s.list[len(s.list)-1].info
		require.True(t, got.arrow.Equal(again.arrow), got.sql)
		require.Equal(t, got.sql, again.sql)
		require.NoError(t, s.drop(t.Context(), again.schema, again.name))
	}
	f("CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR, embedding FLOAT[384])",
		"id int64, body utf8, embedding fixed_size_list<item: float32, nullable>[384]", "id")
	f("create table flightd.main.t1 (a tinyint, b smallint, c int, d utinyint, e usmallint, f uinteger, g ubigint, h float, i double, j boolean);",
		"a int8, b int16, c int32, d uint8, e uint16, f uint32, g uint64, h float32, i float64, j bool")
	f("CREATE TABLE main.t2 (a DATE, b TIME, c TIMESTAMP, d TIMESTAMP_S, e TIMESTAMP_MS, f TIMESTAMP_NS, g TIMESTAMPTZ, h DECIMAL(12,3), i BLOB, k UTINYINT[784])",
		"a date32, b time64[us], c timestamp[us], d timestamp[s], e timestamp[ms], f timestamp[ns], g timestamp[us, tz=UTC], h decimal(12, 3), i binary, k fixed_size_list<item: uint8, nullable>[784]")
	f(`CREATE TABLE "Odd ""Name" ("b c" INTEGER NOT NULL DEFAULT 3 + 4, a VARCHAR DEFAULT 'it''s', PRIMARY KEY (a, "b c"))`, "b c int32, a utf8", "a", "b c")
	f("CREATE TABLE IF NOT EXISTS t3 (id VARCHAR PRIMARY KEY)\nWITH (shards = 1, durability = 'durable',\n index_mode = sync)", "id utf8", "id")
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func TestCreateAndDrop(t *testing.T) {
	s := &memStore{}
	e := newTestEngine(t, s)
	f := func(sql string) {
		t.Helper()
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err, sql)
	}
	f("CREATE TABLE t (a INT)")
	f("CREATE TABLE IF NOT EXISTS T (b VARCHAR)")
	require.Equal(t, "a int32", describe(s.list[0].info.arrow))
	f("DROP TABLE IF EXISTS nosuch")
	f("DROP TABLE IF EXISTS flightd.main.t CASCADE")
	require.Empty(t, s.list)
	f("CREATE TABLE t (b VARCHAR)")
	f("OPTIMIZE t")
	f("OPTIMIZE TABLE main.T;")
	f("CALL flightd_flush('t')")
	f("call FLIGHTD_FLUSH('main.\"t\"')")
	_, err := runUpdate(e, "OPTIMIZE nosuch", nil)
	require.Equal(t, NotFound, codeOf(t, err))
	require.Empty(t, printRows(collectRows(t, e, "FROM t", nil)))
}

func TestInsertMakesRows(t *testing.T) {
	s := &memStore{}
	e := newTestEngine(t, s)
	_, err := runUpdate(e, "CREATE TABLE t (id BIGINT PRIMARY KEY, n DECIMAL(10,2) DEFAULT 1.5, s VARCHAR NOT NULL DEFAULT upper('x'), v FLOAT[2], d DATE)", nil)
	require.NoError(t, err)
	f := func(sql string, rows int64, params arrow.RecordBatch) {
		t.Helper()
		n, err := runUpdate(e, sql, params)
		require.NoError(t, err, sql)
		require.Equal(t, rows, n, sql)
	}
	f("INSERT INTO t VALUES (1, 3.456, 'a', [1, 2], '2020-01-02'), (2, NULL, 'b', NULL, NULL);", 2, nil)
	f("INSERT INTO t (id) VALUES (1 + 2) -- three", 1, nil)
	f("INSERT INTO t (s, id) VALUES (DEFAULT, '4')", 1, nil)
	f("insert into flightd.main.T (id, v) values (?, ?)", 2, paramsOf(int64s(5, 6), vectors(2, 1, 2, 3, 4)))
	f("INSERT INTO t (id, s) VALUES ($key, $text || $text)", 1, paramsOf(int64s(7), texts("ab")))
	f("INSERT INTO t (id) VALUES (?)", 0, paramsOf(int64s()))
	rec := collectRows(t, e, "SELECT * FROM t ORDER BY id", nil)
	require.Equal(t, []string{
		"1 | 3.46 | a | [1,2] | 2020-01-02", "2 | NULL | b | NULL | NULL", "3 | 1.5 | X | NULL | NULL", "4 | 1.5 | X | NULL | NULL",
		"5 | 1.5 | X | [1,2] | NULL", "6 | 1.5 | X | [3,4] | NULL", "7 | 1.5 | abab | NULL | NULL",
	}, printRows(rec))
	rec.Release()

	for sql, params := range map[string]arrow.RecordBatch{
		"INSERT INTO t (id) VALUES (?)":                 paramsOf(texts("x")),
		"INSERT INTO t (id, s) VALUES (8, NULL)":        nil,
		"INSERT INTO t (id, v) VALUES (8, [1, 2, 3])":   nil,
		"INSERT INTO t (id) VALUES (?), (9)":            nil,
		"INSERT INTO t (id, n) VALUES (8, 99999999999)": nil,
	} {
		_, err := runUpdate(e, sql, params)
		require.Equal(t, InvalidArgument, codeOf(t, err), sql)
	}
	_, err = runUpdate(e, "INSERT INTO t (id) VALUES (?)", paramsOf(int64s(20, 21, 20)))
	require.Equal(t, AlreadyExists, codeOf(t, err))
	require.ErrorContains(t, err, "parameter row 3")
	require.Equal(t, []string{"7"}, printRows(collectRows(t, e, "SELECT count(*) FROM t", nil)))
}

// TestInsertKeepsArrowTypes inserts into tables that came as Arrow schemas, whose types SQL cannot write down.
func TestInsertKeepsArrowTypes(t *testing.T) {
	s := &memStore{}
	e := newTestEngine(t, s)
	fields := []arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}
	values := "1"
	for i, c := range []struct {
		dt    arrow.DataType
		value string
	}{
		{arrow.BinaryTypes.LargeString, "'abc'"}, {arrow.BinaryTypes.LargeBinary, `'\x00ab'::BLOB`}, {&arrow.FixedSizeBinaryType{ByteWidth: 2}, "'ab'::BLOB"},
		{arrow.FixedWidthTypes.Float16, "1.5"}, {arrow.FixedWidthTypes.Date64, "'2020-01-01 10:00:00'"}, {arrow.FixedWidthTypes.Time32s, "'10:00:01'"},
		{&arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}, "'2020-01-01 00:00:00.123456789'"},
		{&arrow.TimestampType{Unit: arrow.Second, TimeZone: "Europe/Berlin"}, "'2020-01-01 00:00:00+00'"},
		{arrow.FixedWidthTypes.Duration_ns, "77"}, {arrow.FixedSizeListOf(2, arrow.FixedWidthTypes.Float16), "[1, 2]"},
	} {
		fields = append(fields, arrow.Field{Name: string(rune('a' + i)), Type: c.dt, Nullable: true})
		values += ", " + c.value
	}
	schema := arrow.NewSchema(fields, nil)
	s.add(t, "x", schema, []string{"id"})
	n, err := runUpdate(e, "INSERT INTO x VALUES ("+values+"), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)", nil)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.True(t, schema.Equal(s.list[0].morsels[0].rec.Schema()))
	rec := collectRows(t, e, "SELECT * FROM x ORDER BY id", nil)
	for i, f := range schema.Fields() {
		require.True(t, arrow.TypeEqual(f.Type, rec.Schema().Field(i).Type))
	}
	require.Equal(t, `1 | abc | AGFi | YWI= | 1.5 | 2020-01-01 | 10:00:01 | 2020-01-01T00:00:00.123456789Z | 2020-01-01T01:00:00+01:00 | 77ns | [1,2]`, printRows(rec)[0])
	rec.Release()
	_, err = runUpdate(e, "INSERT INTO x (id, d) VALUES (3, 0.1)", nil)
	require.ErrorContains(t, err, `column "d"`)
	require.Equal(t, InvalidArgument, codeOf(t, err))
	_, err = runUpdate(e, "INSERT INTO x (id, c) VALUES (3, 'abc'::BLOB)", nil)
	require.ErrorContains(t, err, `column "c"`)
}

// TestTableSQL writes DDL for Arrow schemas that DuckDB understands.
func TestTableSQL(t *testing.T) {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: `a "b`, Type: arrow.PrimitiveTypes.Int64}, {Name: "select", Type: arrow.FixedSizeListOf(3, &arrow.TimestampType{Unit: arrow.Nanosecond}), Nullable: true},
		{Name: "d", Type: &arrow.Decimal256Type{Precision: 50}, Nullable: true},
	}, nil)
	require.Equal(t, `CREATE TABLE "main"."t"("a ""b" BIGINT NOT NULL, "select" TIMESTAMP_NS[3], "d" BLOB, PRIMARY KEY("a ""b"));`,
		tableSQL("main", "t", schema, []string{`a "b`}, nil))
}
