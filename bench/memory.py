"""What `--memory` promises, under load: RssAnon and RssShmem of a server stay within it and 256 MiB.

Each part is a server of its own with a budget, and works on it for a minute while ten times a second somebody looks at the
memory that it holds: upserts with random keys in batches of 8,192 and of 100 rows, with text keys, of vectors whose IVF_PQ
and BTREE are kept while they come in, and with sorts, joins and groups over everything at the same time."""

import argparse
import concurrent.futures
import contextlib
import pathlib
import re
import shutil
import tempfile
import threading
import time
import urllib.request

import adbc_driver_flightsql.dbapi as flightsql
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

from common import SCHEMA, Server

MARGIN = 256  # MiB that the contract allows above --memory
UNITS = {"MB": 1e6, "GB": 1e9, "MiB": 1 << 20, "GiB": 1 << 30}
KEY = {"lance-schema:unenforced-primary-key": "true"}
KEYS = 20_000_000
# The metrics that say where memory is, shown for the moment of the peak.
PARTS = {"memtables": "flightd_memtable_bytes", "kept": "flightd_memtable_kept_bytes", "live Go objects and garbage": "go_memstats_heap_alloc_bytes",
         "Go heap": "go_memstats_heap_inuse_bytes", "Go idle": "go_memstats_heap_idle_bytes", "Go released": "go_memstats_heap_released_bytes",
         "buffers": "flightd_buffer_bytes", "free buffers": "flightd_buffer_free_bytes"}


class Watcher:
    """Looks at a server's memory ten times a second."""

    def __init__(self, server):
        self.server, self.peak, self.parts, self.done = server, 0, {}, threading.Event()
        self.series = []
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        looked = 0
        while not self.done.wait(0.1):
            now = anonymous(self.server.process.pid)
            self.series.append(now)
            if now > self.peak:
                self.peak = now
                if time.monotonic() > looked + 0.5:
                    looked = time.monotonic()
                    self.parts = parts(self.server) | {"process": now}

    def stop(self):
        self.done.set()
        self.thread.join()


def anonymous(pid):
    """What `--memory` bounds, in MiB."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) // 1024


def parts(server):
    """Where the memory is, in MiB, as the server's metrics tell."""
    with contextlib.suppress(OSError):
        text = urllib.request.urlopen(f"http://{server.http}/metrics", timeout=5).read().decode()
        found = {name: re.search(rf"^{metric} (\S+)$", text, re.M) for name, metric in PARTS.items()}
        return {name: int(float(m[1])) >> 20 for name, m in found.items() if m}
    return {}


def stream(url, table, schema, make, until):
    """Sends batches until a time; returns the rows that were acknowledged."""
    rows = 0
    with flight.connect(url) as client:
        writer, acks = client.do_put(flight.FlightDescriptor.for_path(table), schema)

        def read():
            while acks.read() is not None:
                pass

        reader = threading.Thread(target=read)
        reader.start()
        while time.monotonic() < until:
            batch = make()
            writer.write_batch(batch)
            rows += batch.num_rows
        writer.done_writing()
        reader.join()
        writer.close()
    return rows


def plain(size):
    """Batches of schema A with random keys."""
    rng, tags = np.random.default_rng(1), pa.array([f"tag-{i:07d}" for i in range(size)])

    def make():
        ids = rng.integers(0, KEYS, size)
        return pa.record_batch([pa.array(ids), pa.array(ids, pa.timestamp("us")), pa.array(ids.astype("f8")), tags], schema=SCHEMA)
    return SCHEMA, make


def texts(size):
    """Batches with texts as keys, in no order."""
    schema = pa.schema([pa.field("name", pa.string(), nullable=False, metadata=KEY), ("value", pa.float64()), ("note", pa.string())])
    rng, notes = np.random.default_rng(1), pa.array([f"note {i}" for i in range(size)])

    def make():
        ids = rng.integers(0, KEYS, size)
        return pa.record_batch([pa.array([f"device/{i % 977:03d}/{i:08d}" for i in ids.tolist()]), pa.array(ids.astype("f8")), notes], schema=schema)
    return schema, make


def vectors(size, seed=1):
    """Batches of vectors around a thousand centres."""
    dim = 128
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False, metadata=KEY), ("v", pa.list_(pa.float32(), dim)), ("body", pa.string())])
    rng = np.random.default_rng(seed)
    centres = rng.random((1000, dim), dtype="f4")

    def make():
        ids = rng.integers(0, 1_000_000, size)
        rows = centres[ids % 1000] + rng.random((size, dim), dtype="f4") * 0.3
        return pa.record_batch([pa.array(ids), pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dim),
                                pa.array([f"body {i % 5000}" for i in ids.tolist()])], schema=schema)
    return schema, make


