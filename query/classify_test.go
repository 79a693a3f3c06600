package query

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatIsOff sends statements that must not run, and looks at the code of the answer.
func TestWhatIsOff(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 10, 10)
	e := newTestEngine(t, s)
	file := filepath.Join(t.TempDir(), "out.csv")
	f := func(code Code, statements ...string) {
		t.Helper()
		for _, sql := range statements {
			st, err := e.Prepare(t.Context(), e.NewSession(), sql)
			if err == nil { // some are only found out when they run
				if st.IsUpdate() {
					_, err = st.Update(t.Context(), nil)
				} else {
					_, err = tryRows(e, sql, nil)
				}
			}
			require.Error(t, err, sql)
			require.Equal(t, code, codeOf(t, err), "%s: %v", sql, err)
			require.NotEmpty(t, err.Error())
		}
	}
	f(PermissionDenied,
		"ATTACH ':memory:' AS x", "attach 'x.db'", "DETACH flightd", "USE memory", "SET threads = 100", "RESET threads", "SET VARIABLE x = 1",
		"PRAGMA enable_profiling", "PRAGMA table_info('n')", "COPY n TO '"+file+"'", "COPY n FROM '"+file+"'", "EXPORT DATABASE 'x'", "IMPORT DATABASE 'x'",
		"INSTALL httpfs", "LOAD httpfs", "FORCE INSTALL httpfs", "CALL pragma_version()", "CHECKPOINT", "PREPARE x AS SELECT 1", "EXECUTE x", "DEALLOCATE x",
		"SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM glob('/*')", `FROM "read_blob"('/etc/passwd')`,
		"SELECT * FROM query('SELECT 1')", "FROM main . query /* */ ('SELECT 1')", "FROM enable_logging()", "FROM enable_profiling()", "FROM flightd_scan(1)",
		"SELECT write_log('x')", "FROM checkpoint()", "FROM arrow_scan(1, 2, 3)", "SELECT * FROM json_execute_serialized_sql('')",
		"SELECT current_setting('temp_directory')", "FROM duckdb_settings()", "SELECT (SELECT count(*) FROM read_parquet('x'))", "EXPLAIN ANALYZE SELECT * FROM read_csv('x')",
		"INSERT INTO n VALUES ((read_text('/etc/passwd')), 1)", "FROM enable_peg_parser()",
	)
	f(NotFound, "SELECT * FROM '/etc/passwd'", "SELECT getenv('HOME')", "FROM nosuch", "DROP TABLE nosuch", "SELECT nosuch(1)", "INSERT INTO nosuch VALUES (1)",
		"FROM duckdb.main.n", "SELECT * FROM nosuch.n")
	f(Unimplemented,
		"ALTER TABLE n ALTER COLUMN v TYPE INT USING 1", "ALTER TABLE n RENAME TO m", "ALTER TABLE n ADD UNIQUE (v)", "ALTER VIEW n RENAME TO m",
		"COMMENT ON SCHEMA main IS 'x'", "COMMENT ON INDEX n IS 'x'", "ANALYZE", "BEGIN", "COMMIT", "ROLLBACK",
		"CREATE TEMP TABLE m (i INT)", "CREATE UNIQUE INDEX i ON n (v)", "CREATE INDEX i ON n USING INVERTED (v)", "CREATE SCHEMA x", "CREATE MACRO f(a) AS a",
		"CREATE TYPE x AS ENUM ('a')", "CREATE SEQUENCE x", "CREATE SECRET x (TYPE s3)", "DROP SCHEMA main",
		"UPDATE n SET (v) = (SELECT 1)",
		"EXPLAIN INSERT INTO n VALUES (1, 2)", "EXPLAIN ANALYZE DELETE FROM n", "EXPLAIN (ANALYZE, FORMAT JSON) UPDATE n SET v = 1", "EXPLAIN COPY n TO 'x'",
		"CREATE TABLE m (a VARCHAR COLLATE NOCASE)", "CREATE TABLE m (a INT, b INT, UNIQUE (a, b))", "CREATE TABLE m (a INT, CONSTRAINT c CHECK (a > 1))", "CREATE TABLE m (a INT CHECK (a > 1))", "CREATE TABLE m (a INT UNIQUE)", "CREATE TABLE m (a INT, b INT GENERATED ALWAYS AS (a + 1))", "CREATE TABLE m (a HUGEINT)",
		"CREATE TABLE m (a STRUCT(x HUGEINT))",
		"CREATE TABLE m (a INT[2][3])", "CREATE TABLE m (a INT[][2])", "CREATE TABLE m (a VARCHAR[2])", "CREATE TABLE m (a STRUCT(x INT)[2])",
	)
	f(InvalidArgument,
		"", " ; ", "-- x", "SELECT", "SELEC 1", "SELECT 1; SELECT 2", "SELECT * FROM n WHERE", "SELECT nosuch FROM n", "FLY", "OPTIMIZE", "OPTIMIZE n n", "OPTIMIZE 'n'", "ALTER TABLE n", "COMMENT ON", "COMMENT ON COLUMN n IS 'x'",
		"CALL flightd_flush(n)", "CALL flightd_flush('n", "CREATE TABLE", "CREATE TABLE m", "CREATE TABLE m (a NOSUCH)(", "CREATE TABLE m (a INT) WITH (color = 'red')",
		"CREATE TABLE m (a INT) WITH (shards)", "CREATE TABLE m (a INT) WITH (shards = 1", "DROP TABLE n n", "DROP TABLE", "INSERT n VALUES (1, 2)", "INSERT INTO n VALUES (1)",
		"INSERT INTO n VALUES ('x', 1)", "INSERT INTO n VALUES (NULL, 1)", "INSERT INTO n (id, nosuch) VALUES (1, 1)", "SELECT 'x'::INT", "SELECT 1 + (2", "SELECT 9223372036854775807 + 1 + 2147483647::BIGINT",
	)
	f(AlreadyExists, "CREATE TABLE n (i INT)", "CREATE TABLE N (i INT)", "INSERT INTO n VALUES (77, 1), (77, 2)")
	require.NoFileExists(t, file)
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, entry := range entries {
		require.NotContains(t, []string{"x", "x.db"}, entry.Name())
	}
	require.Equal(t, []string{"10"}, printRows(collectRows(t, e, "SELECT count(*) FROM n", nil)))
}

