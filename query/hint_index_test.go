package query

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// TestIndexedColumnsArePushed looks at what scans are asked for by conditions on columns that have an index.
func TestIndexedColumnsArePushed(t *testing.T) {
	h := newAlterHarness(t)
	for _, sql := range []string{
		"CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR, n INTEGER, f DOUBLE, d DATE, other INTEGER)", "CREATE TABLE log (n INTEGER, f FLOAT)",
		"INSERT INTO t SELECT i, 's' || i, i, i / 4, DATE '2020-01-01' + i::INTEGER, i FROM range(100) r(i)", "INSERT INTO log SELECT i, i FROM range(10) r(i)",
		"CREATE INDEX by_s ON t (s)", "CREATE INDEX by_n ON t (n)", "CREATE INDEX by_f ON t (f)", "CREATE INDEX by_d ON t (d)", "CREATE INDEX log_n ON log (n)", "CREATE INDEX log_f ON log (f)",
	} {
		h.update(sql)
	}
	f := func(where, want string, params ...arrow.Array) {
		t.Helper()
		var rec arrow.RecordBatch
		if params != nil {
			rec = paramsOf(params...)
			defer rec.Release()
		}
		require.Contains(t, explainLines(t, h.e, "FROM t WHERE "+where, rec)[0]+";", "main.t: "+want+";", where)
	}
	f("s = 's5'", "1 point and 0 ranges of s (index by_s)")
	f("'s5' = s AND other = 3", "1 point and 0 ranges of s (index by_s)")
	f("s IN ('a', 'b', 'c')", "3 points and 0 ranges of s (index by_s)")
	f("s LIKE 's1%'", "0 points and 1 range of s (index by_s)")
	f("starts_with(s, 's1')", "0 points and 1 range of s (index by_s)")
	f("n BETWEEN 3 AND 5", "0 points and 1 range of n (index by_n)")
	f("n > 3 AND n <= 9", "0 points and 1 range of n (index by_n)")
	f("n = 3 OR n > 90", "1 point and 1 range of n (index by_n)")
	f("f >= 2.5", "0 points and 3 ranges of f (index by_f)") // a range of floats is several of their bits
	f("f = 3", "1 point and 0 ranges of f (index by_f)")
	f("d = DATE '2020-01-05'", "1 point and 0 ranges of d (index by_d)")
	f("n > 5 AND s = 's9'", "1 point and 0 ranges of s (index by_s)")
	f("n > 5 AND d BETWEEN DATE '2020-01-05' AND DATE '2020-01-06'", "0 points and 1 range of d (index by_d)")
	f("n = 5 AND id = 5", "1 point and 0 ranges of the key (id)")
	f("n = ?", "1 point and 0 ranges of n (index by_n)", int64s(7))
	f("s IN (?, ?)", "2 points and 0 ranges of s (index by_s)", texts("a"), texts("b"))
	f("n < ? + 1", "0 points and 1 range of n (index by_n)", int64s(7))
	f("id = ? * 2 AND s <> ?", "1 point and 0 ranges of the key (id)", int64s(7), texts("x"))
	f("id = $b + $a", "1 point and 0 ranges of the key (id)", int64s(7), int64s(8))
	f("s LIKE ? || '%'", "0 points and 1 range of s (index by_s)", texts("s4"))
	for _, where := range []string{"other = 5", "n IS NULL", "n <> 5", "n = 5 OR other = 5", "n + 1 = 5 + random()", "s LIKE '%5'", "f::VARCHAR = '2.5'"} {
		f(where, "full scan")
	}
	require.Contains(t, explainLines(t, h.e, "FROM log WHERE n = 5", nil)[0], "main.log: 1 point and 0 ranges of n (index log_n)")
	require.Contains(t, explainLines(t, h.e, "FROM log WHERE f > 5", nil)[0], "of f (index log_f)")
	h.update("DROP INDEX by_n")
	f("n = 5", "full scan")
}

