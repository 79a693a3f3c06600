"""Vector search as clients see it: rows are found as soon as they are acknowledged, wherever they lie, with pylance's distances."""

import pathlib

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients import adbc, duckdb_with_lance, execute, query, refused
from vectors import brute, ingest, rows_of, search, vector

DATA = pathlib.Path(__file__).parent.parent.parent / "shared" / "data" / "vec"


@pytest.fixture
def vectors():
    return np.random.default_rng(5).normal(size=(3000, 24)).astype("f4")


def test_rows_are_found_at_once_wherever_they_lie(server, vectors):
    """Parts of the table are merged, flushed and fresh; answers are those of all rows, by ADBC, pylance's distances included."""
    ingest(server, rows_of(vectors[:1000]))
    execute(server, "OPTIMIZE docs")
    ingest(server, rows_of(vectors[1000:2000], 1000))
    server.restart()
    ingest(server, rows_of(vectors[2000:], 2000))
    for q in np.random.default_rng(6).normal(size=(5, 24)).astype("f4"):
        want, distances = brute(vectors, q, 20)
        got = search(server, q, k=20)
        assert got["id"].to_pylist() == want
        assert np.allclose(got["_distance"].to_numpy(), distances, rtol=1e-5)
    execute(server, "OPTIMIZE docs")
    again = search(server, q, k=20)
    assert again.equals(got), "a distance depends on where a row lies"
    nearest = {"column": "v", "q": q, "k": 20, "use_index": False}
    theirs = lance.dataset(server.dataset("docs")).to_table(nearest=nearest, columns=["id", "_distance"])
    assert theirs["id"].to_pylist() == got["id"].to_pylist()
    assert np.allclose(theirs["_distance"].to_numpy(), got["_distance"].to_numpy(), rtol=1e-6)
    with duckdb_with_lance() as db:
        sql = f"SELECT id FROM lance_vector_search('{server.dataset('docs')}', 'v', ?::FLOAT[], k := 20)"
        assert [r[0] for r in db.execute(sql, [q.tolist()]).fetchall()] == want


def test_an_update_moves_a_row_and_a_delete_removes_it(server, vectors):
    ingest(server, rows_of(vectors))
    q = vectors[77]
    for merge in (False, True):
        assert search(server, q, k=1)["id"].to_pylist() == [77]
        if merge:
            execute(server, "OPTIMIZE docs")
        far = pa.table(rows_of((vectors[77:78] + 100).astype("f4"), 77))
        ingest(server, far, mode="append")
        want = brute(vectors, q, 6)[0][1:]
        assert search(server, q, k=5)["id"].to_pylist() == want
        assert search(server, vectors[77] + 100, k=1)["id"].to_pylist() == [77]
        execute(server, f"DELETE FROM docs WHERE id = {want[0]}")
        assert search(server, q, k=4)["id"].to_pylist() == want[1:]
        ingest(server, rows_of(vectors), mode="append")


def test_conditions_leave_k_rows(server, vectors):
    """With prefilter there are k rows whenever so many match; without it those of the k that match."""
    ingest(server, rows_of(vectors[:2000]))
    execute(server, "OPTIMIZE docs")
    ingest(server, rows_of(vectors[2000:], 2000), mode="append")
    q, tags = vectors[5] * 0.5, np.arange(3000) % 5
    want = brute(vectors, q, 10, (tags == 3) & (np.arange(3000) > 1500))[0]
    where = "WHERE tag = 't3' AND id > 1500"
    assert search(server, q, where, k=10, prefilter="true")["id"].to_pylist() == want
    after = [i for i in brute(vectors, q, 10)[0] if i % 5 == 3 and i > 1500]
    assert search(server, q, where, k=10)["id"].to_pylist() == after
    sql = f"SELECT id FROM docs {where} ORDER BY array_distance(v, ?::FLOAT[24]) LIMIT 10"
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute(sql, pa.record_batch([vector(q)], names=["q"]))
        assert cursor.fetch_arrow_table()["id"].to_pylist() == want
        cursor.execute("EXPLAIN " + sql, pa.record_batch([vector(q)], names=["q"]))
        assert "nearest 10 in v by l2" in cursor.fetch_arrow_table()["explain_value"].to_pylist()[-1]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 24), pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float64(), 24), pa.list_(pa.int16())])
