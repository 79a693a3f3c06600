package query

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	bind "github.com/duckdb/duckdb-go-bindings"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

// A pair is an engine over storage and a DuckDB of its own, which must agree on what every statement does.
type pair struct {
	t    testing.TB
	dir  string
	db   *lsm.DB
	e    *Engine
	twin *instance
}

// newPair opens both.
func newPair(t *testing.T) *pair {
	p := &pair{t: t, dir: t.TempDir()}
	var err error
	p.twin, err = openInstance(instanceOptions{threads: 1, memory: 1 << 30})
	require.NoError(t, err)
	p.db, p.e = openAll(t, p.dir)
	t.Cleanup(func() {
		p.twin.release()
		require.NoError(t, p.e.Close())
		require.NoError(t, p.db.Close())
	})
	return p
}

// reopen closes and opens the storage.
func (p *pair) reopen(t *testing.T) {
	require.NoError(t, p.e.Close())
	require.NoError(t, p.db.Close())
	p.db, p.e = openAll(t, p.dir)
}

// run runs a statement on both and compares the counts; or both refuse it, and it is returned as false.
func (p *pair) run(sql string) bool {
	p.t.Helper()
	n, returned, err := runReturning(p.e, sql)
	conn, twinErr := p.twin.connect()
	require.NoError(p.t, twinErr)
	defer disconnect(&conn)
	recs, twinErr := p.twin.returned(conn, sql)
	defer releaseAll(recs)
	if twinErr != nil {
		require.Error(p.t, err, "%s: the twin says %v", sql, twinErr)
		return false
	}
	require.NoError(p.t, err, sql)
	var rows []string
	for _, rec := range recs {
		rows = append(rows, printRows(rec)...)
	}
	if returned != nil {
		requireRows(p.t, slices.Sorted(slices.Values(rows)), slices.Sorted(slices.Values(returned)), sql)
		require.EqualValues(p.t, len(rows), n, sql)
		return true
	}
	if len(rows) == 1 && !strings.HasPrefix(sql, "TRUNCATE") && !strings.HasPrefix(sql, "CREATE") {
		require.Equal(p.t, rows[0], fmt.Sprint(n), sql)
	}
	return true
}

// runReturning runs a statement and returns its count and, if it returns rows, these, which are then not nil.
func runReturning(e *Engine, sql string) (int64, []string, error) {
	st, err := e.Prepare(context.Background(), e.NewSession(), sql)
	if err != nil || !st.Returns() {
		n, err := runUpdate(e, sql, nil)
		return n, nil, err
	}
	rows, err := st.Run(context.Background(), nil)
	if err != nil {
		return 0, nil, err
	}
	defer rows.Close()
	out := []string{}
	err = rows.Read(func(rec arrow.RecordBatch) error {
		if !rec.Schema().Equal(rows.Schema()) || st.DatasetSchema() != nil && !st.DatasetSchema().Equal(rows.Schema()) {
			return fmt.Errorf("%s: schemas %s, %s, %s", sql, st.DatasetSchema(), rows.Schema(), rec.Schema())
		}
		out = append(out, printRows(rec)...)
		return nil
	})
	return rows.Changed(), out, err
}

// returned runs a statement on the twin and returns what comes.
func (in *instance) returned(conn bind.Connection, sql string) ([]arrow.RecordBatch, error) {
	var res bind.Result
	defer bind.DestroyResult(&res)
	if bind.Query(conn, sql, &res) == bind.StateError {
		return nil, in.check(bind.ResultError(&res), sql)
	}
	return in.drain(conn, &res, sql)
}

// same compares the rows of a query.
func (p *pair) same(query, after string) {
	p.t.Helper()
	rec := collectRows(p.t, p.e, query, nil)
	defer rec.Release()
	requireRows(p.t, comparable(query, twinRows(p.t, p.twin, query)), comparable(query, printRows(rec)), "after "+after)
}

