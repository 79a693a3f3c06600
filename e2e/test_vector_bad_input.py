"""Vectors and searches that make no sense, or hardly any, through a real client: a clear error or a right answer, wherever the rows lie."""

import math

import numpy as np
import pyarrow as pa
import pytest

from clients import adbc, execute, query, refused
from vectors import brute, ingest, rows_of, search, vector

DIM, ROWS = 8, 5000


@pytest.fixture
def vectors():
    r = np.random.default_rng(3)
    centres = r.normal(size=(30, DIM)) * 5
    return (centres[r.integers(30, size=ROWS)] + r.normal(size=(ROWS, DIM))).astype("f4")


def odd_rows(first):
    """Rows whose vectors are NULL, zero, not finite, or have a NULL in them."""
    lists = [None, [0.0] * DIM, [math.nan] + [1.0] * (DIM - 1), [math.inf] + [1.0] * (DIM - 1), [None] + [1.0] * (DIM - 1), [3e38] * DIM]
    like = rows_of(np.zeros((1, DIM), "f4")).schema
    ids = list(range(first, first + len(lists)))
    return pa.table([pa.array(ids, pa.int64()), pa.array(["odd"] * len(ids)), pa.array(lists, like.field("v").type)], schema=like)


@pytest.mark.parametrize("layer", ["fresh", "merged", "between"])
@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_odd_vectors_are_never_in_the_way(server, vectors, layer, metric):
    """By an index and by comparing all, the same rows are found; those without a distance never are."""
    ingest(server, rows_of(vectors))
    index = f"CREATE INDEX near ON docs USING IVF_PQ (v) WITH (num_partitions=8, num_sub_vectors=4, metric_type='{metric}')"
    if layer == "between":  # the odd rows come behind the index
        execute(server, "OPTIMIZE docs", index)
        ingest(server, odd_rows(ROWS), mode="append")
    else:
        ingest(server, odd_rows(ROWS), mode="append")
        execute(server, *(["OPTIMIZE docs"] if layer == "merged" else []), index)
    everything = {"nprobs": 1000, "refine_factor": 1000}
    for q in vectors[:3]:
        exact = search(server, q, k=ROWS + 10, use_index="false")
        found = exact["id"].to_pylist()
        never = {ROWS, ROWS + 2, ROWS + 4} | ({ROWS + 1} if metric == "cosine" else set())
        assert not never & set(found)
        assert set(range(ROWS)) <= set(found)
        assert all(not math.isnan(d) for d in exact["_distance"].to_pylist())
        # No index has rows that are not finite, or whose squares are not. Under dot such a row may be the nearest of all.
        apart = (ROWS + 3, ROWS + 5)
        by_index = [i for i in search(server, q, k=20, **everything)["id"].to_pylist() if i not in apart]
        assert by_index == [i for i in found if i not in apart][: len(by_index)] and len(by_index) >= 18
        assert search(server, q, "WHERE tag = 'odd'", k=10, prefilter="true")["id"].to_pylist() == [i for i in found if i >= ROWS]


def test_questions_that_make_no_sense(server, vectors):
    """Each is refused with the same words, with fresh rows, with an index, and with both."""
    ingest(server, rows_of(vectors[:4500]))
    q = vectors[0].tolist()
    with_nan, with_inf = [math.nan] + q[1:], q[:-1] + [-math.inf]
    for step in (None, "OPTIMIZE docs", "CREATE INDEX near ON docs USING IVF_PQ (v) WITH (num_partitions=8, num_sub_vectors=4)"):
        if step:
            execute(server, step)
        ingest(server, rows_of(vectors[4500:], 4500), mode="append")
        for given, words in {
            (tuple(q[:-1]), ""): ("has 7 elements", 'column "v" have 8'),
            (tuple(with_nan), ""): ("element 1 of the query vector is NaN", "finite"),
            (tuple(with_inf), ""): ("element 8 of the query vector is -Inf", "finite"),
            (tuple([None] + q[1:]), ""): ("element 1 of the query vector is NULL",),
            (tuple([0.0] * DIM), ", metric_type := 'cosine'"): ("zero vector", "direction"),
            (tuple(q), ", k := 0"): ("k is 0", "above 0"),
            (tuple(q), ", k := -5"): ("k is -5", "above 0"),
            (tuple(q), ", nprobs := 0"): ("nprobs is 0", "above 0"),
            (tuple(q), ", refine_factor := -1"): ("refine_factor is -1", "above 0"),
            (tuple(q), ", metric_type := 'hamming'"): ("hamming is for vectors of bytes",),
        }.items():
            bound = pa.record_batch([pa.array([list(given[0])], pa.list_(pa.float32()))], names=["q"])
            with refused("INVALID_ARGUMENT", *words):
                query(server, f"SELECT id FROM lance_vector_search('docs', 'v', ?{given[1]})", bound)
        every = {"k": (1 << 62), "nprobs": (1 << 62), "refine_factor": (1 << 62)}
        assert search(server, vectors[0], **every).num_rows == ROWS
        assert search(server, vectors[0], k=3, nprobs=1 << 62)["id"].to_pylist() == brute(vectors, vectors[0], 3)[0]


