"""What the benchmarks share: schema A, a server, rounds and their median."""

import pathlib
import statistics
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))

from server import Server  # noqa: E402

SCHEMA = pa.schema([
    pa.field("id", pa.int64(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}),
    ("ts", pa.timestamp("us")), ("value", pa.float64()), ("tag", pa.string())])
CREATE = "CREATE TABLE a (id BIGINT PRIMARY KEY, ts TIMESTAMP, value DOUBLE, tag VARCHAR)"
ROUNDS = 5


def batches(rows, size, random_keys):
    """Record batches of schema A; random keys are drawn from a million."""
    rng = np.random.default_rng(1)
    tags = np.array([f"tag-{i:06d}" for i in range(1000)])
    out = []
    for first in range(0, rows, size):
        n = min(size, rows - first)
        ids = rng.integers(0, 1_000_000, n) if random_keys else np.arange(first, first + n)
        out.append(pa.record_batch(
            [pa.array(ids), pa.array(ids).cast(pa.timestamp("us")), pa.array(ids.astype("f8")), pa.array(tags[ids % 1000])],
            schema=SCHEMA))
    return out


def put(url, table, data):
    """Streams batches and returns when the last one is acknowledged; acks are read as they come."""
    with flight.connect(url) as client:
        writer, acks = client.do_put(flight.FlightDescriptor.for_path(table), SCHEMA)
        for batch in data:
            writer.write_batch(batch)
        writer.done_writing()
        while acks.read() is not None:
            pass
        writer.close()


def timed(work):
    """Runs work and returns the seconds it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show(name, seconds, rows):
    """Prints a line: millions of rows a second, median (worst to best)."""
    rates = sorted(rows / s / 1e6 for s in seconds)
    print(f"{name:44} {statistics.median(rates):8.3f} ({rates[0]:.3f} to {rates[-1]:.3f}) M rows/s", flush=True)
    return statistics.median(rates)


__all__ = ["CREATE", "ROUNDS", "SCHEMA", "Server", "batches", "put", "show", "timed"]
