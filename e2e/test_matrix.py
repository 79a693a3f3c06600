"""Every Arrow type, with and without nulls, in tables of every version of Lance's files, with several fragments, deletions and added
columns: what pylance writes is read, and written on; what flightd writes is read by pylance, LanceDB and DuckDB's lance extension."""

import os
import re
import subprocess
import sys

import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

import rows
from clients import adbc, duckdb_with_lance, execute, put, query, refused
from test_types import NULLS, TYPES, allowed, make, plain, solid

COUNT = 40  # rows of a fragment
KEY = {"lance-schema:unenforced-primary-key": "true"}


def holds(t, test):
    """Whether a type, or one in it, passes a test."""
    below = [t.field(k).type for k in range(t.num_fields)]
    if pa.types.is_dictionary(t):
        below = [t.value_type]
    return test(t) or any(holds(b, test) for b in below)


def pylance_says(t, version):
    """Why pylance does not write a type into files of a version, or None. flightd stores it in another form, or in another version."""
    if holds(t, lambda t: t == pa.json_()):
        return "Failed to encode JSON"  # its own form is binary
    if holds(t, lambda t: pa.types.is_dictionary(t) and str(t.value_type).split("[")[0].split("(")[0] in ("fixed_size_binary", "date32", "decimal128", "timestamp")):
        return "does not parse back"
    if version < "2.2" and holds(t, pa.types.is_map):
        return "no field encoding" if version == "2.0" else "not enabled by the selected file format"


# What pylance writes and flightd does not serve, with what flightd says: columns of files of 2.2.
FLIGHTD_REFUSES = {
    "structs": (pa.FixedSizeListArray.from_arrays(pa.array([{"a": 1}] * 4), 2), "fixed_size_list"),
    "texts": (pa.array([None], pa.list_(pa.string(), 2)), "fixed-size lists of utf8"),
    "lists": (pa.array([[[1, 2], [3, 4]]], pa.list_(pa.list_(pa.int8(), 2), 2)), "lists in lists"),
    "nulls": (pa.array([[None, None]], pa.list_(pa.null(), 2)), "fixed-size lists of null"),
}


def narrow(t):
    """Whether a type has a dictionary whose indices flightd writes wider, which Lance does not allow."""
    return holds(t, lambda t: pa.types.is_dictionary(t) and t.index_type.bit_width < 32)


def fields_of(version, types):
    """A field for each type with each kind of nulls."""
    for i, t in enumerate(types):
        f = pa.field("c", t)
        if version == "2.0" and (f := solid(f)) is None:
            continue
        for nulls in NULLS:
            yield f.with_name(f"c{i}_{nulls}"), allowed(f, NULLS[nulls]), i


def table_of(version, types, part, metadata=None):
    """The rows of a fragment, with an id and all fields. pylance 14 panics over structs that are slices."""
    fields = list(fields_of(version, types))
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False, metadata=metadata), *(f for f, _, _ in fields)])
    ids = pa.array(range(part * COUNT, (part + 1) * COUNT), pa.int64())
    return pa.table([ids, *(make(f.type, COUNT, null, i + 17 * part) for f, null, i in fields)], schema=schema)


def columns(table):
    """The columns as plain values, in the order of the ids. pyarrow cannot join dictionaries with nulls in them."""
    order = pa.compute.sort_indices(table.column("id"))
    return {f.name: pa.concat_arrays([plain(c) for c in table.column(f.name).chunks]).take(order) for f in table.schema}


def assert_same(got, want, note):
    assert list(got) == list(want), note
    for name, column in want.items():
        assert got[name].equals(column), f"{note}: {name}: {column.type}: {got[name].to_pylist()[:9]}, want {column.to_pylist()[:9]}"


