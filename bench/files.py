"""Lance files: flightd's reader and writer against pylance, in turn, each on one and the same core.

python files.py [ROWS] writes schema B (id, 128 floats, text) in versions 2.0 and 2.2 with both, scans each file with both,
takes 1,000 random rows of each, and compares the sizes of files of several tables. Files are in the page cache, read back from
the disk. What is written is synced, by us as always, by pylance through an fsync of its file.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lance.file import LanceFileReader, LanceFileWriter

from common import timed

ROUNDS = 5
TAKEN = 1000
SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"


class Ours:
    """The Go side, one process."""

    def __init__(self, program):
        self.program = program
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=os.environ | {"GOMAXPROCS": "1"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def __call__(self, op, path="", **more):
        self.process.stdin.write(json.dumps({"Op": op, "Path": str(path)} | more) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "Error" not in answer, answer
        return answer

    def seconds(self, op, path="", **more):
        return self(op, path, **more)["Seconds"]


def words(rng, rows, mean):
    """Texts of words that are as frequent as those of a language are."""
    lexicon = np.array(["".join(rng.choice(list("etaoinshrdlucmfw"), rng.integers(2, 10))) for _ in range(5000)])
    picks = lexicon[np.minimum(rng.zipf(1.3, rows * mean) - 1, len(lexicon) - 1)].reshape(rows, mean)
    return pa.array([" ".join(p) for p in picks])


def schema_b(rows):
    rng = np.random.default_rng(1)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(rows * 128, dtype=np.float32)), 128)
    texts = words(rng, 20_000, 10)
    return pa.table({"id": pa.array(np.arange(rows)), "vec": vectors, "text": texts.take(pa.array(rng.integers(0, len(texts), rows)))})


def numbers(rows):
    """What machines write: ids, times, readings of few digits, states, and names out of few and of many."""
    rng = np.random.default_rng(2)
    few = np.array(["idle", "running", "blocked on input", "failed", "done"])
    hosts = np.array([f"host-{i:05d}.example.org" for i in range(5000)])
    return pa.table({
        "id": pa.array(np.arange(rows)),
        "ts": pa.array(1_700_000_000_000_000 + np.cumsum(rng.integers(0, 2000, rows)), pa.timestamp("us")),
        "value": pa.array(np.round(rng.normal(20, 5, rows), 2)),
        "small": pa.array(rng.integers(-100, 100, rows), pa.int32()),
        "maybe": pa.array(rng.integers(0, 10_000, rows), mask=rng.random(rows) < 0.2),
        "state": pa.array(few[rng.integers(0, len(few), rows)]),
        "host": pa.array(hosts[rng.integers(0, len(hosts), rows)]),
        "hour": pa.array(np.arange(rows) // 3600, pa.int32()),
    })


def shared_tables():
    if not SHARED.exists():
        return {}
    texts = pa.concat_tables([pq.read_table(SHARED / "text" / f"{c}.docs.parquet").cast(
        pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])) for c in ["npl", "lisa", "cran"]])
    return {"texts": texts, "flights": pq.read_table(SHARED / "tab" / "flights.parquet"),
            "weather": pq.read_table(SHARED / "tab" / "weather.parquet")}


def save(table, path):
    """The table as an Arrow file, which the Go side loads."""
    with pa.ipc.new_file(path, table.schema) as f:
        f.write_table(table, max_chunksize=8192)


def pylance_write(table, path, version, sync=True):
    with LanceFileWriter(str(path), table.schema, version=version) as f:
        for batch in table.to_batches(max_chunksize=8192):
            f.write_batch(batch)
    if sync:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def pylance_scan(path):
    return sum(b.num_rows for b in LanceFileReader(str(path)).read_all(batch_size=8192).to_batches())


def report(what, ours, theirs):
    a, b = statistics.median(ours), statistics.median(theirs)
    spread = f"({min(ours) * 1e3:.1f} to {max(ours) * 1e3:.1f}; {min(theirs) * 1e3:.1f} to {max(theirs) * 1e3:.1f})"
    print(f"{what:44} flightd {a * 1e3:8.1f} ms   pylance {b * 1e3:8.1f} ms   {b / a:6.2f} times as fast {spread}", flush=True)


def in_turn(ours, theirs, rounds=ROUNDS):
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return [p[0] for p in pairs], [p[1] for p in pairs]


def writes(ours, table, folder, version, compress):
    a, b = folder / f"ours-{version}.lance", folder / f"pylance-{version}.lance"

    def one():
        a.unlink(missing_ok=True)
        return ours.seconds("write", a, Version=version, Compress=compress)

    def other():
        b.unlink(missing_ok=True)
        return timed(lambda: pylance_write(table, b, version))

    one(), other()
    report(f"write {version}{', compressed' if compress else ''}, synced", *in_turn(one, other))
    return {"ours": a, "pylance's": b}


def read_back(path):
    """Has a file in the page cache as a reader brings it there from the disk, in pieces of up to 128 KiB. A writer leaves it in the
    pieces that it wrote: those of pylance's 2.0 writer are pages of 4 KiB, each of which costs the kernel about as much to map as
    a large piece does, which is then most of what a scan of a mapping takes."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    while os.read(fd, 8 << 20):
        pass
    os.close(fd)


