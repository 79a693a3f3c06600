"""ALTER TABLE, and streams whose columns are not the table's: defaults, partial upserts, columns that are added."""

import threading

import adbc_driver_flightsql.dbapi
import lance
import pyarrow as pa
import pytest

from clients import adbc, execute, put, query, refused, scalar, Stream
from server import eventually


def batch(**columns):
    return pa.RecordBatch.from_pydict(columns)


def test_alter_table_reaches_every_reader(server):
    execute(server, "CREATE TABLE docs (a INT, id BIGINT PRIMARY KEY, body VARCHAR)",
            "INSERT INTO docs VALUES (1, 1, 'one'), (2, 2, 'two')", "OPTIMIZE docs", "INSERT INTO docs VALUES (3, 3, 'three')")
    execute(server, "ALTER TABLE docs ADD COLUMN lang VARCHAR DEFAULT 'en'", "ALTER TABLE docs DROP COLUMN a", "ALTER TABLE docs RENAME body TO text")
    want = [{"id": 1, "text": "one", "lang": "en"}, {"id": 2, "text": "two", "lang": "en"}, {"id": 3, "text": "three", "lang": "en"}]
    with adbc(server) as connection:
        assert connection.adbc_get_table_schema("docs").names == ["id", "text", "lang"]
        objects = connection.adbc_get_objects(depth="all", table_name_filter="docs").read_all().to_pylist()
        columns = next(s for s in objects[0]["catalog_db_schemas"] if s["db_schema_name"] == "main")["db_schema_tables"][0]["table_columns"]
        assert [c["column_name"] for c in columns] == ["id", "text", "lang"]
    assert query(server, "FROM docs ORDER BY id").to_pylist() == want

    server.kill()
    server.start()
    assert query(server, "FROM docs ORDER BY id").to_pylist() == want
    execute(server, "OPTIMIZE docs")
    assert lance.dataset(str(server.dataset("docs"))).to_table().sort_by("id").to_pylist() == want
    for version in lance.dataset(str(server.dataset("docs"))).versions():  # no version shows null for the default
        rows = lance.dataset(str(server.dataset("docs")), version=version["version"]).to_table()
        if "lang" in rows.column_names:
            assert rows.column("lang").null_count == 0


def test_a_stream_without_a_column_gets_its_default(server):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, lang VARCHAR DEFAULT 'en', n INT NOT NULL DEFAULT 1 + 2, r DOUBLE DEFAULT random(), at_ TIMESTAMPTZ DEFAULT now(), note VARCHAR)")
    put(server, "docs", [batch(id=[1, 2]), batch(id=[3])])
    with adbc(server) as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("docs", pa.table({"id": [4], "note": ["x"]}), mode="append") == 1
    assert query(server, "SELECT id, lang, n, note FROM docs ORDER BY id").to_pylist() == [
        {"id": i, "lang": "en", "n": 3, "note": "x" if i == 4 else None} for i in range(1, 5)]
    assert scalar(server, "SELECT count(DISTINCT r) FROM docs") == 4
    assert scalar(server, "SELECT count(DISTINCT at_) FROM docs WHERE id < 4") == 1  # one moment for the whole stream
    put(server, "docs", [batch(id=[5], lang=pa.array([None], pa.string()))])
    assert scalar(server, "SELECT lang FROM docs WHERE id = 5") is None  # a null that was sent is a null


def test_a_stream_that_wants_all_columns_is_refused_without(server):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, a INT DEFAULT 1, b INT)")
    with refused("INVALID_ARGUMENT", "a, b"):
        put(server, "docs", [batch(id=[1])], [("x-flightd-missing", "error")])
    with refused("INVALID_ARGUMENT", "keep"):
        put(server, "docs", [batch(id=[1])], [("x-flightd-missing", "whatever")])


