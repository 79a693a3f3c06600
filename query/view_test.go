package query

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestViewsEqualTwin makes, replaces and drops views on both sides, and changes tables below them.
func TestViewsEqualTwin(t *testing.T) {
	p := newPair(t)
	for i, sql := range []string{
		"CREATE TABLE t (id INTEGER PRIMARY KEY, s VARCHAR, v FLOAT[2])", "INSERT INTO t SELECT i, 's' || i, [i, 1] FROM range(100) r(i)", "CREATE TABLE u (id INTEGER)",
		"CREATE VIEW v AS SELECT id, upper(s) AS s FROM t WHERE id % 2 = 0", "CREATE VIEW v AS FROM t", "CREATE VIEW IF NOT EXISTS v AS FROM u", "CREATE VIEW w(a, b) AS WITH q AS (FROM v) SELECT * FROM q WHERE id < 50",
		"CREATE VIEW t AS SELECT 1", "CREATE TABLE v (i INT)", "CREATE VIEW x AS FROM nosuch", "CREATE VIEW x AS", "CREATE VIEW", "CREATE VIEW x AS DELETE FROM t", "CREATE VIEW x AS SELECT ?",
		"INSERT INTO u SELECT a FROM w", "INSERT INTO t (id) SELECT a + 1000 FROM w", "UPDATE t SET s = 'x' WHERE id IN (SELECT a FROM w)", "INSERT INTO v VALUES (1, 'a')", "DELETE FROM v", "UPDATE w SET a = 1", "TRUNCATE v",
		"CREATE OR REPLACE VIEW v AS SELECT id, s, v FROM t WHERE id > 90", "DROP VIEW nosuch", "DROP VIEW IF EXISTS nosuch", "DROP VIEW t", "DROP TABLE v",
	} {
		p.run(sql)
		for _, name := range []string{"t", "u", "v", "w"} {
			if rec, err := tryRows(p.e, "FROM "+name, nil); err == nil {
				rec.Release()
				p.same("FROM "+name, sql)
				p.same("SELECT count(*) FROM "+name, sql)
			}
		}
		if i%6 == 5 {
			p.reopen(t)
		}
	}
	p.same("SELECT v.id, t.v FROM v JOIN t USING (id) WHERE v.id > 95", "joins")
	p.same("SHOW TABLES", "SHOW")
	p.same("SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'main'", "information_schema")
	p.same("DESCRIBE v", "DESCRIBE")
	require.True(t, p.run("DROP VIEW w"))
	_, err := tryRows(p.e, "FROM w", nil)
	require.Equal(t, NotFound, codeOf(t, err))
	_, err = runUpdate(p.e, "CREATE VIEW y AS FROM duckdb_tables()", nil)
	require.Equal(t, Unimplemented, codeOf(t, err))
	_, err = runUpdate(p.e, "CREATE VIEW y AS FROM read_csv('x')", nil)
	require.Equal(t, PermissionDenied, codeOf(t, err))
}

// TestViewsFollowTheirTables drops, makes anew and alters the tables of views, which keep the columns' Arrow types.
func TestViewsFollowTheirTables(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	defer func() { require.NoError(t, e.Close()); require.NoError(t, db.Close()) }()
	f := func(sql string) {
		t.Helper()
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err, sql)
	}
	rows := func(sql string) []string {
		t.Helper()
		rec := collectRows(t, e, sql, nil)
		defer rec.Release()
		return printRows(rec)
	}
	f("CREATE TABLE t (id INTEGER PRIMARY KEY, v FLOAT[2])")
	f("INSERT INTO t VALUES (1, [1, 2])")
	f("CREATE VIEW a AS FROM t")
	f("CREATE VIEW b AS FROM a WHERE id > 0")
	f("CREATE OR REPLACE VIEW a AS SELECT * FROM t WHERE id < 100")
	require.Equal(t, []string{"1 | [1,2]"}, rows("FROM b"))
	f("ALTER TABLE t ADD COLUMN n INTEGER DEFAULT 7")
	require.Equal(t, []string{"1 | [1,2] | 7"}, rows("FROM b"))
	prepared, err := e.Prepare(t.Context(), e.NewSession(), "SELECT id FROM b")
	require.NoError(t, err)
	f("DROP TABLE t")
	missing := func(err error) {
		t.Helper()
		require.Equal(t, NotFound, codeOf(t, err))
		require.Contains(t, err.Error(), `view "b" reads what is not there any more: view "a" reads what is not there any more: Catalog Error: Table with name t does not exist!`)
		require.NotContains(t, err.Error(), "LINE")
	}
	_, err = tryRows(e, "FROM b", nil)
	missing(err)
	_, err = runUpdate(e, "CREATE VIEW c AS FROM b", nil)
	missing(err)
	_, err = prepared.Query(t.Context(), nil)
	missing(err)
	f("CREATE TABLE t (id INTEGER)")
	f("INSERT INTO t VALUES (5)")
	require.Equal(t, []string{"5"}, rows("FROM b"))
	require.Equal(t, []string{"5"}, rows("SELECT id FROM a WHERE id = 5"))
}

// TestTablesAreNoViews says of each statement that is for the other of the two what the name is, and never that there is
// nothing of the name, also with IF EXISTS.
func TestTablesAreNoViews(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	defer func() { require.NoError(t, e.Close()); require.NoError(t, db.Close()) }()
	for _, sql := range []string{"CREATE TABLE t (id INTEGER PRIMARY KEY)", "CREATE TABLE gone (id INTEGER)", "CREATE VIEW v AS FROM t", "CREATE VIEW lost AS FROM gone", "DROP TABLE gone"} {
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err, sql)
	}
	for _, view := range []string{"v", "V", "lost"} {
		for _, sql := range []string{"OPTIMIZE ", "VACUUM ", "DROP TABLE ", "DROP TABLE IF EXISTS ", "TRUNCATE ", "CREATE INDEX i ON ", "CREATE INDEX IF NOT EXISTS i ON "} {
			sql += view
			if strings.HasPrefix(sql, "CREATE INDEX") {
				sql += " (id)"
			}
			_, err := runUpdate(e, sql, nil)
			require.Equal(t, InvalidArgument, codeOf(t, err), "%s: %v", sql, err)
			require.ErrorContains(t, err, `"`+view+`" is a view, and this is for tables`, sql)
		}
	}
	for sql, want := range map[string]string{
		"DROP TABLE v":                         "drop it with DROP VIEW",
		"DROP VIEW T":                          `"t" is a table, and this is for views; drop it with DROP TABLE`,
		"DROP VIEW IF EXISTS t":                "drop it with DROP TABLE",
		"INSERT INTO v VALUES (1)":             "v is not a table",
		"CREATE TABLE l (k INT[] PRIMARY KEY)": "Invalid type for index key",
	} {
		_, err := runUpdate(e, sql, nil)
		require.Equal(t, InvalidArgument, codeOf(t, err), "%s: %v", sql, err)
		require.ErrorContains(t, err, want, sql)
	}
	for _, sql := range []string{"CREATE OR REPLACE TABLE v (i INTEGER)", "CREATE OR REPLACE VIEW t AS SELECT 1"} {
		_, err := runUpdate(e, sql, nil)
		require.Equal(t, AlreadyExists, codeOf(t, err), "%s: %v", sql, err)
	}
	_, err := runUpdate(e, "DROP VIEW nope", nil)
	require.Equal(t, NotFound, codeOf(t, err))
	require.ErrorContains(t, err, `no view has the name: "nope"`)
}
