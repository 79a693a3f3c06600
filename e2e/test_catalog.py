"""flightd_catalog: the system tables, as clients see them while they work."""

import pyarrow as pa

from clients import adbc, execute, put, query, refused, scalar, Stream
from server import eventually


def batch(*ids):
    return pa.RecordBatch.from_pydict({"id": pa.array(ids, pa.int64())})


def test_system_tables_follow_what_happens(server):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY)", "CREATE TABLE soft (id BIGINT) WITH (durability = 'buffered')")
    put(server, "docs", [batch(1, 2, 3), batch(3, 4)])
    rows = "SELECT table_name, durability, key_columns, rows, memtable_rows, base_rows FROM flightd_catalog.tables ORDER BY table_name"
    assert query(server, rows).to_pylist() == [
        {"table_name": "docs", "durability": "durable", "key_columns": ["id"], "rows": 4, "memtable_rows": 5, "base_rows": 0},
        {"table_name": "soft", "durability": "buffered", "key_columns": [], "rows": 0, "memtable_rows": 0, "base_rows": 0}]
    execute(server, "OPTIMIZE docs")
    assert query(server, rows).to_pylist()[0] == {
        "table_name": "docs", "durability": "durable", "key_columns": ["id"], "rows": 4, "memtable_rows": 0, "base_rows": 4}
    assert scalar(server, "SELECT count(*) FROM docs JOIN flightd_catalog.tables t ON t.rows = docs.id WHERE t.table_name = 'docs'") == 1
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT base_bytes > 0 FROM flightd_catalog.tables WHERE table_name = ?", ("docs",))
        assert cursor.fetchall() == [(True,)]
    with refused("PERMISSION_DENIED", "flightd_catalog"):
        execute(server, "DELETE FROM flightd_catalog.tables")


def test_a_stream_shows_while_it_runs(server):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY)")
    stream = Stream(server, "docs", batch(1).schema)
    stream.send(batch(1, 2, 3))
    stream.send(batch(4))
    eventually(lambda: stream.acked == 4)
    (row,) = query(server, "FROM flightd_catalog.streams JOIN flightd_catalog.sessions s USING (session_id)").to_pylist()
    assert {k: row[k] for k in ("table_name", "batches", "rows", "acked_batches", "acked_rows", "waiting_for")} == {
        "table_name": "docs", "batches": 2, "rows": 4, "acked_batches": 2, "acked_rows": 4, "waiting_for": "client"}
    assert row["bytes"] >= 32 and row["client"].startswith("127.0.0.1:") and row["calls"] == 1 and row["idle_seconds"] is None
    assert metric(server, "flightd_streams") == 1
    stream.finish()
    assert eventually(lambda: not query(server, "FROM flightd_catalog.streams").num_rows or None)


def test_queries_and_sessions_of_others(server):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY)", "INSERT INTO docs SELECT range FROM range(100)")
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT a.id, b.id AS other, repeat('x', 100) AS x FROM docs a, docs b, docs c")
        reader = cursor.fetch_record_batch()
        reader.read_next_batch()
        (row,) = query(server, "FROM flightd_catalog.queries WHERE sql NOT LIKE '%flightd_catalog%'").to_pylist()
        assert row["kind"] == "query" and row["sql"].startswith("SELECT a.id") and row["rows"] > 0 and row["elapsed_seconds"] > 0
        assert scalar(server, f"SELECT prepared_statements FROM flightd_catalog.sessions WHERE session_id = {row['session_id']}") >= 0
        assert metric(server, "flightd_queries") == 1 and metric(server, "flightd_sessions") >= 1


def test_metrics_name_the_causes_of_stalls(server):
    assert metric(server, 'flightd_stalls_total{cause="memory"}') == scalar(server, "SELECT count FROM flightd_catalog.stalls WHERE cause = 'memory'") == 0
    assert metric(server, 'flightd_stall_seconds_total{cause="memory"}') == 0


def test_tools_find_the_system_tables(server):
    with adbc(server) as connection:
        (catalog,) = connection.adbc_get_objects(depth="all", db_schema_filter="flightd_catalog").read_all().to_pylist()
        (schema,) = catalog["catalog_db_schemas"]
        tables = {t["table_name"]: t for t in schema["db_schema_tables"]}
        assert set(tables) == set(query(server, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'flightd_catalog'").column(0).to_pylist())
        assert {t["table_type"] for t in tables.values()} == {"SYSTEM TABLE"}
        for name, table in tables.items():
            with connection.cursor() as cursor:
                cursor.execute(f"FROM flightd_catalog.{name}")
                assert [c["column_name"] for c in table["table_columns"]] == cursor.fetch_arrow_table().column_names


def metric(server, name):
    """Returns a number of /metrics."""
    status, text = server.get("/metrics")
    assert status == 200
    (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(line.rsplit(" ", 1)[1])


def test_indexes_by_sql(server):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, lang VARCHAR)", "INSERT INTO docs VALUES (1, 'en'), (2, 'de')",
            "CREATE INDEX by_lang ON docs USING BTREE (lang)", "CREATE INDEX IF NOT EXISTS by_lang ON docs (lang) USING BTREE")
    (row,) = query(server, "SHOW INDEXES ON docs").to_pylist()
    assert (row["index_name"], row["index_type"], row["fields"]) == ("by_lang", "BTREE", "lang")
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_prepare("SHOW INDEXES FROM docs")
        cursor.execute("SHOW INDEXES FROM docs")
        assert cursor.fetch_arrow_table().column("index_name").to_pylist() == ["by_lang"]
    with refused("ALREADY_EXISTS", "by_lang"):
        execute(server, "CREATE INDEX by_lang ON docs (lang)")
    with refused("INVALID_ARGUMENT", "an IVF_PQ is over vectors"):
        execute(server, "CREATE INDEX v ON docs (lang) USING IVF_PQ")
    with refused("NOT_FOUND", "nope"):
        execute(server, "DROP INDEX nope ON docs")
    server.restart()
    assert scalar(server, "SELECT index_name FROM flightd_catalog.indexes WHERE table_name = 'docs'") == "by_lang"
    execute(server, "ALTER INDEX by_lang OPTIMIZE", "DROP INDEX by_lang", "DROP INDEX IF EXISTS by_lang")
    assert query(server, "SHOW INDEXES ON docs").num_rows == 0


def test_a_statement_that_takes_too_long(new_server):
    server = new_server("--query-timeout", "2s").start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY)", "INSERT INTO t SELECT range FROM range(1000)")
    with refused("DEADLINE_EXCEEDED", "--query-timeout"):
        query(server, "SELECT count(*) FROM t a, t b, t c, t d WHERE hash(a.id, b.id, c.id, d.id) <> 1")
    assert scalar(server, "SELECT count(*) FROM t") == 1000
