package query

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

// TestSystemTablesAreTables asks flightd_catalog in the ways in which one asks tables.
func TestSystemTablesAreTables(t *testing.T) {
	h := newAlterHarness(t)
	for _, sql := range []string{"CREATE TABLE docs (id BIGINT PRIMARY KEY, s VARCHAR) WITH (durability = 'buffered')", "CREATE TABLE log (a INTEGER, b INTEGER)",
		"INSERT INTO docs SELECT i, 's' || i FROM range(100) r(i)", "INSERT INTO log VALUES (1, 2)"} {
		h.update(sql)
	}
	f := func(sql string, want ...string) {
		t.Helper()
		require.Equal(t, want, h.rows(sql), sql)
	}
	f("SELECT table_schema, table_name, key_columns, durability, shards, rows FROM flightd_catalog.tables ORDER BY ALL",
		"main | docs | [\"id\"] | buffered | 1 | 100", "main | log | [] | durable | 1 | 1")
	f("SELECT table_name, memtables, memtable_rows, generations FROM flightd.FLIGHTD_CATALOG.Shards WHERE memtable_bytes > 0 AND table_name = 'docs'", "docs | 1 | 100 | 0")
	h.update("OPTIMIZE docs")
	f("SELECT table_name, memtable_rows, base_rows, base_fragments, base_bytes > 0, base_version > 1 FROM flightd_catalog.tables WHERE table_name = 'docs'", "docs | 0 | 100 | 1 | true | true")
	f("SELECT cause, waiting, count, waited_seconds FROM flightd_catalog.stalls ORDER BY 1", "disk | 0 | 0 | 0", "generations | 0 | 0 | 0", "memory | 0 | 0 | 0")
	f("SELECT part FROM flightd_catalog.memory WHERE used_bytes >= 0 ORDER BY part", "memtables", "old_snapshots", "queries")
	f("SELECT count(*) FROM flightd_catalog.generations", "0")
	f("SELECT kind, state, sql, rows, elapsed_seconds >= 0, started_at <= now() FROM flightd_catalog.queries",
		"query | running | SELECT kind, state, sql, rows, elapsed_seconds >= 0, started_at <= now() FROM flightd_catalog.queries | 0 | true | true")
	// Both scans of a statement see one moment, and system tables join with tables of clients.
	f("SELECT count(*) FROM flightd_catalog.queries a JOIN flightd_catalog.queries b ON a.elapsed_seconds = b.elapsed_seconds", "1")
	f("SELECT t.rows - 1, log.b FROM log JOIN flightd_catalog.tables t ON t.table_name = 'log'", "0 | 2")
	h.update("INSERT INTO log SELECT rows, 7 FROM flightd_catalog.tables WHERE table_name = 'docs'")
	f("SELECT a FROM log WHERE b = 7", "100")
	h.update("CREATE TABLE copy AS FROM flightd_catalog.tables")
	f("SELECT count(*) FROM copy", "2")
	f("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'flightd_catalog'", fmt.Sprint(len(systemTables)))
	f("SELECT column_name FROM (DESCRIBE flightd_catalog.stalls) ORDER BY 1", "cause", "count", "waited_seconds", "waiting")
	require.Equal(t, []string{"flightd_catalog.tables: full scan; 3 rows"}, explainLines(t, h.e, "FROM flightd_catalog.tables WHERE rows > 1", nil))
	for name, schema := range SystemTables() {
		rec := collectRows(t, h.e, "FROM flightd_catalog."+name, nil)
		require.Equal(t, schema.NumFields(), int(rec.NumCols()), name)
		rec.Release()
	}
}

// TestTablesTellHowManyRowsTheyHave: as many as count(*), wherever they lie and whatever replaced or deleted them.
func TestTablesTellHowManyRowsTheyHave(t *testing.T) {
	h := newAlterHarness(t)
	for _, options := range []string{"", " WITH (shards = 3)", " WITH (index_mode = 'async')"} {
		h.update("CREATE OR REPLACE TABLE docs (id BIGINT PRIMARY KEY, n INTEGER)" + options)
		for round, move := range []string{"", "OPTIMIZE docs", "", "OPTIMIZE docs"} {
			h.update("INSERT OR REPLACE INTO docs SELECT range, range FROM range(100)")
			h.update("DELETE FROM docs WHERE id % 10 = 0")
			h.update("INSERT OR REPLACE INTO docs VALUES (20, 1), (1, 3)")
			h.update("UPDATE docs SET n = 5 WHERE id = 20")
			require.Equal(t, []string{"91 | true"}, h.rows("SELECT rows, rows = (SELECT count(*) FROM docs) FROM flightd_catalog.tables"), "round %d%s", round, options)
			if move != "" {
				h.update(move)
			}
		}
	}
}

// TestSystemTablesAreReadByParameter binds parameters to prepared queries over system tables.
func TestSystemTablesAreReadByParameter(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY)")
	st, err := h.e.Prepare(t.Context(), h.e.NewSession(), "SELECT rows FROM flightd_catalog.tables WHERE table_name = ?")
	require.NoError(t, err)
	require.Equal(t, "rows", st.DatasetSchema().Field(0).Name)
	for _, name := range []string{"docs", "nope"} {
		params := paramsOf(texts(name))
		rec := collectRows(t, h.e, st.SQL(), params)
		params.Release()
		require.Equal(t, name == "docs", rec.NumRows() == 1)
		rec.Release()
	}
}

