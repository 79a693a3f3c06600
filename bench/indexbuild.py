"""Building an IVF_PQ index beside pylance: processor time and anonymous memory, on the same vectors with the same sample.

    python bench/indexbuild.py [--rows 1000000,3000000] [--partitions 256,1024,4096] [--sample-rate 64] [--no-peer] [--svg docs/vector-build.svg]

The sample is that of flightd: so many rows for each partition, but no more than 64 MiB; pylance gets a rate that makes it as large. The vectors are 128 floats around 1,000 centres (seeded), in a table of Lance 2.0 that both read; codes are 16 sub-vectors of 8 bits. Each line is a
process of its own. Memory is the most that is anonymous over that before the build, sampled every 5 ms.
"""

import argparse
import json
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

import shuffle as curves

ROOT = pathlib.Path(__file__).parent.parent
BINARY = ROOT / "build" / "ivf.test"
DIM = 128
SAMPLE_BYTES = 64 << 20  # sampleBytes of ivf/train.go
COLOURS = ("#0a7d4f", "#c0392b", "#2c5fa8", "#b8860b", "#7d3c98", "#e67e22", "#16a085", "#d35db3", "#7f8c8d", "#34495e", "#9acd32", "#000000")


def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def make(folder, rows):
    """Writes a dataset of one file in batches."""
    import lance
    import numpy as np
    import pyarrow as pa
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((1000, DIM), dtype="f4")
    schema = pa.schema([("v", pa.list_(pa.float32(), DIM))])

    def batches():
        for first in range(0, rows, 10_000):
            n = min(10_000, rows - first)
            v = centres[rng.integers(0, 1000, n)] + 0.3 * rng.standard_normal((n, DIM), dtype="f4")
            yield pa.record_batch([pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), DIM)], schema=schema)

    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches()), folder, schema=schema,
                        data_storage_version="2.0", max_rows_per_file=1 << 30, max_bytes_per_file=1 << 40)


def peer(folder, partitions, rate):
    """Builds with pylance and prints what it took; runs in a process of its own."""
    import lance
    ds = lance.dataset(folder)
    ds.count_rows()
    state = {"peak": 0, "files": 0, "on": True}
    curve = []
    base, began = anonymous(), time.monotonic()

    def sample():
        while state["on"]:
            curve.append((time.monotonic() - began, 0, (anonymous() - base) / 1e6))
            state["peak"] = max(state["peak"], curve[-1][2])
            state["files"] = max(state["files"], len(os.listdir("/proc/self/fd")))
            time.sleep(0.005)

    watch = threading.Thread(target=sample)
    watch.start()
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        ds.create_index("v", "IVF_PQ", num_partitions=partitions, num_sub_vectors=DIM // 8, sample_rate=rate, metric="L2",
                        replace=True)
    finally:
        state["on"] = False
        watch.join()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu-s": cpu, "MB-over-base": state["peak"], "files": state["files"], "curve": curve}))


def ours(folder, partitions, rate):
    file = next(pathlib.Path(folder, "data").glob("*.lance"))
    with tempfile.NamedTemporaryFile() as f:
        m = run(file, partitions, rate, f.name)
        points = [tuple(map(float, line.split(","))) for line in f.read().decode().splitlines()]
    m["curve"] = [(s, 0, b / 1e6) for s, b in points]
    return m


def run(file, partitions, rate, curve):
    done = subprocess.run([BINARY, "-test.run=^$", "-test.bench=^BenchmarkBuild$", "-test.benchtime=1x", f"-build.file={file}",
                           f"-build.partitions={partitions}", f"-build.samplerate={rate}", f"-build.curve={curve}"], capture_output=True, text=True, cwd=ROOT / "ivf")
    line = re.search(r"^BenchmarkBuild.*ns/op.*$", done.stdout, re.M)
    if not line:
        sys.exit(done.stdout + done.stderr)
    return {unit: float(value) for value, unit in re.findall(r"([\d.e+]+) ([A-Za-z-]+(?:/op)?)", line[0].split("\t", 2)[2])}


def compare(folder, rows, partitions, args):
    """Returns what flightd and pylance took."""
    found = {"flightd": ours(folder, partitions, args.sample_rate)}
    if not args.no_peer and rows <= args.peer_rows:
        # With few partitions it is the code words for which rows are looked at.
        rate = min(args.sample_rate, SAMPLE_BYTES // (4 * DIM) // max(partitions, 256))
        done = subprocess.run([sys.executable, __file__, "--peer", folder, str(partitions), "--sample-rate", str(rate)],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        found["pylance"] = json.loads(done.stdout.splitlines()[-1])
    return found


def draw(found, file):
    """Plots memory over the time of each build: how far it is, since they take from 3 to 100 seconds."""
    names = {name: [(s / points[-1][0], 0, b) for s, _, b in points] for name, points in found.items()}
    colours = dict(zip(names, COLOURS))
    most = curves.scale(names)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 320" font-family="sans-serif" font-size="12" fill="#333">',
           '<rect width="660" height="320" fill="white"/>']
    for i, name in enumerate(names):
        out.append(f'<path d="M405 {50 + 20 * i}h18" stroke="{colours[name]}" stroke-width="2.5"/>')
        out.append(f'<text x="430" y="{54 + 20 * i}">{name}</text>')
    out += curves.panel(names, 0, "part of the time that the build takes", 50, most, colours)
    out.append(f'<text x="12" y="{40 + 105}" text-anchor="middle" transform="rotate(-90 12 145)">anonymous MB over base</text></svg>')
    pathlib.Path(file).write_text("\n".join(out) + "\n")
    print(f"\nwrote {file}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000")
    parser.add_argument("--partitions", default="256,1024,4096")
    parser.add_argument("--sample-rate", type=int, default=64)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--peer-rows", type=int, default=1_000_000, help="pylance builds with no more rows")
    parser.add_argument("--temp", help="folder for the data: 512 MB for a million rows")
    parser.add_argument("--data", help="folder with datasets t<rows>.lance that are used if they are there")
    parser.add_argument("--svg", help="file for a plot of memory over time")
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args.peer[0], int(args.peer[1]), args.sample_rate)
    subprocess.run(["go", "test", "-c", "-o", BINARY, "./ivf"], cwd=ROOT, check=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}\n")
    print("| rows | partitions | who | CPU s | of it training | MB over base | open files |\n|---|---|---|---|---|---|---|")
    plots = {}
    for rows in map(int, args.rows.split(",")):
        folder = tempfile.mkdtemp(dir=args.temp)
        try:
            table = f"{args.data}/t{rows}.lance" if args.data else f"{folder}/t.lance"
            if not os.path.exists(table):
                make(table, rows)
            for partitions in map(int, args.partitions.split(",")):
                for who, m in compare(table, rows, partitions, args).items():
                    trained = f"{m['cpu-s-train']:.1f}" if "cpu-s-train" in m else ""
                    print(f"| {rows:,} | {partitions:,} | {who} | {m['cpu-s']:.1f} | {trained} | {m['MB-over-base']:.0f} | {m['files']:.0f} |", flush=True)
                    plots[f"{who}, {rows / 1e6:.3g} M rows, {partitions:,} partitions"] = m["curve"]
        finally:
            shutil.rmtree(folder)
    if args.svg:
        draw(plots, args.svg)


if __name__ == "__main__":
    main()
