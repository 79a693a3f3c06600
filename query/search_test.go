package query

import (
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// searchHarness is a table whose row i lies i from the origin: id, its remainder by 3 as a text, and the vector.
func searchHarness(t *testing.T) alterHarness {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR, v FLOAT[3], n INTEGER)")
	h.update("INSERT INTO docs SELECT i, 'x' || (i % 3), [i, 0, 0]::FLOAT[3], i FROM range(100) r(i)")
	return h
}

// TestVectorSearchInSQL searches wherever a table can stand.
func TestVectorSearchInSQL(t *testing.T) {
	h := searchHarness(t)
	f := func(sql string, want ...string) {
		t.Helper()
		require.Equal(t, want, h.rows(sql), sql)
	}
	f("SELECT id, _distance FROM lance_vector_search('docs', 'v', [5, 0, 0], k := 3)", "5 | 0", "4 | 1", "6 | 1")
	f("SELECT id, _distance FROM lance_vector_search('docs', 'v', [5.25, 0, 0]::FLOAT[3], k => 2)", "5 | 0.0625", "6 | 0.5625")
	f("SELECT count(*), max(_distance) FROM lance_vector_search('docs', 'v', [0, 0, 0]::DOUBLE[])", "10 | 81")
	f("FROM lance_vector_search('main.DOCS', 'V', [5, 0, 0], k := 1)", "5 | x2 | [5,0,0] | 5 | 0")
	f("SELECT id FROM lance_vector_search('docs', 'v', [1, 0, 0], k := 1000000000000)  LIMIT 2", "1", "0")
	f("SELECT a.id, b.id FROM lance_vector_search('docs', 'v', [5, 0, 0], k := 2) a, lance_vector_search('docs', 'v', [9, 0, 0], k := 2) b WHERE a.id = 4 AND b.id > 8", "4 | 9")
	f("WITH s AS (SELECT * FROM lance_vector_search('docs', 'v', [5, 0, 0], k := 2)) SELECT d.n FROM s JOIN docs d USING (id) ORDER BY ALL", "4", "5")
	f("SELECT n FROM docs WHERE id IN (SELECT id FROM lance_vector_search('docs', 'v', [7, 0, 0], k := 1))", "7")
	f("SELECT s.id FROM lance_vector_search('flightd.main.\"docs\"', 'v', [5, 0, 0], k := 2) AS s WHERE s._distance < 1", "5")
}

// TestVectorSearchTakesParameters binds vectors of all kinds, and numbers.
func TestVectorSearchTakesParameters(t *testing.T) {
	h := searchHarness(t)
	list := func(items arrow.Array) arrow.Array {
		b := array.NewListBuilder(memory.DefaultAllocator, items.DataType())
		b.Append(true)
		for i := range items.Len() {
			require.NoError(t, b.ValueBuilder().AppendValueFromString(items.ValueStr(i)))
		}
		return b.NewArray()
	}
	doubles := array.NewFloat64Builder(memory.DefaultAllocator)
	doubles.AppendValues([]float64{5, 0, 0}, nil)
	for _, v := range []arrow.Array{vectors(3, 5, 0, 0), list(doubles.NewArray()), list(int64s(5, 0, 0))} {
		st, err := h.e.Prepare(t.Context(), h.e.NewSession(), "SELECT id, _distance FROM lance_vector_search('docs', 'v', ?, k := ?) WHERE id <> ?")
		require.NoError(t, err, v.DataType())
		require.Equal(t, 3, st.ParameterSchema().NumFields())
		params := paramsOf(v, int64s(3), int64s(4))
		rec, err := tryRows(h.e, st.SQL(), params)
		require.NoError(t, err, v.DataType())
		require.Equal(t, []string{"5 | 0", "6 | 1"}, printRows(rec))
		rec.Release()
		params.Release()

		st, err = h.e.Prepare(t.Context(), h.e.NewSession(), "SELECT id, _distance FROM lance_vector_search('docs', 'v', ?, k := 1)")
		require.NoError(t, err, v.DataType())
		require.Equal(t, 1, st.ParameterSchema().NumFields())
		params = paramsOf(v)
		rec, err = tryRows(h.e, st.SQL(), params)
		require.NoError(t, err, v.DataType())
		require.Equal(t, []string{"5 | 0"}, printRows(rec))
		rec.Release()
		params.Release()
	}
}

