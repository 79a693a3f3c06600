"""Vector search beside pylance, on the same vectors in the same run: recall@10, processor time of a query, latency, and load.

    python bench/vector.py [--only recall,latency,batch,load] [--sets mnist784,lsa128,generated] [--keep FOLDER]

Tables and indexes are made in a folder first (--keep keeps it for the next run, so that the parts can be measured one by one on a machine
that is quiet). pylance searches datasets of its own with indexes of its own and the same parameters. Recall is judged by distance: a row
counts when it is no farther than the tenth nearest. Processor time is that of the whole process per query: of flightd's
server over Flight SQL and of pylance's in-process call. What a query costs inside the engine, without SQL and the wire, a Go
benchmark measures over the same files.
"""

import argparse
import functools
import os
import pathlib
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

os.environ.setdefault("LANCE_LOG", "error")  # else k-means warns for every step

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))

from clients import adbc  # noqa: E402
from server import Server  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data" / "vec"
ENGINE = ROOT / "build" / "lsm-vector.test"
K, KEY = 10, {"lance-schema:unenforced-primary-key": "true"}


@dataclass
class Set:
    """Vectors, an index over them, and what shall be reached: (nprobs, refine) with the recall that is the aim, None for pylance's."""

    name: str
    data: str
    metric: str
    partitions: int
    sub_vectors: int
    bits: int
    aims: dict

    @property
    def table(self):
        return self.name.replace("-", "_")


SETS = [
    Set("mnist784", "mnist784", "l2", 128, 98, 8, {(8, 4): 0.985}),
    Set("lsa128", "lsa128", "cosine", 64, 16, 8, {(16, 4): 0.96}),
    Set("generated", "generated", "l2", 256, 16, 8, {(8, 4): None, (16, 4): None, (32, 4): None, (32, 10): None}),
    Set("generated-4bit", "generated", "l2", 256, 64, 4, {(8, 4): None, (16, 4): None, (32, 4): None, (32, 10): None}),
]


@functools.cache
def vectors(name):
    """The rows and queries of a set."""
    if name == "generated":
        return generated(200_000, 1), generated(10_000, 2)
    out = []
    for part in ("train", "queries"):
        column = pq.read_table(SHARED / name / f"{part}.parquet")["v"].combine_chunks()
        out.append(column.flatten().to_numpy().astype("f4").reshape(len(column), -1))
    return out


def generated(n, seed):
    """Seeded vectors of 128 numbers in 400 clusters that overlap, each along 24 directions of its own, which is how vectors of real things lie."""
    dim, centres, latent = 128, 400, 24
    c = np.random.default_rng(40)
    middles = c.standard_normal((centres, dim), dtype="f4")
    directions = c.standard_normal((centres, latent, dim), dtype="f4") * 0.3
    r = np.random.default_rng(seed)
    of = r.integers(0, centres, n)
    out = middles[of] + 0.3 * r.standard_normal((n, dim), dtype="f4")
    along = r.standard_normal((n, latent), dtype="f4")
    for cluster in range(centres):
        rows = of == cluster
        out[rows] += along[rows] @ directions[cluster]
    return out


def table_of(rows, first=0):
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel(), pa.float32()), rows.shape[1])
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False, metadata=KEY), ("v", flat.type)])
    return pa.table([pa.array(range(first, first + len(rows)), pa.int64()), flat], schema=schema)


def truth(rows, queries, metric):
    """The distance of the tenth nearest row of each query."""
    a, b = rows.astype("f8"), queries.astype("f8")
    if metric == "cosine":
        a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (a, b))
    norms, out = (a * a).sum(1), []
    for q in b:
        d = norms - 2 * (a @ q) + q @ q
        out.append(np.partition(d, K - 1)[K - 1])
    return np.array(out) / (2 if metric == "cosine" else 1)


def recall(found, limits):
    """found has the distances that each query found."""
    return np.mean([(np.asarray(d) <= limit * (1 + 1e-5) + 1e-6).sum() / K for d, limit in zip(found, limits)])


def busy(pid):
    """Processor seconds of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def make(folder, chosen):
    """Makes the tables of the sets and pylance's datasets, those that are not there."""
    import lance
    server = Server(folder / "flightd").start()
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM flightd_catalog.tables")
        there = cursor.fetch_arrow_table()["table_name"].to_pylist()
        for s in chosen:
            theirs = folder / f"{s.table}.lance"
            if s.table in there and theirs.exists():
                continue
            rows, _ = vectors(s.data)
            if s.table not in there:
                cursor.adbc_ingest(s.table, table_of(rows).to_reader(max_chunksize=2000), mode="create")  # ADBC sends up to 16 MiB
                cursor.execute(f"OPTIMIZE {s.table}")
                cursor.execute(f"CREATE INDEX near ON {s.table} USING IVF_PQ (v) WITH (num_partitions={s.partitions}, "
                               f"num_sub_vectors={s.sub_vectors}, num_bits={s.bits}, metric_type='{s.metric}')")
            if not theirs.exists():
                dataset = lance.write_dataset(table_of(rows), theirs, data_storage_version="2.0")
                dataset.create_index("v", "IVF_PQ", num_partitions=s.partitions, num_sub_vectors=s.sub_vectors, num_bits=s.bits, metric=s.metric)
    server.stop()