// TestSystemTablesAreNotWritten tries every statement that changes a table.
func TestSystemTablesAreNotWritten(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY)")
	for _, sql := range []string{
		"INSERT INTO flightd_catalog.tables (table_name) VALUES ('x')", "INSERT INTO flightd_catalog.stalls SELECT 'x', 1, 1, 1",
		"UPDATE flightd_catalog.tables SET rows = 0", "DELETE FROM FLIGHTD_CATALOG.queries", "TRUNCATE flightd_catalog.tables",
		"MERGE INTO flightd_catalog.tables t USING docs ON t.rows = docs.id WHEN MATCHED THEN DELETE",
		"DROP TABLE flightd_catalog.tables", "DROP TABLE IF EXISTS flightd.flightd_catalog.tables", "DROP VIEW flightd_catalog.tables",
		"CREATE TABLE flightd_catalog.mine (id BIGINT)", "CREATE OR REPLACE TABLE flightd_catalog.tables AS SELECT 1", "CREATE VIEW flightd_catalog.v AS SELECT 1",
		"ALTER TABLE flightd_catalog.tables ADD COLUMN x INTEGER", "ALTER TABLE IF EXISTS flightd_catalog.tables DROP COLUMN rows", "COMMENT ON TABLE flightd_catalog.tables IS 'x'",
		"OPTIMIZE flightd_catalog.tables", "VACUUM flightd_catalog.tables", "CALL flightd_flush('flightd_catalog.tables')",
	} {
		_, err := runUpdate(h.e, sql, nil)
		require.Equal(t, PermissionDenied, codeOf(t, err), sql)
	}
	require.Equal(t, []string{"1"}, h.rows("SELECT count(*) FROM flightd_catalog.tables"))
}

// TestQueriesListsWhatRuns looks at a result that its client has not read to its end.
func TestQueriesListsWhatRuns(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY)")
	h.update("INSERT INTO docs SELECT i FROM range(10) r(i)")
	session := h.e.NewSession()
	session.ID = 42
	st, err := h.e.Prepare(t.Context(), session, "SELECT id FROM docs, range(1000000)")
	require.NoError(t, err)
	r, err := st.Query(t.Context(), nil)
	require.NoError(t, err)
	rec, err := r.Next(t.Context())
	require.NoError(t, err)
	want := fmt.Sprintf("42 | query | waiting for client | %d", rec.NumRows())
	rec.Release()
	const others = "SELECT session_id, kind, state, rows FROM flightd_catalog.queries WHERE session_id IS NOT NULL"
	require.Equal(t, []string{want}, h.rows(others))
	require.NoError(t, r.Close())
	require.Empty(t, h.rows(others))
}

// fakeClients are sessions and streams as a server tells of them.
type fakeClients struct{}

func (fakeClients) Sessions() []SessionStats {
	return []SessionStats{{ID: 1, Kind: "connection", Client: "127.0.0.1:5", Schema: "main", Calls: 1, Prepared: 2}}
}

func (fakeClients) Streams() []StreamStats {
	return []StreamStats{{ID: 3, Session: 1, Table: lsm.TableName{Name: "docs"}, Kind: "stream", Batches: 4, Rows: 40, Bytes: 400, AckedBatches: 3, AckedRows: 30, WaitingFor: "table"}}
}

// TestClientsAreShown asks for the sessions and streams of a server.
func TestClientsAreShown(t *testing.T) {
	h := newAlterHarness(t)
	require.Empty(t, h.rows("FROM flightd_catalog.sessions"))
	h.e.ServeClients(fakeClients{})
	require.Equal(t, []string{"1 | connection | 127.0.0.1:5 | main | true | 1 | 2 | 3 | docs | 4 | 40 | 400 | 3 | 30 | table"}, h.rows(
		`SELECT s.session_id, s.kind, client, current_schema, idle_seconds IS NULL, calls, prepared_statements, stream_id, table_name, batches, rows, bytes, acked_batches, acked_rows, waiting_for
		FROM flightd_catalog.sessions s JOIN flightd_catalog.streams USING (session_id)`))
}

// TestSystemTablesBesideWork reads system tables while tables come, change and go.
func TestSystemTablesBesideWork(t *testing.T) {
	h := newAlterHarness(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for n := range 6 {
				for _, sql := range []string{"CREATE OR REPLACE TABLE t%d AS SELECT i AS id FROM range(1000) r(i)", "OPTIMIZE t%d", "INSERT INTO t%d SELECT rows FROM flightd_catalog.tables"} {
					if _, err := runUpdate(h.e, fmt.Sprintf(sql, i), nil); err != nil {
						t.Errorf("round %d: %s: %v", n, sql, err)
					}
				}
			}
		})
	}
	go func() { wg.Wait(); cancel() }()
	for ctx.Err() == nil {
		rec := collectRows(t, h.e, "SELECT * FROM flightd_catalog.tables t JOIN flightd_catalog.shards s USING (table_schema, table_name) JOIN flightd_catalog.memory ON true", nil)
		rec.Release()
	}
}