@pytest.mark.parametrize("same", [True, False], ids=["all equal", "few rows"])
def test_vectors_that_make_poor_partitions(server, vectors, same):
    """More partitions than rows, and rows that are all one: there is an answer, by the index where it could be made."""
    rows = np.repeat(vectors[:1], ROWS, axis=0) if same else vectors[:5]
    ingest(server, rows_of(rows))
    execute(server, "CREATE INDEX near ON docs USING IVF_PQ (v) WITH (num_partitions=256, num_sub_vectors=4)", "OPTIMIZE docs")
    ingest(server, rows_of(rows, len(rows)), mode="append")
    for _ in range(2):
        got = search(server, vectors[0], k=7, nprobs=1)
        want = list(range(7)) if same else brute(np.concatenate([rows, rows]), vectors[0], 7)[0]
        assert got["id"].to_pylist() == want
        assert search(server, vectors[0], k=7, use_index="false").equals(got)
        execute(server, "OPTIMIZE docs", "ALTER INDEX near ON docs OPTIMIZE")


def test_columns_that_have_no_vectors(server):
    execute(server, "CREATE TABLE odd (id BIGINT PRIMARY KEY, words VARCHAR, list FLOAT[], bytes UTINYINT[4], wide DOUBLE[4], bits BLOB, ints INTEGER[4])",
            "INSERT INTO odd VALUES (1, 'a', [1, 2, 3, 4], [255, 0, 0, 0], [1, 2, 3, 4], 'abcd', [1, 2, 3, 4])")
    for column, words in {"words": "VARCHAR", "list": "lists of any length", "bits": "BLOB", "ints": "INTEGER[4]", "id": "BIGINT"}.items():
        with refused("INVALID_ARGUMENT", words, 'columns with vectors are "bytes", "wide"'):
            query(server, f"SELECT id FROM lance_vector_search('odd', '{column}', [1, 2, 3, 4])")
        with refused("INVALID_ARGUMENT", f'"{column}"', "such as FLOAT[128]"):
            execute(server, f"CREATE INDEX near ON odd USING IVF_PQ ({column})")
    with refused("INVALID_ARGUMENT", "such as FLOAT[128]"):
        execute(server, "CREATE INDEX near ON odd USING IVF_FLAT (bytes)")
    assert query(server, "SELECT id, _distance FROM lance_vector_search('odd', 'wide', [1, 2, 3, 4])").to_pylist() == [{"id": 1, "_distance": 0}]
    # A list of any length becomes a vector by a cast.
    execute(server, "CREATE TABLE arrays AS SELECT * REPLACE (list::FLOAT[4] AS list) FROM odd")
    assert query(server, "SELECT id FROM lance_vector_search('arrays', 'list', [1, 2, 3, 4])").num_rows == 1


def test_halves_and_bytes(server, vectors):
    """Columns of float16 and of bytes are searched, in all layers, by the same distances."""
    halves = vectors.astype("f2")
    octets = np.random.default_rng(4).integers(0, 256, (ROWS, DIM), dtype="u1")
    key = rows_of(vectors[:1]).schema.field("id")
    columns = [pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), DIM) for x in (halves, octets)]
    table = pa.table([pa.array(range(ROWS), pa.int64()), *columns], schema=pa.schema([key, ("h", columns[0].type), ("b", columns[1].type)]))
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("docs", table.slice(0, 4000), mode="create")
        execute(server, "OPTIMIZE docs", "CREATE INDEX near ON docs USING IVF_PQ (h) WITH (num_partitions=8, num_sub_vectors=4)")
        cursor.adbc_ingest("docs", table.slice(4000), mode="append")
    wide = halves.astype("f4")
    for _ in range(2):
        for row in (7, 4321):
            sql = "SELECT id, _distance FROM lance_vector_search('docs', 'h', ?, k := 5, nprobs := 8, refine_factor := 100)"
            got = query(server, sql, pa.record_batch([vector(wide[row])], names=["q"]))
            want, distances = brute(wide, wide[row], 5)
            assert got["id"].to_pylist() == want
            assert np.allclose(got["_distance"].to_numpy(), distances, rtol=1e-3, atol=1e-3)
            bits = np.unpackbits(octets ^ octets[row], axis=1).sum(1)
            got = query(server, f"SELECT id, _distance FROM lance_vector_search('docs', 'b', {octets[row].tolist()}, k := 5)")
            assert got["id"].to_pylist() == np.argsort(bits, kind="stable")[:5].tolist()
            assert got["_distance"].to_pylist() == np.sort(bits)[:5].tolist()
        with refused("INVALID_ARGUMENT", "whole numbers from 0 to 255"):
            query(server, f"SELECT id FROM lance_vector_search('docs', 'b', {[0.5] * DIM})")
        with refused("INVALID_ARGUMENT", "too large for the column's float16"):
            query(server, f"SELECT id FROM lance_vector_search('docs', 'h', {[1e6] * DIM})")
        execute(server, "OPTIMIZE docs")