def write(server, version):
    """Lets pylance write a table of three fragments, some of whose rows are deleted, and whose last columns were added."""
    types = [t for t in TYPES if not pylance_says(t, version) and not narrow(t)]
    path = str(server.dataset("v" + version[2:]))
    for k in range(3):
        ds = lance.write_dataset(table_of(version, types, k), path, mode="append" if k else "create", data_storage_version=version)
    ds.add_columns({"twice": "id * 2", "text": "CAST(id AS STRING)"})
    ds.delete("id % 7 = 3")
    return ds


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_what_pylance_does_not_write_it_still_does_not(tmp_path, version):
    for t in TYPES:
        if message := pylance_says(t, version):
            with pytest.raises(OSError, match=re.escape(message)):
                lance.write_dataset(pa.table({"c": make(t, 10, NULLS["none"], 0)}), str(tmp_path / "x.lance"), data_storage_version=version, mode="overwrite")


def test_tables_of_pylance_are_read_and_written_on(new_server):
    server = new_server()
    made = {v: write(server, v) for v in ("2.0", "2.1", "2.2")}
    for name, (column, _) in FLIGHTD_REFUSES.items():
        lance.write_dataset(pa.table({"c": column}), str(server.dataset(name)), data_storage_version="2.2")
    words = pa.table({"c": make(pa.dictionary(pa.int8(), pa.string()), 30, NULLS["some"], 0)})
    lance.write_dataset(words, str(server.dataset("narrow")), data_storage_version="2.2")
    server.start()
    assert_same({"c": plain(query(server, "FROM narrow").column("c").combine_chunks())}, {"c": plain(words.column("c").combine_chunks())}, "narrow")
    with refused("FAILED_PRECONDITION", '"c"', "indices of int8", "CREATE TABLE"):
        execute(server, "INSERT INTO narrow VALUES ('x')")
    for name, (_, message) in FLIGHTD_REFUSES.items():
        with refused("FAILED_PRECONDITION", "cannot be served", message):
            query(server, f"FROM {name}")
    for version, ds in made.items():
        name = "v" + version[2:]
        want, got = ds.to_table(), query(server, f"FROM {name}")
        assert [str(t) for t in got.schema.types] == [str(t) for t in want.schema.types]
        assert_same(columns(got), columns(want), version)
        execute(server, f"UPDATE {name} SET twice = -id WHERE id % 5 = 0", f"DELETE FROM {name} WHERE id = 8", f"OPTIMIZE {name}")
        ds = lance.dataset(ds.uri)
        assert ds.data_storage_version == version
        want = want.filter(pa.compute.not_equal(want.column("id"), 8))
        changed = columns(want)
        changed["twice"] = pa.array([-i if i % 5 == 0 else 2 * i for i in changed["id"].to_pylist()], pa.int64())
        assert_same(columns(ds.to_table()), changed, f"{version} by pylance")
        assert_same(columns(query(server, f"FROM {name}")), changed, f"{version} by flightd")


def duckdb_says(t):
    """What DuckDB's lance extension 1.5.5 says of a table with a column of a type, whatever columns are asked for; None if it reads them."""
    if holds(t, pa.types.is_decimal256):
        return "Unsupported Internal Arrow Type for Decimal"
    if holds(t, lambda t: pa.types.is_decimal128(t) and t.scale < 0):
        return "Information loss on integer cast"
    if holds(t, lambda t: pa.types.is_timestamp(t) and ":" in (t.tz or "")):
        return "panicked"  # and its process ends: it does not know zones that are offsets
    if t != pa.null() and holds(t, pa.types.is_null):
        return ""  # it reads wrong numbers of items, or memory that is not there


def by_duckdb(db, sql):
    """The values of a query's only column. UUIDs are text where DuckDB gives them as Arrow."""
    return [text(v) for v in db.execute(sql).to_arrow_table().column(0).to_pylist()]


def text(v):
    if isinstance(v, dict):
        return {k: text(x) for k, x in v.items()}
    if isinstance(v, (list, tuple)):
        return [text(x) for x in v]
    return v if v is None or isinstance(v, (bool, bytes)) else str(float(v)) if isinstance(v, (float, np.floating)) else str(v)