// TestParametersInExpressions compares queries whose parameters stand in expressions with those that have the values.
func TestParametersInExpressions(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR, f DOUBLE, d DATE, ts TIMESTAMPTZ)")
	h.update("INSERT INTO t SELECT i, 's''' || i, i / 8, DATE '2020-01-01' + i::INTEGER, TIMESTAMPTZ '2020-01-01 00:00:00+00' + INTERVAL (i) HOUR FROM range(200) r(i)")
	for _, c := range []string{"s", "f", "d", "ts"} {
		h.update(fmt.Sprintf("CREATE INDEX by_%s ON t (%s)", c, c))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ where, value string }{
		{"id < ? + 1", "%d"}, {"id / ? = 3", "%d"}, {"id = ? / 2 + 1", "%d"}, {"s = 's''' || ?", "'%d'"}, {"f BETWEEN ?::DOUBLE / 3 AND ?::DOUBLE / 2", "%d"},
		{"d = DATE '2020-01-01' + ?::INTEGER", "%d"}, {"ts > TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_hours(?)", "%d"}, {"id = coalesce(?, 5) OR id = ? - 3", "%d"},
	} {
		st, err := h.e.Prepare(t.Context(), h.e.NewSession(), "SELECT id FROM t WHERE "+c.where+" ORDER BY id")
		require.NoError(t, err, c.where)
		for range 4 {
			n := int64(r.IntN(150) + 1)
			var columns []arrow.Array
			for range st.ParameterSchema().NumFields() {
				if c.value == "%d" {
					columns = append(columns, int64s(n))
				} else {
					columns = append(columns, texts(fmt.Sprint(n)))
				}
			}
			params := paramsOf(columns...)
			got := collectRows(t, h.e, st.SQL(), params)
			text, ok := run{params: params}.withValues(st.SQL())
			require.True(t, ok)
			want := collectRows(t, h.e, text, nil)
			require.Equal(t, printRows(want), printRows(got), "%s with %d", c.where, n)
			got.Release()
			want.Release()
			params.Release()
		}
	}
}

// TestValuesAreWrittenToTheBit writes values of all types as SQL and reads them again.
func TestValuesAreWrittenToTheBit(t *testing.T) {
	h := newAlterHarness(t)
	f := func(a arrow.Array) {
		t.Helper()
		defer a.Release()
		for row := range a.Len() {
			text, ok := valueText(a, row)
			require.True(t, ok, "%s %s", a.DataType(), a.ValueStr(row))
			params := paramsOf(array.NewSlice(a, int64(row), int64(row)+1))
			rec := collectRows(t, h.e, "SELECT ? IS NOT DISTINCT FROM "+text+", typeof(?1) = typeof("+text+")", params)
			require.Equal(t, []string{"true | true"}, printRows(rec), "%s %s: %s", a.DataType(), a.ValueStr(row), text)
			rec.Release()
			params.Release()
		}
	}
	of := func(dt arrow.DataType, values ...string) arrow.Array {
		b := array.NewBuilder(memory.DefaultAllocator, dt)
		defer b.Release()
		for _, v := range values {
			require.NoError(t, b.AppendValueFromString(v))
		}
		b.AppendNull()
		return b.NewArray()
	}
	f(of(arrow.PrimitiveTypes.Int64, "-9223372036854775808", "9223372036854775807", "0"))
	f(of(arrow.PrimitiveTypes.Uint64, "18446744073709551615"))
	f(of(arrow.PrimitiveTypes.Int8, "-128"))
	f(of(arrow.PrimitiveTypes.Float64, "0.1", "0.30000000000000004", "-1e-320", "1.7976931348623157e308", "5e-324", "123456789.12345679"))
	f(of(arrow.PrimitiveTypes.Float32, "0.1", "3.4028235e38", "1e-45", "16777217"))
	f(of(arrow.BinaryTypes.String, "", "it's", "é\n\\x41", "$1 ? --"))
	f(of(arrow.BinaryTypes.LargeString, "x"))
	f(of(arrow.FixedWidthTypes.Boolean, "true", "false"))
	f(of(&arrow.Decimal128Type{Precision: 38, Scale: 3}, "-12345678901234567890123456789012345.678", "0.001"))
	f(of(arrow.PrimitiveTypes.Date32, "1969-12-31", "2020-02-29"))
	f(of(arrow.FixedWidthTypes.Timestamp_us, "2020-01-01 00:00:00.000001Z", "1600-01-01 00:00:00Z"))
	f(of(&arrow.TimestampType{Unit: arrow.Microsecond}, "2020-01-01 00:00:00.000001"))
	_, ok := valueText(texts("a\x00b"), 0)
	require.False(t, ok)
}
