"""Streams in by plain DoPut, every row out by SQL, before and after a crash and a merge into the base table."""

import lance
import numpy as np
import pyarrow as pa
import pytest

import rows
from clients import check_acks, duckdb_with_lance, execute, put, query, query_flight, refused, scalar, Stream

FLIGHTS = 'CREATE TABLE flights (delay SMALLINT, distance SMALLINT, "time" FLOAT, id BIGINT PRIMARY KEY)'
MNIST = "CREATE TABLE mnist (id BIGINT PRIMARY KEY, v UTINYINT[784])"


@pytest.mark.parametrize("name", ["tab/flights.parquet", "vec/mnist784/train.parquet", "tab/weather.parquet"])
def test_the_shared_data_is_there(name):
    if rows.shared(name) is None:
        pytest.skip(f"{name} is absent below FLIGHTD_SHARED or ../shared: generated rows stand in where they can")


def by_lance(dataset, order="id"):
    """Reads a table with pylance."""
    return lance.dataset(str(dataset)).to_table().sort_by(order)


def by_duckdb(dataset, order="id"):
    """Reads a table with DuckDB's lance extension."""
    with duckdb_with_lance() as db:
        return db.execute(f"SELECT * FROM '{dataset}' ORDER BY {order}").to_arrow_table()


@pytest.mark.parametrize("batch_rows", [100, 1000])
@pytest.mark.parametrize("create, table, make", [(FLIGHTS, "flights", rows.flights), (MNIST, "mnist", rows.mnist)], ids=["flights", "mnist"])
def test_every_row_of_a_stream_is_found(server, create, table, make, batch_rows):
    want = make()
    execute(server, create)
    put(server, table, rows.batches(want, batch_rows))
    sql = f"SELECT * FROM {table} ORDER BY id"
    rows.assert_same_rows(query(server, sql), want)
    rows.assert_same_rows(query_flight(server, sql), want)

    server.restart()
    rows.assert_same_rows(query(server, sql), want)

    execute(server, f"OPTIMIZE {table}")
    rows.assert_same_rows(query(server, sql), want)
    rows.assert_same_rows(by_lance(server.dataset(table)), want)
    rows.assert_same_rows(by_duckdb(server.dataset(table)), want)

    server.restart()
    rows.assert_same_rows(query(server, sql), want)


def test_nulls_timestamps_and_strings_come_back_as_they_went(server):
    want = rows.weather()
    if want is None:
        pytest.skip("tab/weather.parquet is absent below FLIGHTD_SHARED or ../shared")
    types = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "timestamp[us, tz=UTC]": "TIMESTAMPTZ"}
    want = want.set_column(want.column_names.index("time_hour"), "time_hour", want["time_hour"].cast(pa.timestamp("us", "UTC")))
    columns = ", ".join(f'"{f.name}" {types[str(f.type)]}{" PRIMARY KEY" if f.name == "id" else ""}' for f in want.schema)
    execute(server, f"CREATE TABLE weather ({columns})")
    put(server, "weather", rows.batches(want, 1000))
    sql = "SELECT * FROM weather ORDER BY id"
    rows.assert_same_rows(query(server, sql), want)
    execute(server, "OPTIMIZE weather")
    rows.assert_same_rows(query(server, sql), want)
    rows.assert_same_rows(by_lance(server.dataset("weather")), want)
    want_avg = {origin: round(avg, 6) for origin, avg in zip(*[c.to_pylist() for c in want.group_by("origin").aggregate([("temp", "mean")]).columns])}
    got = query(server, "SELECT origin, avg(temp) AS a FROM weather GROUP BY origin")
    assert {o: round(a, 6) for o, a in zip(*[c.to_pylist() for c in got.columns])} == want_avg


def test_an_ack_comes_while_the_stream_is_open_and_is_visible_at_once(server):
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
    schema = pa.schema([("id", pa.int64()), ("v", pa.int64())])
    stream = Stream(server, "t", schema)
    for n in range(20):
        stream.send(pa.record_batch([pa.array([n]), pa.array([n * n])], schema))
        while stream.acked < n + 1:
            assert stream.thread.is_alive(), stream.error
        assert scalar(server, "SELECT count(*) FROM t") == n + 1
        assert scalar(server, f"SELECT v FROM t WHERE id = {n}") == n * n
    stream.finish()
    check_acks(stream)