// TestAPreparedSearchKnowsItsColumns has parameters of which DuckDB would have to know the values first. Clients take a statement without columns for
// an update.
func TestAPreparedSearchKnowsItsColumns(t *testing.T) {
	h := searchHarness(t)
	h.update("CREATE TABLE queries (id INTEGER PRIMARY KEY, q FLOAT[3])")
	f := func(want, sql string) {
		t.Helper()
		st, err := h.e.Prepare(t.Context(), h.e.NewSession(), sql)
		require.NoError(t, err, sql)
		require.False(t, st.IsUpdate())
		require.NotNil(t, st.DatasetSchema(), sql)
		var got []string
		for _, c := range st.DatasetSchema().Fields() {
			got = append(got, c.Name+" "+c.Type.String())
		}
		require.Equal(t, want, strings.Join(got, ", "), sql)
	}
	f("id int64, _distance float32", "SELECT id, _distance FROM lance_vector_search('docs', 'v', ?)")
	f("id int64, body utf8, v fixed_size_list<item: float32, nullable>[3], n int32, _distance float32", "FROM lance_vector_search('docs', 'v', $1::FLOAT[3], k := $2)")
	f("id int64", "SELECT s.id FROM lance_vector_search('docs', 'v', ?, k := ?, nprobs := ?, prefilter := true) s WHERE s.n > ? AND body LIKE ?")
	f("_query int32, id int64", "SELECT _query, id FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := ?, use_index := ?)")
	for _, open := range []string{
		"SELECT ?, id FROM lance_vector_search('docs', 'v', [1, 2, 3])", // its type is that of the value
		"SELECT id FROM lance_vector_search('docs', ?, ?)",
	} {
		st, err := h.e.Prepare(t.Context(), h.e.NewSession(), open)
		require.NoError(t, err, open)
		require.Nil(t, st.DatasetSchema(), open)
	}
}

// TestVectorSearchRefusesBadArguments asks for what cannot be, at the times when a client prepares and when it asks.
func TestVectorSearchRefusesBadArguments(t *testing.T) {
	h := searchHarness(t)
	f := func(code Code, message, args string) {
		t.Helper()
		_, err := h.e.Prepare(t.Context(), h.e.NewSession(), "FROM lance_vector_search("+args+")")
		require.ErrorContains(t, err, message, args)
		require.Equal(t, code, codeOf(t, err), "%s: %v", args, err)
	}
	f(InvalidArgument, `the query vector has 2 elements, those of column "v" have 3`, "'docs', 'v', [1, 2]")
	f(InvalidArgument, "element 2 of the query vector is NaN, and all have to be finite", "'docs', 'v', [1, 'nan'::FLOAT, 2]")
	f(InvalidArgument, "element 1 of the query vector is -Inf", "'docs', 'v', ['-inf'::FLOAT, 1, 2]")
	f(InvalidArgument, "element 3 of the query vector is NULL", "'docs', 'v', [1, 2, NULL]")
	f(InvalidArgument, "the query vector is NULL", "'docs', 'v', NULL")
	f(InvalidArgument, "k is 0, and has to be above 0", "'docs', 'v', [1, 2, 3], k := 0")
	f(InvalidArgument, "k is -3", "'docs', 'v', [1, 2, 3], k := -3")
	f(InvalidArgument, "k is NULL", "'docs', 'v', [1, 2, 3], k := NULL")
	f(InvalidArgument, "nprobs is 0", "'docs', 'v', [1, 2, 3], nprobs := 0")
	f(InvalidArgument, "refine_factor is -1", "'docs', 'v', [1, 2, 3], refine_factor := -1")
	f(InvalidArgument, `column "id" of table main.docs is BIGINT, not a vector; columns with vectors are "v"`, "'docs', 'id', [1, 2, 3]")
	f(InvalidArgument, `has no column "w"; columns with vectors are "v"`, "'docs', 'w', [1, 2, 3]")
	f(NotFound, `table "dcos" does not exist; did you mean "docs"?`, "'dcos', 'v', [1, 2, 3]")
	f(InvalidArgument, "the table's name is NULL", "NULL, 'v', [1, 2, 3]")
	f(InvalidArgument, "unknown metric", "'docs', 'v', [1, 2, 3], metric_type := 'l3'")
	f(InvalidArgument, "nprobs := NULL", "'docs', 'v', [1, 2, 3], nprobes := 3")
	f(InvalidArgument, "Candidate macros", "'docs', 'v'")
	f(InvalidArgument, "", "'docs', 'v', 'abc'")
	f(InvalidArgument, "cannot be searched", "'flightd_catalog.tables', 'v', [1, 2, 3]")
	for args, message := range map[string]string{
		"'docs', 'v', [0, 0, 0], metric_type := 'cosine'":  "the query is a zero vector",
		"'docs', 'v', [1, 2, 3], metric_type := 'hamming'": "metric hamming is not for column",
		"'docs', 'v', [1, 2], k := 1":                      "the query vector has 2 elements",
		"'none', 'v', [1, 2, 3], k := 1":                   "does not exist",
	} {
		_, err := tryRows(h.e, "FROM lance_vector_search("+args+")", nil)
		require.ErrorContains(t, err, message)
		require.NotEqual(t, Internal, codeOf(t, err), "%s: %v", args, err)
	}
	_, err := tryRows(h.e, "FROM flightd_vector_search('docs', 'v', [1, 2, 3])", nil)
	require.Equal(t, PermissionDenied, codeOf(t, err))
}

