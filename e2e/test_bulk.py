"""adbc_ingest beyond the basics: what a new table takes over, options, and loads that do not fit into memory."""

import contextlib
import threading

import adbc_driver_flightsql.dbapi
import numpy as np
import pyarrow as pa
import pytest

from clients import adbc, execute, query, refused, scalar
from server import eventually
from test_churn import resident

KEY = {"lance-schema:unenforced-primary-key": "true"}
WIDE = pa.schema([pa.field("id", pa.int64(), nullable=False, metadata=KEY), ("pad", pa.binary())])


def ingest(server, *args, **kwargs):
    with adbc(server) as connection, connection.cursor() as cursor:
        return cursor.adbc_ingest(*args, **kwargs)


def wide(megabytes, per_row=4096):
    """A reader of batches of one megabyte each that cannot be compressed."""
    rows = (1 << 20) // per_row
    dice = np.random.default_rng(1)

    def batches():
        for n in range(megabytes):
            pad = pa.FixedSizeBinaryArray.from_buffers(pa.binary(per_row), rows, [None, pa.py_buffer(dice.bytes(rows * per_row))])
            yield pa.record_batch([pa.array(range(n * rows, (n + 1) * rows), pa.int64()), pad.cast(pa.binary())], schema=WIDE)

    return pa.RecordBatchReader.from_batches(WIDE, batches()), rows * megabytes


def staged_bytes(server):
    """What is on disk beside the log, which makes its segments ahead."""
    total = 0
    for path in server.data.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.parent.name != "wal":
                total += path.stat().st_size
    return total


def test_a_new_table_has_the_columns_of_the_load_and_the_key(shared_server):
    schema = pa.schema([
        pa.field("id", pa.int32(), metadata=KEY), ("d", pa.dictionary(pa.int8(), pa.string())), ("v", pa.string_view()),
        ("u", pa.uuid()), ("_tombstone", pa.bool_())])
    rows = pa.table([
        [1, 2, 3], pa.array(["a", None, "a"]).dictionary_encode().cast(schema.field("d").type), pa.array(["x", "a longer text than a view", None], pa.string_view()),
        pa.array([b"0123456789abcdef"] * 3, pa.uuid()), [False, None, True]], schema=schema)
    assert ingest(shared_server, "plain", rows, mode="create") == 3
    with adbc(shared_server) as connection:
        made = connection.adbc_get_table_schema("plain")
    assert made.names == ["id", "d", "v", "u"]
    assert [str(t) for t in made.types] == ["int32", "dictionary<values=string, indices=int8, ordered=0>", "string", "extension<arrow.uuid>"] and not made.field("id").nullable
    assert query(shared_server, "SELECT id, d, v FROM plain ORDER BY id").to_pylist() == [
        {"id": 1, "d": "a", "v": "x"}, {"id": 2, "d": None, "v": "a longer text than a view"}]
    ingest(shared_server, "plain", pa.table({"id": pa.array([2, 4], pa.int64()), "_tombstone": [True, False]}), mode="append")
    assert query(shared_server, "SELECT id FROM plain ORDER BY id").column(0).to_pylist() == [1, 4]


def test_names_and_options(shared_server):
    rows = pa.table({"x": [1]})
    assert ingest(shared_server, "named", rows, catalog_name="flightd", db_schema_name="main") == 1
    with refused("NOT_FOUND", "elsewhere"):
        ingest(shared_server, "named", rows, mode="append", catalog_name="elsewhere")
    with refused("NOT_FOUND", "other"):
        ingest(shared_server, "named", rows, mode="append", db_schema_name="other")
    with refused("UNIMPLEMENTED", "temporary"):
        ingest(shared_server, "passing", rows, temporary=True)
    with refused("INVALID_ARGUMENT", "_tombstone", "no primary key"):
        ingest(shared_server, "unkeyed", pa.table({"x": [1], "_tombstone": [True]}))
    for option, value, code in [("durability", "durable", None), ("durability", "buffered", "INVALID_ARGUMENT"),
                                ("resume", "true", "INVALID_ARGUMENT"), ("colour", "red", "INVALID_ARGUMENT")]:
        headers = {f"adbc.flight.sql.rpc.call_header.x-flightd-{option}": value}
        with adbc_driver_flightsql.dbapi.connect(shared_server.url, db_kwargs=headers, autocommit=True) as connection, connection.cursor() as cursor:
            with refused(code, option) if code else contextlib.nullcontext():
                cursor.adbc_ingest("named", rows, mode="append")
    assert scalar(shared_server, "SELECT count(*) FROM named") == 2