def test_the_last_write_of_a_key_wins(server):
    execute(server, "CREATE TABLE t (k VARCHAR PRIMARY KEY, v BIGINT, s VARCHAR)")
    schema = pa.schema([("k", pa.string()), ("v", pa.int64()), ("s", pa.string()), ("_tombstone", pa.bool_())])
    model = {}
    rng = np.random.default_rng(3)
    for step in range(6):
        batches = []
        for _ in range(40):
            n = int(rng.integers(1, 60))
            keys = [f"k{int(k)}" for k in rng.integers(0, 400, n)]
            values = [int(v) for v in rng.integers(0, 1 << 40, n)]
            gone = [bool(g) for g in rng.random(n) < 0.3]
            texts = [None if v % 5 == 0 else f"text {v}" for v in values]
            batches.append(pa.record_batch([
                pa.array(keys), pa.array([None if g else v for v, g in zip(values, gone)], pa.int64()),
                pa.array([None if g else t for t, g in zip(texts, gone)], pa.string()), pa.array(gone)], schema))
            for k, v, t, g in zip(keys, values, texts, gone):
                if g:
                    model.pop(k, None)
                else:
                    model[k] = (v, t)
        put(server, "t", batches)
        if step % 2:
            execute(server, "OPTIMIZE t")
        if step == 4:
            server.restart()
        got = query(server, "SELECT k, v, s FROM t").to_pylist()
        assert len(got) == len(model)
        assert {r["k"]: (r["v"], r["s"]) for r in got} == model
    execute(server, "OPTIMIZE t")
    got = by_lance(server.dataset("t"), "k").to_pylist()
    assert {r["k"]: (r["v"], r["s"]) for r in got} == model and len(got) == len(model)
    got = by_duckdb(server.dataset("t"), "k").to_pylist()
    assert {r["k"]: (r["v"], r["s"]) for r in got} == model and len(got) == len(model)


def test_a_table_without_a_key_appends(server):
    execute(server, "CREATE TABLE log (n BIGINT, line VARCHAR)")
    want = pa.table({"n": pa.array(range(5000), pa.int64()), "line": [f"line {i % 7}" for i in range(5000)]})
    put(server, "log", rows.batches(want, 250))
    put(server, ["main", "log"], rows.batches(want, 500))
    twice = pa.concat_tables([want, want]).sort_by("n")
    sql = "SELECT * FROM log ORDER BY n"
    rows.assert_same_rows(query(server, sql), twice)
    execute(server, "OPTIMIZE log")
    put(server, "log", rows.batches(want, 5000))
    server.restart()
    rows.assert_same_rows(query(server, sql), pa.concat_tables([twice, want]).sort_by("n"))
    execute(server, "OPTIMIZE log")
    rows.assert_same_rows(by_lance(server.dataset("log"), "n"), pa.concat_tables([twice, want]).sort_by("n"))


def test_columns_match_by_name_and_cast_without_loss(server):
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, f DOUBLE, s VARCHAR, u INTEGER)")
    batch = pa.record_batch({
        "s": pa.array(["a", "b"], pa.large_string()),
        "ID": pa.array([1, 2], pa.int8()),
        "f": pa.array([0.5, 1.5], pa.float32()),
    })
    put(server, "t", [batch])
    assert query(server, "SELECT * FROM t ORDER BY id").to_pylist() == [
        {"id": 1, "f": 0.5, "s": "a", "u": None}, {"id": 2, "f": 1.5, "s": "b", "u": None}]