// TestChangesEqualTwin runs statements of all forms one after the other.
func TestChangesEqualTwin(t *testing.T) {
	p := newPair(t)
	for _, sql := range []string{
		"CREATE TABLE t (id BIGINT PRIMARY KEY, a INTEGER DEFAULT 1 + 1, b DATE, c VARCHAR DEFAULT 'it''s', v FLOAT[2])",
		"CREATE TABLE u (x INTEGER, y VARCHAR, PRIMARY KEY (x, y))",
		"INSERT INTO t SELECT i, i % 7, DATE '2020-01-01' + i::INT, 'c' || i, [i, 2] FROM range(50) r(i)",
		"INSERT INTO t (id, c) FROM (SELECT i + 100, NULL FROM range(3) r(i))",
		"INSERT INTO t (c, id) WITH q AS (SELECT 200 AS n) SELECT 'with', n FROM q -- the end",
		"INSERT INTO t BY NAME SELECT 'named' AS c, 300 AS id",
		"WITH q AS (SELECT 400 AS n), r(m) AS (SELECT 'it') INSERT INTO t (id, c) SELECT n, m FROM q, r", "WITH q AS (SELECT 401 AS id) INSERT INTO t BY NAME FROM q",
		"WITH q AS (SELECT 402 AS n) INSERT INTO t (id) VALUES ((SELECT n FROM q)) ON CONFLICT DO NOTHING",
		"WITH q AS (SELECT 400 AS n) UPDATE t SET c = 'with' || n FROM q WHERE id = n", "WITH q AS MATERIALIZED (SELECT 401 AS n) DELETE FROM t WHERE id IN (FROM q)",
		"WITH q AS (SELECT 1 AS n) INSERT INTO t (id) SELECT nosuch FROM q", "WITH q(update) AS (SELECT 77) INSERT INTO t (id, a) SELECT 403, update FROM q",
		"INSERT INTO t (id, a) VALUES ((SELECT max(id) + 1 FROM t), 5)",
		"INSERT INTO t (id) TABLE nosuch", "INSERT INTO t (id) SELECT 1", "INSERT INTO t (id) SELECT 900 FROM range(2)", "INSERT INTO t SELECT 1, 2",
		"INSERT INTO t (id, b) SELECT 901, 'no date'", "INSERT INTO t SELECT * FROM t WHERE id < 0",
		"INSERT INTO u SELECT id, c FROM t WHERE c IS NOT NULL",
		"UPDATE t SET a = a * 10, c = upper(c) WHERE id % 3 = 0",
		"UPDATE t AS q SET (a, b) = (q.a + 1, NULL) WHERE q.b IS DISTINCT FROM DATE '2020-01-05' AND id < 20",
		"UPDATE t SET a = DEFAULT, c = DEFAULT WHERE id = 7", "UPDATE t SET a = 'text' WHERE id = 8", "UPDATE t SET nosuch = 1", "UPDATE nosuch SET a = 1",
		"UPDATE t SET a = 0 WHERE id IS NULL", "UPDATE t SET a = (SELECT count(*) FROM u WHERE u.x < t.id)",
		"UPDATE t SET c = u.y || '!' FROM u WHERE u.x = t.id AND t.id > 10", "UPDATE main.t SET a = t.a + 1 FROM range(5) r(i), u WHERE r.i = t.id AND u.x = i",
		"UPDATE t SET id = id + 1 WHERE id >= 45 AND id < 50", "UPDATE t SET id = 1 WHERE id = 2", "UPDATE t SET id = 5", "UPDATE t SET id = -id",
		"UPDATE t SET id = CASE id WHEN -1 THEN -2 ELSE -1 END WHERE id IN (-1, -2)", "UPDATE t SET id = NULL WHERE id = -3", "UPDATE u SET y = y || x",
		"DELETE FROM t WHERE id % 5 = 0", "DELETE FROM t q USING u WHERE u.x = -q.id AND q.id < -40", "DELETE FROM t WHERE id IN (SELECT -x FROM u WHERE x > 30)",
		"DELETE FROM t USING range(3) r(i) WHERE id = -4", "DELETE FROM nosuch", "DELETE FROM t WHERE nosuch", "DELETE FROM t WHERE id = 12345",
		"INSERT INTO t (id, c) SELECT -5, 'again'",
		"INSERT INTO t (id, c) SELECT -i, 'new' FROM range(12) r(i) ON CONFLICT DO NOTHING",
		"INSERT INTO t (id, c) VALUES (-1, 'x'), (1000, 'y'), (1000, 'z') ON CONFLICT DO NOTHING",
		"INSERT INTO t (id, a, c) SELECT -i, i, 'up' FROM range(20) r(i) ON CONFLICT (id) DO UPDATE SET c = excluded.c || coalesce(c, '') || t.id, a = excluded.a + a",
		"INSERT INTO t (id, a) SELECT i, 1 FROM range(-5, 3) r(i) ON CONFLICT DO UPDATE SET a = DEFAULT WHERE excluded.a < t.a",
		"INSERT OR IGNORE INTO t (id, a) VALUES (-1, 77), (2000, 78)", "INSERT OR REPLACE INTO t (id, a) SELECT i, 5 FROM range(-3, 3) r(i)",
		"INSERT INTO t (id) VALUES (1) ON CONFLICT (c) DO NOTHING",
		"CREATE OR REPLACE TABLE u AS SELECT id AS x, c AS y, v FROM t WHERE id < 0", "CREATE TABLE w(p, q) AS FROM (VALUES (1, 'a'), (2, NULL))",
		"CREATE TABLE w AS SELECT 1", "CREATE TABLE IF NOT EXISTS w AS SELECT 1 AS other", "CREATE TABLE e AS FROM t WITH NO DATA", "CREATE TABLE d AS FROM t WITH DATA",
		"CREATE TABLE bad AS SELECT nosuch FROM t", "CREATE OR REPLACE TABLE w (id INTEGER PRIMARY KEY)", "INSERT INTO w SELECT * FROM range(3)",
		"INSERT INTO t (id, a) VALUES (5000, 1), (5001, DEFAULT) RETURNING *", "INSERT INTO t (id) SELECT 5002 RETURNING id AS n, c || '!', v, *, t.a", "INSERT INTO t AS q (id, a) VALUES (5000, 3), (5003, 4) ON CONFLICT DO UPDATE SET a = q.a + excluded.a RETURNING id, a",
		"INSERT INTO t (id) VALUES (5000), (5004) ON CONFLICT DO NOTHING RETURNING id", "UPDATE t SET a = a + 1 WHERE id > 5000 RETURNING *", "UPDATE t AS q SET id = id + 100 WHERE id > 5000 RETURNING q.id, a", "DELETE FROM t WHERE id >= 5000 RETURNING id - 5000 AS d, v, *",
		"UPDATE t SET a = 1 RETURNING nosuch", "UPDATE t SET a = 1 RETURNING sum(a)", "UPDATE t SET a = 1 RETURNING (SELECT 1)", "DELETE FROM t RETURNING", "INSERT INTO t (id) VALUES (6000) RETURNING c::INTEGER",
		"INSERT INTO t (id) VALUES (6000) RETURNING COLUMNS('a|c'), 1 AS one, [id]",
		"TRUNCATE d", "TRUNCATE TABLE nosuch", "INSERT INTO d SELECT * FROM t", "INSERT INTO d FROM d", "DELETE FROM t",
	} {
		p.run(sql)
		p.same("FROM t", sql)
		for _, name := range []string{"u", "w", "e", "d"} {
			if rec, err := tryRows(p.e, "FROM "+name, nil); err == nil {
				rec.Release()
				p.same("FROM "+name, sql)
			}
		}
	}
	p.same("SHOW TABLES", "all")
	p.reopen(t)
	for _, name := range []string{"t", "u", "w", "e", "d"} {
		p.same("FROM "+name, "opening again")
		p.same("DESCRIBE "+name, "opening again")
	}
}

