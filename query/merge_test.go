package query

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

// mergeStatements run on tables t with and without a key. Sources match a row once, except where it is said.
var mergeStatements = []string{
	"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v",
	"MERGE INTO t USING s USING (id) WHEN MATCHED THEN UPDATE BY NAME WHEN NOT MATCHED THEN INSERT BY NAME RETURNING merge_action, *",
	"MERGE INTO t USING s ON (t.id = s.id) WHEN MATCHED AND s.v > 250 THEN DELETE WHEN MATCHED THEN UPDATE SET (v, s) = (t.v + s.v, DEFAULT) WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, v) RETURNING merge_action, t.id, v",
	"MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED BY SOURCE THEN DELETE WHEN NOT MATCHED BY TARGET THEN INSERT (s, id) VALUES (upper(s), id + 0)",
	"MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED BY SOURCE AND v > 10 THEN UPDATE SET v = v - 1 WHEN MATCHED THEN DO NOTHING",
	"MERGE INTO main.t AS q USING (SELECT id AS a, v AS b FROM s) y ON (q.id = y.a) WHEN MATCHED AND q.v > 20 THEN DELETE WHEN MATCHED THEN UPDATE SET v = y.b RETURNING q.id, merge_action, v, q.*",
	"MERGE INTO t USING (VALUES (1, 5), (90, 9)) y(a, b) ON (t.id = y.a) WHEN MATCHED THEN UPDATE SET v = y.b WHEN NOT MATCHED THEN INSERT VALUES (y.a, y.b, 'n')",
	"WITH q AS (FROM s WHERE id > 2) MERGE INTO t USING q ON t.id = q.id WHEN MATCHED THEN UPDATE SET v = q.v WHEN NOT MATCHED THEN INSERT VALUES (id, 7, 'with')",
	"MERGE INTO t USING s ON t.id = s.id AND t.v < 25 WHEN MATCHED THEN UPDATE SET v = (SELECT max(v) FROM t) WHEN NOT MATCHED BY SOURCE AND t.id = 1 THEN DELETE",
	"MERGE INTO t USING s ON false WHEN NOT MATCHED BY SOURCE THEN UPDATE SET (v, s) = (1, 'q')",
	"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND s.id = 77 THEN ERROR WHEN MATCHED AND s.v = 77 THEN ERROR 'no' WHEN NOT MATCHED THEN INSERT VALUES (s.id, CASE WHEN s.v > 1 THEN 1 ELSE 2 END, 'case')",
	"MERGE INTO t USING s JOIN s s2 ON s.id = s2.id ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s2.v + 1",
	"MERGE INTO t USING range(200, 205) r(i) ON t.id = r.i WHEN NOT MATCHED THEN INSERT VALUES (i, i, 'x') RETURNING merge_action, t.*, * EXCLUDE (s), * EXCLUDE s, id + 1 AS n",
	"MERGE INTO t USING range(200, 202) ON t.id = range WHEN MATCHED THEN DELETE RETURNING *",
	"MERGE INTO t USING (SELECT id, v FROM s) ON t.id = unnamed_subquery.id WHEN MATCHED THEN UPDATE BY NAME",
	"MERGE INTO t USING (SELECT id + 1000 AS id, v, 'pos' FROM s) q ON t.id = q.id WHEN NOT MATCHED THEN INSERT", "MERGE INTO t USING (SELECT id + 1000 AS id, v FROM s) q ON t.id = q.id WHEN NOT MATCHED BY SOURCE AND t.id > 1000 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 0",
	"MERGE INTO t USING s ON t.id = s.id - 1 WHEN MATCHED THEN UPDATE SET id = t.id + 100", "MERGE INTO t USING s ON t.v = s.v - 100000 WHEN NOT MATCHED BY SOURCE THEN DELETE WHEN NOT MATCHED THEN INSERT (id, s) VALUES (id, 'moved')",
	"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN ERROR", "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN ERROR concat('x', s.id)", "MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED BY SOURCE THEN ERROR 'gone'",
	"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = v + 1", "MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (t.id, 1, 'x')", "MERGE INTO t USING nosuch ON true WHEN MATCHED THEN DELETE",
	"MERGE INTO nosuch USING s ON true WHEN MATCHED THEN DELETE", "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET nosuch = 1", "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN", "MERGE INTO t USING s ON t.id = s.id",
	"MERGE INTO t USING (SELECT id, v, 1 AS extra FROM s) q ON t.id = q.id WHEN MATCHED THEN UPDATE BY NAME", "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE WHEN MATCHED THEN DELETE", "MERGE INTO t USING s WHEN MATCHED THEN DELETE",
	"MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, v) VALUES (1)", "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DO NOTHING", "MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED THEN INSERT DEFAULT VALUES RETURNING nosuch",
	"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 'text'", "MERGE INTO t USING s ON t.id = s.id WHEN NOT MATCHED THEN DO NOTHING RETURNING merge_action, *",
}