// TestVectorSearchKeepsTypes returns columns in the table's Arrow types, and vectors of other elements than float32.
func TestVectorSearchKeepsTypes(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE odd (id UBIGINT PRIMARY KEY, at_ TIMESTAMP_S, v DOUBLE[2], b UTINYINT[2])")
	h.update("INSERT INTO odd VALUES (1, '2020-01-01', [1, 0], [1, 255]), (2, NULL, [2, 2], [0, 0]), (3, NULL, NULL, NULL)")
	rec := collectRows(t, h.e, "FROM lance_vector_search('odd', 'v', [1, 1], k := 5)", nil)
	defer rec.Release()
	require.Equal(t, []string{"1 | 2020-01-01T00:00:00 | [1,0] | [1,255] | 1", "2 | NULL | [2,2] | [0,0] | 2"}, printRows(rec))
	require.Equal(t, "timestamp[s]", rec.Schema().Field(1).Type.String())
	require.Equal(t, []string{"2 | 0", "1 | 9"}, h.rows("SELECT id, _distance FROM lance_vector_search('odd', 'b', [0, 0])"))
	_, err := tryRows(h.e, "FROM lance_vector_search('odd', 'b', [0.5, 0])", nil)
	require.ErrorContains(t, err, "whole numbers from 0 to 255")
	require.Equal(t, InvalidArgument, codeOf(t, err))
}

// TestVectorSearchInViewsAndChanges keeps a search as a view, fills a table with one and deletes by one.
func TestVectorSearchInViewsAndChanges(t *testing.T) {
	h := searchHarness(t)
	h.update("CREATE VIEW near AS SELECT id, _distance FROM lance_vector_search('docs', 'v', [5, 0, 0], k := 3)")
	require.Equal(t, []string{"5 | 0", "4 | 1", "6 | 1"}, h.rows("FROM near"))
	h.update("CREATE TABLE found AS SELECT id FROM near")
	require.Equal(t, []string{"4", "5", "6"}, h.rows("SELECT id FROM found ORDER BY id"))
	_, err := runUpdate(h.e, "CREATE TABLE kept AS SELECT * FROM lance_vector_search('docs', 'v', [5, 0, 0], k := 3)", nil)
	require.ErrorContains(t, err, `a column "_distance", a name that is kept for what searches add to rows, and a table cannot have; name it otherwise (_distance AS distance), or leave it out: SELECT * EXCLUDE (_distance)`)
	require.Equal(t, InvalidArgument, codeOf(t, err))
	h.update("CREATE TABLE kept AS SELECT * EXCLUDE (_distance), _distance AS distance FROM lance_vector_search('docs', 'v', [5, 0, 0], k := 3)")
	h.update("DELETE FROM docs WHERE id IN (SELECT id FROM lance_vector_search('docs', 'v', [5, 0, 0], k := 1))")
	h.update("UPDATE docs SET v = [5.5, 0, 0] WHERE id = 90")
	require.Equal(t, []string{"90 | 0.25", "4 | 1", "6 | 1"}, h.rows("FROM near"))
	h.update("OPTIMIZE docs")
	require.Equal(t, []string{"90 | 0.25", "4 | 1", "6 | 1"}, h.rows("FROM near"))
	h.update("ALTER TABLE docs RENAME COLUMN body TO words")
	require.Equal(t, []string{"90 | x0"}, h.rows("SELECT id, words FROM lance_vector_search('docs', 'v', [5.5, 0, 0], k := 1)"))
	h.update("DROP TABLE docs")
	_, err = tryRows(h.e, "FROM near", nil)
	require.Equal(t, NotFound, codeOf(t, err), "%v", err)
}

