"""Lance's MemWAL as its own programs write and read it. Run as a script it writes a dataset and is killed by itself."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import lance
import pyarrow as pa

from server import BINARY

SHARDS = ["00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"]
KEYS = {"int": ["id"], "text": ["name"], "both": ["name", "id"], "none": []}


def schema(key):
    def metadata(column):
        at = key.index(column) if column in key else -1
        return {"lance-schema:unenforced-primary-key": "true", "lance-schema:unenforced-primary-key:position": str(at + 1)} if at >= 0 else None
    return pa.schema([
        pa.field("id", pa.int64(), nullable="id" not in key, metadata=metadata("id")),
        pa.field("name", pa.string(), nullable="name" not in key, metadata=metadata("name")),
        pa.field("n", pa.int32(), nullable=True), pa.field("vec", pa.list_(pa.float32(), 2)), pa.field("tags", pa.list_(pa.string()))])


def rows(key, ids, n):
    s = schema(key)
    return pa.table({"id": ids, "name": [f"name {i}" for i in ids], "n": [None if i % 9 == 4 else n + i for i in ids],
                     "vec": [[float(i), n] for i in ids], "tags": [[f"t{j}" for j in range(i % 3)] for i in ids]}, schema=s)


def keys(key, ids):
    t = rows(key, ids, 0)
    return t.select(key)


def write(root, kind, version):
    """Writes rows to the base and to two shards, each with generations and with entries that no generation has."""
    key = KEYS[kind]
    ds = lance.write_dataset(rows(key, range(0, 400), 0), root, data_storage_version=version, max_rows_per_file=150)
    ds.initialize_mem_wal()
    ds = lance.dataset(root)
    for s, shard in enumerate(SHARDS):
        at = s * 200  # a key is in one shard only
        with ds.mem_wal_writer(shard, durable_write=False, max_memtable_rows=60) as w:
            for step in range(5):
                w.put(rows(key, range(at + 10 * step, at + 10 * step + 40), 1000 * (step + 1)))
                if key:
                    w.delete(keys(key, [at + 10 * step + 3, at + 190]))
        w = ds.mem_wal_writer(shard, durable_write=True, max_wal_flush_interval_ms=5)
        w.put(rows(key, [at + 3, at + 7, 1000 + at, 1001 + at], 7000))
        if key:
            w.delete(keys(key, [at + 8, 1001 + at, 5000]))
        w.put(rows(key, [at + 8, 1002 + at], 8000))
        if s == 0:
            w.close()
            w = ds.mem_wal_writer(shard, durable_write=True, max_wal_flush_interval_ms=5)
            w.put(rows(key, [at + 9], 9000))
    return w


def snapshot(root, shard):
    """What flightd inspect says of a shard, as Lance's readers want it."""
    out = subprocess.run([str(BINARY), "inspect", os.path.join(root, "_mem_wal", shard), "shard", "--json"], capture_output=True, text=True, check=True)
    m = json.loads(out.stdout)
    s = lance.ShardSnapshot(shard).with_current_generation(m["current_generation"])
    for g in m["generations"]:
        s = s.with_sstable(g["number"], g["path"])
    return s


def sorted_rows(table):
    return sorted(table.to_pylist(), key=lambda r: (r["id"], r["name"], json.dumps(r, sort_keys=True)))


def as_lance_reads(root, scratch, keyed):
    """The rows that Lance's own writer shows when it is opened again. That happens in a copy, as it claims the shards."""
    shutil.copytree(root, scratch)
    for shard in SHARDS:
        lance.dataset(str(scratch)).mem_wal_writer(shard).close()  # what its log has becomes a generation
    ds = lance.dataset(str(scratch))
    if keyed:
        return sorted_rows(lance.LsmScanner.from_snapshots(ds, [snapshot(str(scratch), s) for s in SHARDS]).to_table())
    generations = [lance.dataset(str(g)).to_table(columns=ds.schema.names) for g in scratch.glob("_mem_wal/*/*_gen_*")]
    return sorted_rows(pa.concat_tables([ds.to_table(), *(g.cast(ds.schema) for g in generations)]))


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
    writer = write(*sys.argv[1:4])
    if len(sys.argv) > 4:  # stays alive and writes on when it is told to
        print("written", flush=True)
        for line in sys.stdin:
            try:
                writer.put(rows(KEYS[sys.argv[2]], [7777], 1))
                time.sleep(0.2)
                writer.put(rows(KEYS[sys.argv[2]], [7778], 1))
                print("stored", flush=True)
            except Exception as e:
                print("refused:", str(e).replace("\n", " "), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
