"""A load of 10 GB of schema A that takes effect as a whole: seconds, memory and disk of a server with a budget of 1 GB."""

import pathlib
import sys
import tempfile
import threading

import adbc_driver_flightsql.dbapi as flightsql
import numpy as np
import pyarrow as pa

from common import SCHEMA, Server, timed

ROW_BYTES = 39
BATCH = 262_144


def rising(rows):
    """Batches with keys from 0 on, made as they are sent."""
    rng, tags = np.random.default_rng(1), pa.array([f"tag-{i:07d}" for i in range(BATCH)])
    for first in range(0, rows, BATCH):
        ids = np.arange(first, first + BATCH)
        yield pa.record_batch([pa.array(ids), pa.array(ids, pa.timestamp("us")), pa.array(rng.random(BATCH)), tags], schema=SCHEMA)


def anonymous(pid):
    """What `--memory` bounds, in MiB."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) // 1024


def main(gigabytes):
    rows = -(-int(gigabytes * 1e9 / ROW_BYTES) // BATCH) * BATCH
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, "--memory", "1GB").start()
        peak, done = 0, threading.Event()

        def watch():
            nonlocal peak
            while not done.wait(0.1):
                peak = max(peak, anonymous(server.process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        with flightsql.connect(f"grpc://{server.grpc}", autocommit=True) as c, c.cursor() as cursor:
            def tell(what, seconds):
                print(f"{what:24} {seconds:8.1f} s {rows / seconds / 1e6:8.2f} M rows/s, at most {peak} MiB so far", flush=True)

            reader = pa.RecordBatchReader.from_batches(SCHEMA, rising(rows))
            tell("adbc_ingest, create", timed(lambda: cursor.adbc_ingest("a", reader, mode="create")))
            tell("count, sum", timed(lambda: cursor.execute("SELECT count(*), sum(value) FROM a").fetchone()))
            tell("OPTIMIZE", timed(lambda: cursor.execute("OPTIMIZE a")))
            cursor.execute("SELECT count(*) FROM a")
            assert cursor.fetchone() == (rows,)
        done.set()
        watcher.join()
        server.close()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
