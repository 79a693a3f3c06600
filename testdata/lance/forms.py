"""Writes tables of 2.0, 2.1 and 2.2 with pylance whose columns are stored in forms that only a field's type or metadata ask for:
JSON, blobs, packed structs, dictionaries of numbers and buffers compressed by ZSTD. Of each table the first data file is in
FOLDER as NAME.lance, with what is beside it, and what is in it as Arrow IPC as NAME.arrow.

    python forms.py FOLDER [ROWS]

The files in forms/ have 20 rows each; the fuzz targets begin with them.
"""

import random
import shutil
import sys
import tempfile
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.blob import blob_array, blob_field

ROWS = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
dice = random.Random(3)
TEXTS = ["null", "true", "0", "-1", "256", "1099511627776", "-200", "1.5", "1e+300", "0.1", "100.0", '"s"', '"é\\n\\"😀"', "[]", "{}", '{"a":"v","b":[1,{"x":null}]}',
         '[1,[2,"x"],{"k":1.25}]', "1e-7", "18446744073709551615", "-9223372036854775808", "0.00001", "1e+16", "1000000000000000.0", '"\\u0001\\b\\f\\r\\t\x7f/"', "-0.0"]


def save(folder, name, table, version, plain=None):
    """plain are the columns as flightd gives them, where that is not what was written."""
    name = f"{name}-{version}"
    with tempfile.TemporaryDirectory() as root:
        lance.write_dataset(table, f"{root}/t.lance", data_storage_version=version)
        for path in Path(root, "t.lance", "data").iterdir():
            if path.suffix == ".lance":
                shutil.copy(path, folder / f"{name}.lance")
            else:
                shutil.copytree(path, folder / name)
    for column, values in (plain or {}).items():
        at = table.schema.get_field_index(column)
        table = table.set_column(at, pa.field(column, values.type, table.schema.field(at).nullable), values)
    with pa.ipc.new_file(folder / f"{name}.arrow", table.schema) as f:
        f.write_table(table.combine_chunks())


def blobs(most, nulls):
    return [None if dice.random() < nulls else dice.randbytes(dice.randrange(most)) for _ in range(ROWS)]


def packed(fields):
    return pa.field("s", pa.struct(fields), metadata={"packed": "true", "lance-encoding:packed": "true"})


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    ids = pa.array(range(ROWS), pa.int64())
    for version in ["2.0", "2.1", "2.2"]:
        for nulls in [0, 0.2]:
            tag = "nulls" if nulls else "full"
            if version < "2.2":
                field = pa.field("b", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
                values = pa.array(blobs(min(2000, ROWS), nulls), pa.large_binary())
                save(folder, f"blobs-{tag}", pa.table([ids, values], schema=pa.schema([pa.field("id", pa.int64()), field])), version)
                values = pa.array([None if nulls else b""] * ROWS, pa.large_binary())
                save(folder, f"none-{tag}", pa.table([ids, values], schema=pa.schema([pa.field("id", pa.int64()), field])), version)
            else:
                # 64 KiB and more lie in files of several, 4 MiB and more in one of their own.
                values = blobs(min(200, ROWS), nulls)
                if ROWS > 2001:
                    values[3], values[4], values[2000], values[2001] = (dice.randbytes(n) for n in (70_000, 80_000, 5 << 20, 90_000))
                table = pa.table([ids, blob_array(values)], schema=pa.schema([pa.field("id", pa.int64()), blob_field("b")]))
                save(folder, f"blobs-{tag}", table, version, {"b": pa.array(values, pa.large_binary())})
            texts = pa.array([None if dice.random() < nulls else TEXTS[i % len(TEXTS)] for i in range(ROWS)], pa.string())
            save(folder, f"json-{tag}", pa.table({"id": ids, "j": pa.ExtensionArray.from_storage(pa.json_(), texts)}), version, {"j": texts})
            numbers = pa.array([None if dice.random() < nulls else i % 7 * 1000 for i in range(ROWS)], pa.int64())
            save(folder, f"numbers-{tag}", pa.table({"id": ids, "d": numbers.dictionary_encode(), "f": numbers.cast(pa.float32()).dictionary_encode()}), version,
                 {"d": numbers, "f": numbers.cast(pa.float32())})
            zstd = {"lance-encoding:compression": "zstd"}
            words = pa.array([None if dice.random() < nulls else f"{i * i} " * (i % 9) for i in range(ROWS)])
            save(folder, f"zstd-{tag}", pa.table([ids, words, numbers, pa.array([[i, i] for i in range(ROWS)], pa.list_(pa.float32(), 2))],
                                                schema=pa.schema([pa.field("id", pa.int64()), pa.field("s", pa.string(), metadata=zstd), pa.field("n", pa.int64(), metadata=zstd),
                                                                  pa.field("v", pa.list_(pa.float32(), 2), metadata=zstd)])), version)
        points = pa.array([{"x": i, "y": i / 3, "z": i % 100} for i in range(ROWS)], pa.struct([("x", pa.int64()), ("y", pa.float32()), ("z", pa.uint8())]))
        save(folder, "packed", pa.table([ids, points], schema=pa.schema([pa.field("id", pa.int64()), packed(list(points.type))])), version)
        for name, nulls in [("few", 0.5), ("all", 1)]:
            numbers = pa.array([None if dice.random() < nulls else i % 7 * 1000 for i in range(ROWS)], pa.int64())
            columns = {"id": ids, "i": numbers.cast(pa.int32()).dictionary_encode(), "u": pc.divide(numbers, 1000).cast(pa.uint8()).dictionary_encode()}
            texts = pa.array([None if dice.random() < nulls else TEXTS[i % len(TEXTS)] for i in range(ROWS)], pa.string())
            columns["j"] = pa.ExtensionArray.from_storage(pa.json_(), texts)
            save(folder, f"numbers-{name}", pa.table(columns), version, {"i": numbers.cast(pa.int32()), "u": pc.divide(numbers, 1000).cast(pa.uint8()), "j": texts})
            lists = pa.array([None if dice.random() < nulls else [i % 5] * (i % 4) for i in range(ROWS)], pa.list_(pa.int16()))
            coded = pa.ListArray.from_arrays(lists.offsets, lists.values.dictionary_encode(), mask=lists.is_null())
            save(folder, f"lists-{name}", pa.table({"id": ids, "l": coded}), version, {"l": lists})
        if version > "2.0":
            some = pa.array([None if dice.random() < 0.3 else {"x": i % 99, "y": i / 3} for i in range(ROWS)], pa.struct([("x", pa.int16()), ("y", pa.float32())]))
            save(folder, "packed-some", pa.table([ids, some], schema=pa.schema([pa.field("id", pa.int64()), packed(list(some.type))])), version)
        if version == "2.2":
            named = pa.array([{"x": i, "name": "n" * (i % 5), "y": i / 3} for i in range(ROWS)], pa.struct([("x", pa.int64()), ("name", pa.string()), ("y", pa.float64())]))
            save(folder, "records", pa.table([ids, named], schema=pa.schema([pa.field("id", pa.int64()), packed(list(named.type))])), version)


main(Path(sys.argv[1]))