def scans(ours, path, name, rows):
    ours("scan", path), pylance_scan(path)
    report(f"scan {name}", *in_turn(lambda: ours.seconds("scan", path), lambda: timed(lambda: pylance_scan(path))))
    report(f"scan {name}, ours adds up every word",
           *in_turn(lambda: ours.seconds("sum", path), lambda: timed(lambda: pylance_scan(path))))
    with Ours(ours.program) as fresh:
        memory = fresh("memory", path)
    assert memory["Rows"] == rows
    print(f"scan {name}, anonymous memory{'':2} flightd {memory['Anonymous'] / 2**20:8.1f} MiB", flush=True)


def takes(ours, path, name, rows):
    rng = np.random.default_rng(3)
    reader = LanceFileReader(str(path))
    ours("open", path)

    def both():
        picks = sorted(rng.choice(rows, min(TAKEN, rows), replace=False).tolist())
        mine = ours.seconds("take", Rows=picks)
        return mine, timed(lambda: reader.take_rows(picks).to_table())

    both()
    pairs = [both() for _ in range(4 * ROUNDS)]
    report(f"take {TAKEN} of {name}", [p[0] for p in pairs], [p[1] for p in pairs])


def sizes(ours, tables, folder):
    for name, table in tables.items():
        save(table, folder / "size.arrow")
        ours("load", folder / "size.arrow")
        line = f"size of {name:10} Arrow {table.nbytes / 1e6:7.2f} MB  "
        for version in ["2.0", "2.2"]:
            a, b = folder / "a.lance", folder / "b.lance"
            a.unlink(missing_ok=True), b.unlink(missing_ok=True)
            ours("write", a, Version=version, Compress=version != "2.0")
            pylance_write(table, b, version, sync=False)
            assert LanceFileReader(str(a)).read_all().to_table().equals(table), name
            x, y = a.stat().st_size, b.stat().st_size
            line += f" {version}: flightd {x / 1e6:7.2f}, pylance {y / 1e6:7.2f} MB ({x / y:.2f})  "
        print(line, flush=True)


def main(rows):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the Go side inherits it
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subprocess.run(["go", "build", "-o", folder / "lancefile", "./bench/lancefile"], check=True, cwd=pathlib.Path(__file__).parents[1])
        ours, table = Ours(folder / "lancefile"), schema_b(rows)  # ends with us
        print(f"pylance {lance.__version__}, schema B, {rows} rows, {table.nbytes / 1e6:.0f} MB as Arrow", flush=True)
        save(table, folder / "b.arrow")
        ours("load", folder / "b.arrow")
        for version, compress in [("2.0", False), ("2.2", False), ("2.2", True)]:
            for writer, path in writes(ours, table, folder, version, compress).items():
                if writer == "ours" or not compress:
                    name = f"{version}{', compressed' if compress else ''}, {writer} file"
                    if (version, writer) == ("2.0", "pylance's"):
                        scans(ours, path, f"{name}, pieces of 4 KiB", rows)
                    read_back(path)
                    scans(ours, path, name, rows)
                    takes(ours, path, name, rows)
                path.unlink()
        sizes(ours, {"schema B": table.slice(0, 100_000).combine_chunks(), "numbers": numbers(500_000)} | shared_tables(), folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500_000)
