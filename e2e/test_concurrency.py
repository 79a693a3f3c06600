"""Many clients at once."""

import random
import threading

import pyarrow as pa

import rows
from clients import Stream, check_acks, execute, put, query, query_flight, scalar

STREAMS = 8
KEYS = 2000


def test_each_key_ends_at_the_last_write_of_one_of_the_streams(server):
    execute(server, "CREATE TABLE t (k BIGINT PRIMARY KEY, stream BIGINT, n BIGINT, s VARCHAR)")
    schema = pa.schema([("k", pa.int64()), ("stream", pa.int64()), ("n", pa.int64()), ("s", pa.string())])
    last = [dict() for _ in range(STREAMS)]  # per stream: key -> number of its last write
    errors = []

    def run(number):
        try:
            rng = random.Random(number)
            stream = Stream(server, "t", schema)
            n = 0
            for _ in range(80):
                keys = [rng.randrange(KEYS) for _ in range(rng.choice([1, 50, 200]))]
                numbers = list(range(n, n + len(keys)))
                n += len(keys)
                # A key may come twice in one batch: the later row counts.
                last[number].update(zip(keys, numbers))
                assert stream.send(pa.record_batch([
                    pa.array(keys, pa.int64()), pa.array([number] * len(keys), pa.int64()),
                    pa.array(numbers, pa.int64()), pa.array([f"{number}/{i}" for i in numbers])], schema)), stream.error
            assert stream.finish() == n
            check_acks(stream)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(STREAMS)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        got = query(server, "SELECT count(*) AS n, count(DISTINCT k) AS d FROM t").to_pylist()[0]
        assert got["n"] == got["d"], got
        execute(server, "OPTIMIZE t")
    for t in threads:
        t.join()
    assert not errors, errors

    def verify():
        got = query(server, "SELECT * FROM t").to_pylist()
        assert {r["k"] for r in got} == set().union(*last) and len(got) == len(set().union(*last))
        for r in got:
            assert last[r["stream"]].get(r["k"]) == r["n"], r
            assert r["s"] == f"{r['stream']}/{r['n']}", r
        return sorted((r["k"], r["stream"], r["n"]) for r in got)

    before = verify()
    server.restart()
    assert verify() == before
    execute(server, "OPTIMIZE t")
    assert verify() == before


def test_streams_into_many_tables(server):
    tables = [f"t{i}" for i in range(STREAMS)]
    execute(server, *(f"CREATE TABLE {t} (id BIGINT PRIMARY KEY, v DOUBLE)" for t in tables))
    want = pa.table({"id": pa.array(range(20_000), pa.int64()), "v": [i / 4 for i in range(20_000)]})
    threads = [threading.Thread(target=put, args=(server, t, rows.batches(want, 200))) for t in tables]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for t in tables:
        rows.assert_same_rows(query(server, f"SELECT * FROM {t} ORDER BY id"), want)
    union = " UNION ALL ".join(f"SELECT * FROM {t}" for t in tables)
    assert scalar(server, f"SELECT count(*) FROM ({union})") == STREAMS * want.num_rows


def test_a_statement_sees_one_moment_of_two_tables(server):
    """A writer writes a first, then b: whoever sees n in b sees n in a."""
    execute(server, "CREATE TABLE a (id BIGINT PRIMARY KEY, n BIGINT)", "CREATE TABLE b (id BIGINT PRIMARY KEY, n BIGINT)")
    schema = pa.schema([("id", pa.int64()), ("n", pa.int64())])
    stop = threading.Event()

    def write():
        a, b = Stream(server, "a", schema), Stream(server, "b", schema)
        n = 0
        while not stop.is_set():
            n += 1
            for stream in (a, b):
                stream.send(pa.record_batch([pa.array([0], pa.int64()), pa.array([n], pa.int64())], schema))
                while stream.acked < n and stream.thread.is_alive():
                    pass
        a.finish()
        b.finish()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(60):
            got = query(server, "SELECT (SELECT n FROM b) AS b, (SELECT n FROM a) AS a").to_pylist()[0]
            assert (got["a"] or 0) - (got["b"] or 0) in (0, 1), got
            if i % 20 == 10:
                execute(server, "OPTIMIZE a")
    finally:
        stop.set()
        writer.join()


def test_many_readers(server):
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR)")
    want = pa.table({"id": pa.array(range(50_000), pa.int64()), "s": [f"s{i % 100}" for i in range(50_000)]})
    put(server, "t", rows.batches(want, 1000))
    errors = []

    def read(flight):
        try:
            for _ in range(5):
                got = (query_flight if flight else query)(server, "SELECT * FROM t ORDER BY id")
                rows.assert_same_rows(got, want)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=read, args=(i % 2 == 0,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors
