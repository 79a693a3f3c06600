"""Reads files of ours with the tools of others, and compares them with the Arrow IPC files beside them.

python check.py FOLDER reads each NAME.lance in FOLDER with pylance, by itself and in a table, and with DuckDB's lance
extension, and compares the rows with those of NAME.arrow. It prints what differs and exits with 1 if anything does.
"""

import pathlib
import random
import sys
import tempfile

import duckdb
import duckdb_extension_lance
import lance
import pyarrow as pa
from lance.file import LanceFileReader
from lance.fragment import DataFile, FragmentMetadata



def is_offset_zone(type_):
    """The extension ends its process on a time zone with a colon."""
    return pa.types.is_timestamp(type_) and ":" in (type_.tz or "")


# DuckDB has no such types.
NOT_IN_DUCKDB = (pa.types.is_float16, pa.types.is_decimal256, is_offset_zone)


def same(what, want, got):
    """Compares tables column by column, so that the metadata of the file does not matter."""
    differ = [n for n in want.column_names if not want[n].equals(got[n])]
    for name in differ:
        print(f"{what}: column {name} ({want[name].type}, got {got[name].type}) differs")
    return not differ and want.num_rows == got.num_rows


def check_file(path, want):
    reader = LanceFileReader(str(path))
    ok = same(f"{path.name}, whole file", want, reader.read_all().to_table())
    rows = sorted(random.Random(1).sample(range(want.num_rows), min(want.num_rows, 50)))
    if rows:
        ok &= same(f"{path.name}, rows", want.take(rows), reader.take_rows(rows).to_table())
        start, n = want.num_rows // 3, want.num_rows // 2
        ok &= same(f"{path.name}, range", want.slice(start, n), reader.read_range(start, n).to_table())
    return ok


def check_table(path, want):
    """Makes a table of the file by a commit of pylance, and one of the columns that DuckDB has types for."""
    with tempfile.TemporaryDirectory() as folder:
        all_ = list(range(want.num_columns))
        table = make_table(path, pathlib.Path(folder) / "all.lance", want, all_)
        ok = same(f"{path.name}, table", want, lance.dataset(table).to_table())
        some = [i for i in all_ if not any(is_type(want.schema.field(i).type) for is_type in NOT_IN_DUCKDB)]
        return ok & check_duckdb(path, make_table(path, pathlib.Path(folder) / "some.lance", want, some), want.select(some))


def make_table(path, table, want, columns):
    (table / "data").mkdir(parents=True)
    data = path.read_bytes()
    (table / "data" / path.name).write_bytes(data)
    minor = data[-6] if data[-8] == 2 else 0
    ids, places = columns_of(want.schema, columns, minor > 0)
    file = DataFile(path.name, ids, places, 2, minor, len(data))
    fragments = [FragmentMetadata(0, [file], want.num_rows)] if want.num_rows else []
    lance.LanceDataset.commit(table, lance.LanceOperation.Overwrite(want.select(columns).schema, fragments))
    return table


def columns_of(schema, chosen, later):
    """Numbers the fields of the chosen columns, nested ones behind their parent's, and their columns in the file: each
    field has one of its own, or each leaf in files of later versions."""
    ids, places, field, column = [], [], 0, 0
    for i, top in enumerate(schema):
        for leaf in leaves(top.type):
            if i in chosen and (leaf or not later):
                ids.append(field)
                places.append(column)
            field += i in chosen
            column += leaf or not later
    return ids, places


def leaves(type_):
    """Tells of a type and of all below it whether they are leaves."""
    fixed = pa.types.is_fixed_size_list(type_)
    below = [] if fixed else [type_.field(i).type for i in range(type_.num_fields)]
    if pa.types.is_map(type_):
        below = [pa.struct([("key", type_.key_type), ("value", type_.item_type)])]
    yield not below
    for child in below:
        yield from leaves(child)


def check_duckdb(path, table, want):
    extension = next(pathlib.Path(duckdb_extension_lance.__file__).parent.rglob("lance.duckdb_extension"))
    ok = True
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as db:
        db.execute("SET enable_progress_bar = false")  # which it writes where answers go when a query takes seconds
        db.execute(f"LOAD '{extension}'")
        db.register("want", want)
        for field in want.schema:
            if field.name == "zipped bools":  # which the extension does not know, and pylance writes
                continue
            # As text, because Python cannot show every time and date.
            column = '"' + field.name + '"::VARCHAR'
            got = db.execute(f"SELECT {column} FROM '{table}'").fetchall()
            if got != db.execute(f"SELECT {column} FROM want").fetchall():
                print(f"{path.name}: column {field.name} ({field.type}) differs in DuckDB")
                ok = False
    return ok


good = True
for arrow in sorted(pathlib.Path(sys.argv[1]).glob("*.arrow")):
    with pa.ipc.open_file(arrow) as f:
        expected = f.read_all()
    lance_file = arrow.with_suffix(".lance")
    good &= check_file(lance_file, expected) & check_table(lance_file, expected)
sys.exit(not good)
