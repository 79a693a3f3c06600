package query

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// batchHarness is searchHarness with a table of queries: name qN asks for what is near [N.2, 0, 0].
func batchHarness(t *testing.T, n int) alterHarness {
	h := searchHarness(t)
	h.update("CREATE TABLE queries (id INTEGER PRIMARY KEY, name VARCHAR, q FLOAT[3], l DOUBLE[], w BIGINT[])")
	h.update(fmt.Sprintf("INSERT INTO queries SELECT i, 'q' || i, [i + 0.2, 0, 0]::FLOAT[3], [i + 0.2, 0, 0], [i, 0, 0] FROM range(%d) r(i)", n))
	return h
}

// TestBatchSearchFindsWhatSearchesOneByOneFind compares rows and distances, with queries in all layers, some of them changed, gone or without a
// vector, and more of them than a block.
func TestBatchSearchFindsWhatSearchesOneByOneFind(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR, v FLOAT[3])")
	h.update("INSERT INTO docs SELECT i, 'x' || i, [sin(i), cos(i * 7), sin(i * i)]::FLOAT[3] FROM range(300) r(i)")
	h.update("CREATE TABLE queries (id BIGINT PRIMARY KEY, q FLOAT[3])")
	h.update("INSERT INTO queries SELECT i, [cos(i), sin(i * 3), cos(i * i)]::FLOAT[3] FROM range(500) r(i)")
	h.update("OPTIMIZE queries")
	h.update("OPTIMIZE docs")
	h.update("INSERT INTO queries SELECT i, [sin(i), sin(i * 3), cos(i * i)]::FLOAT[3] FROM range(500, 700) r(i)")
	h.update("DELETE FROM queries WHERE id % 10 = 3")
	h.update("UPDATE queries SET q = NULL WHERE id % 100 = 7")
	h.update("UPDATE queries SET q = [id / 700, 0, 0]::FLOAT[3] WHERE id % 100 = 20")
	h.update("UPDATE docs SET v = [0.5, 0, 0] WHERE id = 5")
	h.update("DELETE FROM docs WHERE id % 50 = 0")

	require.Equal(t, []string{"623 | 4361 | 623"}, h.rows("SELECT count(DISTINCT _query), count(*), count(*) FILTER (n = 7) / 7 FROM "+
		"(SELECT *, count(*) OVER (PARTITION BY _query) AS n FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 7))"))
	for _, options := range []string{"", ", metric_type := 'cosine'", ", use_index := false, nprobs := 3, refine_factor := 2"} {
		all := map[string][]string{}
		for _, row := range h.rows("SELECT _query, id, body, v, _distance FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 7" + options + ")") {
			query, found, _ := strings.Cut(row, " | ")
			all[query] = append(all[query], found)
		}
		require.Len(t, all, 623)
		for _, id := range []int{0, 1, 120, 255, 256, 257, 499, 500, 620, 699} {
			vector := h.rows(fmt.Sprintf("SELECT q::FLOAT[]::VARCHAR FROM queries WHERE id = %d", id))[0]
			one := h.rows("FROM lance_vector_search('docs', 'v', '" + vector + "'::FLOAT[], k := 7" + options + ")")
			require.Equal(t, one, all[fmt.Sprint(id)], "%d%s", id, options)
		}
	}
	require.Equal(t, []string{"182539"}, h.rows("SELECT count(*) FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 1000000) WHERE id <> 1"))
	require.Len(t, h.rows("FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 200) LIMIT 3"), 3)
}

