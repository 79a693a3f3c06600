package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// explainLines returns what EXPLAIN says of the scans of a query.
func explainLines(t testing.TB, e *Engine, sql string, params arrow.RecordBatch) []string {
	t.Helper()
	rec := collectRows(t, e, "EXPLAIN "+sql, params)
	defer rec.Release()
	n := int(rec.NumRows()) - 1
	require.Equal(t, explainKey, rec.Column(0).ValueStr(n), sql)
	return strings.Split(rec.Column(1).ValueStr(n), "\n")
}

// TestExplainTellsWhatScansAreAskedFor looks at what is pushed into the scans of queries of many forms.
func TestExplainTellsWhatScansAreAskedFor(t *testing.T) {
	p := newPair(t)
	for _, sql := range []string{
		"CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR)",
		"CREATE TABLE u (a VARCHAR, b INTEGER, v DOUBLE, PRIMARY KEY (a, b))",
		"CREATE TABLE k (id BIGINT)",
		"INSERT INTO t SELECT i, 's' || i FROM range(5000) r(i)",
		"INSERT INTO u SELECT 'a' || i % 10, i, i FROM range(1000) r(i)",
	} {
		p.run(sql)
	}
	p.maintain("OPTIMIZE t")
	p.run("UPDATE t SET s = 'new' WHERE id IN (7, 8)")
	f := func(sql string, want ...string) {
		t.Helper()
		require.Equal(t, want, explainLines(t, p.e, sql, nil), sql)
	}
	const all = "main.t: full scan; base, 1 fragment: full scan, 5000 rows; 1 memtable: full scan, 2 rows"
	one := func(rows int) string {
		return fmt.Sprintf("main.t: 1 point and 0 ranges of the key (id); 1 memtable: key index, 0 rows; base: key index, %s", count(rows, "row"))
	}
	f("FROM t", all)
	f("FROM t WHERE id = 5", one(1))
	f("FROM t WHERE 5 = id AND s = 'x'", one(1))
	f("FROM t WHERE id = '5'", one(1))
	f("FROM t WHERE id IS NOT DISTINCT FROM 5", one(1))
	f("FROM t WHERE id = 50000", one(0))
	f("FROM t WHERE id = 7", "main.t: 1 point and 0 ranges of the key (id); 1 memtable: key index, 1 row")
	f("FROM t WHERE id = 5 OR id = 6 AND s = 'x'", "main.t: 2 points and 0 ranges of the key (id); 1 memtable: key index, 0 rows; base: key index, 2 rows")
	f("FROM t WHERE id IN (1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20)", "main.t: 20 points and 0 ranges of the key (id); 1 memtable: key index, 2 rows; base: key index, 18 rows")
	f("FROM t WHERE id IN (1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20) OR id BETWEEN 100 AND 109", "main.t: 20 points and 1 range of the key (id); base: key index, 30 rows; 1 memtable: key index, 2 rows")
	f("FROM t WHERE id BETWEEN 100 AND 109", "main.t: 0 points and 1 range of the key (id); base: key index, 10 rows; 1 memtable: key index, 0 rows")
	f("FROM t WHERE id >= 4990 AND NOT (id > 4995)", "main.t: 0 points and 1 range of the key (id); base: key index, 6 rows; 1 memtable: key index, 0 rows")
	f("FROM t WHERE id > 10", "main.t: 0 points and 1 range of the key (id); base, 1 fragment: full scan, 5000 rows; 1 memtable: key index, 0 rows")
	for _, where := range []string{"s = 's5'", "id = 5 OR s = 'x'", "id::DOUBLE = 5.0", "id + 1 = 5 + random()", "id <> 5", "id NOT IN (1, 2, 3, 4, 5, 6, 7, 8)", "id IS NOT NULL", "id % 2 = 1"} {
		f("FROM t WHERE "+where, all)
	}
	f("FROM t a, t b WHERE a.id = 5 AND b.s = 'x'", one(1), all)
	f("FROM t b, t a WHERE a.id = 5 AND b.s = 'x'", all, one(1))
	f("FROM t a JOIN t b USING (id) WHERE a.id = 5", one(1), one(1))
	const high = "main.t: 0 points and 1 range of the key (id); base: key index, 1 row; 1 memtable: key index, 0 rows"
	f("FROM t a LEFT JOIN t b ON a.id = b.id AND b.s = 'x' WHERE a.id > 4998", high, high)
	f("FROM t a LEFT JOIN t b ON a.s = b.s AND b.id > 4998 WHERE a.id = 5", one(1), high)
	f("FROM t a LEFT JOIN t b ON a.s = b.s WHERE b.id IS NULL OR b.id = 5", all, all)
	f("FROM t a FULL JOIN t b ON a.s = b.s WHERE a.id = 5 OR b.id = 5", all, all)
	f("FROM (SELECT id, count(*) AS n FROM t GROUP BY id) WHERE id = 5", one(1))
	f("FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM t) WHERE id = 5", all)
	f("FROM (FROM t LIMIT 10) WHERE id = 5", all)
	f("WITH c AS MATERIALIZED (FROM t) FROM c a, c b WHERE a.id = 5 AND b.id = 7", "main.t: 2 points and 0 ranges of the key (id); 1 memtable: key index, 1 row; base: key index, 1 row")
	f("SELECT id, (SELECT max(v) FROM u WHERE u.a = t.s AND u.b = 5) FROM t WHERE id = 5", one(1), "main.u: full scan; 1 memtable: full scan, 1000 rows")
	f("FROM u WHERE a = 'a3' AND b = 13", "main.u: 1 point and 0 ranges of the key (a, b); 1 memtable: key index, 1 row")
	f("FROM u WHERE (a, b) IN (('a3', 13), ('a4', 13))", "main.u: 2 points and 0 ranges of the key (a, b); 1 memtable: key index, 1 row")
	f("FROM u WHERE a = 'a3'", "main.u: 0 points and 1 range of the key (a, b); 1 memtable: key index, 100 rows")
	f("FROM u WHERE a IN ('a3', 'a4') AND b BETWEEN 500 AND 519", "main.u: 0 points and 2 ranges of the key (a, b); 1 memtable: key index, 4 rows")
	f("FROM u WHERE a LIKE 'a3%'", "main.u: 0 points and 1 range of the key (a, b); 1 memtable: key index, 100 rows")
	f("FROM u WHERE b = 13", "main.u: full scan; 1 memtable: full scan, 1000 rows")
	f("FROM k WHERE id = 5", "main.k: full scan")
	params := paramsOf(int64s(5))
	defer params.Release()
	require.Equal(t, []string{one(1)}, explainLines(t, p.e, "FROM t WHERE id = ?", params))
	p.run("CREATE TABLE w (k UUID PRIMARY KEY)")
	p.run("INSERT INTO w VALUES ('8234abcd-0000-4000-8000-0000000000ff'), ('7234abcd-0000-4000-8000-0000000000ff')")
	f("FROM w WHERE k = '8234abcd-0000-4000-8000-0000000000ff'", "main.w: 1 point and 0 ranges of the key (k); 1 memtable: key index, 1 row")
	f("FROM w WHERE k < '8234abcd-0000-4000-8000-0000000000ff'", "main.w: 0 points and 1 range of the key (k); 1 memtable: key index, 1 row")
}

// filterKinds are keys of all types: the column's type, and how a number becomes a value of it, in order.
var filterKinds = []struct{ typ, value string }{
	{"BIGINT", "(%d)"}, {"TINYINT", "(%d)"}, {"UBIGINT", "(%d + 100)::UBIGINT * 100000000000000000"}, {"DATE", "DATE '2020-01-01' + (%d)"},
	{"TIMESTAMP", "TIMESTAMP '2020-01-01' + INTERVAL (%d) SECOND"}, {"TIMESTAMPTZ", "TIMESTAMPTZ '1969-12-31 23:59:59+00' + INTERVAL (%d) HOUR"},
	{"TIMESTAMP_NS", "(TIMESTAMP '2020-01-01' + INTERVAL (%d) SECOND)::TIMESTAMP_NS"}, {"TIMESTAMP_S", "(TIMESTAMP '2020-01-01' + INTERVAL (%d) SECOND)::TIMESTAMP_S"},
	{"DECIMAL(9,2)", "((%d) / 4)::DECIMAL(9,2)"}, {"DECIMAL(38,3)", "((%d)::DECIMAL(38,3) * 1000000000000000000)"}, {"VARCHAR", "format('{:04d}é', (%d) + 100)"},
	{"UUID", "format('{:02x}34abcd-0000-4000-8000-0000000000ff', (%d) + 100)::UUID"},
	{"BLOB", "('\\x00\\xFF'::BLOB || encode(format('{:04d}', (%d) + 100)))"},
	{"DOUBLE", "((%d) / 8)::DOUBLE"}, {"FLOAT", "((%d) / 3)::FLOAT"},
}

