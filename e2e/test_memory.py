"""What `--memory` promises: RssAnon and RssShmem stay within it and 256 MiB, whatever comes in at once."""

import concurrent.futures
import pathlib
import threading

import adbc_driver_manager
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

from clients import adbc

KEY = {"lance-schema:unenforced-primary-key": "true"}
DIM, ROWS, STREAMS, BATCHES = 128, 50_000, 12, 3  # a batch has 26 MB
MEMORY = 256  # MiB, the least that flightd takes


def anonymous(pid):
    """What `--memory` bounds, in MiB."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) // 1024


def upsert(url, seed):
    """Streams large batches and returns the rows of the last ack."""
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False, metadata=KEY), ("v", pa.list_(pa.float32(), DIM))])
    rng = np.random.default_rng(seed)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(ROWS * DIM, dtype="f4")), DIM)
    with flight.connect(url) as client:
        writer, _ = client.do_put(flight.FlightDescriptor.for_path("docs"), schema)
        for i in range(BATCHES):
            ids = np.arange(ROWS) + (seed * BATCHES + i) % 7 * ROWS
            writer.write_batch(pa.record_batch([pa.array(ids), vectors], schema=schema))
        writer.close()


def test_streams_of_large_batches_beside_sorts_keep_to_the_budget(new_server):
    server = new_server("--memory", f"{MEMORY}MiB", "--retain", "0s").start()
    with adbc(server) as c, c.cursor() as cursor:
        cursor.execute(f"CREATE TABLE docs (id BIGINT PRIMARY KEY, v FLOAT[{DIM}])")
    done, peak = threading.Event(), [0]

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous(server.process.pid))

    def sort():
        """Sorts while rows come in. A statement may be refused for its memory, nothing else."""
        while not done.is_set():
            with adbc(server) as c, c.cursor() as cursor:
                try:
                    cursor.execute("SELECT count(*) FROM (SELECT id, v[1] AS first FROM docs ORDER BY first, id LIMIT 300000)")
                    cursor.fetchall()
                except adbc_driver_manager.Error as e:
                    assert "memory" in str(e).lower(), e

    with concurrent.futures.ThreadPoolExecutor(STREAMS + 2) as pool:
        beside = [pool.submit(watch), pool.submit(sort)]
        try:
            list(pool.map(lambda seed: upsert(server.url, seed), range(STREAMS)))
        finally:
            done.set()
        for work in beside:
            work.result()
    with adbc(server) as c, c.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT id) FROM docs")
        assert cursor.fetchone() == (7 * ROWS, 7 * ROWS)
    assert 0 < peak[0] <= MEMORY + 256
