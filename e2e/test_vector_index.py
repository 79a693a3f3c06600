"""Indexes over vectors: built by flightd or by pylance, they serve flightd, pylance and DuckDB, while rows come and go."""

import lance
import numpy as np
import pytest

from clients import adbc, duckdb_with_lance, execute, query
from vectors import brute, ingest, rows_of, search

ROWS, MORE, DIM, CENTRES = 12_000, 3_000, 32, 60


@pytest.fixture(scope="module")
def clustered():
    """Vectors around centres, and queries of the same kind."""
    r = np.random.default_rng(11)
    centres = r.normal(size=(CENTRES, DIM)) * 4
    return [(centres[r.integers(CENTRES, size=n)] + r.normal(size=(n, DIM))).astype("f4") for n in (ROWS + MORE, 40)]


def recall(found, vectors, queries):
    """The share of the ten nearest rows that were found."""
    return np.mean([len(set(ids) & set(brute(vectors, q, 10)[0])) / 10 for ids, q in zip(found, queries)])


def by_flightd(server, queries, **options):
    return [search(server, q, k=10, **options)["id"].to_pylist() for q in queries]


def by_pylance(server, queries):
    """Searches with pylance, whose plan has to have the index."""
    dataset = lance.dataset(server.dataset("docs"))
    nearest = lambda q: {"column": "v", "q": q, "k": 10, "nprobes": 8, "refine_factor": 10}  # noqa: E731
    assert "ANNSubIndex" in dataset.scanner(nearest=nearest(queries[0]), columns=["id", "_distance"]).explain_plan(True)
    return [dataset.to_table(nearest=nearest(q), columns=["id", "_distance"])["id"].to_pylist() for q in queries]


def by_duckdb(server, queries):
    sql = f"SELECT id FROM lance_vector_search('{server.dataset('docs')}', 'v', ?::FLOAT[], k := 10, nprobs := 8, refine_factor := 10)"
    with duckdb_with_lance() as db:
        return [[row[0] for row in db.execute(sql, [q.tolist()]).fetchall()] for q in queries]


def plan(server, q):
    """What EXPLAIN says of a search."""
    sql = f"EXPLAIN SELECT id FROM lance_vector_search('docs', 'v', {q.tolist()}, k := 10)"
    return query(server, sql)["explain_value"].to_pylist()[-1]


def all_agree(server, vectors, queries, least=0.9):
    """Everybody finds most of the nearest rows, and flightd all when it looks everywhere."""
    for who, found in {
        "flightd": by_flightd(server, queries, nprobs=8, refine_factor=10),
        "pylance": by_pylance(server, queries),
        "DuckDB": by_duckdb(server, queries),
    }.items():
        assert recall(found, vectors, queries) >= least, who
    for q in queries[:5]:
        want, distances = brute(vectors, q, 10)
        for options in ({"use_index": "false"}, {"nprobs": 10_000, "refine_factor": 200}):
            got = search(server, q, k=10, **options)
            assert got["id"].to_pylist() == want, options
            assert np.allclose(got["_distance"].to_numpy(), distances, rtol=1e-4)


@pytest.mark.parametrize("using", ["IVF_PQ", "IVF_FLAT"])
def test_an_index_of_flightd_serves_everybody(server, clustered, using):
    """Fresh rows are found through the memtable's own index, then through the generation's and that of the merged base."""
    vectors, queries = clustered
    ingest(server, rows_of(vectors[:ROWS]))
    options = "num_partitions=24" + (", num_sub_vectors=8" if using == "IVF_PQ" else "")
    execute(server, f"CREATE INDEX near ON docs USING {using} (v) WITH ({options})", "OPTIMIZE docs")
    assert "index near" in plan(server, queries[0])
    all_agree(server, vectors[:ROWS], queries)
    ingest(server, rows_of(vectors[ROWS:], ROWS), mode="append")
    found = by_flightd(server, queries, nprobs=8, refine_factor=10)
    assert recall(found, vectors, queries) >= 0.9
    assert any(i >= ROWS for ids in found for i in ids), "fresh rows are among the nearest of some query"
    server.restart()
    assert recall(by_flightd(server, queries, nprobs=8, refine_factor=10), vectors, queries) >= 0.9
    execute(server, "OPTIMIZE docs")
    all_agree(server, vectors, queries)
    shown = query(server, "SHOW INDEXES ON docs").to_pylist()
    assert [row["index_type"] for row in shown if row["index_name"] == "near"] == [using]


def test_an_index_of_pylance_serves_flightd(server, clustered):
    """flightd takes up what pylance builds beside it, and keeps it for the rows that it merges."""
    vectors, queries = clustered
    ingest(server, rows_of(vectors[:ROWS]))
    execute(server, "OPTIMIZE docs")
    lance.dataset(server.dataset("docs")).create_index("v", "IVF_PQ", name="theirs", num_partitions=24, num_sub_vectors=8)
    assert "index theirs" in plan(server, queries[0])
    all_agree(server, vectors[:ROWS], queries)
    ingest(server, rows_of(vectors[ROWS:], ROWS), mode="append")
    assert recall(by_flightd(server, queries, nprobs=8, refine_factor=10), vectors, queries) >= 0.9
    execute(server, "OPTIMIZE docs")
    all_agree(server, vectors, queries)


def test_changed_rows_are_found_in_their_new_place_only(server, clustered):
    """An index keeps entries of rows that were replaced or deleted; they neither come back nor take the place of others."""
    vectors, queries = clustered
    vectors = vectors[:ROWS].copy()
    ingest(server, rows_of(vectors))
    execute(server, "CREATE INDEX near ON docs USING IVF_PQ (v) WITH (num_partitions=24, num_sub_vectors=8)", "OPTIMIZE docs")
    q = queries[0]
    near = brute(vectors, q, 400)[0]
    moved, gone = near[:150], near[150:300]
    vectors[moved] += 1000
    with adbc(server) as connection, connection.cursor() as cursor:
        for first in moved:
            cursor.adbc_ingest("docs", rows_of(vectors[first : first + 1], first), mode="append")
            if first == moved[5]:
                break
        cursor.execute(f"UPDATE docs SET v = list_transform(v, x -> x + 1000)::FLOAT[{DIM}] WHERE id IN ({', '.join(map(str, moved[6:]))})")
        cursor.execute(f"DELETE FROM docs WHERE id IN ({', '.join(map(str, gone))})")
    vectors[gone] = 1e9
    for step in (server.restart, lambda: execute(server, "OPTIMIZE docs"), lambda: None):
        got = search(server, q, k=50, nprobs=4)["id"].to_pylist()
        assert len(got) == 50 and len(set(got)) == 50
        assert not set(got) & set(moved) and not set(got) & set(gone)
        assert search(server, vectors[moved[7]], k=3, nprobs=24)["id"].to_pylist()[0] == moved[7]
        tagged = search(server, q, "WHERE tag = 't1'", columns="id, tag", k=30, nprobs=1, prefilter="true")
        assert tagged.num_rows == 30 and set(tagged["tag"].to_pylist()) == {"t1"}
        few = search(server, q, f"WHERE id IN ({moved[0]}, {gone[0]}, {near[399]})", k=10, prefilter="true")
        assert sorted(few["id"].to_pylist()) == sorted([moved[0], near[399]])
        step()
