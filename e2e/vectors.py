"""A table of vectors named docs, and searches in it, for the tests of vector search."""

import numpy as np
import pyarrow as pa

from clients import adbc

KEY = {"lance-schema:unenforced-primary-key": "true"}


def rows_of(vectors, first=0):
    """A table of vectors with ids, and the remainder by 5 as a tag."""
    n, dim = vectors.shape
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), dim)
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False, metadata=KEY), ("tag", pa.string()), ("v", flat.type)])
    ids = range(first, first + n)
    return pa.table([pa.array(ids, pa.int64()), pa.array([f"t{i % 5}" for i in ids]), flat], schema=schema)


def ingest(server, table, mode="create_append"):
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("docs", table, mode=mode)


def vector(q):
    return pa.array([q.tolist()], pa.list_(pa.float32(), len(q)))


def search(server, q, where="", columns="id, _distance", **options):
    """Searches docs for a vector that is bound as a parameter."""
    named = "".join(f", {name} := {value}" for name, value in options.items())
    sql = f"SELECT {columns} FROM lance_vector_search('docs', 'v', ?{named}) {where}"
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute(sql, pa.record_batch([vector(q)], names=["q"]))
        return cursor.fetch_arrow_table()


def brute(vectors, q, k, keep=None):
    """The ids of the k nearest rows, by numbers of twice the width."""
    d = ((vectors.astype("f8") - q.astype("f8")) ** 2).sum(1)
    if keep is not None:
        d[~keep] = np.inf
    return np.argsort(d, kind="stable")[:k].tolist(), np.sort(d)[:k]
