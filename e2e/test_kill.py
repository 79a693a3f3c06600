"""kill -9 at random moments: every acknowledged row is there, beyond them only whole batches, as a prefix of what
the stream sent, and no row twice. FLIGHTD_TEST_ROUNDS says how many rounds, FLIGHTD_TEST_SEED repeats a run."""

import contextlib
import os
import random
import threading
import time

import numpy as np
import pyarrow as pa
import pytest

import rows
from clients import Stream, check_acks, execute, query, scalar

ROUNDS = int(os.environ.get("FLIGHTD_TEST_ROUNDS", "12"))
SEED = int(os.environ.get("FLIGHTD_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


def payload(first, n):
    """Rows whose every value follows from their id."""
    ids = np.arange(first, first + n, dtype=np.int64)
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return pa.table({
        "id": pa.array(ids),
        "v": pa.array((mixed >> 7).astype(np.int64)),
        "x": pa.array((mixed % 1000).astype(np.float64) / 8, mask=(mixed % 11 == 0)),
        "s": pa.array([f"row {i} {'.' * int(i % 40)}" for i in ids], pa.string()),
    })


class Sender(threading.Thread):
    """One stream that sends consecutive rows until it is broken or has sent all."""

    def __init__(self, server, table, first, rng):
        super().__init__(daemon=True)
        self.table, self.first = table, first
        self.batch_rows = rng.choice([1, 7, 100, 1000, 5000])
        self.batches = rng.randrange(5, 200)
        self.stream = Stream(server, table, payload(0, 0).schema)
        self.start()

    def run(self):
        with contextlib.suppress(Exception):
            for n in range(self.batches):
                batch = payload(self.first + n * self.batch_rows, self.batch_rows).combine_chunks().to_batches()[0]
                if not self.stream.send(batch):
                    return
            self.stream.writer.done_writing()

    def verify(self, server):
        """Compares every row of the stream that is there. Returns how many there are."""
        self.join(timeout=120)
        acked = self.stream.abandon()
        check_acks(self.stream)
        last = self.first + self.batches * self.batch_rows
        got = query(server, f"SELECT * FROM {self.table} WHERE id >= {self.first} AND id < {last} ORDER BY id")
        found, sent = got.num_rows, len(self.stream.sent) * self.batch_rows
        where = f"{self.table}, stream of rows from {self.first}, batches of {self.batch_rows}: {acked} acknowledged, {found} found, {sent} sent"
        assert acked <= found <= sent, where
        assert found % self.batch_rows == 0, where
        # Equal to the first rows of the stream: so a prefix, nothing twice, nothing changed.
        if not got.equals(payload(self.first, found)):
            rows.assert_same_rows(got, payload(self.first, found))
        return found


def test_kill_rounds(new_server):
    """Streams into two tables with keys, one of them with four shards, and one without, OPTIMIZE meanwhile, killed, again and again on one folder."""
    print(f"FLIGHTD_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    server = new_server("--memory", "256MiB").start()
    columns = "(id BIGINT {}, v BIGINT, x DOUBLE, s VARCHAR)"
    execute(server, *(f"CREATE TABLE {t} {columns.format(key)}{options}" for t, key, options in
                      [("a", "PRIMARY KEY", ""), ("b", "PRIMARY KEY", " WITH (shards = 4)"), ("log", "", "")]))
    total = {"a": 0, "b": 0, "log": 0}
    for n in range(ROUNDS):
        senders = [Sender(server, rng.choice(list(total)), (n * 10 + k) * 10_000_000, rng) for k in range(rng.randrange(1, 4))]
        optimizer = None
        if rng.random() < 0.6:
            optimizer = threading.Thread(target=quietly, args=(execute, server, f"OPTIMIZE {rng.choice(list(total))}"), daemon=True)
            optimizer.start()
        time.sleep(rng.choice([0, 0.002, 0.01, 0.05, 0.1, 0.3, 0.8]) * rng.random())
        server.kill()
        if rng.random() < 0.3:
            # Killed again while it replays.
            server.start(wait=False)
            time.sleep(rng.random() * 0.3)
            server.kill()
        server.start()
        for s in senders:
            total[s.table] += s.verify(server)
        if optimizer:
            optimizer.join(timeout=120)
        for table, want in total.items():
            got = query(server, f"SELECT count(*) AS n, count(DISTINCT id) AS d FROM {table}").to_pylist()[0]
            assert got == {"n": want, "d": want}, (SEED, n, table)
    for table in total:
        before = query(server, f"SELECT * FROM {table} ORDER BY id")
        execute(server, f"OPTIMIZE {table}")
        rows.assert_same_rows(query(server, f"SELECT * FROM {table} ORDER BY id"), before)


def test_kill_rounds_of_buffered_tables(new_server):
    """The end of the process takes no page from the system's cache: what was acknowledged as buffered is there, too, though
    no sync came. Beyond it there are only whole batches, as a prefix. SIGTERM keeps all."""
    print(f"FLIGHTD_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    server = new_server("--memory", "256MiB", "--durability", "buffered", "--wal-interval", "1h").start()
    columns = "(id BIGINT PRIMARY KEY, v BIGINT, x DOUBLE, s VARCHAR)"
    execute(server, f"CREATE TABLE a {columns}", f"CREATE TABLE b {columns} WITH (durability = 'buffered')",
            f"CREATE TABLE d {columns} WITH (durability = 'durable')")
    total = {"a": 0, "b": 0, "d": 0}
    for n in range(max(4, ROUNDS // 3)):
        senders = [Sender(server, rng.choice(list(total)), (n * 10 + k) * 10_000_000, rng) for k in range(rng.randrange(1, 4))]
        time.sleep(rng.choice([0, 0.01, 0.05, 0.3]) * rng.random())
        if n % 3 == 2:
            assert server.stop() == 0
        else:
            server.kill()
        server.start()
        for s in senders:
            total[s.table] += s.verify(server)
        for table, want in total.items():
            assert scalar(server, f"SELECT count(*) FROM {table}") == want, (SEED, n, table)
    for table in total:
        execute(server, f"OPTIMIZE {table}")
        assert scalar(server, f"SELECT count(*) FROM {table}") == total[table]


def quietly(fn, *args):
    with contextlib.suppress(Exception):
        fn(*args)


def test_kill_leaves_no_half_batch_of_upserts(new_server):
    """Each batch writes all keys with its number: after a crash all keys carry one number, that of the last ack or later."""
    rng = random.Random(SEED)
    server = new_server().start()
    execute(server, "CREATE TABLE t (k VARCHAR PRIMARY KEY, n BIGINT)")
    schema = pa.schema([("k", pa.string()), ("n", pa.int64())])
    keys = [f"key {k}" for k in range(64)]
    n = 0
    for _ in range(max(3, ROUNDS // 3)):
        stream = Stream(server, "t", schema)
        first = n
        killer = threading.Timer(rng.random() * 0.2, server.kill)
        killer.start()
        while stream.send(pa.record_batch([pa.array(rng.sample(keys, len(keys))), pa.array([n] * len(keys), pa.int64())], schema)):
            n += 1
        killer.join()
        acked = stream.abandon() // len(keys)
        server.start()
        got = query(server, "SELECT count(*) AS c, count(DISTINCT k) AS d, min(n) AS lo, max(n) AS hi FROM t").to_pylist()[0]
        if acked or got["c"]:
            assert got["c"] == got["d"] == len(keys), got
            assert got["lo"] == got["hi"], got
            assert first + acked - 1 <= got["hi"] <= n, (first, acked, n, got)
        n += 1
        if rng.random() < 0.4:
            execute(server, "OPTIMIZE t")


def test_kill_between_deletes(new_server):
    """Deletes that were acknowledged stay, whatever lies below them."""
    server = new_server().start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
    plain = pa.schema([("id", pa.int64()), ("v", pa.int64())])
    with_tombstone = plain.append(pa.field("_tombstone", pa.bool_()))
    want = set()
    for n in range(4):
        ids = list(range(n * 500, n * 500 + 1000))
        s = Stream(server, "t", plain)
        s.send(pa.record_batch([pa.array(ids, pa.int64()), pa.array(ids, pa.int64())], plain))
        s.finish()
        want |= set(ids)
        if n % 2 == 0:
            execute(server, "OPTIMIZE t")
        gone = [i for i in sorted(want) if i % 3 == n % 3]
        s = Stream(server, "t", with_tombstone)
        s.send(pa.record_batch([pa.array(gone, pa.int64()), pa.nulls(len(gone), pa.int64()), pa.array([True] * len(gone))], with_tombstone))
        s.finish()
        want -= set(gone)
        server.restart()
        assert query(server, "SELECT id FROM t ORDER BY id").column("id").to_pylist() == sorted(want)
    execute(server, "OPTIMIZE t")
    server.restart()
    assert query(server, "SELECT id FROM t ORDER BY id").column("id").to_pylist() == sorted(want)


def test_kill_between_statements_keeps_the_catalog(new_server):
    """DDL and INSERT are answered when they are durable."""
    server = new_server().start()
    for n in range(5):
        execute(server, f"CREATE TABLE t{n} (id BIGINT PRIMARY KEY, v VARCHAR DEFAULT 'x')", f"INSERT INTO t{n} VALUES ({n}, 'v{n}')")
        if n >= 2:
            execute(server, f"DROP TABLE t{n - 2}")
        server.restart()
        tables = query(server, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY 1").column(0).to_pylist()
        assert tables == [f"t{i}" for i in range(max(0, n - 1), n + 1)]
        assert query(server, f"SELECT * FROM t{n}").to_pylist() == [{"id": n, "v": f"v{n}"}]


@pytest.mark.parametrize("signal_first", [False, True])
def test_kill_while_starting_does_no_harm(new_server, signal_first):
    server = new_server().start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
    schema = pa.schema([("id", pa.int64())])
    s = Stream(server, "t", schema)
    s.send(pa.record_batch([pa.array(range(1000), pa.int64())], schema))
    s.finish()
    server.kill()
    for pause in (0, 0.01, 0.03, 0.1, 0.2):
        server.start(wait=False)
        time.sleep(pause)
        if signal_first:
            assert server.stop() in (0, -15), server.log_text()  # -15: before the handler was there
        else:
            server.kill()
    server.start()
    assert scalar(server, "SELECT count(*) FROM t") == 1000
