"""Building an IVF_PQ index beside pylance: processor time and anonymous memory, on the same vectors with the same sample.

    python bench/indexbuild.py [--rows 1000000,3000000] [--partitions 256,4096] [--sample-rate 64] [--no-peer]

The vectors are 128 floats around 1,000 centres (seeded), in a table of Lance 2.0 that both read; codes are 16 sub-vectors of 8 bits. Each line is a
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

ROOT = pathlib.Path(__file__).parent.parent
BINARY = ROOT / "build" / "ivf.test"
DIM = 128


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
    base = anonymous()

    def sample():
        while state["on"]:
            state["peak"] = max(state["peak"], anonymous() - base)
            state["files"] = max(state["files"], len(os.listdir("/proc/self/fd")))
            time.sleep(0.005)

    watch = threading.Thread(target=sample)
    watch.start()
    before = resource.getrusage(resource.RUSAGE_SELF)
    ds.create_index("v", "IVF_PQ", num_partitions=partitions, num_sub_vectors=DIM // 8, sample_rate=rate, metric="L2")
    after = resource.getrusage(resource.RUSAGE_SELF)
    state["on"] = False
    watch.join()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu-s": cpu, "MB-over-base": state["peak"] / 1e6, "files": state["files"]}))


def ours(folder, partitions, rate):
    file = next(pathlib.Path(folder, "data").glob("*.lance"))
    done = subprocess.run([BINARY, "-test.run=^$", "-test.bench=^BenchmarkBuild$", "-test.benchtime=1x", f"-build.file={file}",
                           f"-build.partitions={partitions}", f"-build.samplerate={rate}"], capture_output=True, text=True, cwd=ROOT / "ivf")
    line = re.search(r"^BenchmarkBuild.*ns/op.*$", done.stdout, re.M)
    if not line:
        sys.exit(done.stdout + done.stderr)
    return {unit: float(value) for value, unit in re.findall(r"([\d.e+]+) ([A-Za-z-]+(?:/op)?)", line[0].split("\t", 2)[2])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000")
    parser.add_argument("--partitions", default="256,4096")
    parser.add_argument("--sample-rate", type=int, default=64)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--temp", help="folder for the data: 512 MB for a million rows")
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args.peer[0], int(args.peer[1]), args.sample_rate)
    subprocess.run(["go", "test", "-c", "-o", BINARY, "./ivf"], cwd=ROOT, check=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}\n")
    print("| rows | partitions | who | CPU s | of it training | MB over base | open files |\n|---|---|---|---|---|---|---|")
    for rows in map(int, args.rows.split(",")):
        folder = tempfile.mkdtemp(dir=args.temp)
        try:
            make(f"{folder}/t.lance", rows)
            for partitions in map(int, args.partitions.split(",")):
                lines = {"flightd": ours(f"{folder}/t.lance", partitions, args.sample_rate)}
                if not args.no_peer:
                    done = subprocess.run([sys.executable, __file__, "--peer", f"{folder}/t.lance", str(partitions), "--sample-rate",
                                           str(args.sample_rate)], capture_output=True, text=True, check=True)
                    lines["pylance"] = json.loads(done.stdout.splitlines()[-1])
                for who, m in lines.items():
                    trained = f"{m['cpu-s-train']:.1f}" if "cpu-s-train" in m else ""
                    print(f"| {rows:,} | {partitions:,} | {who} | {m['cpu-s']:.1f} | {trained} | {m['MB-over-base']:.0f} | {m['files']:.0f} |", flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