// keyKinds are how many of them can be keys, from the first.
const keyKinds = 13

// filterMaker writes random conditions on a table t with a key of one column, or of two.
type filterMaker struct {
	r     *rand.Rand
	kinds []int
}

func (m filterMaker) value(column int) string {
	return fmt.Sprintf(filterKinds[m.kinds[column]].value, m.r.IntN(120)-60)
}

// atom is a comparison.
func (m filterMaker) atom() string {
	c := m.r.IntN(len(m.kinds))
	name := fmt.Sprintf("t.k%d", c)
	switch m.r.IntN(9) {
	case 0:
		return fmt.Sprintf("%s BETWEEN %s AND %s", name, m.value(c), m.value(c))
	case 1:
		values := make([]string, 1+m.r.IntN(12))
		for i := range values {
			values[i] = m.value(c)
		}
		return fmt.Sprintf("%s IN (%s)", name, strings.Join(values, ", "))
	case 2:
		return []string{"t.n % 3 = 1", "t.n > 10", "t.n IS NULL", name + " IS NOT NULL", "NULL = " + name}[m.r.IntN(5)]
	case 3:
		return fmt.Sprintf("%s IS NOT DISTINCT FROM %s", name, m.value(c))
	}
	ops := []string{"=", "=", "<", "<=", ">", ">="}
	return fmt.Sprintf("%s %s %s", name, ops[m.r.IntN(len(ops))], m.value(c))
}

// condition is a combination of comparisons.
func (m filterMaker) condition(depth int) string {
	if depth == 0 || m.r.IntN(3) == 0 {
		return m.atom()
	}
	op := []string{" AND ", " AND ", " OR "}[m.r.IntN(3)]
	text := "(" + m.condition(depth-1) + op + m.condition(depth-1) + ")"
	if m.r.IntN(6) == 0 {
		return "NOT " + text
	}
	return text
}

// query is a query with a condition somewhere in it.
func (m filterMaker) query() string {
	c := m.condition(2)
	other := strings.ReplaceAll(m.condition(1), "t.", "b.")
	switch m.r.IntN(8) {
	case 0:
		return fmt.Sprintf("SELECT count(*), sum(t.n) FROM t WHERE %s", c)
	case 1:
		return fmt.Sprintf("SELECT t.n, b.n FROM t JOIN t b ON t.n = b.n WHERE %s AND %s", c, other)
	case 2:
		return fmt.Sprintf("SELECT t.n, b.n FROM t LEFT JOIN t b ON t.k0 = b.k0 AND %s WHERE %s", other, c)
	case 3:
		return fmt.Sprintf("WITH c AS (FROM t) SELECT t.n, b.n FROM c t, c b WHERE t.n + 1 = b.n AND %s AND %s", c, other)
	case 4:
		return fmt.Sprintf("SELECT n FROM t WHERE EXISTS (FROM t b WHERE b.k0 = t.k0 AND %s) OR %s", other, c)
	case 5:
		return fmt.Sprintf("SELECT t.n FROM t WHERE %s UNION ALL SELECT b.n FROM t b WHERE %s", c, other)
	}
	return fmt.Sprintf("SELECT * FROM t WHERE %s", c)
}