def test_a_load_without_rows(shared_server):
    empty = pa.record_batch([pa.array([], pa.int64())], ["x"])
    assert ingest(shared_server, "hollow", pa.RecordBatchReader.from_batches(empty.schema, [empty])) == 0
    assert query(shared_server, "SELECT x FROM hollow").num_rows == 0
    with refused("INVALID_ARGUMENT", "batch without rows"):
        ingest(shared_server, "hollow", pa.Table.from_batches([empty]), mode="append")


def test_autocommit_changes_nothing(shared_server):
    with pytest.warns(Warning, match="autocommit"), adbc_driver_flightsql.dbapi.connect(shared_server.url) as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("committed", pa.table({"x": [1, 2]}), mode="create") == 2
    assert scalar(shared_server, "SELECT count(*) FROM committed") == 2


def test_a_reader_that_fails_leaves_nothing(shared_server):
    def batches():
        yield pa.record_batch({"x": [1, 2, 3]})
        raise RuntimeError("the source broke")

    reader = pa.RecordBatchReader.from_batches(pa.schema([("x", pa.int64())]), batches())
    with pytest.raises(Exception, match="the source broke"):
        ingest(shared_server, "broken", reader, mode="create")
    assert scalar(shared_server, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'broken'") == 0


def test_executemany_is_one_commit(shared_server):
    execute(shared_server, "CREATE TABLE many (id BIGINT PRIMARY KEY, s VARCHAR)")
    schema = pa.schema([("id", pa.int64()), ("s", pa.string())])
    table = pa.table({"id": range(1000), "s": [str(i) for i in range(1000)]}, schema=schema)
    with adbc(shared_server) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO many VALUES (?, ?)", pa.RecordBatchReader.from_batches(schema, table.to_batches(max_chunksize=100)))
        assert cursor.rowcount == 1000
        twice = pa.table({"id": [*range(2000, 2999), 7], "s": ["x"] * 1000}, schema=schema)
        with refused("ALREADY_EXISTS", "7"):
            cursor.executemany("INSERT INTO many VALUES (?, ?)", pa.RecordBatchReader.from_batches(schema, twice.to_batches(max_chunksize=100)))
    assert scalar(shared_server, "SELECT count(*) FROM many") == 1000


def test_a_load_larger_than_memory_fits(new_server):
    server = new_server("--memory", "512MiB").start()
    reader, rows = wide(1024)
    peak, stop = [0.0], threading.Event()

    def watch():
        while not stop.wait(0.05):
            peak[0] = max(peak[0], resident(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert ingest(server, "large", reader, mode="create") == rows
    finally:
        stop.set()
        watcher.join()
    assert peak[0] < 512 + 256, f"{peak[0]:.0f} MiB"
    got = query(server, "SELECT count(*) AS n, sum(id) AS s, min(octet_length(pad)) AS least FROM large").to_pylist()[0]
    assert (got["n"], int(got["s"]), got["least"]) == (rows, rows * (rows - 1) // 2, 4096)


def test_kill_in_a_large_load_leaves_nothing_of_it(new_server):
    server = new_server().start()
    execute(server, "CREATE TABLE old (id BIGINT PRIMARY KEY, pad BLOB)", "INSERT INTO old VALUES (-1, 'kept'::BLOB)")
    for table, mode in [("old", "append"), ("old", "replace"), ("new", "create")]:
        reader, _ = wide(1024)
        failed = []

        def load():
            try:
                ingest(server, table, reader, mode=mode)
            except Exception as e:
                failed.append(e)

        thread = threading.Thread(target=load)
        thread.start()
        eventually(lambda: staged_bytes(server) > 150 << 20 or not thread.is_alive())
        server.kill()
        thread.join()
        assert failed, "the load was whole before the kill"
        server.start()
        assert query(server, "SELECT id FROM old").column(0).to_pylist() == [-1]
        assert scalar(server, "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'main'") == 1
        assert staged_bytes(server) < 1 << 20
        reader.close()