// TestBatchSearchInSQL searches wherever a table can stand, by vectors of several types, and joins back to the queries.
func TestBatchSearchInSQL(t *testing.T) {
	h := batchHarness(t, 3)
	f := func(sql string, want ...string) {
		t.Helper()
		require.Equal(t, want, h.rows(sql), sql)
	}
	f("FROM lance_vector_search_batch('docs', 'v', 'queries', 'w', k := 1) ORDER BY 1", "0 | 0 | x0 | [0,0,0] | 0 | 0", "1 | 1 | x1 | [1,0,0] | 1 | 0", "2 | 2 | x2 | [2,0,0] | 2 | 0")
	f("SELECT q.name, s.id FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 2) s JOIN queries q ON q.id = s._query ORDER BY s._query, s._distance",
		"q0 | 0", "q0 | 1", "q1 | 1", "q1 | 2", "q2 | 2", "q2 | 3")
	f("SELECT _query, id FROM lance_vector_search_batch('main.DOCS', 'V', 'flightd.main.\"queries\"', 'L', query_id := 'NAME', k => 2) ORDER BY 1, _distance",
		"q0 | 0", "q0 | 1", "q1 | 1", "q1 | 2", "q2 | 2", "q2 | 3")
	f("SELECT _query, id FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 2) WHERE id % 2 = 0 AND _query > 0 ORDER BY 1, 2", "1 | 2", "2 | 2")
	f("SELECT count(*) FROM lance_vector_search_batch('docs', 'v', 'queries', 'q')", "30")
	f("SELECT typeof(_query), typeof(_distance) FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 1) LIMIT 1", "INTEGER | FLOAT")
	f("SELECT count(*) FROM lance_vector_search_batch('docs', 'v', 'docs', 'v', k := 1) WHERE _query = id AND _distance = 0", "100")
	f("SELECT a._query, b.id FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 1) a JOIN lance_vector_search('docs', 'v', [1, 0, 0], k := 1) b USING (id)", "1 | 1")
	rec, err := tryRows(h.e, "SELECT _query, id FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := ?) WHERE _query = ? AND id > ?", paramsOf(int64s(3), int64s(2), int64s(0)))
	require.NoError(t, err)
	require.Equal(t, []string{"2 | 2", "2 | 3", "2 | 1"}, printRows(rec))
	rec.Release()

	h.update("CREATE VIEW near AS SELECT _query, id FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 1)")
	h.update("CREATE TABLE found AS FROM near")
	f("FROM found ORDER BY 1", "0 | 0", "1 | 1", "2 | 2")
	h.update("DELETE FROM docs WHERE id IN (SELECT id FROM near WHERE _query = 1)")
	f("FROM near WHERE _query = 1", "1 | 2")
	h.update("DELETE FROM queries")
	f("SELECT count(*) FROM near", "0")
}

// TestBatchSearchByAView takes the queries from views: of several tables, in several layers, over each other, with parameters beside them, and finds
// what it finds by a table of the same queries.
func TestBatchSearchByAView(t *testing.T) {
	h := batchHarness(t, 700)
	h.update("CREATE TABLE chosen (name VARCHAR PRIMARY KEY, grade INTEGER)")
	h.update("INSERT INTO chosen SELECT 'q' || i, i % 3 FROM range(650) r(i)")
	h.update("OPTIMIZE queries")
	h.update("UPDATE queries SET q = NULL WHERE id = 35")
	h.update("CREATE VIEW graded AS SELECT upper(q.name) AS who, q.q AS vector, c.grade FROM queries q JOIN chosen c USING (name) WHERE c.grade > 0")
	h.update("CREATE VIEW first AS SELECT who, vector::DOUBLE[] AS vector FROM graded WHERE grade = 1")
	h.update("CREATE TABLE copied AS FROM graded")
	got := h.rows("SELECT * FROM lance_vector_search_batch('docs', 'v', 'graded', 'vector', query_id := 'who', k := 3) ORDER BY ALL")
	require.Equal(t, h.rows("SELECT * FROM lance_vector_search_batch('docs', 'v', 'copied', 'vector', query_id := 'who', k := 3) ORDER BY ALL"), got)
	require.Equal(t, 3*432, len(got))
	f := func(sql string, want ...string) {
		t.Helper()
		require.Equal(t, want, h.rows(sql), sql)
	}
	f("SELECT _query, id FROM lance_vector_search_batch('docs', 'v', 'main.FIRST', 'VECTOR', query_id := 'WHO', k := 2) WHERE _query IN ('Q1', 'Q4') ORDER BY 1, _distance",
		"Q1 | 1", "Q1 | 2", "Q4 | 4", "Q4 | 5")
	f("SELECT count(*), count(DISTINCT s._query) FROM lance_vector_search_batch('docs', 'v', 'first', 'vector', query_id := 'who', k := 1) s JOIN graded g ON g.who = s._query", "217 | 217")
	h.update("CREATE VIEW both AS SELECT _query AS who, v AS vector FROM lance_vector_search_batch('docs', 'v', 'first', 'vector', query_id := 'who', k := 1)")
	f("SELECT count(*), max(_distance) FROM lance_vector_search_batch('docs', 'v', 'both', 'vector', query_id := 'who', k := 1)", "217 | 0")
	h.update("CREATE TABLE found AS SELECT _query, id FROM lance_vector_search_batch('docs', 'v', 'both', 'vector', query_id := 'who', k := 1)")
	f("SELECT count(*) FROM found", "217")
	require.Empty(t, h.rows("SELECT * FROM lance_vector_search_batch('docs', 'v', 'graded', 'vector', query_id := 'who') WHERE false"))
	require.Len(t, h.rows("FROM lance_vector_search_batch('docs', 'v', 'graded', 'vector', query_id := 'who', k := 90) LIMIT 3"), 3)
	require.Contains(t, strings.Join(explainLines(t, h.e, "FROM lance_vector_search_batch('docs', 'v', 'graded', 'vector', query_id := 'who', k := 4)", nil), "\n"),
		"for each vector of view main.graded")

	h.update("INSERT OR REPLACE INTO queries (id, name, q) VALUES (1, 'q1', ['nan'::FLOAT, 1, 1])")
	_, err := tryRows(h.e, "FROM lance_vector_search_batch('docs', 'v', 'graded', 'vector', query_id := 'who')", nil)
	require.ErrorContains(t, err, "in the row of view main.graded with who = Q1: element 1 of the query is NaN")
	require.Equal(t, InvalidArgument, codeOf(t, err))
	h.update("DROP TABLE chosen")
	_, err = tryRows(h.e, "FROM lance_vector_search_batch('docs', 'v', 'graded', 'vector', query_id := 'who')", nil)
	require.Equal(t, NotFound, codeOf(t, err), "%v", err)
}

