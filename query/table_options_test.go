package query

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTableOptions makes tables with options in every way, changes them and starts again.
func TestTableOptions(t *testing.T) {
	dir := t.TempDir()
	db, e := openAll(t, dir)
	h := alterHarness{t, e}
	for _, sql := range []string{
		"CREATE TABLE a (x INT, y INT)",
		"CREATE TABLE b (x INT, y INT) WITH (index_mode = 'async', maintain = 'i, J')",
		"CREATE TABLE c WITH (Index_Mode = ASYNC, maintain = '') AS SELECT 1 AS x, 2 AS y",
		"CREATE TABLE d (x INT)",
		"CREATE OR REPLACE TABLE d WITH (index_mode = 'async', shards = 1) AS SELECT 1 AS x, 2 AS y",
		"CREATE TABLE e (x INT, y INT) WITH (maintain = 'all', index_mode = 'sync')",
		"CREATE INDEX i ON b (x)", "CREATE INDEX k ON b (y)", "INSERT INTO b VALUES (1, 2)",
		"TRUNCATE b", "ALTER TABLE b ADD COLUMN z INT",
		"CREATE TABLE f (x INT PRIMARY KEY, y INT) WITH (shards = 4)", "INSERT INTO f SELECT range, 0 FROM range(10)", "TRUNCATE f",
		"ALTER TABLE f ADD COLUMN z INT", "CREATE OR REPLACE TABLE g (x VARCHAR PRIMARY KEY) WITH (shards = 1024)",
	} {
		h.update(sql)
	}
	for range 2 {
		require.Equal(t, []string{
			"a | sync | NULL | 1", `b | async | ["i","J"] | 1`, "c | async | [] | 1", "d | async | NULL | 1", "e | sync | NULL | 1",
			"f | sync | NULL | 4", "g | sync | NULL | 1024",
		}, h.rows("SELECT table_name, index_mode, maintain, shards FROM flightd_catalog.tables ORDER BY 1"))
		require.Equal(t, []string{"i | true", "k | false"}, h.rows("SELECT index_name, maintained FROM flightd_catalog.indexes ORDER BY 1"))
		require.NoError(t, e.Close())
		require.NoError(t, db.Close())
		db, e = openAll(t, dir)
		h.e = e
	}
	require.NoError(t, e.Close())
	require.NoError(t, db.Close())
}

// TestTableOptionsSayWhatIsWrong checks that errors have the place and the values that there are.
func TestTableOptionsSayWhatIsWrong(t *testing.T) {
	h := newAlterHarness(t)
	f := func(code Code, message, options string) {
		t.Helper()
		sql := "CREATE TABLE m (a INT) WITH (" + options + ")"
		place := strings.Index(sql, "^") + 1
		sql = strings.Replace(sql, "^", "", 1)
		_, err := h.e.Prepare(t.Context(), h.e.NewSession(), sql)
		require.ErrorContains(t, err, message, sql)
		require.Equal(t, code, codeOf(t, err), sql)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, place, e.Position, sql)
	}
	f(InvalidArgument, "there are durability, index_mode, maintain and shards", "^color = 'red'")
	f(InvalidArgument, "'durable' or 'buffered'", "durability = ^'eventual'")
	f(InvalidArgument, "'sync' or 'async'", "index_mode = ^1")
	f(InvalidArgument, "from 1 to 1024", "shards = ^0")
	f(InvalidArgument, "from 1 to 1024", "shards = ^'many'")
	f(InvalidArgument, "from 1 to 1024", "shards = ^1.5")
	f(InvalidArgument, "shards = -1: say a whole number from 1 to 1024", "shards = ^-1")
	f(InvalidArgument, "commas", "maintain = ^'a,,b'")
	f(InvalidArgument, "there twice", "shards = 1, ^SHARDS = 1")
	f(InvalidArgument, "name = value", "^shards 1")
	f(InvalidArgument, "name = value", "^'shards' = 1")
}

// TestStatementsOverShards runs statements whose rows lie in several shards, or move between them.
func TestStatementsOverShards(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE s (x INT, v VARCHAR PRIMARY KEY) WITH (shards = 5)")
	h.update("INSERT INTO s SELECT range, 'k' || range FROM range(100)")
	require.Equal(t, []string{"100 | 100 | 4950"}, h.rows("SELECT count(*), count(DISTINCT v), sum(x) FROM s"))
	require.Equal(t, []string{"17"}, h.rows("SELECT x FROM s WHERE v = 'k17'"))
	require.Equal(t, []string{"5 | true"}, h.rows("SELECT count(*), count(*) FILTER (memtable_rows > 0) > 1 FROM flightd_catalog.shards"))
	h.update("UPDATE s SET v = 'k' || (x + 50) WHERE x >= 50") // keys move, also onto each other's
	require.Equal(t, []string{"100 | 100 | 4950"}, h.rows("SELECT count(*), count(DISTINCT v), sum(x) FROM s"))
	require.Equal(t, []string{"99"}, h.rows("SELECT x FROM s WHERE v = 'k149'"))
	h.update("OPTIMIZE s")
	h.update("UPDATE s SET v = 'm' || x")
	h.update("DELETE FROM s WHERE x % 2 = 0")
	h.update("INSERT INTO s VALUES (7, 'm1'), (8, 'n') ON CONFLICT (v) DO UPDATE SET x = excluded.x")
	h.update("MERGE INTO s USING (SELECT 'm3' AS v UNION ALL SELECT 'new') AS u ON s.v = u.v WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (9, u.v)")
	require.Equal(t, []string{"51 | 2520"}, h.rows("SELECT count(*), sum(x) FROM s"))
	h.fails(InvalidArgument, "PRIMARY KEY", "CREATE TABLE n (x INT) WITH (shards = 2)")
}