@pytest.mark.parametrize("flushed", [False, True])
def test_partial_upserts_keep_what_is_stored(server, flushed):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, a INT, b VARCHAR DEFAULT 'new')", "INSERT INTO docs VALUES (1, 1, 'one'), (2, 2, 'two')")
    if flushed:
        execute(server, "OPTIMIZE docs")
    keep = [("x-flightd-missing", "keep")]
    put(server, "docs", [batch(id=[1, 3], a=pa.array([10, 30], pa.int32())), batch(id=[3], a=pa.array([31], pa.int32()))], keep)
    put(server, "docs", [batch(id=[3, 2], b=["three", "zwei"])], keep)
    want = [{"id": 1, "a": 10, "b": "one"}, {"id": 2, "a": 2, "b": "zwei"}, {"id": 3, "a": 31, "b": "three"}]
    assert query(server, "FROM docs ORDER BY id").to_pylist() == want
    put(server, "docs", [batch(id=[1, 1], a=pa.array([None, 11], pa.int32()), _tombstone=[True, False])], keep)
    want[0] = {"id": 1, "a": 11, "b": "new"}
    assert query(server, "FROM docs ORDER BY id").to_pylist() == want
    header = {"adbc.flight.sql.rpc.call_header.x-flightd-missing": "keep"}
    with adbc_driver_flightsql.dbapi.connect(server.url, db_kwargs=header, autocommit=True) as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("docs", pa.table({"id": [2, 4], "a": pa.array([22, 44], pa.int32())}), mode="append") == 2
    want[1]["a"] = 22
    want.append({"id": 4, "a": 44, "b": "new"})
    assert query(server, "FROM docs ORDER BY id").to_pylist() == want
    server.kill()
    server.start()
    assert query(server, "FROM docs ORDER BY id").to_pylist() == want


def test_partial_upserts_need_a_key(server):
    execute(server, "CREATE TABLE plain (a INT, b INT)")
    with refused("FAILED_PRECONDITION", 'table "plain" has no primary key; declare one with PRIMARY KEY or the Arrow field metadata lance-schema:unenforced-primary-key'):
        put(server, "plain", [batch(a=pa.array([1], pa.int32()))], [("x-flightd-missing", "keep")])


def test_a_stream_adds_columns(server):
    evolve = [("x-flightd-evolve", "add-columns")]
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, a INT DEFAULT 7)", "INSERT INTO docs VALUES (1, 1)")
    with refused("INVALID_ARGUMENT", '"tags"'):
        put(server, "docs", [batch(id=[2], tags=[["x"]])])
    put(server, "docs", [batch(id=[2], tags=[["x", "y"]], v=pa.array([b"\x01"], pa.large_binary()))], evolve)
    schema = query(server, "FROM docs").schema
    assert schema.names == ["id", "a", "tags", "v"]
    assert schema.field("v").type == pa.large_binary()
    assert query(server, "FROM docs ORDER BY id").to_pylist() == [
        {"id": 1, "a": 1, "tags": None, "v": None}, {"id": 2, "a": 7, "tags": ["x", "y"], "v": b"\x01"}]
    with refused("INVALID_ARGUMENT", '"tags"', "int64", "list"):
        put(server, "docs", [batch(id=[3], tags=[3])], evolve)
    header = {"adbc.flight.sql.rpc.call_header.x-flightd-evolve": "add-columns"}
    with adbc_driver_flightsql.dbapi.connect(server.url, db_kwargs=header, autocommit=True) as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("docs", pa.table({"id": [3], "w": [1.5]}), mode="append") == 1
    assert scalar(server, "SELECT w FROM docs WHERE id = 3") == 1.5


def test_streams_that_add_the_same_columns_at_a_time(server):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY)")
    errors = []

    def run(n):
        try:
            columns = {f"c{(n + i) % 6}": [n] for i in range(4)}
            put(server, "docs", [batch(id=[n], **columns)], [("x-flightd-evolve", "add-columns")])
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    rows = query(server, "SELECT id, c0, c1, c2, c3, c4, c5 FROM docs ORDER BY id").to_pylist()
    assert [sum(v is not None for v in r.values()) for r in rows] == [5] * 6


def test_a_column_that_is_dropped_under_a_stream_deletes_nothing(shared_server):
    """The stream's last column is boolean, as the tombstones would be that stand there."""
    execute(shared_server, "CREATE TABLE flags (id BIGINT PRIMARY KEY, flag BOOLEAN)")
    batch = pa.record_batch([[1, 2], [True, True]], schema=pa.schema([("id", pa.int64()), ("flag", pa.bool_())]))
    stream = Stream(shared_server, "flags", batch.schema)
    stream.send(batch)
    eventually(lambda: stream.acked == 2)
    execute(shared_server, "ALTER TABLE flags DROP COLUMN flag")
    stream.send(batch)
    with refused("INVALID_ARGUMENT", "batch 2", '"flag"', "no such column"):
        stream.finish()
    assert query(shared_server, "SELECT id FROM flags ORDER BY id").column(0).to_pylist() == [1, 2]


def test_a_stream_goes_on_while_its_table_is_altered(server):
    execute(server, "CREATE TABLE docs (id BIGINT PRIMARY KEY, a INT, b INT)")
    first = batch(id=[1], a=pa.array([1], pa.int32()), b=pa.array([1], pa.int32()))
    stream = Stream(server, "docs", first.schema)

    def send(i):
        stream.send(batch(id=[i], a=pa.array([i], pa.int32()), b=pa.array([i], pa.int32())))

    def stored(i):
        for _ in range(2000):
            if query(server, f"SELECT id FROM docs WHERE id = {i}").num_rows:
                return
        raise AssertionError(f"row {i} did not come")

    send(1)
    stored(1)
    execute(server, "ALTER TABLE docs ADD COLUMN c VARCHAR DEFAULT 'c'")
    send(2)
    stored(2)
    execute(server, "ALTER TABLE docs DROP COLUMN b")
    send(3)
    with refused("INVALID_ARGUMENT", 'column "b"', "batch 3"):
        stream.finish()
    assert query(server, "FROM docs ORDER BY id").to_pylist() == [{"id": 1, "a": 1, "c": "c"}, {"id": 2, "a": 2, "c": "c"}]


def test_columns_are_widened(server):
    """Rows of all layers keep their values, for us and for pylance, and wider ones come in."""
    execute(server, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TINYINT, f FLOAT DEFAULT 1.5, d DECIMAL(6, 2), s VARCHAR)",
            "INSERT INTO t VALUES (1, 100, 0.5, 1234.56, 'base'), (2, NULL, NULL, NULL, 'base')", "OPTIMIZE t",
            "INSERT OR REPLACE INTO t VALUES (2, -128, 2.5, -0.01, 'memory')", "COMMENT ON COLUMN t.a IS 'narrow once'")
    stream = Stream(server, "t", pa.schema([("id", pa.int32()), ("a", pa.int8())]))
    stream.send(batch(id=pa.array([3], pa.int32()), a=pa.array([7], pa.int8())))
    eventually(lambda: stream.acked == 1)
    execute(server, "ALTER TABLE t ALTER COLUMN a SET DATA TYPE SMALLINT", "ALTER TABLE t ALTER f TYPE DOUBLE", "ALTER TABLE t ALTER d TYPE DECIMAL(18, 2)",
            "ALTER TABLE t ALTER a TYPE BIGINT", "ALTER TABLE t ALTER COLUMN s SET DATA TYPE VARCHAR")
    stream.send(batch(id=pa.array([4], pa.int32()), a=pa.array([8], pa.int8())))
    stream.finish()
    execute(server, "INSERT INTO t VALUES (5, 5000000000, 1e300, 9999999999999999.99, 'wide')")
    want = query(server, "FROM t ORDER BY id")
    assert want.schema.types == [pa.int32(), pa.int64(), pa.float64(), pa.decimal128(18, 2), pa.string()]
    assert want.column("a").to_pylist() == [100, -128, 7, 8, 5000000000]
    assert want.column("f").to_pylist() == [0.5, 2.5, 1.5, 1.5, 1e300]
    assert [str(v) for v in want.column("d").to_pylist()] == ["1234.56", "-0.01", "None", "None", "9999999999999999.99"]
    assert scalar(server, "SELECT comment FROM duckdb_columns() WHERE table_name = 't' AND column_name = 'a'") == "narrow once"
    server.restart()
    assert query(server, "FROM t ORDER BY id").equals(want)
    execute(server, "OPTIMIZE t", "CREATE INDEX by_a ON t (a)")
    assert query(server, "FROM t ORDER BY id").equals(want)
    assert query(server, "SELECT id FROM t WHERE a = 100").to_pylist() == [{"id": 1}]
    table = lance.dataset(str(server.dataset("t"))).to_table().sort_by("id")
    assert table.equals(want.cast(table.schema)) and table.schema.types == want.schema.types
    execute(server, "ALTER TABLE t ADD COLUMN n INTEGER DEFAULT 3", "CREATE INDEX by_n ON t (n)")
    want = query(server, "FROM t ORDER BY id")
    for sql, code, word in [("ALTER TABLE t ALTER d TYPE INTEGER", "INVALID_ARGUMENT", "does not have all its values"), ("ALTER TABLE t ALTER id TYPE BIGINT", "FAILED_PRECONDITION", "primary key"),
                            ("ALTER TABLE t ALTER n TYPE BIGINT", "FAILED_PRECONDITION", "by_n"), ("ALTER TABLE t ALTER a TYPE DOUBLE USING a / 2", "UNIMPLEMENTED", "USING")]:
        with refused(code, word):
            execute(server, sql)
    assert query(server, "FROM t ORDER BY id").equals(want)