// TestMergeEqualsTwin runs every form of MERGE.
func TestMergeEqualsTwin(t *testing.T) {
	for name, key := range map[string]string{"keyed": " PRIMARY KEY", "keyless": ""} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			for _, sql := range []string{
				"CREATE TABLE t (id INTEGER" + key + ", v INTEGER, s VARCHAR DEFAULT 'd')", "CREATE TABLE s (s VARCHAR, v INTEGER, id INTEGER)",
				"INSERT INTO t VALUES (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c'), (50, 50, 'e')", "INSERT INTO s VALUES ('x', 200, 2), ('y', 300, 3), ('z', 400, 4), ('w', 500, 5)",
			} {
				require.True(t, p.run(sql), sql)
			}
			for i, sql := range mergeStatements {
				p.run(sql)
				p.same("FROM t", sql)
				if i%5 == 2 {
					p.maintain("OPTIMIZE t")
				}
				if i%7 == 3 { // the twin has seen that both are equal
					for _, sql := range []string{"DELETE FROM t WHERE id > 2", "INSERT INTO t VALUES (3, 30, 'c'), (4, 44, NULL), (70, 7, 'r')"} {
						require.True(t, p.run(sql), sql)
					}
				}
			}
			p.reopen(t)
			p.same("FROM t", "opening again")
		})
	}
}

// TestMergeOfManyMatches has several rows of the source match one of the table: one of them counts, which is more than
// the twin does, and keys that come twice are refused.
func TestMergeOfManyMatches(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	defer func() { require.NoError(t, e.Close()); require.NoError(t, db.Close()) }()
	for _, key := range []string{" PRIMARY KEY", ""} {
		for _, sql := range []string{"CREATE OR REPLACE TABLE t (id INTEGER" + key + ", v INTEGER)", "INSERT INTO t VALUES (1, 10), (2, 20)"} {
			_, err := runUpdate(e, sql, nil)
			require.NoError(t, err)
		}
		f := func(want int64, rows, sql string, params arrow.RecordBatch) {
			t.Helper()
			n, err := runUpdate(e, sql, params)
			require.NoError(t, err, sql)
			require.Equal(t, want, n, sql)
			rec := collectRows(t, e, "FROM t ORDER BY ALL", nil)
			defer rec.Release()
			require.Equal(t, rows, strings.Join(printRows(rec), "; "), sql)
		}
		f(1, "1 | 10; 2 | 5", "MERGE INTO t USING (VALUES (2, 5), (2, 5)) s(id, v) ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v", nil)
		f(1, "1 | 10", "MERGE INTO t USING (VALUES (2, 5), (2, 6)) s(id, v) ON t.id = s.id WHEN MATCHED AND s.v = 6 THEN DELETE WHEN MATCHED AND s.v = 7 THEN DO NOTHING", nil)
		i64 := arrow.PrimitiveTypes.Int64
		f(3, "1 | 11; 3 | 30; 4 | 40", "MERGE INTO t USING (SELECT ?::INTEGER AS id, ?::INTEGER AS v) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = t.v + s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)",
			paramRows(t, []arrow.DataType{i64, i64}, `{"0":1,"1":1}`, `{"0":3,"1":30}`, `{"0":4,"1":40}`))
		if key == "" {
			continue
		}
		for _, sql := range []string{
			"MERGE INTO t USING (VALUES (9, 1), (9, 2)) s(id, v) ON t.id = s.id WHEN NOT MATCHED THEN INSERT",
			"MERGE INTO t USING (VALUES (3, 1)) s(id, v) ON false WHEN NOT MATCHED THEN INSERT",
			"MERGE INTO t USING (VALUES (3, 1)) s(id, v) ON t.id = 1 WHEN MATCHED THEN UPDATE SET id = s.id",
		} {
			_, err := runUpdate(e, sql, nil)
			require.ErrorIs(t, err, lsm.ErrKeyExists, sql)
			require.Equal(t, AlreadyExists, codeOf(t, err))
		}
		f(0, "1 | 11; 3 | 30; 4 | 40", "MERGE INTO t USING t s ON false WHEN MATCHED THEN DELETE", nil)
		_, err := runUpdate(e, "MERGE INTO t USING (SELECT 1 AS id) s USING (id) WHEN MATCHED THEN ERROR 'one' || t.v", nil)
		require.Equal(t, InvalidArgument, codeOf(t, err))
		require.Contains(t, err.Error(), "Merge error condition WHEN MATCHED: one11")
	}
}

// TestAMergeThatDoesNotFitChangesNothing: a MERGE that needs more memory than queries may have, what it spills aside, is
// refused with a code that says so, and nothing of it is there.
func TestAMergeThatDoesNotFitChangesNothing(t *testing.T) {
	db, err := lsm.Open(t.Context(), lsm.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	e, err := Open(t.Context(), Options{DB: db, Threads: 2, Memory: 32 << 20, Temp: filepath.Join(t.TempDir(), "spill")})
	require.NoError(t, err)
	for _, sql := range []string{"CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR)", "INSERT INTO t SELECT range * 2, repeat('x', 100) FROM range(10000)"} {
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err)
	}
	_, err = runUpdate(e, "MERGE INTO t USING (SELECT range AS id, repeat('y', 200) AS v FROM range(200000) ORDER BY hash(range)) s ON t.id = s.id "+
		"WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT", nil)
	require.Equal(t, ResourceExhausted, codeOf(t, err), err)
	rec := collectRows(t, e, "SELECT count(*), count(*) FILTER (v[1] = 'y') FROM t", nil)
	require.Equal(t, []string{"10000 | 0"}, printRows(rec))
	rec.Release()
	require.NoError(t, e.Close())
	require.NoError(t, db.Close())
}