def assert_read_by_duckdb(path, want):
    """DuckDB reads columns as it reads them from memory, but for half floats, which it does not know there."""
    for f in want.schema:
        values = pa.table({"id": want.column("id"), "v": want.column(f.name)})
        with duckdb_with_lance() as db:
            sql = f'SELECT "{f.name}" FROM \'{path}\' ORDER BY id'
            if f.name.endswith("_all") and holds(f.type, lambda t: pa.types.is_list(t) and pa.types.is_dictionary(t.value_type)):
                try:
                    by_duckdb(db, sql)
                except duckdb.InternalException as e:  # in 2.0
                    assert "dereference unique_ptr that is NULL" in str(e)
                continue
            if holds(f.type, pa.types.is_float16):
                known = [text(v) for v in values.column("v").to_pylist()]
            else:
                db.register("from_memory", values)
                known = by_duckdb(db, "SELECT v FROM from_memory ORDER BY id")
            got = by_duckdb(db, sql)
            assert got == known, f"{f}: {[x for x in zip(got, known, strict=True) if x[0] != x[1]][:3]}"


def commit_thrice(server, name, files, types):
    """Three commits, and so three fragments: rows of the first two are deleted, and one column is younger than they. A table
    of 2.1 is one that pylance has made."""
    parts = [table_of(files, types, k, KEY) for k in range(3)]
    with adbc(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest(name, parts[0], mode="append" if files == "2.1" else "create")
    execute(server, f"OPTIMIZE {name}")
    put(server, name, parts[1].to_batches())
    execute(server, f"OPTIMIZE {name}", f"DELETE FROM {name} WHERE id % 7 = 3", f"ALTER TABLE {name} ADD COLUMN n INT DEFAULT 7")
    put(server, name, parts[2].to_batches())
    execute(server, f"OPTIMIZE {name}")
    keep = [i for i in range(3 * COUNT) if i % 7 != 3 or i >= 2 * COUNT]
    whole = {f.name: rows.one_array(pa.chunked_array([p.column(f.name).chunk(0) for p in parts])) for f in parts[0].schema}
    whole = {n: pa.concat_arrays([a.slice(i, 1) for i in keep]) if not pa.types.is_dictionary(a.type) else a.take(keep) for n, a in whole.items()}
    return pa.table(whole | {"n": pa.array([7] * len(keep), pa.int32())})


@pytest.mark.parametrize("files", ["2.0", "2.1", "2.2"])
def test_what_flightd_writes_is_read_by_others(new_server, files):
    import lancedb  # which an environment of before this test lacks

    server = new_server()
    tables = {"t": [t for t in TYPES if duckdb_says(t) is None], "others": [t for t in TYPES if duckdb_says(t) is not None]}
    if files == "2.1":
        tables = {n: [t for t in types if not pylance_says(t, files) and not narrow(t)] for n, types in tables.items()}
        for name, types in tables.items():
            lance.write_dataset(table_of(files, types, 0, KEY).slice(0, 0), str(server.dataset(name)), data_storage_version=files)
    server.start()
    for name, types in tables.items():
        table = commit_thrice(server, name, files, types)
        want, path = columns(table), str(server.dataset(name))
        ds = lance.dataset(path)
        assert ds.data_storage_version == files and len(ds.get_fragments()) > 1 and any(f.deletion_file() for f in ds.get_fragments())
        assert_same(columns(query(server, f"FROM {name}")), want, "flightd")
        assert_same(columns(ds.to_table()), want, "pylance")
        assert_same(columns(lancedb.connect(str(server.dataset(name).parent)).open_table(name).to_arrow()), want, "LanceDB")
        if name == "t":
            assert_read_by_duckdb(path, table)


def test_what_duckdb_does_not_read_it_still_does_not(tmp_path):
    """Each in a process of its own, because some end it."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); from clients import duckdb_with_lance; duckdb_with_lance().execute(\"SELECT i FROM '\" + sys.argv[2] + \"'\").fetchall()"
    says = {duckdb_says(t): t for t in TYPES}
    for k, (message, t) in enumerate((m, t) for m, t in says.items() if m):
        path = str(tmp_path / f"{k}.lance")
        lance.write_dataset(pa.table({"i": range(5), "c": make(t, 5, NULLS["some"], 0)}), path, data_storage_version="2.2")
        done = subprocess.run([sys.executable, "-c", program, os.path.dirname(__file__), path], capture_output=True, text=True)
        assert done.returncode != 0 and message in done.stderr, f"{t}: {done.stderr}"