// paramRows makes rows of parameters.
func paramRows(t *testing.T, types []arrow.DataType, rows ...string) arrow.RecordBatch {
	var fields []arrow.Field
	for i, dt := range types {
		fields = append(fields, arrow.Field{Name: fmt.Sprint(i), Type: dt, Nullable: true})
	}
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, arrow.NewSchema(fields, nil), strings.NewReader("["+strings.Join(rows, ",")+"]"))
	require.NoError(t, err)
	t.Cleanup(rec.Release)
	return rec
}

// TestChangesWithParameters binds parameters that the query behind a statement has in another order than its text.
func TestChangesWithParameters(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	defer func() { require.NoError(t, e.Close()); require.NoError(t, db.Close()) }()
	i64, text := arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String
	f := func(want int64, rows, sql string, params arrow.RecordBatch) {
		t.Helper()
		n, err := runUpdate(e, sql, params)
		require.NoError(t, err, sql)
		require.Equal(t, want, n, sql)
		rec := collectRows(t, e, "FROM t ORDER BY id", nil)
		defer rec.Release()
		require.Equal(t, rows, strings.Join(printRows(rec), "; "), sql)
	}
	f(0, "", "CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT, b VARCHAR)", nil)
	f(3, "1 | 5 | x; 2 | 6 | y; 3 | 7 | z", "INSERT INTO t SELECT ?, ?, ?", paramRows(t, []arrow.DataType{i64, i64, text}, `{"0":1,"1":5,"2":"x"}`, `{"0":2,"1":6,"2":"y"}`, `{"0":3,"1":7,"2":"z"}`))
	f(1, "1 | 5 | x; 2 | 66 | why; 3 | 7 | z", "UPDATE t SET b = ?, a = ? WHERE id = ?", paramRows(t, []arrow.DataType{text, i64, i64}, `{"0":"why","1":66,"2":2}`))
	f(2, "1 | 6 | x; 2 | 66 | why; 3 | 9 | z", "UPDATE t SET a = a + $n WHERE id = $key", paramRows(t, []arrow.DataType{i64, i64}, `{"0":1,"1":1}`, `{"0":2,"1":3}`))
	f(2, "2 | 66 | why", "DELETE FROM t WHERE id = ?", paramRows(t, []arrow.DataType{i64}, `{"0":1}`, `{"0":3}`))
	f(2, "2 | 67 | new; 4 | 1 | old", "INSERT INTO t VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET b = $4, a = t.a + excluded.a",
		paramRows(t, []arrow.DataType{i64, i64, text, text}, `{"0":2,"1":1,"2":"old","3":"new"}`, `{"0":4,"1":1,"2":"old","3":"new"}`))
	_, err := runUpdate(e, "INSERT INTO t (id) SELECT ?", paramRows(t, []arrow.DataType{i64}, `{"0":8}`, `{"0":9}`, `{"0":8}`))
	require.ErrorIs(t, err, lsm.ErrKeyExists)
	require.Contains(t, err.Error(), "parameter row 3: ")
	f(0, "2 | 67 | new; 4 | 1 | old", "DELETE FROM t WHERE id = 8", nil)

	st, err := e.Prepare(t.Context(), e.NewSession(), "UPDATE t SET b = ?, a = ? WHERE id = ?")
	require.NoError(t, err)
	require.Equal(t, "1 utf8, 2 int64, 3 int64", describeFields(st.ParameterSchema()))
	require.True(t, st.IsUpdate())
}