def test_a_view_of_a_moment_is_whole_while_streams_run(server):
    """Every batch writes all keys with one number: a query that sees two numbers saw half a batch."""
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT)")
    schema = pa.schema([("id", pa.int64()), ("n", pa.int64())])
    ids = pa.array(range(50), pa.int64())
    stream = Stream(server, "t", schema)
    for n in range(300):
        stream.send(pa.record_batch([ids, pa.array([n] * 50, pa.int64())], schema))
        if n % 20 == 10:
            seen = query(server, "SELECT count(*) AS c, min(n) AS lo, max(n) AS hi FROM t").to_pylist()[0]
            assert seen["c"] in (0, 50) and seen["lo"] == seen["hi"], seen
        if n % 100 == 50:
            execute(server, "OPTIMIZE t")
    stream.finish()
    assert query(server, "SELECT DISTINCT n FROM t").to_pylist() == [{"n": 299}]


def test_batches_of_many_sizes_up_to_the_limit(server):
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, b BLOB)")
    schema = pa.schema([("id", pa.int64()), ("b", pa.binary())])
    sizes = [0, 1, 1 << 10, 1 << 20, 17 << 20, 60 << 20]
    batches = [pa.record_batch([pa.array([i], pa.int64()), pa.array([bytes([i]) * n], pa.binary())], schema) for i, n in enumerate(sizes)]
    batches.insert(2, batches[0].slice(0, 0))  # no rows at all
    stream = Stream(server, "t", schema)
    for b in batches:
        assert stream.send(b)
    assert stream.finish() == len(sizes)
    got = query_lengths(server)
    assert got == sizes
    server.restart()
    assert query_lengths(server) == sizes
    execute(server, "OPTIMIZE t")
    assert query_lengths(server) == sizes


def query_lengths(server):
    return query(server, "SELECT octet_length(b) AS n FROM t ORDER BY id").column("n").to_pylist()


def test_sql_of_every_kind_over_streamed_rows(server):
    want = rows.flights()
    execute(server, FLIGHTS, "CREATE TABLE carriers (id BIGINT PRIMARY KEY, name VARCHAR)",
            "INSERT INTO carriers VALUES (0, 'even'), (1, 'odd')")
    put(server, "flights", rows.batches(want, 1000))
    delays = want["delay"].to_numpy()
    ids = want["id"].to_numpy()
    got = query(server, """
        WITH late AS (SELECT id % 2 AS c, delay FROM flights WHERE delay > 60)
        SELECT name, count(*) AS n, sum(delay) AS total FROM late JOIN carriers ON late.c = carriers.id GROUP BY name ORDER BY name""")
    late = delays > 60
    assert [(r["name"], r["n"], int(r["total"])) for r in got.to_pylist()] == [
        (name, int((late & (ids % 2 == c)).sum()), int(delays[late & (ids % 2 == c)].astype(np.int64).sum()))
        for c, name in [(0, "even"), (1, "odd")]]
    window = query(server, "SELECT id, rank() OVER (ORDER BY delay DESC, id) AS r FROM flights QUALIFY r <= 10 ORDER BY r")
    order = np.lexsort((ids, -delays.astype(np.int64)))[:10]
    assert window.column("id").to_pylist() == ids[order].tolist()
    # A join of the table with itself reads it twice in one statement.
    assert scalar(server, "SELECT count(*) FROM flights a JOIN flights b USING (id)") == len(ids)
    assert query(server, "SELECT * FROM flights WHERE false").schema.names == want.column_names
    assert scalar(server, "SELECT count(*) FROM flights WHERE id IN (5, 7, -1)") == 2


def test_drop_and_create_again_starts_empty(server):
    for n in range(3):
        execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
        batch = pa.record_batch({"id": pa.array(range(n, 10), pa.int64()), "v": pa.array(range(n, 10), pa.int64())})
        put(server, "t", [batch])
        if n == 1:
            execute(server, "OPTIMIZE t")
        assert scalar(server, "SELECT count(*) FROM t") == 10 - n
        server.restart()
        assert scalar(server, "SELECT count(*) FROM t") == 10 - n
        execute(server, "DROP TABLE t")
        with refused("NOT_FOUND", "t"):
            put(server, "t", [batch])
    server.restart()
    with refused("NOT_FOUND", "t"):
        put(server, "t", [batch])