// TestRandomFilters compares queries with random conditions on keys of all types with a DuckDB of its own, on rows in
// all layers.
func TestRandomFilters(t *testing.T) {
	p := newPair(t)
	for i := range keyKinds {
		m := filterMaker{rowMaker{}.seeded(uint64(i) + 5), []int{i}}
		columns, key, values := "k0 "+filterKinds[i].typ, "k0", fmt.Sprintf(strings.Replace(filterKinds[i].value, "%d", "%s", 1), "i")
		if i%2 == 1 {
			m.kinds = append(m.kinds, (i+3)%keyKinds)
			columns += ", k1 " + filterKinds[m.kinds[1]].typ
			key += ", k1"
			values += ", " + fmt.Sprintf(strings.Replace(filterKinds[m.kinds[1]].value, "%d", "%s", 1), "i % 7")
		}
		insert := fmt.Sprintf("INSERT INTO t SELECT %s, i FROM range(%%d, %%d) r(i)", values)
		p.run(fmt.Sprintf("CREATE OR REPLACE TABLE t (%s, n BIGINT, PRIMARY KEY (%s))", columns, key))
		p.run(fmt.Sprintf(insert, -50, 0))
		p.maintain("OPTIMIZE t")
		p.run(fmt.Sprintf(insert, 0, 30))
		p.run("UPDATE t SET n = n + 1000 WHERE n % 5 = 0")
		if i%3 == 0 {
			p.reopen(t)
		}
		p.run("DELETE FROM t WHERE n % 7 = 1")
		for range 25 {
			sql := m.query()
			p.same(sql, filterKinds[i].typ)
		}
		p.run("DELETE FROM t WHERE " + m.condition(1))
		p.run("UPDATE t SET n = -n WHERE " + m.condition(1))
		p.same("FROM t", "changes of "+filterKinds[i].typ)
	}
}

// TestRandomIndexFilters is TestRandomFilters for columns that have an index and are no key, with nulls in them.
func TestRandomIndexFilters(t *testing.T) {
	p := newPair(t)
	for i := range filterKinds {
		m := filterMaker{rowMaker{}.seeded(uint64(i) + 50), []int{i, (i + 4) % len(filterKinds)}}
		if slices.ContainsFunc(m.kinds, func(k int) bool { return filterKinds[k].typ == "UUID" }) {
			continue // columns that are no key come as Arrow's type, which prints otherwise than the twin's
		}
		var columns, values string
		for c, kind := range m.kinds {
			columns += fmt.Sprintf(", k%d %s", c, filterKinds[kind].typ)
			value := fmt.Sprintf(strings.Replace(filterKinds[kind].value, "%d", "%s", 1), []string{"i", "i % 7"}[c])
			values += fmt.Sprintf(", CASE WHEN i %% %d = 3 THEN NULL ELSE %s END", 9+c, value)
		}
		insert := "INSERT INTO t SELECT i" + strings.ReplaceAll(values, "%", "%%") + " FROM range(%d, %d) r(i)"
		p.run("CREATE OR REPLACE TABLE t (n BIGINT PRIMARY KEY" + columns + ")")
		p.run(fmt.Sprintf(insert, -50, -20))
		p.maintain("CREATE INDEX i0 ON t (k0)")
		p.run(fmt.Sprintf(insert, -20, 0))
		p.maintain("OPTIMIZE t")
		p.run(fmt.Sprintf(insert, 0, 30))
		p.maintain("CREATE INDEX i1 ON t (k1)")
		p.run("UPDATE t SET k0 = k0, k1 = NULL WHERE n % 5 = 0")
		if i%3 == 0 {
			p.reopen(t)
		}
		p.run("DELETE FROM t WHERE n % 7 = 1")
		for range 15 {
			p.same(m.query(), filterKinds[i].typ)
		}
		if i%4 == 0 {
			p.maintain("DROP INDEX i0 ON t")
		}
		p.run("DELETE FROM t WHERE " + m.condition(1))
		p.run("UPDATE t SET k1 = k1 WHERE " + m.condition(1))
		p.same("FROM t", "changes of "+filterKinds[i].typ)
	}
}

