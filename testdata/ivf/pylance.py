"""Drives pylance and DuckDB's lance extension for the Go tests of indexes over vectors: one command per run, its answer as JSON
on stdout. Vectors come in files of float32, row after row."""

import importlib.util
import json
import pathlib
import sys

import lance
import numpy as np
import pyarrow as pa

TYPES = {"float": np.float32, "halffloat": np.float16, "double": np.float64, "uint8": np.uint8}


def create(root, file, dim, element="float", version="2.0"):
    """A table of the vectors, with their numbers as column id, in one fragment: row addresses are the numbers."""
    flat = np.fromfile(file, dtype=np.float32).astype(TYPES[element])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), int(dim))
    ids = pa.array(range(len(vectors)), pa.int64())
    lance.write_dataset(pa.table({"id": ids, "v": vectors}), root, data_storage_version=version)


def index(root, kind, metric, partitions, sub_vectors="0", bits="8"):
    """An index of pylance's own. Returns the name of its folder."""
    options = {} if not kind.endswith("PQ") else {"num_sub_vectors": int(sub_vectors), "num_bits": int(bits)}
    lance.dataset(root).create_index("v", kind, metric=metric, num_partitions=int(partitions), replace=True, **options)
    newest = lance.dataset(root).describe_indices()[0].segments[0]
    return {"folder": str(newest.uuid)}


def install(root, folder, details):
    """Commits an index that Go wrote to a folder below _indices."""
    ds = lance.dataset(root)
    path = pathlib.Path(root) / "_indices" / folder
    entry = lance.Index(
        uuid=folder, name="v_idx", fields=[1], dataset_version=ds.version,
        fragment_ids={f.fragment_id for f in ds.get_fragments()}, index_version=1,
        files=[lance.IndexFile(path=f.name, size_bytes=f.stat().st_size) for f in sorted(path.iterdir())],
        index_details=("/lance.index.pb.VectorIndexDetails", bytes.fromhex(details)),
    )
    lance.LanceDataset.commit(root, lance.LanceOperation.CreateIndex(new_indices=[entry], removed_indices=[]), read_version=ds.version)


def search(root, queries, dim, k, nprobes, refine, metric):
    """The answers to some queries, and the plan of the first. With nprobes 0 no index is used."""
    ds = lance.dataset(root)
    element = {v: k for k, v in TYPES.items()}
    dtype = ds.schema.field("v").type.value_type.to_pandas_dtype()
    assert dtype in element
    out = {"plan": "", "ids": [], "distances": []}
    for q in np.fromfile(queries, dtype=np.float32).reshape(-1, int(dim)):
        nearest = {"column": "v", "q": q.astype(dtype), "k": int(k), "metric": metric, "use_index": int(nprobes) > 0}
        if int(nprobes) > 0:
            nearest |= {"minimum_nprobes": int(nprobes), "maximum_nprobes": int(nprobes)}
        if int(refine) > 0:
            nearest["refine_factor"] = int(refine)
        scanner = ds.scanner(columns=["id", "_distance"], nearest=nearest)
        if not out["plan"]:
            out["plan"] = scanner.explain_plan()
        table = scanner.to_table()
        out["ids"].append(table["id"].to_pylist())
        out["distances"].append(table["_distance"].to_pylist())
    return out


def duckdb(root, queries, dim, k, nprobes, refine):
    """The answers of DuckDB's extension."""
    import duckdb as db

    package = pathlib.Path(importlib.util.find_spec("duckdb_extension_lance").origin).parent
    extension = next(package.glob(f"extensions/v{db.__version__}/lance.duckdb_extension"))
    con = db.connect(config={"allow_unsigned_extensions": "true"})
    con.execute(f"LOAD '{extension}'")
    out = {"plan": "", "ids": [], "distances": []}
    for q in np.fromfile(queries, dtype=np.float32).reshape(-1, int(dim)):
        text = "[" + ",".join(repr(float(x)) for x in q) + f"]::FLOAT[{dim}]"
        query = f"FROM lance_vector_search('{root}', 'v', {text}, k := {k}, nprobs := {nprobes}, refine_factor := {refine}, use_index := true)"
        if not out["plan"]:
            out["plan"] = "\n".join(str(r[-1]) for r in con.execute("EXPLAIN " + query).fetchall())
        rows = con.execute("SELECT id, _distance " + query + " ORDER BY _distance").fetchall()
        out["ids"].append([r[0] for r in rows])
        out["distances"].append([r[1] for r in rows])
    return out


if __name__ == "__main__":
    answer = globals()[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(answer))