// TestConditionsBeforeASearch compares searches with conditions before them with sorts of all rows that fulfil these, for conditions of every
// kind; they find k rows wherever so many fulfil them.
func TestConditionsBeforeASearch(t *testing.T) {
	h := searchHarness(t)
	h.update("CREATE INDEX by_n ON docs (n)")
	h.update("ALTER TABLE docs ADD COLUMN at_ TIMESTAMP")
	h.update("ALTER TABLE docs ADD COLUMN d DECIMAL(9, 2)")
	h.update("ALTER TABLE docs ADD COLUMN tags VARCHAR[]")
	h.update(`ALTER TABLE docs ADD COLUMN "odd c1" DATE`)
	h.update(`UPDATE docs SET at_ = TIMESTAMP '2020-01-01' + to_hours(id), d = id / 4, tags = ['t' || (id % 4), 'u'], "odd c1" = DATE '2020-01-01' + id::INTEGER`)
	h.update("DELETE FROM docs WHERE id % 10 = 1")
	for _, where := range []string{
		"body = 'x1'", "body LIKE 'x%' AND id % 7 = 3", "body LIKE '%2'", "id BETWEEN 20 AND 60 AND n <> 30", "n = 5 OR n = 80 OR n > 95", "id IN (3, 30, 90, 91)",
		"id IN (2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44)", "body NOT IN ('x0', 'x1') AND n > 50",
		"at_ > TIMESTAMP '2020-01-02 12:30:00'", "at_ - INTERVAL 3 DAYS >= TIMESTAMP '2020-01-01'", "d = 12.5 OR d > 20.25", "d * 2 > 10.5", `"odd c1" >= DATE '2020-02-01'`,
		"list_contains(tags, 't3')", "tags[1] = 't2'", "length(body) = 2 AND upper(body) = 'X2'", "CASE WHEN id > 50 THEN body = 'x1' ELSE body = 'x0' END",
		"body IS NOT DISTINCT FROM 'x2'", "coalesce(n, 3) = 3 OR n IS NULL OR NOT (n < 90)", "n + id > 150 AND n::VARCHAR LIKE '%9'", "id::DOUBLE / 3 > 20.1", "false", "n = 1e9::BIGINT",
		"v[1] > 50", "array_distance(v, [90, 0, 0]::FLOAT[3]) < 5", "body = 'c1' OR body = 'it''s' OR n > 97", "n % 2 = 0 AND d::VARCHAR <> '0.5'",
	} {
		got := h.rows("SELECT id, _distance FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 5, prefilter := true) WHERE " + where)
		want := h.rows("SELECT id, (array_distance(v, [40.2, 0, 0]::FLOAT[3]) ** 2)::FLOAT FROM docs WHERE (" + where + ") ORDER BY 2, id + 0 LIMIT 5")
		require.Equal(t, ids(want), ids(got), where)
	}
	f := func(sql string, want ...string) {
		t.Helper()
		require.Equal(t, want, h.rows(sql), sql)
	}
	f("SELECT id FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 3) WHERE body = 'x0'", "39", "42")
	f("SELECT id FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 3, prefilter := true) WHERE body = 'x0' AND _distance < 10", "39", "42")
	f("SELECT id FROM (SELECT * FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 3, prefilter := true)) s WHERE s.body = 'x0' AND s.n > 50", "54", "57", "60")
	f("SELECT count(*) FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 3, prefilter := true) WHERE random() < 2", "3")
	f("SELECT id FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 2, prefilter := true) WHERE body = 'x0' UNION ALL SELECT id FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 2, prefilter := true) WHERE body = 'x1'",
		"39", "42", "40", "43")
	f("SELECT a.id, o.n FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 2, prefilter := true) a JOIN docs o USING (id) WHERE a.body = 'x1' AND o.n > 0 ORDER BY 1", "40 | 40", "43 | 43")
	h.update("CREATE VIEW near AS SELECT * FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 2, prefilter := true)")
	f("SELECT id FROM near WHERE body = 'x0'", "39", "42")
	rec, err := tryRows(h.e, "SELECT id FROM lance_vector_search('docs', 'v', ?, k := ?, prefilter := true) WHERE body = ? AND n > ?",
		paramsOf(vectors(3, 40.2, 0, 0), int64s(2), texts("x0"), int64s(50)))
	require.NoError(t, err)
	require.Equal(t, []string{"54", "57"}, printRows(rec))
	rec.Release()
	require.Contains(t, explainLines(t, h.e, "FROM lance_vector_search('docs', 'v', [40.2, 0, 0], k := 2, prefilter := true) WHERE body = 'x0'", nil)[0], "nearest 2")
}

