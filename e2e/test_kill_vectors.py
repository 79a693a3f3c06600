"""kill -9 over a table with indexes over vectors that come and go, over shards and in both index modes: after each start a search that
looks into all partitions finds what a look at every row of the model finds.
FLIGHTD_TEST_ROUNDS says how many rounds, FLIGHTD_TEST_SEED repeats a run."""

import os
import random
import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from clients import Stream, execute, query

ROUNDS = int(os.environ.get("FLIGHTD_TEST_ROUNDS", "12"))
SEED = int(os.environ.get("FLIGHTD_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
DIM, STILL, KEYS = 16, 6000, 2000  # keys below STILL stay as they are: with fewer rows no search would use an index
SCHEMA = pa.schema([("k", pa.int64()), ("n", pa.int64()), ("v", pa.list_(pa.float32(), DIM)), ("_tombstone", pa.bool_())])
KINDS = {
    "flat": "IVF_FLAT (v) WITH (num_partitions=12)",
    "coded": "IVF_PQ (v) WITH (num_partitions=12, num_sub_vectors=4)",
}


def vector_of(k, n):
    """The vector of a version of a row."""
    return np.random.default_rng(k * 1_000_003 + n).normal(size=DIM).astype("f4")


def record(rows):
    """A batch of (k, n); n is None for a delete."""
    vectors = np.array([vector_of(k, n or 0) for k, n in rows], "f4")
    columns = [[k for k, _ in rows], [n or 0 for _, n in rows]]
    arrays = [pa.array(c, pa.int64()) for c in columns]
    arrays += [pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM), pa.array([n is None for _, n in rows])]
    return pa.record_batch(arrays, SCHEMA)


class Writer(threading.Thread):
    """Sends batches of upserts and deletes of random keys until the stream breaks. Batch i writes n = first + i."""

    def __init__(self, server, seed, first):
        super().__init__(daemon=True)
        self.rng, self.first, self.batches = random.Random(seed), first, []
        self.stream = Stream(server, "t", SCHEMA)
        self.start()

    def run(self):
        for i in range(150):
            keys = self.rng.sample(range(STILL, STILL + KEYS), self.rng.choice([1, 20, 200]))
            batch = [(k, None if self.rng.random() < 0.2 else self.first + i) for k in keys]
            self.batches.append(batch)
            if not self.stream.send(record(batch)):
                return

    def acked(self):
        """How many batches were acknowledged."""
        self.join(timeout=120)
        self.stream.abandon()
        return max((a["batches"] for a in self.stream.acks), default=0)


def apply(model, batch):
    for k, n in batch:
        if n is None:
            model.pop(k, None)
        else:
            model[k] = n


def settle(server, model, writer):
    """Brings the model to where the table is: behind the acks, at the end of a batch."""
    acked = writer.acked()
    got = dict(zip(*query(server, f"SELECT k, n FROM t WHERE k >= {STILL}").to_pydict().values()))
    for batch in writer.batches[:acked]:
        apply(model, batch)
    for batch in writer.batches[acked:]:
        if got == model:
            break
        apply(model, batch)
    assert got == model, f"{len(got)} rows are of no moment behind the {acked} batches acknowledged of {len(writer.batches)}"


def assert_searches_agree(server, model, seed):
    """Searches in all partitions, with all candidates compared, against the model."""
    rows = [(k, 0) for k in range(STILL)] + list(model.items())
    vectors = np.array([vector_of(k, n) for k, n in rows])
    for i in range(4):
        q = vector_of(seed, i) if i % 2 else vectors[-1 - i]
        distances = ((vectors.astype("f8") - q) ** 2).sum(1)
        order = np.argsort(distances)[:20]
        call = f"'t', 'v', {q.tolist()}, k := 20, nprobs := 1000, refine_factor := 1000"
        got = query(server, f"SELECT k, n, _distance FROM lance_vector_search({call})").to_pydict()
        assert list(zip(got["k"], got["n"])) == [rows[j] for j in order]
        assert np.allclose(got["_distance"], distances[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", ["", "shards = 3, index_mode = 'async'"])
def test_kills_with_indexes_over_vectors(new_server, options):
    print(f"FLIGHTD_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    server = new_server("--memory", "256MiB", "--retain", "1s").start()
    execute(server, f"CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT, v FLOAT[{DIM}])" + (f" WITH ({options})" if options else ""))
    still = Stream(server, "t", SCHEMA)
    for first in range(0, STILL, 1000):
        assert still.send(record([(k, 0) for k in range(first, first + 1000)]))
    still.finish()
    execute(server, f"CREATE INDEX flat ON t USING {KINDS['flat']}", "OPTIMIZE t")
    model, made = {}, {"flat"}
    for n in range(max(3, ROUNDS // 4)):
        writer = Writer(server, rng.random(), 1 + n * 1000)
        end = time.monotonic() + rng.choice([0.1, 0.5, 1.5])
        while time.monotonic() < end:
            name, what = rng.choice(list(KINDS)), rng.random()
            if what < 0.3:
                execute(server, "OPTIMIZE t")
            elif what < 0.5 and name in made:
                execute(server, f"DROP INDEX IF EXISTS {name} ON t")
                made.discard(name)
            elif what < 0.7:
                execute(server, f"CREATE OR REPLACE INDEX {name} ON t USING {KINDS[name]}")
                made.add(name)
            else:
                q = vector_of(n, 7).tolist()
                found = query(server, f"SELECT k FROM lance_vector_search('t', 'v', {q}, k := 30, nprobs := 2)")["k"].to_pylist()
                assert len(found) == len(set(found)) == 30
        server.restart()
        settle(server, model, writer)
        made = set(query(server, "SHOW INDEXES ON t").column("index_name").to_pylist())
        assert_searches_agree(server, model, n)
    execute(server, *[f"CREATE INDEX IF NOT EXISTS {name} ON t USING {kind}" for name, kind in KINDS.items()], "OPTIMIZE t")
    assert_searches_agree(server, model, 99)
    server.restart()
    assert_searches_agree(server, model, 100)