class Flightd:
    """Searches by a server over ADBC, prepared once, the vector bound."""

    def __init__(self, server, s, probes, refine, options=""):
        self.connection = adbc(server)
        self.cursor = self.connection.cursor()
        self.sql = (f"SELECT id, _distance FROM lance_vector_search('{s.table}', 'v', ?, k := {K}, nprobs := {probes}, "
                    f"refine_factor := {refine}{options})")

    def __call__(self, q):
        self.cursor.execute(self.sql, pa.record_batch([pa.array([q], pa.list_(pa.float32(), len(q)))], names=["q"]))
        return self.cursor.fetch_arrow_table()

    def close(self):
        self.cursor.close()
        self.connection.close()


class Pylance:
    """Searches by pylance in this process."""

    def __init__(self, folder, s, probes, refine):
        import lance
        self.dataset = lance.dataset(folder / f"{s.table}.lance")
        self.nearest = {"column": "v", "k": K, "nprobes": probes, "refine_factor": refine}

    def __call__(self, q):
        return self.dataset.to_table(nearest=self.nearest | {"q": q}, columns=["id", "_distance"])


def engine(folder, s, queries, probes, refine):
    """What a query costs inside the engine in µs of processor time, and its recall's distances, by a Go benchmark over the stopped server's folder."""
    asked = folder / "queries.f32"
    queries.tofile(asked)
    done = subprocess.run([ENGINE, "-test.run=^$", "-test.bench=^BenchmarkVectorSearch$", "-test.benchtime=2000x", f"-search.data={folder}/flightd/data",
                           f"-search.table={s.table}", f"-search.queries={asked}", f"-search.nprobs={probes}", f"-search.refine={refine}"],
                          capture_output=True, text=True, cwd=ROOT / "lsm")
    found = re.search(r"([\d.]+) cpu-µs/query", done.stdout)
    if not found:
        sys.exit(done.stdout + done.stderr)
    return float(found[1])


def recalls(folder, chosen, count):
    """Recall and processor time of a query of both."""
    asked, lines = {}, []
    server = Server(folder / "flightd").start()
    for s in chosen:
        rows, queries = vectors(s.data)
        queries = queries[:count]
        limits = truth(rows, queries, s.metric)
        for (probes, refine), aim in s.aims.items():
            found = {}
            ours, theirs = Flightd(server, s, probes, refine), Pylance(folder, s, probes, refine)
            for who, search, clock in (("flightd", ours, lambda: busy(server.process.pid)), ("pylance", theirs, own)):
                for q in queries[:50]:
                    search(q)
                before = clock()
                answers = [search(q) for q in queries]
                found[who] = recall([t["_distance"].to_pylist() for t in answers], limits), (clock() - before) / len(queries) * 1e6
            ours.close()
            asked[s.name, probes, refine] = s, queries
            lines.append((s, probes, refine, aim, found))
    server.stop()
    print("| set | codes | nprobs, refine | recall@10: flightd | pylance | aim | µs of processor a query: in the engine | over Flight SQL, the server's | pylance |")
    print("|---|---|---|---|---|---|---|---|---|")
    for s, probes, refine, aim, found in lines:
        inside = engine(folder, s, asked[s.name, probes, refine][1], probes, refine)
        (ours, over), (theirs, peer) = found["flightd"], found["pylance"]
        print(f"| {s.data} | {s.sub_vectors} × {s.bits} bit | {probes}, {refine} | {ours:.3f} | {theirs:.3f} | {aim or 'as pylance'} | {inside:,.0f} | {over:,.0f} | {peer:,.0f} |",
              flush=True)


def spread(seconds):
    p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
    return f"{p50:.2f} | {p99:.2f}"


def each(search, queries):
    """The seconds that each query took."""
    out = []
    for q in queries:
        start = time.perf_counter()
        search(q)
        out.append(time.perf_counter() - start)
    return out


def latency(folder, s, count):
    """One client that asks one query after the other."""
    _, queries = vectors(s.data)
    queries = queries[:count]
    server = Server(folder / "flightd").start()
    ours, theirs = Flightd(server, s, 16, 4), Pylance(folder, s, 16, 4)
    print("| one client, 16/4 | p50 ms | p99 ms | queries/s |\n|---|---|---|---|")
    for who, search in (("flightd over Flight SQL", ours), ("pylance in process", theirs)):
        each(search, queries[:100])
        took = each(search, queries)
        print(f"| {who} | {spread(took)} | {len(took) / sum(took):,.0f} |", flush=True)
    server.stop()


