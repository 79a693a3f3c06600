"""The engine's figures beside their aims: runs lsm's benchmarks and prints one table, with the machine.

    python bench/engine.py [--rounds N] [--sustain 60s] [--only REGEX] [--temp FOLDER] [--build | --no-build | --table]

Each benchmark runs in a process of its own, N times; the table has the median, and the worst and the best. Those that take
minutes run once. The disk's part of a figure is measured in the same process, beside the engine's.

All of it takes a quarter of an hour. It can be run in parts, by the figures' names: what was measured is kept in
build/engine.json, and --table prints the whole table from there. --build only compiles the benchmarks, --no-build takes
them as they are, so that no compiler runs while a machine is kept quiet.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).parent.parent
BINARY = ROOT / "build" / "lsm.test"
KEPT = ROOT / "build" / "engine.json"


@dataclass
class Figure:
    """A line of the table: a metric of a benchmark, and what it shall be."""

    name: str
    bench: str
    metric: str
    aim: float | None  # None is for what is only told
    unit: str
    anchor: str = ""
    time: str = "1s"
    most: bool = False  # the aim is an upper bound
    once: bool = False

    def target(self):
        return f"{'≤' if self.most else '≥'} {self.aim:g} {self.unit}".rstrip() if self.aim is not None else self.unit

    def verdict(self, value):
        if self.aim is None:
            return ""
        good = value <= self.aim if self.most else value >= self.aim
        return ("ok" if good else "missed") + (f"; anchor: {self.anchor}" if self.anchor else "")


FIGURES = [
    Figure("accept, buffered, no key", "Accept/key=none", "Mrows/cpu-s", 19, "M rows/s a core", "19 M claimed, 4.4 M measured", "10x"),
    Figure("the same with a key index, rising keys", "Accept/keys=sequential", "Mrows/s", 12, "M rows/s", "0.32 to 0.56 M", "10x"),
    Figure("the same, random keys", "Accept/keys=random", "Mrows/s", 12, "M rows/s", "", "10x"),
    Figure("allocations for a batch of 100 rows", "Accept/keys=random", "allocs/batch", 1, "", "", "10x", most=True),
    Figure("durable, one client that waits", "Durable/clients=1", "of-disk", 0.9, "of the disk's syncs", "17 puts/s", "2s"),
    Figure("durable, 32 clients", "Durable/clients=32", "of-one", 8, "times one client", "not possible", "2s"),
    Figure("sustained, rising keys", "Sustained/keys=sequential", "rate-of-limit", 0.6, "of the disk", "", "1x", once=True),
    Figure("sustained, rising keys: memory beyond that of memtables", "Sustained/keys=sequential", "over-MiB", None, "MiB", "", "1x", most=True, once=True),
    Figure("sustained, random keys", "Sustained/keys=random", "rate-of-limit", 0.6, "of the disk", "", "1x", once=True),
    Figure("sustained, random keys: memory beyond that of memtables", "Sustained/keys=random", "over-MiB", None, "MiB", "", "1x", most=True, once=True),
    Figure("puts and close, schema A", "PutsAndClose/schema=A", "rate-of-limit", 0.6, "of the disk", "1.16 M rows/s, no sync", "3x"),
    Figure("puts and close, schema B", "PutsAndClose/schema=B", "rate-of-limit", 0.6, "of the disk", "0.13 M rows/s, no sync", "3x"),
    Figure("Lance's shape, 1,000 x 100 x 512 floats", "PutsAndClose/schema=lance", "of-limit", 1.7, "times the disk's time", "1.6 to 1.9 s, no sync", "3x", most=True),
    Figure("BTREE on a double while writing", "PutIndexed/index=value", "Mrows/s", 3, "M rows/s", "", "3x"),
    Figure("BTREE on a text while writing", "PutIndexed/index=tag", "Mrows/s", 3, "M rows/s", "", "3x"),
    Figure("replay, batches of 100", "Replay/batch=100$", "Mrows/s", 3, "M rows/s", "0.1 M", "3x"),
    Figure("count over 40 generations", "CountOverGenerations", "ms/op", 20, "ms", "6,800 ms", "20x", most=True),
    Figure("one row by key, fresh", "Get/fresh", "p50-µs", 5, "µs", "340 µs", "20000x", most=True),
    Figure("one row by key, 10 generations", "Get/generations=10", "p50-µs", 50, "µs", "10,700 µs", "20000x", most=True),
    Figure("one row by key, base of 10 M", "Get/base", "p50-µs", 100, "µs", "", "20000x", most=True),
    Figure("disk after 100 overwrites of 1 M rows", "Overwrites", "of-live", 2, "times live data", "grows for ever", "1x", most=True, once=True),
]

LINE = re.compile(r"^Benchmark\S+\s+\d+\s+(.*)$", re.M)


def run(bench, time, sustain, temp):
    """Runs one benchmark and returns its metrics."""
    slashed = "/".join(f"^{part}" for part in f"Benchmark{bench}".split("/"))
    command = [BINARY, "-test.run=^$", f"-test.bench={slashed}", f"-test.benchtime={time}", "-test.timeout=30m"]
    if bench.startswith("Sustained"):
        command.append(f"-sustain={sustain}")
    out = subprocess.run(command, cwd=ROOT / "lsm", env=os.environ | {"TMPDIR": temp}, capture_output=True, text=True)
    found = LINE.search(out.stdout)
    if out.returncode != 0 or not found:
        sys.exit(f"{bench}: {out.stdout}{out.stderr}")
    words = found.group(1).split()
    metrics = {unit: float(value) for value, unit in zip(words[::2], words[1::2])}
    metrics["ms/op"] = metrics.get("ns/op", 0) / 1e6
    return metrics


def machine(temp):
    """What the figures were measured on."""
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    disk = subprocess.run(["df", "--output=fstype,source", temp], capture_output=True, text=True).stdout.split("\n")[1]
    go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True).stdout.strip()
    return (f"{os.cpu_count()} cores {cpu.group(1) if cpu else platform.processor()}, {int(memory.group(1)) >> 20} GiB, "
            f"{' '.join(disk.split())}, Linux {platform.release()}, {go}, load {os.getloadavg()[0]:.1f}")


def line(f, values):
    """The line of a figure in the table."""
    values = sorted(values, reverse=f.most)
    middle = statistics.median(values)
    spread = f" ({values[0]:.3g} to {values[-1]:.3g})" if len(values) > 1 else ""
    return f"| {f.name} | {f.target()} | {middle:.3g}{spread} | {f.verdict(middle)} |"


def key(f):
    """What a figure is kept under."""
    return f"{f.bench} {f.metric}"


def table(figures, kept):
    """Prints what was measured of some figures, by the machine's state at that time."""
    print("| figure | aim | here | |\n|---|---|---|---|")
    for f in figures:
        print(line(f, kept[key(f)]["values"]) if key(f) in kept else f"| {f.name} | {f.target()} | not measured | |")
    for when in sorted({kept[key(f)]["machine"] for f in figures if key(f) in kept}):
        print(when)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--sustain", default="60s")
    options.add_argument("--only", default="", help="a regular expression for the figures' names")
    options.add_argument("--temp", default=str(ROOT / "build"), help="where the data lies; it must be on a disk")
    options.add_argument("--build", action="store_true", help="compile the benchmarks and stop")
    options.add_argument("--no-build", action="store_true", help="run the benchmarks that are compiled")
    options.add_argument("--table", action="store_true", help="print what was measured so far")
    given = options.parse_args()
    BINARY.parent.mkdir(exist_ok=True)
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    figures = [f for f in FIGURES if re.search(given.only, f.name)]
    if given.table:
        return table(figures, kept)
    if not given.no_build:
        subprocess.run(["go", "test", "-c", "-o", BINARY, "./lsm"], cwd=ROOT, check=True)
    if given.build:
        return
    print(machine(given.temp), flush=True)
    print("\n| figure | aim | here | |\n|---|---|---|---|", flush=True)
    measured = {}
    for f in figures:
        if f.bench not in measured:
            where = machine(given.temp)
            measured[f.bench] = where, [run(f.bench, f.time, given.sustain, given.temp) for _ in range(1 if f.once else given.rounds)]
        where, runs = measured[f.bench]
        kept[key(f)] = {"values": [m[f.metric] for m in runs], "metrics": runs, "machine": where}
        KEPT.write_text(json.dumps(kept, indent=1))
        print(line(f, kept[key(f)]["values"]), flush=True)


if __name__ == "__main__":
    main()