def test_vectors_are_bound_as_lists_of_any_kind(server, vectors, kind):
    """A prepared statement runs again with other vectors; conditions and k are bound beside them."""
    whole = np.round(vectors * 100)
    ingest(server, rows_of(whole))
    with adbc(server) as connection, connection.cursor() as cursor:
        for q in whole[:3]:
            bound = pa.array([q.tolist()], pa.list_(pa.float64())).cast(pa.list_(pa.int16())).cast(pa.list_(kind.value_type))
            bound = bound.cast(kind) if not pa.types.is_fixed_size_list(kind) else pa.FixedSizeListArray.from_arrays(bound.flatten(), 24)
            cursor.execute("SELECT id FROM lance_vector_search('docs', 'v', ?, k := 5)", pa.record_batch([bound], names=["q"]))
            assert cursor.fetch_arrow_table()["id"].to_pylist() == brute(whole, q, 5)[0]
            parameters = pa.record_batch([bound, pa.array([3]), pa.array([100])], names=["q", "k", "id"])
            cursor.execute("SELECT id FROM lance_vector_search('docs', 'v', ?, k := ?, prefilter := true) WHERE id >= ?", parameters)
            assert cursor.fetch_arrow_table()["id"].to_pylist() == brute(whole, q, 3, np.arange(3000) >= 100)[0]
            cursor.execute("SELECT id FROM docs ORDER BY array_distance(v, ?::FLOAT[24]) LIMIT 5", pa.record_batch([bound], names=["q"]))
            assert cursor.fetch_arrow_table()["id"].to_pylist() == brute(whole, q, 5)[0]


def test_bad_searches_say_what_is_wrong(server, vectors):
    ingest(server, rows_of(vectors[:10]))
    for call, words in {
        "'docs', 'v', [1, 2]": "2 elements, those of column",
        "'docs', 'tag', [1, 2]": 'columns with vectors are "v"',
        "'docs', 'v', NULL": "NULL",
        f"'docs', 'v', {vectors[0].tolist()}, k := 0": "k is 0",
        f"'docs', 'v', {vectors[0].tolist()}, nprobs := -1": "nprobs is -1",
        f"'docs', 'v', {vectors[0].tolist()}, nprobe := 1": "nprobs :=",
        f"'docs', 'v', {[float(0)] * 24}, metric_type := 'cosine'": "zero vector",
    }.items():
        with refused("INVALID_ARGUMENT", words):
            query(server, f"FROM lance_vector_search({call})")
    with refused("NOT_FOUND", "does not exist", 'did you mean "docs"'):
        query(server, f"FROM lance_vector_search('dogs', 'v', {vectors[0].tolist()})")


@pytest.mark.parametrize("name", ["sift5k", "lsa128"])
def test_real_vectors_before_and_after_the_flush(server, name):
    """The exact neighbours of real data: fresh, and merged."""
    if not (DATA / name).exists():
        pytest.skip(f"the data folder {DATA} is not there")
    train, queries, truth = (pq.read_table(DATA / name / f"{n}.parquet") for n in ("train", "queries", "gt_cos"))
    stack = lambda t: np.vstack(t["v"].to_numpy(zero_copy_only=False)).astype("f4")  # noqa: E731
    ingest(server, rows_of(stack(train)))
    asked = stack(queries)[:20]
    answers = []
    for _ in range(2):
        got = [search(server, q, k=10, metric_type="'cosine'") for q in asked]
        answers.append([t["id"].to_pylist() for t in got])
        for t, d in zip(got, truth["distances"].to_pylist()):
            assert np.allclose(t["_distance"].to_numpy(), d[:10], atol=2e-6)
        execute(server, "OPTIMIZE docs")
    assert answers[0] == answers[1]