// describeFields writes names and types.
func describeFields(s *arrow.Schema) string {
	var out []string
	for _, f := range s.Fields() {
		out = append(out, fmt.Sprintf("%s %s", f.Name, f.Type))
	}
	return strings.Join(out, ", ")
}

// TestTablesWithoutKey changes rows that only their place tells apart.
func TestTablesWithoutKey(t *testing.T) {
	p := newPair(t)
	require.True(t, p.run("CREATE TABLE k (a INTEGER, b VARCHAR DEFAULT 'd')"))
	require.True(t, p.run("INSERT INTO k (a) SELECT i FROM range(5000) r(i)"))
	require.True(t, p.run("INSERT INTO k FROM k WHERE a < 100"))
	require.True(t, p.run("CREATE TABLE o (x INTEGER, y VARCHAR)"))
	require.True(t, p.run("INSERT INTO o VALUES (1, 'one'), (2, 'two'), (2, 'two'), (4000, 'far')"))
	for i, sql := range []string{
		"UPDATE k SET a = a + 1 WHERE a % 7 = 0", "DELETE FROM k WHERE a = 1", "DELETE FROM k WHERE a = 1",
		"UPDATE k SET b = y || a FROM (SELECT DISTINCT * FROM o) o WHERE x = a", "UPDATE k AS q SET (a, b) = (q.a, o.y) FROM o WHERE o.x = q.a AND q.a > 3000 RETURNING *, q.a + 1 AS n",
		"DELETE FROM k USING o WHERE a = x AND y = 'two' RETURNING k.a, b", "UPDATE k SET a = (SELECT max(x) FROM o), b = DEFAULT WHERE a IN (SELECT a FROM k WHERE a < 50)",
		"INSERT INTO k SELECT x, y FROM o RETURNING b, upper(b)", "INSERT INTO k VALUES (7, 'seven'), (8, DEFAULT) RETURNING *",
		"WITH q AS (SELECT 7 AS n) DELETE FROM k WHERE a IN (FROM q)", "UPDATE k SET a = NULL WHERE a > 4990", "DELETE FROM k WHERE a IS NULL RETURNING a",
		"UPDATE k SET nosuch = 1", "DELETE FROM k WHERE nosuch", "UPDATE k SET a = 'text'", "DELETE FROM k RETURNING nosuch", "UPDATE k SET a = 1 WHERE false RETURNING *",
	} {
		p.run(sql)
		p.same("FROM k", sql)
		switch i % 4 {
		case 1:
			p.maintain("OPTIMIZE k")
		case 3:
			p.reopen(t)
		}
	}
	require.False(t, p.run("INSERT INTO k (a) VALUES (1) ON CONFLICT (a) DO NOTHING"))
	p.same("FROM k", "inserts")
	require.True(t, p.run("TRUNCATE k"))
	p.same("FROM k", "TRUNCATE")
	require.True(t, p.run("INSERT INTO k VALUES (1, 'x')"))
	p.same("FROM k", "INSERT")
}