// TestNamesThatLookLikeFunctions uses refused words as names of tables and columns.
func TestNamesThatLookLikeFunctions(t *testing.T) {
	s := &memStore{}
	e := newTestEngine(t, s)
	for _, sql := range []string{"CREATE TABLE query (range INT, checkpoint VARCHAR)", "INSERT INTO query (range) VALUES (1)", `CREATE TABLE IF NOT EXISTS "read_csv" ("a b" INT)`} {
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err, sql)
	}
	require.Equal(t, []string{"1 | NULL"}, printRows(collectRows(t, e, "SELECT q.range, q.checkpoint FROM query q", nil)))
}

// TestErrorsPointAtTheText compares the position with the place of a marker in the statement.
func TestErrorsPointAtTheText(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 10, 10)
	e := newTestEngine(t, s)
	for sql, position := range map[string]int{
		"SELECT nosuch FROM n":                            8,
		"SELECT id,\n  nosuch\nFROM n":                    14,
		"SELECT id FROM n WHERE idd = 1":                  24,
		"SELEC 1":                                         1,
		"SELECT 1; SELECT 2":                              11,
		"SELECT 'x'::INT":                                 11,
		"SELECT 1, 2, 3 FORM n":                           21,
		"SELECT id FROM n WHERE v = 1 AND query('x') = 1": 34,
		"SELECT aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa FROM n":                                                     8,
		"SELECT 1 AS one, 2 AS two, 3 AS three, 4 AS four, 5 AS five, 6 AS six, 7 AS seven, nosuch AS eight, 9 AS nine, 10 AS ten, 11 AS eleven FROM n": 84,
	} {
		_, err := tryRows(e, sql, nil)
		require.Error(t, err, sql)
		var own *Error
		require.ErrorAs(t, err, &own, sql)
		require.Equal(t, position, own.Position, "%s: %v", sql, err)
	}
	require.Zero(t, positionOf("Binder Error: x\n\nLINE 9: abc\n   ^", "abc"))
	require.Zero(t, positionOf("Binder Error: x\n\nLINE 1: abc\n", "abc"))
}

// TestCatalogShowsTables lists tables as tables, with keys, and nothing of ours.
func TestCatalogShowsTables(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 10, 10)
	e := newTestEngine(t, s)
	_, err := runUpdate(e, "CREATE TABLE docs (id BIGINT, lang VARCHAR DEFAULT 'en', body VARCHAR NOT NULL, PRIMARY KEY (lang, id))", nil)
	require.NoError(t, err)
	f := func(sql string, want ...string) {
		t.Helper()
		require.Equal(t, want, printRows(collectRows(t, e, sql, nil)), sql)
	}
	f("SHOW TABLES", "docs", "n")
	f("SHOW DATABASES", "flightd")
	f("DESCRIBE n", "id | BIGINT | NO | PRI | NULL | NULL", "v | DOUBLE | YES | NULL | NULL | NULL")
	f("DESCRIBE SELECT id + 1 AS x FROM n", "x | BIGINT | YES | NULL | NULL | NULL")
	f("SELECT column_name, \"key\" FROM (DESCRIBE docs)", "id | PRI", "lang | PRI", "body | NULL")
	f("SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema = 'main' ORDER BY ALL", "flightd | main | docs | BASE TABLE", "flightd | main | n | BASE TABLE")
	f("SELECT count(*) FROM duckdb_views() WHERE NOT internal", "0")
	f("SELECT constraint_text FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' AND table_name = 'docs'", `PRIMARY KEY(lang, id)`)
	f("SELECT current_catalog(), current_schema()", "flightd | main")
	f("SELECT count(*) FROM flightd.main.n", "10")
	f("SELECT count(*) FROM main.N", "10")
	f("SELECT column_name, column_type, min, max, count FROM (SUMMARIZE n)", "id | BIGINT | 0 | 9 | 10", "v | DOUBLE | 0.0 | 4.5 | 10")
	// Together with a table's rows the catalog is DuckDB's view of it, but the rows are right.
	f("SELECT count(*) FROM n, information_schema.schemata WHERE schema_name = 'main' AND catalog_name = 'flightd'", "10")
	f("SELECT sqlite_master.id FROM n AS sqlite_master WHERE id = 3", "3")
}
