"""Reads files of ours in forms that only a field's type or metadata ask for, and compares them with pylance's of the same rows.

python formscheck.py THEIRS OURS: each NAME.lance in THEIRS is a data file of pylance's, NAME.lance in OURS the same rows by
us. Both are read as files, and as fragments of one table. It prints what differs and exits with 1 if anything does.
"""

import pathlib
import sys
import tempfile

import lance
import pyarrow as pa
from lance.file import LanceFileReader
from lance.fragment import DataFile, FragmentMetadata


def ids_of(schema, later):
    """The ids of the fields that have columns: those at the top, and the items of lists, which later versions have alone."""
    ids, next_id = [], 0
    for f in schema:
        ids += [next_id + 1] if later and pa.types.is_list(f.type) else [next_id, next_id + 1] if pa.types.is_list(f.type) else [next_id]
        next_id += count(f.type)
    return ids


def count(t):
    if isinstance(t, pa.BaseExtensionType) or pa.types.is_dictionary(t) or pa.types.is_fixed_size_list(t):
        return 1
    return 1 + sum(count(t.field(k).type) for k in range(t.num_fields))


def plain(column):
    return [v for v in column.to_pylist()]


def table_of(folder, paths, schema, rows):
    (folder / "data").mkdir(parents=True)
    fragments = []
    for k, path in enumerate(paths):
        data = path.read_bytes()
        name = f"{k}.lance"
        (folder / "data" / name).write_bytes(data)
        minor = data[-6] if data[-8] == 2 else 0
        ids = ids_of(schema, minor > 0)
        fragments.append(FragmentMetadata(k, [DataFile(name, ids, list(range(len(ids))), 2, minor, len(data))], rows))
    lance.LanceDataset.commit(folder, lance.LanceOperation.Overwrite(schema, fragments))
    return lance.dataset(folder)


def main(theirs, ours):
    bad = 0
    for path in sorted(theirs.glob("*.lance")):
        again = ours / path.name
        if not again.exists():
            continue
        schema = LanceFileReader(str(path)).metadata().schema
        want, got = LanceFileReader(str(path)).read_all().to_table(), LanceFileReader(str(again)).read_all().to_table()
        stored = LanceFileReader(str(again)).metadata().schema
        for f in schema:
            if stored.field(f.name) != f or (stored.field(f.name).metadata or {}) != (f.metadata or {}):
                print(f"{path.name}: {f} {f.metadata} is {stored.field(f.name)} {stored.field(f.name).metadata}")
                bad = 1
        for name in want.column_names:
            if plain(want[name]) != plain(got[name]) or want.schema.field(name).type != got.schema.field(name).type:
                print(f"{path.name}: column {name} ({want[name].type}, got {got[name].type}) differs: {plain(got[name])[:9]}, want {plain(want[name])[:9]}")
                bad = 1
        with tempfile.TemporaryDirectory() as folder:
            ds = table_of(pathlib.Path(folder) / "t.lance", [path, again], schema, want.num_rows)
            table = ds.to_table()
            picks = [0, want.num_rows + 1, 2, 2 * want.num_rows - 1]
            taken = ds.take(picks)
            for name in want.column_names:
                both = plain(table[name])
                half = both[:want.num_rows]  # which is pylance's; a file's JSON is binary, a table's is not
                if both != half * 2 or plain(taken[name]) != [both[i] for i in picks] or half != plain(want[name]) and want[name].type == table[name].type:
                    print(f"{path.name}: column {name} differs in a table")
                    bad = 1
    sys.exit(bad)


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
