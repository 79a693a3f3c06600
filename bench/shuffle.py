"""The shuffle of an index build: memory over time with the metadata of pages spilled and not, time and open files.

    python bench/shuffle.py [--rows N] [--partitions 16,256,4096,65536] [--no-curves] [--svg docs/vector-shuffle.svg]

Each line is a process of its own (BenchmarkShuffle of package ivf): rows with codes of 16 bytes whose partitions are given, moved
and read back partition by partition. Anonymous memory is sampled every 5 ms, over that of the start; time is the processor's. The
curves are of a writer for each of 4,096 partitions that sorts 1 MiB at a time, which is where pages are smallest and most.
"""

import argparse
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
BINARY = ROOT / "build" / "ivf.test"
COLOURS = {"spilled": "#0a7d4f", "in memory": "#c0392b", "default layout": "#2c5fa8"}


def run(layout, partitions, rows, buffer=None, in_memory=False, curve=None):
    """Runs one line and returns its metrics, or the reason why there are none."""
    flags = [f"-shuffle.layout={layout}", f"-shuffle.partitions={partitions}", f"-shuffle.rows={rows}"]
    flags += [f"-shuffle.buffer={buffer}"] if buffer else ["-shuffle.buffer=0"]
    flags += ["-shuffle.inmemory"] if in_memory else []
    flags += [f"-shuffle.curve={curve}"] if curve else []
    done = subprocess.run([BINARY, "-test.run=^$", "-test.bench=^BenchmarkShuffle$", "-test.benchtime=1x", *flags],
                          capture_output=True, text=True, cwd=ROOT / "ivf")
    line = re.search(r"^BenchmarkShuffle.*$", done.stdout, re.M)
    if done.returncode or not line or "ns/op" not in line[0]:
        if "too many open files" in done.stdout + done.stderr:
            return "too many open files"
        sys.exit(done.stdout + done.stderr)
    return {unit: float(value) for value, unit in re.findall(r"([\d.e+]+) ([A-Za-z-]+(?:/op)?)", line[0].split("\t", 2)[2])}


def table(partitions, rows):
    print("| layout | metadata | rows | partitions | MB over base | open files | CPU s write | CPU s read | s read | MB on disk |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for layout in ("groups", "writers", "records"):
        for in_memory in (False, True) if layout != "records" else (True,):
            for n in rows:
                for p in partitions:
                    m = run(layout, p, n, in_memory=in_memory)
                    head = f"| {layout} | {'in memory' if in_memory else 'spilled'} | {n:,} | {p:,} |"
                    if isinstance(m, str):
                        print(f"{head} {m} ||||||", flush=True)
                        continue
                    print(f"{head} {m['MB-over-base']:.0f} | {m['files']:.0f} | {m['cpu-s-write']:.2f} | {m['cpu-s-read']:.3f} |"
                          f" {m['s-read']:.3f} | {m['MB-disk']:.0f} |", flush=True)


def curves(rows):
    """Returns for each curve points of (seconds, million rows, MB)."""
    found = {}
    for name, layout, in_memory in (("spilled", "writers", False), ("in memory", "writers", True), ("default layout", "groups", False)):
        with tempfile.NamedTemporaryFile() as f:
            m = run(layout, 4096, rows, 1 << 20, in_memory, f.name)
            points = [tuple(map(float, line.split(","))) for line in f.read().decode().splitlines()]
        found[name] = [(s, n / 1e6, b / 1e6) for s, n, b in points]
        print(f"curve, {name}: {m['MB-over-base']:.0f} MB over base, {m['cpu-s-write']:.1f} CPU s to write", flush=True)
    return found


def thin(points, x, bins=160):
    """Returns the highest point of each part of the axis."""
    top = max(p[x] for p in points) or 1
    best = {}
    for p in points:
        k = min(int(p[x] / top * bins), bins - 1)
        if k not in best or p[2] > best[k][2]:
            best[k] = p
    return [(p[x], p[2]) for _, p in sorted(best.items())]


def panel(found, x, title, left, most, colours=COLOURS):
    """Returns one plot as SVG."""
    width, height, top = 330, 210, 40
    right = max(p[x] for points in found.values() for p in points)
    out = [f'<text x="{left + width / 2}" y="{top + height + 36}" text-anchor="middle">{title}</text>']
    for i in range(5):
        y = top + height - height * i / 4
        out.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{most * i / 4:.0f}</text>')
        out.append(f'<text x="{left + width * i / 4:.1f}" y="{top + height + 18}" text-anchor="middle">{right * i / 4:.3g}</text>')
    for name, points in found.items():
        line = " ".join(f"{left + width * a / right:.1f},{top + height - height * max(b, 0) / most:.1f}" for a, b in thin(points, x))
        out.append(f'<polyline points="{line}" fill="none" stroke="{colours[name]}" stroke-width="1.6"/>')
    return out


def scale(found):
    """Returns a round number of MB above all points."""
    most = max(p[2] for points in found.values() for p in points)
    return next(n for n in (20, 40, 80, 120, 160, 200, 240, 320, 400, 800, 1600) if n >= most)


def draw(found, file):
    most = scale(found)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 320" font-family="sans-serif" font-size="12" fill="#333">',
           '<rect width="800" height="320" fill="white"/>']
    labels = {"spilled": "a writer a partition, metadata spilled", "in memory": "a writer a partition, metadata in memory",
              "default layout": "one file of groups (default)"}
    for i, name in enumerate(found):
        out.append(f'<path d="M{20 + 275 * i} 16h18" stroke="{COLOURS[name]}" stroke-width="2.5"/>')
        out.append(f'<text x="{43 + 275 * i}" y="20">{labels[name]}</text>')
    out += panel(found, 1, "million rows given", 50, most) + panel(found, 0, "seconds, reading back included", 450, most)
    out.append(f'<text x="12" y="{40 + 105}" text-anchor="middle" transform="rotate(-90 12 145)">anonymous MB over base</text></svg>')
    pathlib.Path(file).write_text("\n".join(out) + "\n")
    print(f"wrote {file}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000,3000000")
    parser.add_argument("--partitions", default="16,256,4096,65536")
    parser.add_argument("--no-table", action="store_true")
    parser.add_argument("--no-curves", action="store_true")
    parser.add_argument("--svg", default=ROOT / "docs" / "vector-shuffle.svg")
    args = parser.parse_args()
    subprocess.run(["go", "test", "-c", "-o", BINARY, "./ivf"], cwd=ROOT, check=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}\n")
    rows = [int(n) for n in args.rows.split(",")]
    if not args.no_table:
        table([int(p) for p in args.partitions.split(",")], rows)
    if not args.no_curves:
        draw(curves(max(rows)), args.svg)


if __name__ == "__main__":
    main()