// TestFiltersOfParameters binds parameters of the column's type and of others, nulls among them, over and over: later
// runs take the plan from the cache.
func TestFiltersOfParameters(t *testing.T) {
	p := newPair(t)
	for _, sql := range []string{
		"CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR)", "INSERT INTO t SELECT i, 's' || i FROM range(-300, 300) r(i)",
		"CREATE TABLE z (ts TIMESTAMPTZ PRIMARY KEY, d DATE)", "INSERT INTO z SELECT TIMESTAMPTZ '2020-01-01 00:00:00+00' + INTERVAL (i) SECOND, DATE '2020-01-01' + i::INT FROM range(100) r(i)",
	} {
		p.run(sql)
	}
	one := func(dt arrow.DataType, values ...string) arrow.Array {
		b := array.NewBuilder(memory.DefaultAllocator, dt)
		defer b.Release()
		for _, v := range values {
			require.NoError(t, b.AppendValueFromString(v))
		}
		return b.NewArray()
	}
	long, short, text := arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Int16, arrow.BinaryTypes.String
	f := func(sql string, want int64, values ...arrow.Array) {
		t.Helper()
		params := paramsOf(values...)
		defer params.Release()
		for range 4 {
			rec, err := tryRows(p.e, sql, params)
			require.NoError(t, err, sql)
			require.Equal(t, want, rec.NumRows(), sql)
			rec.Release()
		}
	}
	f("FROM t WHERE id = ?", 1, one(long, "5"))
	f("FROM t WHERE id = ?", 1, one(long, "6"))
	f("FROM t WHERE id = ?", 1, one(short, "-6"))
	f("FROM t WHERE id = ?", 0, one(arrow.PrimitiveTypes.Uint64, "18446744073709551615"))
	f("FROM t WHERE id = ?", 1, one(arrow.PrimitiveTypes.Float64, "7"))
	f("FROM t WHERE id = ?", 0, one(arrow.PrimitiveTypes.Float64, "7.5"))
	f("FROM t WHERE id = ?", 1, one(text, "8"))
	f("FROM t WHERE id = ?", 0, one(long, "(null)"))
	f("FROM t WHERE id = ? OR ? = 1", 600, one(long, "3"), one(long, "1"))
	f("FROM t WHERE id BETWEEN $2 AND $1", 11, one(long, "20"), one(short, "10"))
	f("FROM t WHERE id IN (?, ?, 4)", 3, one(long, "2"), one(long, "3"))
	f("FROM t WHERE id >= ? AND id < ? + 1", 3, one(long, "297"), one(long, "1000"))
	f("FROM t WHERE id < ?", 300, one(arrow.PrimitiveTypes.Uint64, "0"))
	f("FROM t WHERE id > ?", 0, one(arrow.PrimitiveTypes.Uint64, "18446744073709551615"))
	zoned := &arrow.TimestampType{Unit: arrow.Second, TimeZone: "Europe/Berlin"}
	p.run("CREATE TABLE w (k UUID PRIMARY KEY)")
	p.run("INSERT INTO w SELECT format('{:02x}34ABCD-0000-4000-8000-0000000000ff', i)::UUID FROM range(100, 150) r(i)")
	f("FROM w WHERE k = ?", 1, one(text, "8234abcd-0000-4000-8000-0000000000ff"))
	f("FROM w WHERE k = ?", 1, one(text, "7F34ABCD-0000-4000-8000-0000000000FF"))
	f("FROM z WHERE ts = ?", 1, one(zoned, "2020-01-01 00:00:07Z"))
	f("FROM z WHERE ts >= ?", 10, one(&arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}, "2020-01-01 00:01:29.500Z"))
	f("FROM z WHERE ts < ?", 2, one(&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, "2020-01-01 00:00:02Z"))
	f("FROM z WHERE ts < ?", 2, one(&arrow.TimestampType{Unit: arrow.Microsecond}, "2020-01-01 00:00:02"))
}

// TestFiltersOfTheMoment asks for rows up to now: what now is must not be remembered.
func TestFiltersOfTheMoment(t *testing.T) {
	p := newPair(t)
	p.run("CREATE TABLE z (ts TIMESTAMPTZ PRIMARY KEY)")
	for i := range 6 {
		_, err := runUpdate(p.e, "INSERT INTO z SELECT now()", nil)
		require.NoError(t, err)
		rec := collectRows(t, p.e, "SELECT count(*) FROM z WHERE ts <= now()", nil)
		require.Equal(t, []string{fmt.Sprint(i + 1)}, printRows(rec))
		rec.Release()
	}
}
