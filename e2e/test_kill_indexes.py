"""kill -9 over tables with shards, both index modes and indexes that come and go: after each start the table is that of a
model up to some point behind the last ack, and what an index finds is what a look at every row finds.
FLIGHTD_TEST_ROUNDS says how many rounds, FLIGHTD_TEST_SEED repeats a run."""

import os
import random
import threading
import time

import pyarrow as pa
import pytest

from clients import Stream, execute, query, scalar

ROUNDS = int(os.environ.get("FLIGHTD_TEST_ROUNDS", "12"))
SEED = int(os.environ.get("FLIGHTD_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
KEYS = 3000
SCHEMA = pa.schema([("k", pa.int64()), ("n", pa.int64()), ("word", pa.string()), ("_tombstone", pa.bool_())])


class Writer(threading.Thread):
    """Sends batches of upserts and deletes of random keys until the stream breaks. Batch i writes n = first + i."""

    def __init__(self, server, seed, first):
        super().__init__(daemon=True)
        self.rng, self.first = random.Random(seed), first
        self.batches = []  # of lists of (k, n, word or None for a delete)
        self.stream = Stream(server, "t", SCHEMA)
        self.start()

    def run(self):
        for i in range(400):
            keys = self.rng.sample(range(KEYS), self.rng.choice([1, 20, 100, 400]))
            batch = [(k, self.first + i, None if self.rng.random() < 0.2 else f"w{self.rng.randrange(60)}") for k in keys]
            self.batches.append(batch)
            columns = [pa.array(c, t) for c, t in zip(zip(*[(k, n, w or "", w is None) for k, n, w in batch]), SCHEMA.types)]
            if not self.stream.send(pa.record_batch(columns, SCHEMA)):
                return

    def acked(self):
        """How many batches were acknowledged."""
        self.join(timeout=120)
        self.stream.abandon()
        return max((a["batches"] for a in self.stream.acks), default=0)


def apply(model, batch):
    for k, n, word in batch:
        if word is None:
            model.pop(k, None)
        else:
            model[k] = (n, word)


def settle(server, model, writer):
    """Brings the model to where the table is: behind the acks, at the end of a batch."""
    acked = writer.acked()
    got = {r["k"]: (r["n"], r["word"]) for r in query(server, "SELECT * FROM t").to_pylist()}
    for batch in writer.batches[:acked]:
        apply(model, batch)
    for batch in writer.batches[acked:]:
        if got == model:
            break
        apply(model, batch)
    assert got == model, f"{len(got)} rows are of no moment behind the {acked} batches acknowledged of {len(writer.batches)}"


def assert_indexes_agree(server, model):
    """Points and ranges over both columns, and by the key, against the model."""
    rng = random.Random(len(model))
    for word in [f"w{i}" for i in rng.sample(range(60), 6)] + ["none"]:
        want = sorted(k for k, (_, w) in model.items() if w == word)
        assert query(server, f"SELECT k FROM t WHERE word = '{word}' ORDER BY k").column(0).to_pylist() == want, word
    numbers = sorted({n for n, _ in model.values()}) or [0]
    for n in rng.sample(numbers, min(4, len(numbers))):
        want = sorted(k for k, (m, _) in model.items() if n <= m < n + 3)
        assert query(server, f"SELECT k FROM t WHERE n >= {n} AND n < {n + 3} ORDER BY k").column(0).to_pylist() == want, n
    low = rng.randrange(KEYS)
    want = [[k, *model[k]] for k in sorted(model) if low <= k < low + 50]
    assert [list(r.values()) for r in query(server, f"SELECT k, n, word FROM t WHERE k BETWEEN {low} AND {low + 49} ORDER BY k").to_pylist()] == want
    assert scalar(server, "SELECT count(*) FROM t") == len(model)


@pytest.mark.parametrize("options", ["", "shards = 3", "index_mode = 'async'", "shards = 4, index_mode = 'async', maintain = ['by_word']"])
def test_kills_with_indexes(new_server, options):
    print(f"FLIGHTD_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    server = new_server("--memory", "256MiB", "--retain", "1s").start()
    execute(server, "CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT, word VARCHAR)" + (f" WITH ({options})" if options else ""))
    model, indexes = {}, {"by_word": "word", "by_n": "n"}
    made = {"by_word"}
    execute(server, "CREATE INDEX by_word ON t (word)")
    for n in range(max(3, ROUNDS // 3)):
        writer = Writer(server, rng.random(), n * 1000)
        end = time.monotonic() + rng.choice([0.05, 0.3, 1.0])
        while time.monotonic() < end:
            what = rng.random()
            try:
                if what < 0.15:
                    execute(server, "OPTIMIZE t")
                elif what < 0.3:
                    execute(server, "CALL flightd_flush('t')")
                elif what < 0.5:
                    name = rng.choice(list(indexes))
                    if name in made:
                        made.discard(name)
                        execute(server, f"DROP INDEX IF EXISTS {name} ON t")
                    else:
                        made.add(name)
                        execute(server, f"CREATE INDEX IF NOT EXISTS {name} ON t ({indexes[name]})")
                elif what < 0.6:
                    execute(server, "VACUUM t")
                else:  # a statement sees one moment, by an index or not
                    both = query(server, "SELECT (SELECT count(*) FROM t WHERE word = 'w7') AS a, (SELECT count(*) FROM t WHERE word || '' = 'w7') AS b").to_pylist()[0]
                    assert both["a"] == both["b"]
            except AssertionError:
                raise
            except Exception as e:
                pytest.fail(f"round {n}: {e}")
        server.restart()
        settle(server, model, writer)
        made = set(query(server, "SHOW INDEXES ON t").column("index_name").to_pylist())
        assert_indexes_agree(server, model)
    execute(server, *[f"CREATE INDEX IF NOT EXISTS {name} ON t ({column})" for name, column in indexes.items()], "OPTIMIZE t")
    assert_indexes_agree(server, model)
    server.restart()
    assert_indexes_agree(server, model)
