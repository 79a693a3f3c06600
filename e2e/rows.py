"""Test data, and how tables are compared: every row, every type."""

import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHARED = pathlib.Path(os.environ.get("FLIGHTD_SHARED", pathlib.Path(__file__).parent.parent.parent / "shared"))


def shared(name):
    """The path of a shared data set, or None."""
    path = SHARED / "data" / name
    return path if path.exists() else None


def flights():
    """200,000 flights: delay int16, distance int16, time float32, id int64."""
    if path := shared("tab/flights.parquet"):
        return plain(pq.read_table(path))
    rng = np.random.default_rng(1)
    n = 200_000
    return pa.table({
        "delay": rng.integers(-60, 600, n).astype(np.int16),
        "distance": rng.integers(30, 5000, n).astype(np.int16),
        "time": np.round(rng.uniform(0, 24, n), 3).astype(np.float32),
        "id": np.arange(n, dtype=np.int64),
    })


def mnist():
    """40,000 images: id int64, v fixed-size list of 784 uint8."""
    if path := shared("vec/mnist784/train.parquet"):
        return plain(pq.read_table(path))
    rng = np.random.default_rng(2)
    n = 40_000
    values = rng.integers(0, 256, n * 784, dtype=np.uint8)
    return pa.table({
        "id": np.arange(n, dtype=np.int64),
        "v": pa.FixedSizeListArray.from_arrays(pa.array(values), 784),
    })


def weather():
    """26,115 hours of weather with nulls and timestamps, under a key of its own."""
    path = shared("tab/weather.parquet")
    if not path:
        return None
    table = plain(pq.read_table(path))
    return table.add_column(0, pa.field("id", pa.int64(), nullable=False), pa.array(range(table.num_rows), pa.int64()))


def plain(table):
    """Drops metadata that Parquet readers add."""
    fields = [pa.field(f.name, f.type, f.nullable) for f in table.schema]
    return table.cast(pa.schema(fields)).combine_chunks()


def batches(table, rows):
    """Cuts a table into batches of a size."""
    return table.combine_chunks().to_batches(max_chunksize=rows)


def assert_same_rows(got, want):
    """Compares two tables: names, types, and every value of every row, in order."""
    assert got.column_names == want.column_names
    assert [type_name(f.type) for f in got.schema] == [type_name(f.type) for f in want.schema]
    assert got.num_rows == want.num_rows, f"{got.num_rows} rows, want {want.num_rows}"
    for name in want.column_names:
        a, b = one_array(got.column(name)), one_array(want.column(name))
        if not a.cast(b.type).equals(b):
            at = next(i for i in range(len(b)) if a[i].as_py() != b[i].as_py())
            raise AssertionError(f"column {name!r}, row {at}: {a[at].as_py()!r}, want {b[at].as_py()!r}")


def type_name(t):
    """Names a type without the name of a list's child, which has no meaning."""
    if pa.types.is_fixed_size_list(t):
        return f"fixed_size_list<{type_name(t.value_type)}>[{t.list_size}]"
    return str(t)


def one_array(column):
    """The one array of a chunked column."""
    column = column.combine_chunks()
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