// TestViewsThatSearchByThemselvesEnd makes views whose queries come from themselves.
func TestViewsThatSearchByThemselvesEnd(t *testing.T) {
	h := batchHarness(t, 3)
	h.update("CREATE VIEW a AS SELECT id, q FROM queries")
	h.update("CREATE VIEW b AS SELECT _query AS id, v AS q FROM lance_vector_search_batch('docs', 'v', 'a', 'q', query_id := 'id')")
	_, err := runUpdate(h.e, "CREATE OR REPLACE VIEW a AS FROM b", nil)
	if err == nil {
		_, err = tryRows(h.e, "FROM a", nil)
	}
	require.Error(t, err)
	require.NotEqual(t, Internal, codeOf(t, err), "%v", err)
	h.update("DROP VIEW b")
	require.Equal(t, []string{"1"}, h.rows("SELECT 1"))
}

// TestBatchSearchIsExplained tells what is searched for.
func TestBatchSearchIsExplained(t *testing.T) {
	h := batchHarness(t, 3)
	lines := strings.Join(explainLines(t, h.e, "FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', k := 4) WHERE n > 5", nil), "\n")
	require.Contains(t, lines, "main.docs: nearest 4 in v by l2, for each q of main.queries, 3 rows; memtable: exact, 100 rows")
}