// TestCancelledChangeWritesNothing cancels an INSERT in its middle; others write the table afterwards.
func TestCancelledChangeWritesNothing(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	defer func() { require.NoError(t, e.Close()); require.NoError(t, db.Close()) }()
	_, err := runUpdate(e, "CREATE TABLE t (id BIGINT PRIMARY KEY)", nil)
	require.NoError(t, err)
	st, err := e.Prepare(t.Context(), e.NewSession(), "INSERT INTO t SELECT i FROM range(4000000000) r(i)")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	_, err = st.Update(ctx, nil)
	require.Equal(t, Cancelled, codeOf(t, err), "%v", err)
	n, err := runUpdate(e, "INSERT INTO t VALUES (1)", nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	rec := collectRows(t, e, "SELECT count(*) FROM t", nil)
	defer rec.Release()
	require.Equal(t, []string{"1"}, printRows(rec))
}

// TestChangesDoNotInterleave counts up from several goroutines, while the table is flushed: no count is lost.
func TestChangesDoNotInterleave(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	defer func() { require.NoError(t, e.Close()); require.NoError(t, db.Close()) }()
	for _, sql := range []string{"CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT)", "INSERT INTO t SELECT i, 0 FROM range(100) r(i)"} {
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err)
	}
	errs := make(chan error, 60)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 10 {
				n, err := runUpdate(e, "UPDATE t SET n = n + 1", nil)
				if err == nil && n != 100 {
					err = fmt.Errorf("%d rows", n)
				}
				errs <- err
				if i == 5 {
					_, err = runUpdate(e, "OPTIMIZE t", nil)
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	rec := collectRows(t, e, "SELECT count(*), min(n), max(n) FROM t", nil)
	defer rec.Release()
	require.Equal(t, []string{"100 | 40 | 40"}, printRows(rec))
}
