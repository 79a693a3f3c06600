"""Many upserts and deletes over few keys, wide rows and little memory: memtables are flushed all the time, most rows
are superseded, and the server is killed in between. A dictionary in the test says what must be there."""

import contextlib
import random
import threading
import time

import lance
import numpy as np
import pyarrow as pa

from clients import Stream, execute, query, refused, scalar
from server import eventually
from test_kill import ROUNDS, SEED

KEYS = 6000
BATCH = 400
SCHEMA = pa.schema([("k", pa.int64()), ("n", pa.int64()), ("pad", pa.string()), ("_tombstone", pa.bool_())])
MARK = -1  # the key of a row that each batch writes with the batch's number: which batches are there


def pad(k, n):
    return f"{k}:{n}:" + chr(97 + n % 26) * (1000 + (k * 7 + n) % 1000)


def make_batch(n, rng):
    """A batch of upserts and deletes of random keys, the mark last."""
    keys = rng.integers(0, KEYS, BATCH - 1).tolist() + [MARK]
    gone = (rng.random(BATCH - 1) < 0.15).tolist() + [False]
    return pa.record_batch([
        pa.array(keys, pa.int64()), pa.array([None if g else n for g in gone], pa.int64()),
        pa.array([None if g else pad(k, n) for k, g in zip(keys, gone)], pa.string()), pa.array(gone)], SCHEMA)


def apply(model, batch):
    for k, n, gone in zip(*(batch.column(i).to_pylist() for i in (0, 1, 3))):
        if gone:
            model.pop(k, None)
        else:
            model[k] = n


def assert_holds(table, model):
    """Every row of the table is the model's, its wide column included, and no key comes twice."""
    got = dict(zip(table["k"].to_pylist(), table["n"].to_pylist()))
    assert table.num_rows == len(got), "a key comes twice"
    assert got == model
    for k, n, text in zip(table["k"].to_pylist(), table["n"].to_pylist(), table["pad"].to_pylist()):
        assert text == pad(k, n), (k, n, text[:40])


def test_churn_under_kills_equals_a_dictionary(new_server):
    print(f"FLIGHTD_TEST_SEED={SEED}")
    rng, dice = np.random.default_rng(SEED), random.Random(SEED)
    server = new_server("--memory", "256MiB").start()
    execute(server, "CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT, pad VARCHAR)")
    model, n = {}, 0
    for _ in range(max(4, ROUNDS // 2)):
        stream, sent = Stream(server, "t", SCHEMA), []
        killer = threading.Timer(dice.random() * 3, server.kill)
        killer.start()
        while True:
            batch = make_batch(n + len(sent), rng)
            sent.append(batch)
            if not stream.send(batch):
                break
        killer.join()
        acked = stream.abandon() // BATCH
        server.start()
        there = scalar(server, f"SELECT coalesce(max(n), -1) FROM t WHERE k = {MARK}") + 1 - n
        # The mark of an earlier stream stands when nothing of this one is there.
        assert max(acked, 0) <= there <= len(sent), (acked, there, len(sent))
        for batch in sent[:there]:
            apply(model, batch)
        n += there
        assert_holds(query(server, "SELECT * FROM t"), model)
        if dice.random() < 0.4:
            execute(server, "OPTIMIZE t")
            assert_holds(query(server, "SELECT * FROM t"), model)
            assert_holds(lance.dataset(str(server.dataset("t"))).to_table(), model)
    print(f"{n} batches of {BATCH} rows, {len(model)} rows left")
    some = random.Random(SEED).sample(sorted(model), 20)
    for k in some:
        assert scalar(server, f"SELECT n FROM t WHERE k = {k}") == model[k]


def resident(server):
    """Anonymous and shared memory of the process in MiB: mapped files do not count."""
    status = dict(line.split(":", 1) for line in open(f"/proc/{server.process.pid}/status") if ":" in line)
    return sum(int(status[k].split()[0]) for k in ("RssAnon", "RssShmem")) / 1024


@contextlib.contextmanager
def peak_of(server):
    """A list whose only element rises to the most that the process holds meanwhile, in MiB."""
    peak, stop = [0.0], threading.Event()

    def watch():
        while not stop.wait(0.02):
            if server.running():
                peak[0] = max(peak[0], resident(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def test_memory_stays_within_the_budget(new_server):
    """A gigabyte streams through a budget of half of it. --memory plus 256 MiB is the promise."""
    budget = 512
    server = new_server("--memory", f"{budget}MiB").start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, pad VARCHAR)")
    schema = pa.schema([("id", pa.int64()), ("pad", pa.string())])
    with peak_of(server) as peak:
        stream, rows = Stream(server, "t", schema), 0
        text = pa.array(["x" * 1000] * 2000)
        for _ in range(500):
            assert stream.send(pa.record_batch([pa.array(range(rows, rows + 2000), pa.int64()), text], schema)), stream.error
            rows += 2000
        assert stream.finish() == rows
        wrote = peak[0]
        assert scalar(server, "SELECT count(*) FROM t WHERE length(pad) = 1000") == rows
        assert scalar(server, "SELECT count(DISTINCT id) FROM t") == rows
        execute(server, "OPTIMIZE t")
        assert scalar(server, "SELECT sum(id) FROM t") == rows * (rows - 1) // 2
    print(f"peak {wrote:.0f} MiB while writing, {peak[0]:.0f} MiB over all")
    assert peak[0] <= budget + 256, f"peak {peak[0]:.0f} MiB"


def test_one_call_stays_within_the_budget(new_server):
    """Functions that make gigabytes of text are refused the memory, and what is small runs on."""
    budget = 256
    server = new_server("--memory", f"{budget}MiB").start()
    with peak_of(server) as peak:
        for _ in range(3):
            for sql in ("SELECT length(repeat('x', 3000000000))", "SELECT max(length(repeat('x', 1000000 + range))) FROM range(20000)",
                        "SELECT sum(length(range(100000000 + range))) FROM range(2)"):
                with refused("RESOURCE_EXHAUSTED", "memory"):
                    query(server, sql)
            assert scalar(server, "SELECT max(length(repeat('x', 1000 + range))) FROM range(10000)") == 10999
    print(f"peak {peak[0]:.0f} MiB")
    assert peak[0] <= budget + 256, f"peak {peak[0]:.0f} MiB"


def test_cancelled_queries_give_their_memory_back(server):
    """A client that goes away ends its query, and does so soon."""
    from clients import adbc

    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
    for _ in range(3):
        connection = adbc(server)
        cursor = connection.cursor()
        cursor.execute("SELECT a.range AS i FROM range(100000) a, range(100000) b")
        cursor.fetchone()
        cursor.adbc_cancel()
        cursor.close()
        connection.close()
    eventually(lambda: cpu_share(server) < 0.2)
    assert scalar(server, "SELECT 1") == 1


def cpu_share(server, interval=0.5):
    """The share of one core that the process takes over an interval."""
    def ticks():
        fields = open(f"/proc/{server.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(interval)
    return (ticks() - before) / 100 / interval
