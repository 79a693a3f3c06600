"""The standard door: adbc_ingest. All or nothing, whatever happens in between."""

import random
import threading

import pyarrow as pa
import pytest

import rows
from clients import adbc, execute, query, refused, scalar


@pytest.fixture
def cursor(shared_server):
    with adbc(shared_server) as connection, connection.cursor() as cursor:
        yield cursor


def table(n, first=0):
    return pa.table({"id": pa.array(range(first, first + n), pa.int64()), "s": [f"s{i}" for i in range(first, first + n)]})


def test_create_append_replace(shared_server, cursor):
    assert cursor.adbc_ingest("modes", table(1000), mode="create") == 1000
    rows.assert_same_rows(query(shared_server, "SELECT * FROM modes ORDER BY id"), table(1000))
    with refused("ALREADY_EXISTS", "modes"):
        cursor.adbc_ingest("modes", table(1), mode="create")
    assert cursor.adbc_ingest("modes", table(500, 1000), mode="append") == 500
    rows.assert_same_rows(query(shared_server, "SELECT * FROM modes ORDER BY id"), table(1500))
    assert cursor.adbc_ingest("modes", table(10, 5), mode="replace") == 10
    rows.assert_same_rows(query(shared_server, "SELECT * FROM modes ORDER BY id"), table(10, 5))
    assert cursor.adbc_ingest("modes", table(3), mode="create_append") == 3
    assert scalar(shared_server, "SELECT count(*) FROM modes") == 13
    with refused("NOT_FOUND", "no_such"):
        cursor.adbc_ingest("no_such", table(1), mode="append")


def test_a_key_declared_by_metadata_upserts(shared_server, cursor):
    key = pa.field("id", pa.int64(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"})
    schema = pa.schema([key, ("s", pa.string())])
    cursor.adbc_ingest("by_key", table(10).cast(schema), mode="create")
    cursor.adbc_ingest("by_key", pa.table({"id": pa.array([3, 20], pa.int64()), "s": ["new", "more"]}), mode="append")
    got = query(shared_server, "SELECT * FROM by_key WHERE id IN (2, 3, 20) ORDER BY id").to_pylist()
    assert [r["s"] for r in got] == ["s2", "new", "more"]
    assert scalar(shared_server, "SELECT count(*) FROM by_key") == 11


def test_a_stream_of_batches_from_duckdb(shared_server, cursor):
    import duckdb

    reader = duckdb.sql("SELECT range::BIGINT AS id, 'row ' || range AS s, range / 4 AS x FROM range(200000)").to_arrow_reader(2000)
    assert cursor.adbc_ingest("from_duckdb", reader, mode="create") == 200_000
    got = query(shared_server, "SELECT count(*) AS n, sum(id) AS i, sum(x) AS x, count(DISTINCT s) AS s FROM from_duckdb").to_pylist()[0]
    assert (got["n"], int(got["i"]), got["x"], got["s"]) == (200_000, 199_999 * 100_000, 199_999 * 100_000 / 4, 200_000)


def test_a_stream_that_fails_leaves_nothing(shared_server, cursor):
    execute(shared_server, "CREATE TABLE whole (id BIGINT PRIMARY KEY, s VARCHAR)")
    schema = pa.schema([("id", pa.int64()), ("s", pa.string())])
    batches = table(1000).to_batches(max_chunksize=100)
    batches.append(pa.record_batch([pa.array([None], pa.int64()), pa.array(["no key"])], schema))
    with refused("INVALID_ARGUMENT", "id"):
        cursor.adbc_ingest("whole", pa.RecordBatchReader.from_batches(schema, batches), mode="append")
    assert scalar(shared_server, "SELECT count(*) FROM whole") == 0


def test_kill_leaves_an_ingest_whole_or_absent(new_server):
    rng = random.Random(5)
    server = new_server().start()
    execute(server, "CREATE TABLE whole (id BIGINT PRIMARY KEY, s VARCHAR)")
    total = 0
    for n in range(6):
        data = table(60_000, n * 1_000_000)
        answered = []

        def ingest():
            try:
                with adbc(server) as connection, connection.cursor() as cursor:
                    reader = pa.RecordBatchReader.from_batches(data.schema, data.to_batches(max_chunksize=500))
                    answered.append(cursor.adbc_ingest("whole", reader, mode="append"))
            except Exception:
                pass

        thread = threading.Thread(target=ingest)
        thread.start()
        thread.join(timeout=rng.random() * 0.25)
        server.kill()
        thread.join()
        server.start()
        found = scalar(server, f"SELECT count(*) FROM whole WHERE id >= {n * 1_000_000}")
        assert found in (0, 60_000), found
        assert not answered or found == 60_000
        total += found
        assert scalar(server, "SELECT count(*) FROM whole") == total
    execute(server, "OPTIMIZE whole")
    assert scalar(server, "SELECT count(DISTINCT id) FROM whole") == total