CREATE = {
    "a": ["CREATE TABLE a (id BIGINT PRIMARY KEY, ts TIMESTAMP, value DOUBLE, tag VARCHAR)"],
    "t": ["CREATE TABLE t (name VARCHAR PRIMARY KEY, value DOUBLE, note VARCHAR)"],
    "d": ["CREATE TABLE d (id BIGINT PRIMARY KEY, v FLOAT[128], body VARCHAR)"],
}
INDEXES = ["CREATE INDEX d_v ON d USING IVF_PQ (v) WITH (num_partitions=256, num_sub_vectors=16)", "CREATE INDEX d_body ON d USING BTREE (body)"]
HEAVY = [
    "SELECT count(*), sum(s) FROM (SELECT id % 3000000 AS g, sum(value) AS s FROM a GROUP BY g)",
    "SELECT count(*) FROM (SELECT * FROM a ORDER BY value DESC, tag LIMIT 2000000)",
    "SELECT count(*) FROM a JOIN a AS b ON a.id = b.id + 1",
    "SELECT tag, count(*), quantile_cont(value, 0.5) FROM a GROUP BY tag ORDER BY 2 DESC LIMIT 5",
]


def sql(server, *statements):
    with flightsql.connect(server.url, autocommit=True) as c, c.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            cursor.fetchall()


def query(server, until, out):
    """Runs heavy queries in turn; those that are refused for their memory count apart."""
    while time.monotonic() < until:
        for statement in HEAVY:
            try:
                sql(server, statement)
                out["answered"] = out.get("answered", 0) + 1
            except Exception as e:
                if "RESOURCE_EXHAUSTED" not in str(e) and "ResourceExhausted" not in str(e) and "Out of Memory" not in str(e):
                    raise
                out["refused"] = out.get("refused", 0) + 1
            if time.monotonic() > until:
                return


def upserts(server, seconds, table, make, out, readers=0, read=query):
    """One stream of upserts, beside some who read."""
    until = time.monotonic() + seconds
    asking = [threading.Thread(target=read, args=(server, until, out)) for _ in range(readers)]
    for thread in asking:
        thread.start()
    schema, batch = make
    out["rows"] = stream(server.url, table, schema, batch, until)
    for thread in asking:
        thread.join()


def indexed(server, seconds, out):
    """Upserts of vectors; the indexes are made while they come in, and kept from then on."""
    schema, batch = vectors(1000)
    making = threading.Timer(5, sql, (server, *INDEXES))
    making.start()
    out["rows"] = stream(server.url, "d", schema, batch, time.monotonic() + seconds)
    making.join()
    sql(server, "OPTIMIZE d")


def streams(server, seconds, out, clients=16, size=50_000):
    """Many streams at a time, of batches of 29 MB."""
    until, rows = time.monotonic() + seconds, [0] * clients

    def work(i):
        schema, batch = vectors(size, i)
        made = batch()
        rows[i] = stream(server.url, "d", schema, lambda: made, until)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    out["rows"] = sum(rows)


def exports(server, until, _):
    """Takes whole tables."""
    with flightsql.connect(server.url, autocommit=True) as c, c.cursor() as cursor:
        while time.monotonic() < until:
            cursor.execute("SELECT * FROM a")
            for _ in cursor.fetch_record_batch():
                if time.monotonic() > until:
                    return


RUNS = {
    "random keys, batches of 8,192": ("a", lambda s, t, out: upserts(s, t, "a", plain(8192), out)),
    "random keys, batches of 100": ("a", lambda s, t, out: upserts(s, t, "a", plain(100), out)),
    "text keys, batches of 8,192": ("t", lambda s, t, out: upserts(s, t, "t", texts(8192), out)),
    "vectors, IVF_PQ and BTREE": ("d", indexed),
    "16 streams of batches of 29 MB": ("d", streams),
    "random keys, 3 heavy queries": ("a", lambda s, t, out: upserts(s, t, "a", plain(8192), out, 3)),
    "random keys, 8 exports": ("a", lambda s, t, out: upserts(s, t, "a", plain(8192), out, 8, exports)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", nargs="*", default=["512MB", "1GB"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default="", help="a part of the names of the runs")
    parser.add_argument("--verbose", action="store_true", help="what the memory was for at its peak")
    given = parser.parse_args()
    for memory in given.memory:
        number, unit = re.fullmatch(r"(\d+)(\w+)", memory).groups()
        promise = int(int(number) * UNITS[unit]) // (1 << 20) + MARGIN
        for name, (table, run) in RUNS.items():
            if given.only not in name:
                continue
            folder = tempfile.mkdtemp()
            server = Server(folder, "--memory", memory, "--retain", "0s", "--durability", "buffered").start()
            watcher, out, start = Watcher(server), {}, time.monotonic()
            try:
                sql(server, *CREATE[table])
                run(server, given.seconds, out)
            except BaseException:
                print(server.log_text()[-4000:], flush=True)
                raise
            finally:
                watcher.stop()
                server.close()
                shutil.rmtree(folder)
            note = "".join(f", {n} queries {what}" for what, n in out.items() if what != "rows")
            print(f"--memory {memory:6} {name:32} {watcher.peak:6} of {promise} MiB, {out['rows'] / 1e6:6.1f} M rows"
                  f" in {time.monotonic() - start:.0f} s{note}", flush=True)
            if given.verbose:
                print("   ", watcher.parts, "median", sorted(watcher.series)[len(watcher.series) // 2], flush=True)


if __name__ == "__main__":
    main()
