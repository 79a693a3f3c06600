"""Real vectors with an index: fresh, updated, deleted and filtered rows, before and after they are flushed and merged; others' answers by the same index."""

import pathlib

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients import adbc, duckdb_with_lance, execute, query
from vectors import ingest, rows_of, search

DATA = pathlib.Path(__file__).parent.parent.parent / "shared" / "data" / "vec"
# The set, its metric, the least recall@10 that an index shall have with 16 probes of 32, and its sub-vectors.
SETS = [("lsa128", "cosine", 0.9, 16), ("sift5k", "l2", 0.9, 16)]
PROBES = {"nprobs": 16, "refine_factor": 10}


def vectors(name, part):
    if not (DATA / name).exists():
        pytest.skip(f"the data folder {DATA} is not there")
    table = pq.read_table(DATA / name / f"{part}.parquet")
    return np.vstack(table["v"].to_numpy(zero_copy_only=False)).astype("f4")


class Model:
    """What the table shall have: vectors by id, and the distances of a query to all of them."""

    def __init__(self, rows, metric):
        self.metric, self.rows = metric, rows.astype("f8").copy()
        self.alive = np.ones(len(rows), bool)

    def nearest(self, q, k, keep=None):
        q = q.astype("f8")
        if self.metric == "cosine":
            norms = np.maximum(np.linalg.norm(self.rows, axis=1) * np.linalg.norm(q), 1e-300)
            d = 1 - self.rows @ q / norms
            d[np.linalg.norm(self.rows, axis=1) == 0] = np.inf
        else:
            d = ((self.rows - q) ** 2).sum(1)
        d[~(self.alive if keep is None else self.alive & keep)] = np.inf
        return np.sort(d)[:k]


def recall(found, model, queries, keep=None):
    """Judged by distance, as some of these vectors are there more than once."""
    hits = 0
    for distances, q in zip(found, queries):
        limit = model.nearest(q, 10, keep)[-1]
        hits += sum(d <= limit * (1 + 1e-4) + 1e-5 for d in distances)
    return hits / (10 * len(queries))


def check(server, model, queries, least):
    """Comparing all finds the nearest; the index finds most of them; conditions are kept by both."""
    exact = [search(server, q, k=10, use_index="false") for q in queries]
    for q, t in zip(queries, exact):
        assert np.allclose(t["_distance"].to_numpy(), model.nearest(q, 10), rtol=1e-3, atol=1e-4)
        assert model.alive[t["id"].to_pylist()].all(), "a row that was deleted"
    found = [search(server, q, k=10, **PROBES)["_distance"].to_pylist() for q in queries]
    assert recall(found, model, queries) >= least
    tagged = np.arange(len(model.rows)) % 5 == 2
    for options, bound in (({"use_index": "false"}, 1), (PROBES, least)):
        found = [search(server, q, "WHERE tag = 't2'", k=10, prefilter="true", **options) for q in queries[:5]]
        assert all(t.num_rows == 10 and tagged[t["id"].to_pylist()].all() for t in found)
        assert recall([t["_distance"].to_pylist() for t in found], model, queries[:5], tagged) >= bound
    return [t["id"].to_pylist() for t in exact]