// ids returns the first columns.
func ids(rows []string) []string {
	out := []string{}
	for _, r := range rows {
		id, _, _ := strings.Cut(r, " ")
		out = append(out, id)
	}
	return out
}

// TestOrderByDistanceIsSearched compares what ORDER BY a distance LIMIT k finds with what it finds when it cannot be searched for, and
// looks whether it is.
func TestOrderByDistanceIsSearched(t *testing.T) {
	h := searchHarness(t)
	h.update("INSERT INTO docs (id, body) VALUES (200, 'x0'), (201, 'x1')")
	h.update("INSERT INTO docs SELECT 300 + i, 'y', [40, 1, i % 2]::FLOAT[3], i FROM range(20) r(i)")
	f := func(searched bool, sql string, params ...arrow.Array) {
		t.Helper()
		var rec arrow.RecordBatch
		if params != nil {
			rec = paramsOf(params...)
			defer rec.Release()
		}
		got, err := tryRows(h.e, sql, rec)
		require.NoError(t, err)
		defer got.Release()
		want, err := tryRows(h.e, strings.Replace(sql, "FROM docs", "FROM (SELECT DISTINCT ON (id) * FROM docs) docs", 1), rec)
		require.NoError(t, err)
		defer want.Release()
		require.Equal(t, printRows(want), printRows(got), sql)
		lines := strings.Join(explainLines(t, h.e, sql, rec), "\n")
		require.Equal(t, searched, strings.Contains(lines, "nearest"), "%s: %s", sql, lines)
	}
	f(true, "SELECT id, array_distance(v, [40.2, 0, 0]::FLOAT[3]) AS d FROM docs ORDER BY d, id LIMIT 7")
	f(true, "SELECT id FROM docs ORDER BY array_distance([40.2, 0, 0]::FLOAT[3], v), id LIMIT 7 OFFSET 3")
	f(true, "SELECT id, n FROM docs WHERE body LIKE 'x%' AND n % 2 = 0 ORDER BY array_distance(v, [40.2, 0, 0]::FLOAT[3]), id LIMIT 30")
	f(true, "SELECT id FROM docs WHERE body = 'y' ORDER BY v <-> [40, 0, 0]::FLOAT[3], id DESC LIMIT 5")
	f(true, "SELECT id FROM docs ORDER BY array_cosine_distance(v, [40, 1, 1]::FLOAT[3]), id LIMIT 4")
	f(true, "SELECT id FROM docs ORDER BY array_negative_inner_product(v, [40, 1, 1]::FLOAT[3]), id LIMIT 4")
	f(true, "SELECT id, array_distance(v, ?::FLOAT[3]) d FROM docs WHERE n > ? ORDER BY d, id LIMIT ?", vectors(3, 10, 0, 0), int64s(20), int64s(4))
	f(true, "SELECT sum(id) FROM (SELECT id FROM docs ORDER BY array_distance(v, [40.2, 0, 0]::FLOAT[3]), id LIMIT 7)")
	f(false, "SELECT id FROM docs ORDER BY array_distance(v, [40.2, 0, 0]::FLOAT[3]) DESC, id LIMIT 7")
	f(false, "SELECT id FROM docs ORDER BY array_distance(v, [40.2, 0, 0]::FLOAT[3]), id LIMIT 1000")
	f(false, "SELECT id FROM docs ORDER BY array_distance(v, [40.2, 0, 0]::FLOAT[3]) NULLS FIRST, id LIMIT 3")
	f(false, "SELECT id FROM docs ORDER BY array_distance(v, [40.2, 0, 0]::FLOAT[3]) + n, id LIMIT 3")
	f(false, "SELECT docs.id FROM docs JOIN (SELECT id FROM range(5) r(id)) o ON o.id = docs.id ORDER BY array_distance(v, [40.2, 0, 0]::FLOAT[3]), docs.id LIMIT 3")
	f(false, "SELECT id FROM docs WHERE body = 'x0' ORDER BY array_distance(v, [40.2, 0, 0]::FLOAT[3]), id LIMIT 60")
}
