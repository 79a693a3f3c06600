"""Drives pylance and DuckDB's lance extension for the Go tests: one command per run, its answer as JSON on stdout."""

import importlib.util
import json
import pathlib
import sys

import lance
import pyarrow as pa


def rows(table):
    return sorted([list(r.values()) for r in table.to_pylist()], key=lambda r: (r[0] is None, r))


def fragments(ds):
    out = []
    for f in ds.get_fragments():
        live = f.to_table(columns=[], with_row_address=True)["_rowaddr"].to_pylist()
        offsets = {a & 0xFFFFFFFF for a in live}
        out.append({
            "id": f.fragment_id,
            "rows": f.physical_rows,
            "deleted": [i for i in range(f.physical_rows) if i not in offsets],
        })
    return out


def describe(ds):
    indexes = [
        {"name": x.name, "type": x.index_type, "fragments": sorted(y for s in x.segments for y in s.fragment_ids)}
        for x in ds.describe_indices()
        if not x.name.startswith("__")
    ]
    return {"version": ds.version, "count": ds.count_rows(), "fragments": fragments(ds), "indexes": indexes}


def read(root):
    ds = lance.dataset(root)
    return describe(ds) | {"rows": rows(ds.to_table())}


def duckdb(root):
    import duckdb as db

    package = pathlib.Path(importlib.util.find_spec("duckdb_extension_lance").origin).parent
    extension = next(package.glob(f"extensions/v{db.__version__}/lance.duckdb_extension"))
    con = db.connect(config={"allow_unsigned_extensions": "true"})
    con.execute(f"LOAD '{extension}'")
    return {"rows": rows(con.execute(f"SELECT * FROM '{root}'").to_arrow_table())}


def create(root, first, count):
    lance.write_dataset(numbers(int(first), int(count)), root, data_storage_version="2.0")


def numbers(first, count):
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("v", pa.string())])
    ids = range(first, first + count)
    return pa.table({"id": list(ids), "v": [f"v{i}" for i in ids]}, schema=schema)


def append(root, first, count):
    lance.write_dataset(numbers(int(first), int(count)), root, mode="append")


def append_one_by_one(root, first, count):
    for i in range(int(first), int(first) + int(count)):
        append(root, i, 1)


def delete(root, predicate):
    lance.dataset(root).delete(predicate)


def delete_from(root, version, predicate):
    lance.dataset(root, version=int(version)).delete(predicate)


def merge(root, first, count):
    t = numbers(int(first), int(count))
    lance.dataset(root).merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(t)


def compact(root):
    lance.dataset(root).optimize.compact_files(target_rows_per_fragment=1 << 20)


def index(root, column):
    lance.dataset(root).create_scalar_index(column, "BTREE", replace=True)


def find(root, predicate):
    """Reads the rows that a predicate selects; the plan tells whether an index found them."""
    scanner = lance.dataset(root).scanner(filter=predicate)
    return {"plan": scanner.explain_plan(), "rows": rows(scanner.to_table())}


def shards(root):
    return lance.dataset(root).mem_wal_index_details()


def claim(root, shard):
    """Tries to become the writer of a shard; answers with the refusal."""
    try:
        lance.dataset(root).mem_wal_writer(shard).close()
    except Exception as e:
        return {"refused": str(e)}
    return {"refused": ""}


def lsm(root, shard, *generations):
    """Reads a table through the generations of one shard, given as number=path."""
    snapshot = lance.ShardSnapshot(shard)
    last = 0
    for g in generations:
        number, path = g.split("=")
        snapshot = snapshot.with_sstable(int(number), path)
        last = max(last, int(number))
    snapshot = snapshot.with_current_generation(last + 1)
    return {"rows": rows(lance.LsmScanner.from_snapshots(lance.dataset(root), [snapshot]).project(["id", "v"]).to_table())}


def use_btree(root, folder, predicate):
    """Commits the BTREE over column id that Go wrote to a folder below _indices, and reads through it."""
    ds = lance.dataset(root)
    path = pathlib.Path(root) / "_indices" / folder
    entry = lance.Index(
        uuid=folder, name="id_idx", fields=[0], dataset_version=ds.version,
        fragment_ids={f.fragment_id for f in ds.get_fragments()}, index_version=0,
        files=[lance.IndexFile(path=f.name, size_bytes=f.stat().st_size) for f in sorted(path.iterdir())],
        index_details=("/lance.table.BTreeIndexDetails", b""),
    )
    operation = lance.LanceOperation.CreateIndex(new_indices=[entry], removed_indices=[])
    ds = lance.LanceDataset.commit(root, operation, read_version=ds.version)
    scanner = ds.scanner(filter=predicate)
    return describe(ds) | {"plan": scanner.explain_plan(), "rows": rows(scanner.to_table())}


if __name__ == "__main__":
    answer = globals()[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(answer))