// TestBatchSearchRefusesBadArguments asks for what cannot be, at the times when a client prepares and when it asks.
func TestBatchSearchRefusesBadArguments(t *testing.T) {
	h := batchHarness(t, 3)
	h.update("CREATE VIEW picked AS FROM queries")
	h.update("CREATE TABLE loose (name VARCHAR, q FLOAT[3])")
	h.update("CREATE TABLE short (id BIGINT PRIMARY KEY, q FLOAT[2])")
	h.update("CREATE TABLE taken (_query BIGINT PRIMARY KEY, v FLOAT[3])")
	f := func(code Code, message, args string) {
		t.Helper()
		_, err := h.e.Prepare(t.Context(), h.e.NewSession(), "FROM lance_vector_search_batch("+args+")")
		require.ErrorContains(t, err, message, args)
		require.Equal(t, code, codeOf(t, err), "%s: %v", args, err)
		_, err = tryRows(h.e, "FROM lance_vector_search_batch("+args+")", nil)
		require.Equal(t, code, codeOf(t, err), "%s: %v", args, err)
	}
	f(InvalidArgument, "view main.picked has no key of one column that would tell its queries apart; say query_id := 'column'", "'docs', 'v', 'picked', 'q'")
	f(InvalidArgument, `view main.picked has no column "x", which query_id names`, "'docs', 'v', 'picked', 'q', query_id := 'x'")
	f(InvalidArgument, `column "name" of view main.picked is VARCHAR`, "'docs', 'v', 'picked', 'name', query_id := 'id'")
	f(InvalidArgument, "is a view, and only tables are searched", "'picked', 'q', 'queries', 'q'")
	f(NotFound, `table "querys" does not exist; did you mean "queries"?`, "'docs', 'v', 'querys', 'q'")
	f(NotFound, `table "dcos" does not exist`, "'dcos', 'v', 'queries', 'q'")
	f(InvalidArgument, `has no column "p"`, "'docs', 'v', 'queries', 'p'")
	f(InvalidArgument, `column "name" of table main.queries is VARCHAR`, "'docs', 'v', 'queries', 'name'")
	f(InvalidArgument, `column "id" of table main.docs is BIGINT, not a vector`, "'docs', 'id', 'queries', 'q'")
	f(InvalidArgument, "say query_id := 'column'", "'docs', 'v', 'loose', 'q'")
	f(InvalidArgument, `has no column "x", which query_id names`, "'docs', 'v', 'loose', 'q', query_id := 'x'")
	f(InvalidArgument, `have 2 elements, those of column "v" have 3`, "'docs', 'v', 'short', 'q'")
	f(InvalidArgument, "column _query of its own", "'taken', 'v', 'queries', 'q'")
	f(InvalidArgument, "k is 0, and has to be above 0", "'docs', 'v', 'queries', 'q', k := 0")
	f(InvalidArgument, "nprobs is -1", "'docs', 'v', 'queries', 'q', nprobs := -1")
	f(InvalidArgument, "unknown metric", "'docs', 'v', 'queries', 'q', metric_type := 'l3'")
	f(InvalidArgument, "the name of the table of queries is NULL", "'docs', 'v', NULL, 'q'")
	f(InvalidArgument, "nprobs := NULL", "'docs', 'v', 'queries', 'q', prefilter := true")
	f(InvalidArgument, "cannot give queries", "'docs', 'v', 'flightd_catalog.tables', 'q'")
	_, err := tryRows(h.e, "FROM flightd_vector_search_batch('docs', 'v', 'queries', 'q')", nil)
	require.Equal(t, PermissionDenied, codeOf(t, err))

	for vector, message := range map[string]string{
		"[1, 2]":               `with id = 17: the query vector has 2 elements, those of column "v" have 3`,
		"[1, NULL, 3]":         "with id = 17: element 2 of the query vector is NULL",
		"[1, 2, 'nan'::FLOAT]": "with id = 17: element 3 of the query is NaN, and all have to be finite",
		"[1, 1e300, 3]":        "with id = 17: element 2 of the query is +Inf",
		"[0, 0, 0]":            "with id = 17: the query is a zero vector",
	} {
		h.update("INSERT OR REPLACE INTO queries (id, l) SELECT 17, " + vector)
		_, err := tryRows(h.e, "FROM lance_vector_search_batch('docs', 'v', 'queries', 'l', metric_type := 'cosine')", nil)
		require.ErrorContains(t, err, message, vector)
		require.Equal(t, InvalidArgument, codeOf(t, err), "%s: %v", vector, err)
	}
}

// TestBatchSearchByIndex finds by an index what searches by it for one query find.
func TestBatchSearchByIndex(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, v FLOAT[4])")
	h.update("INSERT INTO docs SELECT i, [sin(i), cos(i * 7), sin(i * i), cos(i * i * 3)]::FLOAT[4] FROM range(6000) r(i)")
	h.update("OPTIMIZE docs")
	h.update("CREATE INDEX near ON docs USING IVF_FLAT (v) WITH (num_partitions = 16)")
	h.update("CREATE TABLE queries AS SELECT i AS id, [cos(i), sin(i * 3), cos(i * i), 0.5] AS q FROM range(300) r(i)")
	lines := strings.Join(explainLines(t, h.e, "FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', query_id := 'id', nprobs := 2)", nil), "\n")
	require.Contains(t, lines, "index near")
	require.Contains(t, lines, "for each q of main.queries, 300 rows")
	all := map[string][]string{}
	for _, row := range h.rows("FROM lance_vector_search_batch('docs', 'v', 'queries', 'q', query_id := 'id', nprobs := 2)") {
		query, found, _ := strings.Cut(row, " | ")
		all[query] = append(all[query], found)
	}
	for _, id := range []int{0, 7, 255, 256, 299} {
		vector := h.rows(fmt.Sprintf("SELECT q::VARCHAR FROM queries WHERE id = %d", id))[0]
		require.Equal(t, h.rows("FROM lance_vector_search('docs', 'v', '"+vector+"'::DOUBLE[], nprobs := 2)"), all[fmt.Sprint(id)], id)
	}
}