@pytest.mark.parametrize("name, metric, least, sub_vectors", SETS, ids=[s[0] for s in SETS])
def test_freshness_updates_and_deletes_in_every_layer(server, name, metric, least, sub_vectors):
    rows, queries = vectors(name, "train"), vectors(name, "queries")[:15]
    half = len(rows) // 2
    ingest(server, rows_of(rows[:half]).to_reader(max_chunksize=4000))
    execute(server, "OPTIMIZE docs", f"CREATE INDEX near ON docs USING IVF_PQ (v) WITH (num_partitions=32, num_sub_vectors={sub_vectors}, metric_type='{metric}')")
    # The other half is found as soon as it is acknowledged, row by row.
    model = Model(rows, metric)
    model.alive[half:] = False
    fresh = rows_of(rows[half:], half)
    with adbc(server) as connection, connection.cursor() as cursor:
        for at in range(3):
            cursor.adbc_ingest("docs", fresh.slice(at, 1), mode="append")
            model.alive[half + at] = True
            if np.linalg.norm(rows[half + at]) > 0:
                near = search(server, rows[half + at], k=1)["_distance"].to_pylist()
                assert np.allclose(near, model.nearest(rows[half + at], 1), atol=1e-4)
    ingest(server, fresh.slice(3).to_reader(max_chunksize=4000), mode="append")
    model.alive[half:] = True
    check(server, model, queries, least)
    # Rows among the nearest go, and others come to their places, in both layers.
    first = [search(server, q, k=4, use_index="false")["id"].to_pylist() for q in queries]
    gone = sorted({ids[0] for ids in first})
    moved = sorted({ids[1] for ids in first} - set(gone))
    execute(server, f"DELETE FROM docs WHERE id IN ({', '.join(map(str, gone))})")
    model.alive[gone] = False
    target = rows[[ids[3] for ids in first]].mean(0)
    for i in moved:
        model.rows[i] = target
    like = fresh.schema
    changed = pa.concat_tables([rows_of(target[None], i) for i in moved]).cast(like)
    ingest(server, changed, mode="append")
    answers = []
    for step in (lambda: None, server.restart, lambda: execute(server, "OPTIMIZE docs"), server.restart):
        step()
        answers.append(check(server, model, queries, least))
    assert all(a == answers[0] for a in answers), "the same rows in the same order wherever they lie"
    assert search(server, target.astype("f4"), k=len(moved))["id"].to_pylist() == moved


@pytest.mark.parametrize("name, metric, least, sub_vectors", SETS, ids=[s[0] for s in SETS])
@pytest.mark.parametrize("builder", ["flightd", "pylance"])
def test_one_index_gives_all_the_same_recall(server, name, metric, least, sub_vectors, builder):
    """Whoever built it: pylance's plan has it, and flightd, pylance and DuckDB find as much by it, before and after flightd adds rows."""
    rows, queries = vectors(name, "train"), vectors(name, "queries")[:30]
    before = max(len(rows) * 4 // 5, 4300)  # among 4,096 rows or fewer all are compared
    ingest(server, rows_of(rows[:before]).to_reader(max_chunksize=4000))
    execute(server, "OPTIMIZE docs")
    if builder == "flightd":
        execute(server, f"CREATE INDEX near ON docs USING IVF_PQ (v) WITH (num_partitions=32, num_sub_vectors={sub_vectors}, metric_type='{metric}')")
    else:
        lance.dataset(server.dataset("docs")).create_index("v", "IVF_PQ", name="near", num_partitions=32, num_sub_vectors=sub_vectors, metric=metric)
    model = Model(rows, metric)
    model.alive[before:] = False
    for _ in range(2):
        plan = query(server, f"EXPLAIN SELECT id FROM lance_vector_search('docs', 'v', {queries[0].tolist()})")["explain_value"].to_pylist()[-1]
        assert "base: index near" in plan
        dataset = lance.dataset(server.dataset("docs"))
        nearest = lambda q: {"column": "v", "q": q, "k": 10, "nprobes": 16, "refine_factor": 10}  # noqa: E731
        assert "ANNSubIndex: name=near" in dataset.scanner(nearest=nearest(queries[0]), columns=["id", "_distance"]).explain_plan(True)
        found = {"flightd": [search(server, q, k=10, **PROBES)["_distance"].to_pylist() for q in queries],
                 "pylance": [dataset.to_table(nearest=nearest(q), columns=["id", "_distance"])["_distance"].to_pylist() for q in queries]}
        call = f"lance_vector_search('{server.dataset('docs')}', 'v', ?::FLOAT[], k := 10, nprobs := 16, refine_factor := 10)"
        with duckdb_with_lance() as db:
            found["DuckDB"] = [[r[0] for r in db.execute(f"SELECT _distance FROM {call}", [q.tolist()]).fetchall()] for q in queries]
        recalls = {who: recall(distances, model, queries) for who, distances in found.items()}
        assert min(recalls.values()) >= least, recalls
        assert recalls["flightd"] >= max(recalls.values()) - 0.02, recalls
        assert abs(recalls["DuckDB"] - recalls["pylance"]) <= 0.01, recalls
        ingest(server, rows_of(rows[before:], before).to_reader(max_chunksize=4000), mode="append")
        execute(server, "OPTIMIZE docs")
        model.alive[:] = True
