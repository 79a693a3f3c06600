"""Makes the goldens beside this script with pylance: manifests, deletion files, indexes and a shard, but no data.

Run it with an interpreter that has pylance 14.0.2; expected.json then says what pylance sees in each version.
"""

import json
import pathlib
import shutil
import tempfile

import lance
import pyarrow as pa

from pylance import describe

HERE = pathlib.Path(__file__).parent
SHARD = "00000000-0000-0000-0000-000000000007"


def batch(first, count):
    schema = pa.schema([
        pa.field("id", pa.int64(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}),
        pa.field("v", pa.string()),
    ])
    ids = range(first, first + count)
    return pa.table({"id": list(ids), "v": [None if i % 10 == 0 else f"v{i % 7}" for i in ids]}, schema=schema)


def pairs(ds, column):
    """The content of an index over a column: values and row ids, nulls first."""
    t = ds.to_table(columns=[column], with_row_id=True)
    rows = zip(t[column].to_pylist(), t["_rowid"].to_pylist())
    return sorted(([v, r] for v, r in rows), key=lambda p: (p[0] is not None, p[0] or "", p[1]))


def runs(offsets):
    """Offsets in order as [first, count] pairs, which keeps the file readable."""
    out = []
    for i in offsets:
        if out and sum(out[-1]) == i:
            out[-1][1] += 1
        else:
            out.append([i, 1])
    return out


def make(root):
    versions = []

    def note():
        version = describe(lance.dataset(root))
        for f in version["fragments"]:
            f["deleted"] = runs(f["deleted"])
        versions.append(version)

    ds = lance.write_dataset(batch(0, 100), root, data_storage_version="2.0")
    note()
    lance.write_dataset(batch(100, 6000), root, mode="append")
    note()
    lance.dataset(root).delete("id % 50 = 3 and id < 200")
    note()
    lance.dataset(root).delete("id >= 1000")
    note()
    ds = lance.dataset(root)
    ds.create_scalar_index("v", "BTREE", name="v_idx")
    note()
    index = pairs(lance.dataset(root), "v")
    ds = lance.dataset(root)
    ds.initialize_mem_wal(unsharded=True)
    with lance.dataset(root).mem_wal_writer(SHARD) as w:
        w.put(batch(500, 3))
        w.put(batch(498, 3))
    note()
    return {"versions": versions, "v_idx": index}


if __name__ == "__main__":
    golden = HERE / "golden.lance"
    shutil.rmtree(golden, ignore_errors=True)
    with tempfile.TemporaryDirectory() as tmp:
        root = pathlib.Path(tmp) / "golden.lance"
        expected = make(str(root))
        for f in sorted(root.rglob("*")):
            parts = f.relative_to(root).parts
            if f.is_file() and not {"data", "_transactions", "wal"} & set(parts) and f.name != "bloom_filter.bin":
                to = golden / f.relative_to(root)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(f, to)
    lines = [json.dumps(v) for v in expected["versions"]]
    index = json.dumps(expected["v_idx"])
    text = '{"versions": [\n' + ",\n".join(lines) + f'\n],\n"v_idx": {index}}}\n'
    (HERE / "expected.json").write_text(text)