def batch(folder, s, count):
    """Many queries: as one statement, as calls one by one, and by pylance."""
    _, queries = vectors(s.data)
    queries = queries[:count]
    server = Server(folder / "flightd").start()
    print(f"| {count:,} queries, 16/4 | seconds | CPU s, server or pylance |\n|---|---|---|")
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("queries", table_of(queries).to_reader(max_chunksize=2000), mode="replace")
        sql = f"SELECT _query, id, _distance FROM lance_vector_search_batch('{s.table}', 'v', 'queries', 'v', k := {K}, nprobs := 16, refine_factor := 4)"
        before, start = busy(server.process.pid), time.perf_counter()
        cursor.execute(sql)
        assert cursor.fetch_arrow_table().num_rows == K * count
        print(f"| flightd, lance_vector_search_batch | {time.perf_counter() - start:.1f} | {busy(server.process.pid) - before:.1f} |", flush=True)
        cursor.execute("DROP TABLE queries")
    for who, search, clock in (("flightd, one call each", Flightd(server, s, 16, 4), lambda: busy(server.process.pid)),
                               ("pylance, one call each", Pylance(folder, s, 16, 4), own)):
        before, start = clock(), time.perf_counter()
        each(search, queries)
        print(f"| {who} | {time.perf_counter() - start:.1f} | {clock() - before:.1f} |", flush=True)
    server.stop()


def load(folder, s, seconds, searchers=16):
    """Searchers beside a stream of rows into the same table, in a copy of the folder."""
    copy = pathlib.Path(tempfile.mkdtemp(dir=folder))
    shutil.copytree(folder / "flightd", copy / "flightd")
    server = Server(copy / "flightd").start()
    rows, queries = vectors(s.data)
    print(f"| {searchers} searchers, 16/4 | p50 ms | p99 ms | queries/s | rows/s taken in beside it |\n|---|---|---|---|---|")
    for streams in (0, 1):
        stop, took, written = threading.Event(), [], [0]

        def search(first):
            run = Flightd(server, s, 16, 4)
            for at in range(first, 1 << 30):
                if stop.is_set():
                    break
                took.extend(each(run, queries[at % len(queries)][None]))
            run.close()

        def write():
            import pyarrow.flight as flight
            with flight.connect(server.url) as client:
                data = table_of(rows[:20_000], len(rows))
                writer, acks = client.do_put(flight.FlightDescriptor.for_path(s.table), data.schema)
                reader = threading.Thread(target=lambda: all(iter(lambda: acks.read() is not None, False)))
                reader.start()
                while not stop.is_set():
                    for b in data.to_batches(max_chunksize=100):
                        writer.write_batch(b)
                        written[0] += b.num_rows
                        if stop.is_set():
                            break
                writer.done_writing()
                reader.join()
                writer.close()

        threads = [threading.Thread(target=search, args=(97 * i,)) for i in range(searchers)] + [threading.Thread(target=write) for _ in range(streams)]
        for t in threads:
            t.start()
        time.sleep(seconds)
        stop.set()
        for t in threads:
            t.join()
        print(f"| {'rows come in' if streams else 'nothing is written'} | {spread(took)} | {len(took) / seconds:,.0f} | {written[0] / seconds:,.0f} |", flush=True)
    server.stop()
    shutil.rmtree(copy)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="recall,latency,batch,load", help="the parts that are measured; with `make` nothing is")
    parser.add_argument("--sets", default=",".join(s.name for s in SETS))
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for tables and indexes; half a GB")
    parser.add_argument("--queries", type=int, default=300, help="for recall")
    parser.add_argument("--many", type=int, default=10_000, help="for the batch")
    parser.add_argument("--seconds", type=float, default=20, help="for the load")
    args = parser.parse_args()
    folder = (args.keep or pathlib.Path(tempfile.mkdtemp())).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [s for s in SETS if s.name in args.sets.split(",") and (s.data == "generated" or (SHARED / s.data).exists())]
    parts = args.only.split(",")
    try:
        if not ENGINE.exists() or "make" in parts:
            subprocess.run(["go", "test", "-c", "-o", ENGINE, "./lsm"], cwd=ROOT, check=True)
        make(folder, chosen)
        print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f}\n", flush=True)
        of = next((s for s in chosen if s.data == "generated"), None)
        if "recall" in parts:
            recalls(folder, chosen, args.queries)
        if "latency" in parts and of:
            latency(folder, of, 2000)
        if "batch" in parts and of:
            batch(folder, of, args.many)
        if "load" in parts and of:
            load(folder, of, args.seconds)
    finally:
        if not args.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
